//! What can be wrong with a recipe or with the models that it names. Nothing is written when one of these is given.

use std::io;
use std::path::{Path, PathBuf};

use openelm_checkpoint::CheckpointError;
use openelm_checkpoint::ModelError;
use openelm_eval::{EvalError, InferError, TokenizerError};
use openelm_formats::FormatError;
use thiserror::Error;

/// Why models could not be merged.
#[derive(Debug, Error)]
pub enum MergeError {
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Eval(#[from] EvalError),
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A recipe or a search file that cannot be carried out.
    #[error("{path}: {key}: {reason}\nhint: {hint}", path = path.display())]
    Recipe { path: PathBuf, key: String, reason: String, hint: String },
    /// Models that do not fit each other.
    #[error(transparent)]
    Differs(Box<Difference>),
    /// A weight that is no number.
    #[error("{path}: {name}[{index}] is {value}\nhint: the weights are damaged, or the run that made them diverged; leave this model out", path = path.display())]
    NotFinite { path: PathBuf, name: String, index: usize, value: f32 },
    /// Values that leave a method no result.
    #[error("merging {name} by {method}: {reason}\nhint: {hint}")]
    Method { name: String, method: &'static str, reason: String, hint: &'static str },
    /// The operating system refused.
    #[error("{path}: {action} failed: {source}\nhint: check the path, its permissions and the free space", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// A saved search that cannot be taken up again.
    #[error("{path}: {reason}\nhint: {hint}", path = path.display())]
    Resume { path: PathBuf, reason: String, hint: &'static str },
}

/// What two models differ in.
#[derive(Debug, Error)]
#[error("{first} and {second} differ in {what}: {left} and {right}\nhint: {hint}", first = first.display(), second = second.display())]
pub struct Difference {
    pub first: PathBuf,
    pub second: PathBuf,
    pub what: String,
    pub left: String,
    pub right: String,
    pub hint: &'static str,
}

impl MergeError {
    pub(crate) fn recipe(path: &Path, key: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Recipe { path: path.to_owned(), key: key.into(), reason: reason.into(), hint: hint.into() }
    }

    pub(crate) fn differs(difference: Difference) -> Self {
        Self::Differs(Box::new(difference))
    }

    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }
}
