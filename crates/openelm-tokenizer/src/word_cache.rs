//! Remembers the ids of short stretches of text.
//!
//! Two tables of fixed size, a narrow one for the words of most text and a wide one for longer words and for words of many ids.
//! A stretch has one place in a table, and the newer one takes it. An entry holds the whole stretch, so a hit is never wrong.
//! Each thread that encodes has its own tables, so nothing is locked.

const EMPTY: u32 = u32::MAX;

/// Stretch of text to ids: 2.5 MiB.
#[derive(Debug, Default)]
pub(crate) struct WordCache {
    narrow: Table<2, 4, 16>,
    wide: Table<5, 6, 13>,
}

impl WordCache {
    /// Appends the ids of the bytes from `start` to `end`; false when they are not here.
    #[inline]
    pub fn get(&self, text: &[u8], start: usize, end: usize, ids: &mut Vec<u32>) -> bool {
        self.narrow.get(text, start, end, ids) || self.wide.get(text, start, end, ids)
    }

    /// Keeps the ids of a stretch, unless it or they are too many.
    pub fn put(&mut self, stretch: &[u8], ids: &[u32]) {
        if !self.narrow.put(stretch, ids) {
            self.wide.put(stretch, ids);
        }
    }
}

/// Keys of `WORDS` times 8 bytes, up to `IDS` ids an entry, 2 to the power of `BITS` entries.
#[derive(Debug)]
struct Table<const WORDS: usize, const IDS: usize, const BITS: u32> {
    entries: Vec<Entry<WORDS, IDS>>,
}

/// Half a cache line, or a whole one.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Entry<const WORDS: usize, const IDS: usize> {
    key: Key<WORDS>,
    /// Up to the first `EMPTY`.
    ids: [u32; IDS],
}

/// The bytes of a stretch, zeros, and the length in the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Key<WORDS> {
    /// `None` when the stretch is empty or too long.
    #[inline]
    fn new(text: &[u8], start: usize, end: usize) -> Option<Self> {
        let length = end.checked_sub(start).filter(|length| (1..8 * WORDS).contains(length))?;
        let mut words = [0; WORDS];
        if let Some(bytes) = text.get(start..start + 8 * WORDS) {
            // Whole words, and what lies behind the end taken out again.
            for (index, (word, bytes)) in words.iter_mut().zip(bytes.as_chunks::<8>().0).enumerate() {
                let kept = length.saturating_sub(8 * index);
                *word = u64::from_le_bytes(*bytes) & if kept >= 8 { u64::MAX } else { (1 << (8 * kept)) - 1 };
            }
        } else {
            for (index, byte) in text.get(start..end)?.iter().enumerate() {
                words[index / 8] |= u64::from(*byte) << (8 * (index % 8));
            }
        }
        words[WORDS - 1] |= (length as u64) << 56;
        Some(Self(words))
    }

    #[inline]
    fn hash(self) -> u64 {
        self.0.iter().fold(0, |hash: u64, word| (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl<const WORDS: usize, const IDS: usize, const BITS: u32> Default for Table<WORDS, IDS, BITS> {
    fn default() -> Self {
        // No stretch is empty, so an all-zero key stands for nothing.
        Self { entries: vec![Entry { key: Key([0; WORDS]), ids: [EMPTY; IDS] }; 1 << BITS] }
    }
}

impl<const WORDS: usize, const IDS: usize, const BITS: u32> Table<WORDS, IDS, BITS> {
    #[inline]
    fn place(key: Key<WORDS>) -> usize {
        (key.hash() >> (64 - BITS)) as usize
    }

    #[inline]
    fn get(&self, text: &[u8], start: usize, end: usize, ids: &mut Vec<u32>) -> bool {
        let Some(key) = Key::new(text, start, end) else { return false };
        let entry = &self.entries[Self::place(key)];
        if entry.key != key {
            return false;
        }
        for id in entry.ids {
            if id == EMPTY {
                break;
            }
            ids.push(id);
        }
        true
    }

    /// False when the stretch or its ids do not fit.
    fn put(&mut self, stretch: &[u8], ids: &[u32]) -> bool {
        let mut entry = Entry { key: Key([0; WORDS]), ids: [EMPTY; IDS] };
        let (Some(key), Some(places)) = (Key::new(stretch, 0, stretch.len()), entry.ids.get_mut(..ids.len())) else { return false };
        places.copy_from_slice(ids);
        entry.key = key;
        self.entries[Self::place(key)] = entry;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &WordCache, text: &str, start: usize, end: usize) -> Option<Vec<u32>> {
        let mut ids = vec![7];
        cache.get(text.as_bytes(), start, end, &mut ids).then(|| ids.split_off(1))
    }

    #[test]
    fn what_was_put_comes_back_wherever_it_stands() {
        let mut cache = WordCache::default();
        let words =
            ["a", " the", "12345678", "fifteen letters", "sixteen  letters", "a word that is longer than the narrow key", "\0", "\0\0"];
        for (word, id) in words.iter().zip(0..) {
            cache.put(word.as_bytes(), &vec![id; word.len().min(6)]);
        }
        for (word, id) in words.iter().zip(0..) {
            let expected = (word.len() < 40).then(|| vec![id; word.len().min(6)]);
            assert_eq!(get(&cache, word, 0, word.len()), expected, "{word:?} alone");
            let inside = format!("xyz{word}{}", "following text".repeat(5));
            assert_eq!(get(&cache, &inside, 3, 3 + word.len()), expected, "{word:?} inside");
        }
    }

    #[test]
    fn a_part_or_more_is_not_the_same() {
        let mut cache = WordCache::default();
        cache.put(b"word", &[1, 2]);
        cache.put(b"many", &[0; 7]);
        assert_eq!(get(&cache, "words", 0, 5), None);
        assert_eq!(get(&cache, "word\0", 0, 5), None);
        assert_eq!(get(&cache, "word", 0, 3), None);
        assert_eq!(get(&cache, "many", 0, 4), None, "too many ids to keep");
        assert_eq!(get(&cache, "", 0, 0), None);
    }
}
