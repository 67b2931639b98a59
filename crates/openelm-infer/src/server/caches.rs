//! Caches of finished sequences, kept for prompts that begin like them.
//!
//! What must stay true: at most `limit` caches are kept, the least recently used goes first; a cache that goes is used again for
//! the next sequence, so that serving allocates no more than the slots and the kept ones need.

use crate::decoder::{Cache, Decoder};

/// A shared beginning below this is not worth a copied cache.
const WORTHWHILE: usize = 16;

#[derive(Debug)]
pub(super) struct Caches {
    /// The most recently used last.
    kept: Vec<Kept>,
    limit: usize,
    /// Positions of every cache.
    capacity: usize,
}

#[derive(Debug)]
struct Kept {
    /// What the cache has read.
    ids: Vec<u32>,
    cache: Cache,
}

impl Caches {
    pub fn new(limit: usize, capacity: usize) -> Self {
        Self { kept: Vec::new(), limit, capacity }
    }

    /// A cache for `prompt` with as much of its beginning, but its last token, as `running` sequences (ids and cache) or kept ones
    /// have read.
    pub fn take<'a>(&mut self, prompt: &[u32], running: impl Iterator<Item = (&'a [u32], &'a Cache)>, decoder: &dyn Decoder) -> Cache {
        let usable = prompt.len().saturating_sub(1);
        let shared = |ids: &[u32]| ids.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(usable);
        let kept = self.kept.iter().enumerate().map(|(place, kept)| (shared(&kept.ids), place)).max();
        let running = running.map(|(ids, cache)| (shared(ids), cache)).max_by_key(|(length, _)| *length);
        let kept = kept.filter(|(length, _)| *length >= WORTHWHILE);
        if let Some((length, cache)) = running
            && length >= WORTHWHILE
            && kept.is_none_or(|(other, _)| other < length)
        {
            return cache.fork(length);
        }
        if let Some((length, place)) = kept {
            let mut found = self.kept.remove(place);
            // What the new sequence only lengthens is not needed beside it.
            if length + 1 >= found.ids.len() {
                found.cache.truncate(length);
                return found.cache;
            }
            let cache = found.cache.fork(length);
            self.kept.push(found);
            return cache;
        }
        self.spare().unwrap_or_else(|| decoder.cache(self.capacity))
    }

    /// The least recently used cache, emptied, when all that may be kept are there.
    fn spare(&mut self) -> Option<Cache> {
        if self.kept.is_empty() || self.kept.len() < self.limit {
            return None;
        }
        let mut cache = self.kept.remove(0).cache;
        cache.truncate(0);
        Some(cache)
    }

    /// Keeps the cache of a finished sequence that has read `ids`.
    pub fn keep(&mut self, mut ids: Vec<u32>, cache: Cache) {
        ids.truncate(cache.length());
        if ids.len() < WORTHWHILE || self.limit == 0 {
            return;
        }
        self.kept.retain(|kept| !ids.starts_with(&kept.ids));
        self.kept.push(Kept { ids, cache });
        if self.kept.len() > self.limit {
            self.kept.remove(0);
        }
    }
}
