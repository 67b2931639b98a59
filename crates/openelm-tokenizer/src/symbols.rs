//! Characters and pieces as numbers, and which two of them merge into which third.
//!
//! A symbol is a piece's id, or, from the vocabulary's size on, a character that has no piece of its own but occurs inside one.
//! `FOREIGN` is any other character; it never merges. The space and U+2581 are one character when spaces are escaped.
//!
//! SentencePiece merges any two neighbours whose texts make a piece, best score first; Hugging Face merges the pairs of a
//! list, first in the list first. Both are a table from pair to (rank, piece): what follows needs to know of neither.

use rustc_hash::FxHashMap;

use crate::model_file::PieceKind;
use crate::vocabulary::Vocabulary;

pub(crate) const FOREIGN: u32 = u32::MAX;
/// How SentencePiece writes a space.
pub(crate) const SPACE: char = '\u{2581}';
/// In `emit`: the symbol's own text is outside the vocabulary.
pub(crate) const UNKNOWN: u32 = u32::MAX;

const PAGE: usize = 256;

/// Where a pair leads to. A lower rank merges first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    pub rank: u32,
    pub symbol: u32,
}

/// The character and pair tables of one vocabulary.
#[derive(Clone, Debug)]
pub(crate) struct Symbols {
    /// True when a space is the same as U+2581.
    pub escaped: bool,
    /// The first place in `table` of each run of 256 characters; 0 is a page of `FOREIGN`.
    pages: Vec<u32>,
    table: Vec<u32>,
    pairs: PairTable,
    /// The id that a symbol is given out as, or `UNKNOWN`.
    pub emit: Vec<u32>,
    /// The characters that are symbols without being pieces; the first has the vocabulary's size as its symbol.
    extra: Vec<char>,
}

impl Symbols {
    /// SentencePiece's rule over `vocabulary`.
    pub fn of_scores(vocabulary: &Vocabulary, escaped: bool) -> Self {
        let emit =
            vocabulary.pieces.iter().zip(0..).map(|(piece, id)| vocabulary.reserved.get(&piece.text).copied().unwrap_or(id)).collect();
        let mut symbols = Self::empty(escaped, emit);
        // With escaping, no text has a space left when pieces are looked for, so a piece with one never occurs.
        let reachable = |text: &str| !(escaped && text.contains(' '));
        let mut pieces: Vec<(&str, u32)> = Vec::new();
        for (piece, id) in vocabulary.pieces.iter().zip(0..) {
            if matches!(piece.kind, PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused) && reachable(&piece.text) {
                pieces.push((&piece.text, id));
            }
        }
        for (text, id) in &vocabulary.reserved {
            // A character that is itself a reserved piece is given out as that piece, but merges as the character.
            if let (Some(char), true) = (only_char(text), reachable(text)) {
                symbols.add_char(char, *id);
            }
        }
        for (text, id) in &pieces {
            if let Some(char) = only_char(text).filter(|char| symbols.of_char(*char) == FOREIGN) {
                symbols.set_char(char, *id);
            }
        }
        let ranks = ranks(vocabulary);
        for (text, id) in &pieces {
            if only_char(text).is_some() {
                continue;
            }
            for char in text.chars() {
                if symbols.of_char(char) == FOREIGN {
                    symbols.add_char(char, UNKNOWN);
                }
            }
            for (middle, _) in text.char_indices().skip(1) {
                let (left, right) = text.split_at(middle);
                if let (Some(left), Some(right)) = (symbols.of_part(left, vocabulary), symbols.of_part(right, vocabulary)) {
                    symbols.pairs.insert(left, right, Merge { rank: ranks[*id as usize], symbol: *id });
                }
            }
        }
        symbols
    }

    /// Tables without any merge. `emit` has an entry for each piece.
    pub fn empty(escaped: bool, emit: Vec<u32>) -> Self {
        Self { escaped, pages: vec![0; 0x11_0000 / PAGE], table: vec![FOREIGN; PAGE], pairs: PairTable::default(), emit, extra: Vec::new() }
    }

    pub fn add_pair(&mut self, left: u32, right: u32, merge: Merge) {
        self.pairs.insert(left, right, merge);
    }

    /// Gives a character that has no piece of its own a symbol.
    fn add_char(&mut self, char: char, emitted: u32) {
        self.set_char(char, self.emit.len() as u32);
        self.emit.push(emitted);
        self.extra.push(char);
    }

    /// The character of a symbol that is no piece.
    pub fn extra_char(&self, symbol: u32) -> Option<char> {
        let pieces = self.emit.len() - self.extra.len();
        self.extra.get((symbol as usize).checked_sub(pieces)?).copied()
    }

    pub fn set_char(&mut self, char: char, symbol: u32) {
        let (page, place) = (char as usize / PAGE, char as usize % PAGE);
        if self.pages[page] == 0 {
            self.pages[page] = self.table.len() as u32;
            self.table.resize(self.table.len() + PAGE, FOREIGN);
        }
        let start = self.pages[page] as usize;
        self.table[start + place] = symbol;
        if char == SPACE && self.escaped {
            self.set_char(' ', symbol);
        }
    }

    /// The symbol that a character of the text begins as.
    #[inline]
    pub fn of_char(&self, char: char) -> u32 {
        let start = self.pages[char as usize / PAGE] as usize;
        self.table[start + char as usize % PAGE]
    }

    fn of_part(&self, text: &str, vocabulary: &Vocabulary) -> Option<u32> {
        match only_char(text) {
            Some(char) => Some(self.of_char(char)),
            None => vocabulary.pieces_by_text.get(text).copied(),
        }
    }

    /// What two neighbours merge into.
    #[inline]
    pub fn merge(&self, left: u32, right: u32) -> Option<Merge> {
        self.pairs.get(left, right)
    }

    /// Every pair with what it merges into, in no order.
    pub fn pairs(&self) -> impl Iterator<Item = (u32, u32, Merge)> {
        self.pairs.map.iter().map(|(key, merge)| ((*key >> 32) as u32, *key as u32, *merge))
    }
}

#[derive(Clone, Debug, Default)]
struct PairTable {
    map: FxHashMap<u64, Merge>,
}

impl PairTable {
    fn insert(&mut self, left: u32, right: u32, merge: Merge) {
        self.map.insert(u64::from(left) << 32 | u64::from(right), merge);
    }

    #[inline]
    fn get(&self, left: u32, right: u32) -> Option<Merge> {
        self.map.get(&(u64::from(left) << 32 | u64::from(right))).copied()
    }
}

/// Each piece's rank: 0 for the best score, the same for the same score.
fn ranks(vocabulary: &Vocabulary) -> Vec<u32> {
    let mut scores: Vec<f32> = vocabulary.pieces.iter().map(|piece| piece.score).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    // 0 and -0 are the same score.
    scores.dedup_by(|a, b| a == b);
    vocabulary.pieces.iter().map(|piece| scores.partition_point(|score| *score > piece.score) as u32).collect()
}

/// The character of a text of one character.
pub(crate) fn only_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}
