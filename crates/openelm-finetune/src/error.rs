//! What can be wrong with conversations, with their settings, or with what a run keeps of its reference.

use std::path::PathBuf;

use openelm_train::{CheckpointError, DataError, ModelError, TrainError};
use thiserror::Error;

/// Why a fine-tuning run cannot begin or go on.
#[derive(Debug, Error)]
pub enum FinetuneError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A row that is no conversation of its layout.
    #[error("{path}, {place}: {reason}\nhint: {hint}; data.on_bad_row: skip passes such rows over", path = path.display())]
    Row { path: PathBuf, place: String, reason: String, hint: &'static str },
    /// Files that leave nothing to learn from.
    #[error("{what}: {reason}\nhint: {hint}")]
    NoExamples { what: String, reason: String, hint: &'static str },
    /// A tokenizer that has no token for an end.
    #[error(
        "the tokenizer has no {token} token\nhint: use the tokenizer that the model was trained with, or name its special tokens in a tokenizer_config.json beside it"
    )]
    NoToken { token: &'static str },
    /// A state of another run.
    #[error("the run cannot be resumed: {reason}\nhint: {hint}")]
    Resume { reason: String, hint: &'static str },
    /// The operating system refused.
    #[error("{path}: {action} failed: {source}\nhint: check the free space and the permissions of the run folder", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },
}

/// Why one row is no example: what its error says, or the heading under which it is counted when bad rows are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub kind: &'static str,
    pub reason: String,
    pub hint: &'static str,
}

impl Fault {
    pub fn new(kind: &'static str, reason: impl Into<String>, hint: &'static str) -> Self {
        Self { kind, reason: reason.into(), hint }
    }

    /// A row of another form than its layout's.
    pub fn form(reason: impl Into<String>, hint: &'static str) -> Self {
        Self::new("another form", reason, hint)
    }
}
