//! Everything that can go wrong with a tokenizer's files.
//!
//! A message names the file, the place in it, the reason and a remedy, and never holds text of a document.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a tokenizer could not be loaded, saved or built.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// A path that does not exist, or a folder without a tokenizer in it.
    #[error("tokenizer {path}: {reason}\nhint: give a tokenizer.model or tokenizer.json file, or a folder that holds one of them", path = path.display())]
    Missing { path: PathBuf, reason: &'static str },
    /// The operating system refused.
    #[error("tokenizer {path}: {action} failed: {source}\nhint: check that the path exists, its permissions and the free space", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// A SentencePiece model whose bytes do not decode.
    #[error("tokenizer {path}, byte {offset}: {reason}\nhint: the file is truncated, damaged or not a SentencePiece model; fetch it again and compare its size", path = path.display())]
    BrokenModel { path: PathBuf, offset: usize, reason: String },
    /// A SentencePiece model that decodes, but whose contents contradict each other.
    #[error("tokenizer {path}, {place}: {reason}\nhint: the file is damaged, or was edited by a program that broke it; fetch it again or rebuild it", path = path.display())]
    BadModel { path: PathBuf, place: String, reason: String },
    /// A tokenizer.json that is not JSON, or not a tokenizer.
    #[error("tokenizer {path}: {reason}\nhint: the file must be a tokenizer.json as Hugging Face tokenizers writes it; fetch it again and compare its size", path = path.display())]
    BadJson { path: PathBuf, reason: String },
    /// A tokenizer of a kind that is not read here.
    #[error("tokenizer {path}: {what} is not supported\nhint: {hint}", path = path.display())]
    Unsupported { path: PathBuf, what: String, hint: &'static str },
    /// Settings that no tokenizer can be trained with.
    #[error("tokenizer training: {reason}\nhint: {hint}")]
    Training { reason: String, hint: String },
}

impl TokenizerError {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }

    pub(crate) fn bad_model(path: &Path, place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadModel { path: path.to_owned(), place: place.into(), reason: reason.into() }
    }

    pub(crate) fn bad_json(path: &Path, reason: impl Into<String>) -> Self {
        Self::BadJson { path: path.to_owned(), reason: reason.into() }
    }
}
