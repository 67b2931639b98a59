//! Guesses of the next tokens, which the model checks several at a time (speculative decoding): by what followed the same words
//! earlier in the text, or by a smaller model.
//!
//! What must stay true: a guess depends on the tokens before it alone. The model draws every token itself and keeps a guess only where
//! it drew the same, so that the text, and under sampling its distribution, are those of decoding without guesses.

use std::sync::Arc;

use crate::decoder::{Cache, Decoder, Run, Wanted};
use crate::error::InferError;

/// Longest run of tokens that is looked for earlier in the text.
const LONGEST: usize = 4;

/// Where guesses come from.
#[derive(Debug)]
pub struct Draft {
    source: Source,
    tokens: usize,
}

enum Source {
    Lookup,
    Model {
        decoder: Arc<dyn Decoder>,
        cache: Cache,
        /// What the cache holds.
        read: Vec<u32>,
    },
}

impl Draft {
    /// Guesses up to `tokens` tokens from earlier places in the text where the same tokens stand ("prompt lookup").
    pub fn lookup(tokens: usize) -> Self {
        Self { source: Source::Lookup, tokens }
    }

    /// Guesses the `tokens` tokens that a smaller model with the same vocabulary finds likeliest.
    ///
    /// # Errors
    /// When the vocabularies differ in size.
    pub fn model(decoder: Arc<dyn Decoder>, target: &dyn Decoder, tokens: usize) -> Result<Self, InferError> {
        let (draft, model) = (decoder.config().vocab_size, target.config().vocab_size);
        if draft != model {
            return Err(InferError::DraftVocabulary { draft, model });
        }
        let cache = decoder.cache(decoder.config().rope_max_length.min(target.config().rope_max_length));
        Ok(Self { source: Source::Model { decoder, cache, read: Vec::new() }, tokens })
    }

    /// One that guesses alike, for another sequence. A draft model begins with the cache that `beginning` gives for it, in which some of
    /// `prompt`'s beginning is read already.
    pub(crate) fn another(&self, prompt: &[u32], beginning: impl FnOnce(&dyn Decoder) -> Cache) -> Self {
        let source = match &self.source {
            Source::Lookup => Source::Lookup,
            Source::Model { decoder, .. } => {
                let cache = beginning(&**decoder);
                let read = prompt.get(..cache.length()).unwrap_or_default().to_vec();
                Source::Model { decoder: Arc::clone(decoder), cache, read }
            }
        };
        Self { source, tokens: self.tokens }
    }

    /// What a draft model has read, and its cache.
    pub(crate) fn read(&self) -> Option<(&[u32], &Cache)> {
        match &self.source {
            Source::Lookup => None,
            Source::Model { cache, read, .. } => Some((read, cache)),
        }
    }

    /// The same, for good.
    pub(crate) fn into_read(self) -> Option<(Vec<u32>, Cache)> {
        match self.source {
            Source::Lookup => None,
            Source::Model { cache, read, .. } => Some((read, cache)),
        }
    }

    /// Guesses at a time, at most.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Guesses what follows `seen`, at most `room` tokens.
    ///
    /// # Errors
    /// When the draft model fails.
    pub fn propose(&mut self, seen: &[u32], room: usize, proposed: &mut Vec<u32>) -> Result<(), InferError> {
        let tokens = self.tokens.min(room);
        match &mut self.source {
            Source::Lookup => proposed.extend_from_slice(look_up(seen, tokens)),
            Source::Model { decoder, cache, read } => {
                // What the cache holds beyond the common beginning was guessed wrong, or is another text.
                let same = read.iter().zip(seen).take_while(|(a, b)| a == b).count().min(seen.len().saturating_sub(1));
                cache.truncate(same);
                read.truncate(same);
                let mut new = seen[same..].to_vec();
                for _ in 0..tokens {
                    if cache.length() + new.len() > cache.capacity() {
                        break;
                    }
                    let logits = decoder.read(&mut [Run { ids: &new, cache, logits: Wanted::Last }])?.concat();
                    read.append(&mut new);
                    let next = crate::sampler::likeliest(&logits);
                    proposed.push(next);
                    new = vec![next];
                }
            }
        }
        Ok(())
    }
}

/// What followed the latest earlier place where the longest end of `seen` (of at most [`LONGEST`] tokens) stands.
fn look_up(seen: &[u32], tokens: usize) -> &[u32] {
    for length in (1..=LONGEST.min(seen.len().saturating_sub(1))).rev() {
        let (before, end) = seen.split_at(seen.len() - length);
        let places = seen.windows(length).take(before.len());
        if let Some(place) = places.enumerate().filter(|(_, window)| *window == end).map(|(place, _)| place).next_back() {
            let follows = &seen[place + length..];
            return &follows[..tokens.min(follows.len())];
        }
    }
    &[]
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lookup => "Lookup",
            Self::Model { .. } => "Model",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_latest_match_is_continued() {
        assert_eq!(look_up(&[1, 2, 3, 9, 1, 2, 3], 2), [9, 1]);
        // The longer match counts more than the later one.
        assert_eq!(look_up(&[5, 1, 2, 7, 2, 8, 5, 1, 2], 1), [7]);
        assert_eq!(look_up(&[4, 4, 4], 5), [4]);
        for seen in [&[1, 2, 3][..], &[1], &[]] {
            assert!(look_up(seen, 5).is_empty());
        }
    }
}
