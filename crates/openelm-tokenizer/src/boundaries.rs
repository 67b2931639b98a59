//! Where a text may be cut without changing its tokens.
//!
//! Every merge across a place between two characters makes a piece that holds these two side by side. So where no piece of
//! more than one character does, no merge can ever cross, and both sides can be encoded alone. The proof is the vocabulary
//! itself: the table holds the neighbours of all its pieces. In LLaMA's, nothing but a space stands before a space, so every
//! word is alone; digits and most punctuation marks are too.

use rustc_hash::FxHashSet;

use crate::symbols::{SPACE, Symbols};

/// The pairs of characters that some piece holds side by side.
#[derive(Clone, Debug)]
pub(crate) struct Boundaries {
    escaped: bool,
    /// For each ASCII character a bit for each ASCII character that may follow it inside a piece.
    ascii: [u128; 128],
    /// Pairs with a character beyond ASCII.
    others: FxHashSet<u64>,
}

impl Boundaries {
    /// `pieces` are the texts that a merge may lead to.
    pub fn new<'a>(pieces: impl Iterator<Item = &'a str>, symbols: &Symbols) -> Self {
        let mut boundaries = Self { escaped: symbols.escaped, ascii: [0; 128], others: FxHashSet::default() };
        for piece in pieces {
            let mut chars = piece.chars().map(|char| boundaries.plain(char)).collect::<Vec<_>>().into_iter();
            let Some(mut before) = chars.next() else { continue };
            for after in chars {
                match boundaries.ascii.get_mut(before as usize) {
                    Some(followers) if after.is_ascii() => *followers |= 1 << after as u32,
                    _ => {
                        boundaries.others.insert(key(before, after));
                    }
                }
                before = after;
            }
        }
        boundaries
    }

    /// True when no merge crosses the place between the two characters.
    #[inline]
    pub fn between(&self, before: char, after: char) -> bool {
        let (before, after) = (self.plain(before), self.plain(after));
        match self.ascii.get(before as usize) {
            Some(followers) if after.is_ascii() => followers >> after as u32 & 1 == 0,
            _ => !self.others.contains(&key(before, after)),
        }
    }

    /// The place after `start` up to which `text` can be encoded alone. `start` must lie before the end.
    #[inline]
    pub fn next(&self, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        let mut place = start + 1;
        let mut before = bytes[start];
        // Most text is ASCII: then one look into a table decides.
        while before < 0x80 {
            let Some(after) = bytes.get(place).copied() else { return place };
            if after >= 0x80 {
                break;
            }
            if self.ascii[usize::from(before)] >> after & 1 == 0 {
                return place;
            }
            before = after;
            place += 1;
        }
        // `place - 1` is the start of a character, ASCII or not.
        let mut chars = text.get(place - 1..).unwrap_or_default().char_indices();
        let Some((_, mut before)) = chars.next() else { return bytes.len() };
        for (offset, after) in chars {
            if self.between(before, after) {
                return place - 1 + offset;
            }
            before = after;
        }
        bytes.len()
    }

    #[inline]
    fn plain(&self, char: char) -> char {
        if char == SPACE && self.escaped { ' ' } else { char }
    }
}

fn key(before: char, after: char) -> u64 {
    u64::from(before) << 32 | u64::from(after)
}
