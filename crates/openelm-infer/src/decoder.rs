//! What every engine can do: read tokens of several sequences at once, each behind its own cache, and give logits.
//!
//! What must stay true: a call that fails before the device does leaves every cache as it was; the logits of a sequence are those of
//! the whole sequence read alone without a cache, but for rounding.

use openelm_kernels::{IdLogits, KvStore};
use openelm_model::ModelConfig;

use crate::cache::KvCache;
use crate::error::InferError;

/// Which positions of a run need logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: the run only fills the cache.
    Nothing,
    /// The last position: what follows the run.
    Last,
    /// The last so many positions, at most all.
    End(usize),
    /// Every position.
    All,
}

impl Wanted {
    /// How many of the last positions of a run of `length`.
    pub fn count(self, length: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Last => length.min(1),
            Self::End(count) => count.min(length),
            Self::All => length,
        }
    }
}

/// Tokens of one sequence to read behind what its cache holds.
#[derive(Debug)]
pub struct Run<'a> {
    pub ids: &'a [u32],
    pub cache: &'a mut Cache,
    pub logits: Wanted,
}

/// Keys and values of the positions of one sequence; made by the [`Decoder`] that reads with it.
#[derive(Debug)]
pub struct Cache(pub(crate) CacheKind);

#[derive(Debug)]
pub(crate) enum CacheKind {
    Tensors(KvCache),
    Host(KvStore),
}

impl Cache {
    /// Positions kept.
    pub fn length(&self) -> usize {
        match &self.0 {
            CacheKind::Tensors(cache) => cache.length(),
            CacheKind::Host(store) => store.length(),
        }
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        match &self.0 {
            CacheKind::Tensors(cache) => cache.capacity(),
            CacheKind::Host(store) => store.capacity(),
        }
    }

    /// Forgets all positions from `length` on.
    pub fn truncate(&mut self, length: usize) {
        match &mut self.0 {
            CacheKind::Tensors(cache) => cache.truncate(length),
            CacheKind::Host(store) => store.truncate(length),
        }
    }

    /// A cache of another sequence that begins with the first `length` positions of this one; its capacity is the same.
    pub fn fork(&self, length: usize) -> Self {
        match &self.0 {
            CacheKind::Tensors(cache) => Self(CacheKind::Tensors(cache.fork(length))),
            CacheKind::Host(store) => Self(CacheKind::Host(store.fork(length))),
        }
    }
}

/// A model that reads tokens. Shared by all sequences; a sequence is its [`Cache`].
pub trait Decoder: Send + Sync {
    /// The model's configuration: vocabulary, positions (`rope_max_length`).
    fn config(&self) -> &ModelConfig;

    /// An empty cache with room for `capacity` positions, at most the rotary table's.
    fn cache(&self, capacity: usize) -> Cache;

    /// Bytes of weights that one decoded token reads from memory; 0 where that is not known.
    fn bytes_per_token(&self) -> usize {
        0
    }

    /// Reads every run. Gives one list of logits a run: [positions, vocabulary] for the positions that it wants.
    ///
    /// # Errors
    /// When a run has no ids or no room, an id is unknown, a logit is not finite, or the device fails.
    fn read(&self, runs: &mut [Run<'_>]) -> Result<Vec<Vec<f32>>, InferError>;

    /// Reads every run, and tells of the positions that it wants what they say of `ids`: one list for each such position, run by run.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn look_up(&self, runs: &mut [Run<'_>], ids: &[&[u32]]) -> Result<Vec<IdLogits>, InferError> {
        let vocabulary = self.config().vocab_size.max(1);
        let logits = self.read(runs)?;
        let positions = logits.iter().flat_map(|logits| logits.chunks_exact(vocabulary));
        Ok(positions.zip(ids).map(|(logits, ids)| IdLogits::of(logits, ids)).collect())
    }
}

/// Fails unless every run can be read.
pub(crate) fn check_runs(config: &ModelConfig, runs: &[Run<'_>]) -> Result<(), InferError> {
    for run in runs {
        if run.ids.is_empty() {
            return Err(InferError::EmptyPrompt);
        }
        if let Some(id) = run.ids.iter().find(|id| **id as usize >= config.vocab_size) {
            return Err(InferError::UnknownToken { id: *id, vocabulary: config.vocab_size });
        }
        let length = run.cache.length() + run.ids.len();
        if length > run.cache.capacity() {
            return Err(InferError::PromptTooLong { prompt: length, context: run.cache.capacity() });
        }
    }
    Ok(())
}

/// Fails at the first logit that is no number.
pub(crate) fn check_logits(logits: &[f32], position: usize) -> Result<(), InferError> {
    match logits.iter().find(|logit| !logit.is_finite()) {
        Some(value) => Err(InferError::NotFinite { value: *value, position }),
        None => Ok(()),
    }
}
