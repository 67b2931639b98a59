//! Log-probabilities of given tokens: what evaluation asks of any engine.
//!
//! What must stay true: the score of a continuation is that of the whole sequence read without a cache; it does not depend on what
//! else is asked for in the same call, but for rounding.

use std::collections::BTreeMap;

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

/// A shorter common beginning is not worth a pass of its own.
const SHORTEST_SHARED: usize = 16;

/// What sequences must have in common to go into one lot, if `ids` are as many.
pub(crate) fn beginning_of(ids: &[u32]) -> Option<Vec<u32>> {
    ids.get(..SHORTEST_SHARED).map(<[u32]>::to_vec)
}

/// Sequences in lots of a common [`beginning`](beginning_of); the last lot is of those that share none.
pub(crate) fn by_beginning<T>(items: impl IntoIterator<Item = T>, beginning: impl Fn(&T) -> Option<Vec<u32>>) -> Vec<Vec<T>> {
    let mut lots: BTreeMap<Vec<u32>, Vec<T>> = BTreeMap::new();
    let mut rest = Vec::new();
    for item in items {
        match beginning(&item) {
            Some(beginning) => lots.entry(beginning).or_default().push(item),
            None => rest.push(item),
        }
    }
    let (shared, alone): (Vec<_>, Vec<_>) = lots.into_values().partition(|lot| lot.len() > 1);
    rest.extend(alone.into_iter().flatten());
    shared.into_iter().chain([rest]).collect()
}

/// Tokens that every one of several contexts begins with, each keeping at least one of its own; 0 where that is not worth a pass.
pub(crate) fn shared_start<'a>(mut contexts: impl ExactSizeIterator<Item = &'a [u32]>) -> usize {
    let several = contexts.len() > 1;
    let Some(first) = contexts.next().filter(|_| several) else { return 0 };
    let shared = contexts.fold(first.len().saturating_sub(1), |shared, context| {
        let same = first.iter().zip(context).take_while(|(a, b)| a == b).count();
        shared.min(same).min(context.len().saturating_sub(1))
    });
    if shared < SHORTEST_SHARED { 0 } else { shared }
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
