//! What can be wrong with an adapter.

use std::path::{Path, PathBuf};

use openelm_train::openelm_checkpoint::{CheckpointError, ModelError};
use thiserror::Error;

/// Why an adapter cannot be read, made or used.
#[derive(Debug, Error)]
pub enum AdapterError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Model(#[from] ModelError),
    /// No adapter lies there.
    #[error("{path}: there is no adapter here: {reason}\nhint: {hint}", path = path.display())]
    Missing { path: PathBuf, reason: String, hint: &'static str },
    /// A configuration that cannot be read.
    #[error("{path}: {action} failed: {source}\nhint: check the path and its permissions", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },
    /// A key that means what is not supported, or nothing.
    #[error("{place}: {key}: {reason}\nhint: {hint}")]
    Config { place: String, key: String, reason: String, hint: String },
}

impl AdapterError {
    pub(super) fn config(place: &str, key: &str, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Config { place: place.into(), key: key.into(), reason: reason.into(), hint: hint.into() }
    }

    pub(super) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }
}
