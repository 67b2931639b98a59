//! Log-probabilities of given tokens: what evaluation asks of any engine.
//!
//! What must stay true: the score of a continuation is that of the whole sequence read without a cache; it does not depend on what
//! else is asked for in the same call, but for rounding.

use crate::error::InferError;

/// A context with the continuations to score behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextGroup {
    /// At least one token.
    pub context: Vec<u32>,
    /// Each at least one token.
    pub continuations: Vec<Vec<u32>>,
}

/// The score of one continuation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenScore {
    /// Σ ln p(token | all before it), over the continuation's tokens.
    pub log_probability: f64,
    /// Whether every token is the likeliest in its place.
    pub greedy: bool,
}

/// An engine that gives the log-probabilities of these tokens.
pub trait TokenScorer {
    /// Rows of the embedding: ids are below this.
    fn vocabulary(&self) -> usize;

    /// Most positions that a context and a continuation, without its last token, may fill.
    fn positions(&self) -> usize;

    /// The scores of every group's continuations, in order.
    ///
    /// # Errors
    /// When a context or a continuation is empty, too long or has unknown ids, or the engine fails.
    fn score(&self, groups: &[ContextGroup]) -> Result<Vec<Vec<TokenScore>>, InferError>;
}

/// Fails unless `scorer` can read every group.
///
/// # Errors
/// The first group that cannot be read.
pub fn check_groups(scorer: &(impl TokenScorer + ?Sized), groups: &[ContextGroup]) -> Result<(), InferError> {
    let vocabulary = scorer.vocabulary();
    for group in groups {
        for continuation in &group.continuations {
            let length = group.context.len() + continuation.len();
            if group.context.is_empty() || continuation.is_empty() {
                return Err(InferError::EmptyPrompt);
            }
            if length - 1 > scorer.positions() {
                return Err(InferError::PromptTooLong { prompt: length - 1, context: scorer.positions() });
            }
            if let Some(id) = group.context.iter().chain(continuation).find(|id| **id as usize >= vocabulary) {
                return Err(InferError::UnknownToken { id: *id, vocabulary });
            }
        }
    }
    Ok(())
}
