//! What can be wrong with a run folder, a checkpoint or weights. Nothing on disk is changed when one of these is given, except
//! that an unfinished draft is removed.

use std::io;
use std::path::{Path, PathBuf};

use openelm_formats::FormatError;
use openelm_model::ModelError;
use thiserror::Error;

/// Why something could not be saved, resumed or loaded.
#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("{path}: {source}", path = path.display())]
    Model { path: PathBuf, source: ModelError },
    /// The device did not give the values to save.
    #[error(transparent)]
    Read(#[from] ModelError),
    /// The operating system refused.
    #[error("{path}: {action} failed: {source}\nhint: {hint}", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error, hint: &'static str },
    /// A folder or file that must not be written to.
    #[error("{path}: {reason}\nhint: {hint}", path = path.display())]
    Folder { path: PathBuf, reason: String, hint: String },
    /// A checkpoint that is not what its manifest says.
    #[error("checkpoint {path}: {reason}\nhint: {hint}", path = path.display())]
    Damaged { path: PathBuf, reason: String, hint: String },
    /// A path at which no weights lie.
    #[error("{path}: {reason}\nhint: {hint}", path = path.display())]
    NoWeights { path: PathBuf, reason: String, hint: String },
    /// A model configuration that cannot be read.
    #[error("{path}: {reason}\nhint: {hint}", path = path.display())]
    Config { path: PathBuf, reason: String, hint: String },
}

impl CheckpointError {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "free space on the disk; earlier checkpoints are untouched"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "make the folder writable or choose another with --out",
            io::ErrorKind::NotFound => "check the path",
            _ => "check the disk",
        };
        Self::Io { path: path.to_owned(), action, source, hint }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
            hint: "resume from an older checkpoint: remove this folder and resume again".into(),
        }
    }
}
