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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::tests::{Random, naive, symbols_of};

    fn boundaries(pieces: &[(String, f32)]) -> Boundaries {
        Boundaries::new(pieces.iter().map(|(piece, _)| piece.as_str()), &symbols_of(pieces))
    }

    #[test]
    fn cut_texts_have_the_same_tokens() {
        let mut cuts = 0;
        for seed in 0..400 {
            let mut random = Random(seed);
            let pieces = random.pieces(&["a", "b", "é", "中", " "]);
            let boundaries = boundaries(&pieces);
            let length = random.below(60);
            let text = random.text(&['a', 'b', 'é', '中', ' ', 'x', '😀'], length);
            let (mut tokens, mut start) = (Vec::new(), 0);
            while start < text.len() {
                let end = boundaries.next(&text, start);
                tokens.extend(naive(&pieces, &text[start..end]).into_iter().map(|(symbol, place)| (symbol, start + place)));
                start = end;
                cuts += 1;
            }
            assert_eq!(tokens, naive(&pieces, &text), "seed {seed}, {text:?} with {pieces:?}");
        }
        assert!(cuts > 2000, "only {cuts} cuts: the test tests nothing");
    }

    #[test]
    fn a_boundary_is_where_no_piece_reaches_across() {
        let boundaries = boundaries(&[(" th", 1.0), ("é1", 2.0), ("ée", 1.0)].map(|(piece, score)| (piece.to_owned(), score)));
        let ends = |text: &str| {
            let mut ends = vec![0];
            while ends[ends.len() - 1] < text.len() {
                ends.push(boundaries.next(text, ends[ends.len() - 1]));
            }
            ends
        };
        assert_eq!(ends(" th th"), [0, 3, 6]);
        assert_eq!(ends("thé1ée中"), [0, 2, 5, 8, 11]);
        assert!(boundaries.between('t', ' ') && !boundaries.between(' ', 't'));
    }
}
