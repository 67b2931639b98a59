//! What can be wrong with a task, its data or its text. All of it is found before the model reads a token, but for what the engine
//! itself reports.

use std::io;
use std::path::{Path, PathBuf};

use openelm_data::DataError;
use openelm_infer::InferError;
use thiserror::Error;

/// Why there is no score.
#[derive(Debug, Error)]
pub enum EvalError {
    #[error(transparent)]
    Infer(#[from] InferError),
    #[error(transparent)]
    Data(#[from] DataError),
    /// A task file that cannot be used.
    #[error("{path}: {key}: {reason}\nhint: {hint}", path = path.display())]
    Task { path: PathBuf, key: String, reason: String, hint: String },
    /// A row that does not fit the task.
    #[error("{path}, line {line}: {reason}\nhint: {hint}", path = path.display())]
    Row { path: PathBuf, line: usize, reason: String, hint: String },
    /// A name that is no task, suite or file.
    #[error("{name:?} is no task, no suite and no task file\nhint: {hint}")]
    UnknownTask { name: String, hint: String },
    /// The operating system refused.
    #[error("{path}: {action} failed: {source}\nhint: {hint}", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error, hint: String },
    /// A document that does not fit into the context.
    #[error("{task}, document {document}: a continuation has {tokens} tokens, the limit is {limit}\nhint: raise --max-length")]
    TooLong { task: String, document: usize, tokens: usize, limit: usize },
    /// Settings that allow no evaluation.
    #[error("{reason}\nhint: {hint}")]
    Settings { reason: String, hint: String },
}

impl EvalError {
    pub(crate) fn task(path: &Path, key: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Task { path: path.to_owned(), key: key.into(), reason: reason.into(), hint: hint.into() }
    }
}
