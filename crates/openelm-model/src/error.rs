//! What can be wrong with a model's configuration, its weights' shapes or the device asked for.

use thiserror::Error;

/// An impossible model, or one that this device or these weights cannot give.
#[derive(Debug, Error)]
pub enum ModelError {
    #[error("model.{key} = {value}: {reason}\nhint: {hint}")]
    Config { key: &'static str, value: String, reason: String, hint: String },
    #[error(
        "tensor {name} has shape {found:?}, the configuration needs {needed:?}\nhint: use the configuration that the weights were trained with"
    )]
    Shape { name: String, found: Vec<usize>, needed: Vec<usize> },
    #[error("tensor {name} is missing from the weights\nhint: use the configuration that the weights were trained with")]
    Missing { name: String },
    #[error(
        "the weights hold a tensor {name} that this model has no place for\nhint: use the configuration that the weights were trained with"
    )]
    Unexpected { name: String },
    #[error("device {asked}: {reason}\nhint: {hint}")]
    Device { asked: String, reason: String, hint: String },
    #[error("reading {name} back from the device failed: {reason}")]
    Read { name: String, reason: String },
    #[error(
        "a sequence of {length} tokens (from position {start}) is longer than the model's rotary table of {limit} positions\nhint: shorten the sequence, or set model.rope_max_length"
    )]
    TooLong { start: usize, length: usize, limit: usize },
}

impl ModelError {
    pub(crate) fn config(key: &'static str, value: impl ToString, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Config { key, value: value.to_string(), reason: reason.into(), hint: hint.into() }
    }
}
