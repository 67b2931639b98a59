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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use openelm_model::{OpenElm, Precision, preset};

    use super::*;
    use crate::burn_decoder::BurnDecoder;
    use crate::decoder::{Run, Wanted};

    fn decoder() -> BurnDecoder {
        let mut config = preset("gpt-test").unwrap();
        config.vocab_size = 99;
        BurnDecoder::new(OpenElm::init(&config, 1, &Device::flex()).unwrap(), Precision::F32)
    }

    /// A sequence that has been read, of `start` twenty times and then `end`.
    fn ids(start: u32, end: &[u32]) -> Vec<u32> {
        [&[start; 20], end].concat()
    }

    fn read(decoder: &BurnDecoder, caches: &mut Caches, ids: &[u32]) -> usize {
        let mut cache = caches.take(ids, std::iter::empty(), decoder);
        let reused = cache.length();
        decoder.read(&mut [Run { ids: &ids[reused..], cache: &mut cache, logits: Wanted::Nothing }]).unwrap();
        caches.keep(ids.to_vec(), cache);
        reused
    }

    #[test]
    fn the_longest_beginning_is_found_and_the_oldest_goes() {
        let decoder = decoder();
        let mut caches = Caches::new(2, 40);
        assert_eq!(read(&decoder, &mut caches, &ids(1, &[2, 3])), 0);
        // The last token is always read, for its logits.
        assert_eq!(read(&decoder, &mut caches, &ids(1, &[2, 3])), 21);
        assert_eq!(caches.kept.len(), 1);
        assert_eq!(read(&decoder, &mut caches, &ids(1, &[2, 3, 4])), 22);
        assert_eq!(caches.kept.len(), 1);
        assert_eq!(read(&decoder, &mut caches, &ids(1, &[9])), 20);
        assert_eq!(read(&decoder, &mut caches, &ids(1, &[2, 3, 4, 5])), 23);
        // Two are kept; a third takes the place of the one that was not used for longest.
        assert_eq!(read(&decoder, &mut caches, &ids(7, &[])), 0);
        assert_eq!(caches.kept.len(), 2);
        assert_eq!(read(&decoder, &mut caches, &ids(1, &[9, 9])), 20);
        assert_eq!(caches.kept.len(), 2);
        // The long one was copied, and so used, after the sevens.
        assert_eq!(read(&decoder, &mut caches, &ids(1, &[2, 3, 4, 5])), 23);
        assert_eq!(read(&decoder, &mut caches, &ids(7, &[1])), 0);
    }

    #[test]
    fn short_sequences_and_none_to_keep() {
        let decoder = decoder();
        let mut caches = Caches::new(2, 40);
        assert_eq!((read(&decoder, &mut caches, &[1; 15]), read(&decoder, &mut caches, &[1; 15])), (0, 0));
        let mut none = Caches::new(0, 40);
        assert_eq!((read(&decoder, &mut none, &ids(1, &[])), read(&decoder, &mut none, &ids(1, &[]))), (0, 0));
    }

    #[test]
    fn a_running_sequence_is_copied_and_goes_on() {
        let decoder = decoder();
        let mut caches = Caches::new(2, 40);
        let (prompt, longer) = (ids(1, &[2, 3]), ids(1, &[2, 4]));
        let mut running = decoder.cache(40);
        decoder.read(&mut [Run { ids: &prompt, cache: &mut running, logits: Wanted::Nothing }]).unwrap();
        let copy = caches.take(&longer, [(prompt.as_slice(), &running)].into_iter(), &decoder);
        assert_eq!((copy.length(), running.length(), copy.capacity()), (21, 22, 40));
    }
}
