//! What can go wrong while generating.

use openelm_checkpoint::CheckpointError;
use openelm_kernels::KernelError;
use openelm_model::ModelError;
use thiserror::Error;

/// Why no token came.
#[derive(Debug, Error)]
pub enum InferError {
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The CPU kernels refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Weights that cannot be read.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    /// No memory for a copy of the weights.
    #[error("{name} cannot be copied into memory: {source}\nhint: leave the weights in the mapped file")]
    Memory { name: String, source: std::io::Error },
    /// A cache that another engine made.
    #[error("the cache was made by another engine\nhint: make it with the engine that reads with it")]
    ForeignCache,
    /// A draft model that speaks another language.
    #[error("the draft model has a vocabulary of {draft}, the model one of {model}\nhint: use a draft model with the same tokenizer")]
    DraftVocabulary { draft: usize, model: usize },
    /// A prompt that leaves no room.
    #[error("the prompt has {prompt} tokens, the model's context holds {context}\nhint: shorten the prompt")]
    PromptTooLong { prompt: usize, context: usize },
    /// A prompt without a token.
    #[error("the prompt has no tokens\nhint: give a text, or a tokenizer with a BOS token")]
    EmptyPrompt,
    /// An id without an embedding.
    #[error("token id {id} is outside the model's vocabulary of {vocabulary}\nhint: use the tokenizer that the model was trained with")]
    UnknownToken { id: u32, vocabulary: usize },
    /// A setting that makes no distribution.
    #[error("{name} is {value}: {reason}\nhint: {hint}")]
    Sampling { name: &'static str, value: f64, reason: &'static str, hint: &'static str },
    /// An answer that cannot have its form.
    #[error("the form of the answer: {reason}\nhint: take a simpler form, or one that the vocabulary can write")]
    Form { reason: String },
    /// A tokenizer that no form can be written with.
    #[error("this tokenizer's tokens have no bytes of their own, so no form can be asked for\nhint: LLaMA-like and byte-level ones have")]
    TokensWithoutBytes,
    /// Logits that are no numbers.
    #[error(
        "the model gave a logit that is {value} at position {position}\nhint: the weights are damaged, or the run that made them diverged"
    )]
    NotFinite { value: f32, position: usize },
}
