//! Remembers the ids of short stretches of text.
//!
//! A table of fixed size: a stretch has one place, and the newer one takes it. An entry holds the whole stretch, so a hit is
//! never wrong. Each thread that encodes has its own, so nothing is locked.

/// Bytes of the longest stretch that is kept.
pub(crate) const LONGEST: usize = 23;
/// Ids of the longest entry.
const IDS: usize = 10;
/// Entries; 2 MiB in all.
const ENTRIES: usize = 1 << 15;
const EMPTY: u32 = u32::MAX;

/// One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    key: Key,
    /// Up to the first `EMPTY`.
    ids: [u32; IDS],
}

/// The bytes of a stretch, zeros, and the length in the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u64; 3]);

impl Key {
    /// `None` when the stretch is too long to be kept.
    #[inline]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LONGEST {
            return None;
        }
        let mut whole = [0u8; 24];
        whole[..bytes.len()].copy_from_slice(bytes);
        whole[LONGEST] = bytes.len() as u8;
        let word = |at: usize| u64::from_le_bytes([whole[at], whole[at + 1], whole[at + 2], whole[at + 3], whole[at + 4], whole[at + 5], whole[at + 6], whole[at + 7]]);
        Some(Self([word(0), word(8), word(16)]))
    }

    #[inline]
    fn place(self) -> usize {
        let mixed = (self.0[0] ^ self.0[1].rotate_left(23) ^ self.0[2].rotate_left(41)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 49) as usize % ENTRIES
    }
}

/// Stretch of text to ids.
#[derive(Debug)]
pub(crate) struct WordCache {
    entries: Vec<Entry>,
}

impl Default for WordCache {
    fn default() -> Self {
        // No stretch is empty, so an all-zero key stands for nothing.
        Self { entries: vec![Entry { key: Key([0; 3]), ids: [EMPTY; IDS] }; ENTRIES] }
    }
}

impl WordCache {
    /// Appends the ids of the stretch; false when it is not here.
    #[inline]
    pub fn get(&self, key: Key, ids: &mut Vec<u32>) -> bool {
        let entry = &self.entries[key.place()];
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

    /// Keeps the ids of a stretch, unless they are too many.
    pub fn put(&mut self, key: Key, ids: &[u32]) {
        let mut entry = Entry { key, ids: [EMPTY; IDS] };
        if let Some(places) = entry.ids.get_mut(..ids.len()) {
            places.copy_from_slice(ids);
            self.entries[key.place()] = entry;
        }
    }
}
