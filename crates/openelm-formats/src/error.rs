//! Everything that can be wrong with a weight file.
//!
//! A message names the file, the place in it, the reason and a remedy.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::dtype::DType;

/// Why weights could not be read or written.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The operating system refused.
    #[error("weights {path}: {action} failed: {source}\nhint: {hint}", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error, hint: &'static str },
    /// A file that is not there.
    #[error("weights {path}: {reason}\nhint: {hint}", path = path.display())]
    Missing { path: PathBuf, reason: String, hint: &'static str },
    /// A file that ends too early.
    #[error("weights {path} are cut in {place}: {missing} bytes are missing at the end of the file\nhint: fetch or write the file again and compare its size", path = path.display())]
    Cut { path: PathBuf, place: String, missing: u64 },
    /// Contents that contradict themselves or the format.
    #[error("weights {path}, {place}: {reason}\nhint: the file is damaged or of another format; fetch or write it again", path = path.display())]
    Damaged { path: PathBuf, place: String, reason: String },
    /// Contents that are valid and that this program does not take.
    #[error("weights {path}, {place}: {reason}\nhint: {hint}", path = path.display())]
    Unsupported { path: PathBuf, place: String, reason: String, hint: String },
    /// A name that the file does not hold.
    #[error("weights {path} hold no tensor {name:?}\nhint: the file belongs to another model, or its names are of another layout", path = path.display())]
    NoTensor { path: PathBuf, name: String },
    /// Elements that are no numbers with a fraction.
    #[error("weights {path}, tensor {name:?}: elements of type {dtype} cannot be read as f32\nhint: weights must be F32, F16, BF16, F64 or a quantised type", path = path.display())]
    NotFloat { path: PathBuf, name: String, dtype: DType },
    /// A type that values of f32 cannot be written as.
    #[error(
        "{count} values of f32 cannot be written as {dtype}\nhint: choose F32, F16 or BF16; quantised types need rows of whole blocks (32 or 256 elements)"
    )]
    Encode { dtype: DType, count: usize },
    /// A writer used against its rules, or a place that must not be written to.
    #[error("weights {path}: {reason}\nhint: {hint}", path = path.display())]
    Write { path: PathBuf, reason: String, hint: String },
}

impl FormatError {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "free space on the disk or choose another folder"
            }
            _ => "check the disk and the file",
        };
        Self::Io { path: path.to_owned(), action, source, hint }
    }

    pub(crate) fn damaged(path: &Path, place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), place: place.into(), reason: reason.into() }
    }

    pub(crate) fn cut(path: &Path, place: impl Into<String>, missing: u64) -> Self {
        Self::Cut { path: path.to_owned(), place: place.into(), missing }
    }

    pub(crate) fn unsupported(path: &Path, place: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_owned(), place: place.into(), reason: reason.into(), hint: hint.into() }
    }

    pub(crate) fn no_tensor(path: &Path, name: &str) -> Self {
        Self::NoTensor { path: path.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn write(path: &Path, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Write { path: path.to_owned(), reason: reason.into(), hint: hint.into() }
    }
}
