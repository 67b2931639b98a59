//! Why an export was not made. What lay in the output folder before is untouched.

use openelm_checkpoint::{CheckpointError, ModelError};
use openelm_formats::FormatError;
use openelm_tokenizer::TokenizerError;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ExportError {
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("llama.cpp cannot load this model: {reason}\nhint: {hint}")]
    LlamaCpp { reason: &'static str, hint: &'static str },
    #[error("CoreNet cannot continue this run: {reason}\nhint: {hint}")]
    CoreNet { reason: String, hint: &'static str },
    #[error(
        "the tokenizer has {tokens} tokens, the model's vocabulary only {rows} rows\nhint: use the tokenizer that the model was trained with (--tokenizer)"
    )]
    Vocabulary { tokens: usize, rows: usize },
}
