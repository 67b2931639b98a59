//! Merging one stretch of text: again and again the best pair of neighbours, the leftmost of equals, until none is left.
//!
//! Short stretches are scanned for the best pair; longer ones keep the pairs in a heap, so that the cost is n log n. Both do the
//! same merges in the same order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::symbols::{Merge, Symbols};

/// Up to here scanning is faster than a heap.
const SHORT: usize = 32;
const NONE: u32 = u32::MAX;
const NO_MERGE: Merge = Merge { rank: u32::MAX, symbol: NONE };

/// A symbol and the byte at which it begins in the stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub symbol: u32,
    pub start: u32,
}

/// From a symbol to the two that it was last made of. Only kept for vocabularies with unused pieces.
pub(crate) type Origins = FxHashMap<u32, (u32, u32)>;

/// Buffers for merging, kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    tokens: Vec<Token>,
    /// For each token, what it and its right neighbour merge into.
    merges: Vec<Merge>,
    previous: Vec<u32>,
    next: Vec<u32>,
    /// (rank, place of the left token), smallest first.
    heap: BinaryHeap<Reverse<u64>>,
    /// Characters taken in and entries taken from the heap since the beginning: a measure of the work done.
    pub work: u64,
}

impl Merger {
    /// The tokens of `text`, which must be shorter than 4 GiB.
    pub fn merge(&mut self, symbols: &Symbols, text: &str) -> &[Token] {
        self.take_in(symbols, text);
        if self.tokens.len() <= SHORT {
            self.scan(symbols);
        } else {
            self.heap(symbols, None);
        }
        &self.tokens
    }

    /// The tokens of the last `merge`.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// As `merge`; `origins` receives what each unused piece was made of.
    pub fn merge_with_origins(&mut self, symbols: &Symbols, text: &str, origins: &mut Origins) -> &[Token] {
        self.take_in(symbols, text);
        self.heap(symbols, Some(origins));
        &self.tokens
    }

    fn take_in(&mut self, symbols: &Symbols, text: &str) {
        self.tokens.clear();
        self.tokens.extend(text.char_indices().map(|(start, char)| Token { symbol: symbols.of_char(char), start: start as u32 }));
        self.work += self.tokens.len() as u64;
        let pairs = self.tokens.windows(2).map(|pair| symbols.merge(pair[0].symbol, pair[1].symbol).unwrap_or(NO_MERGE));
        self.merges.clear();
        self.merges.extend(pairs);
    }

    /// Invariant: `merges` has one entry less than `tokens`.
    fn scan(&mut self, symbols: &Symbols) {
        let (tokens, merges) = (&mut self.tokens, &mut self.merges);
        loop {
            let mut best = NO_MERGE;
            let mut place = 0;
            for (index, merge) in merges.iter().enumerate() {
                if merge.rank < best.rank {
                    (best, place) = (*merge, index);
                }
            }
            if best.symbol == NONE {
                return;
            }
            tokens[place].symbol = best.symbol;
            tokens.remove(place + 1);
            merges.remove(place);
            if place > 0 {
                merges[place - 1] = symbols.merge(tokens[place - 1].symbol, best.symbol).unwrap_or(NO_MERGE);
            }
            if let Some(right) = tokens.get(place + 1) {
                merges[place] = symbols.merge(best.symbol, right.symbol).unwrap_or(NO_MERGE);
            }
        }
    }

    /// An entry of the heap is stale unless the pair that now begins at its place has its rank: whatever begins there and has
    /// that rank is what the entry would stand for.
    fn heap(&mut self, symbols: &Symbols, mut origins: Option<&mut Origins>) {
        let length = self.tokens.len() as u32;
        self.merges.resize(self.tokens.len(), NO_MERGE);
        self.previous.clear();
        self.previous.extend((0..length).map(|place| place.wrapping_sub(1)));
        self.next.clear();
        self.next.extend(1..=length);
        if let Some(last) = self.next.last_mut() {
            *last = NONE;
        }
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.clear();
        entries.extend(self.merges.iter().zip(0..).filter(|(merge, _)| merge.symbol != NONE).map(|(merge, place)| entry(*merge, place)));
        self.heap = entries.into();
        if let Some(origins) = &mut origins {
            for (pair, merge) in self.tokens.windows(2).zip(&self.merges) {
                note(origins, pair[0].symbol, pair[1].symbol, *merge);
            }
        }
        while let Some(Reverse(top)) = self.heap.pop() {
            self.work += 1;
            let (rank, left) = ((top >> 32) as u32, top as u32);
            let merge = self.merges[left as usize];
            if merge.symbol == NONE || merge.rank != rank {
                continue;
            }
            let right = self.next[left as usize];
            let after = self.next[right as usize];
            self.tokens[left as usize].symbol = merge.symbol;
            self.tokens[right as usize].symbol = NONE;
            self.merges[right as usize] = NO_MERGE;
            self.next[left as usize] = after;
            if after != NONE {
                self.previous[after as usize] = left;
            }
            let before = self.previous[left as usize];
            if before != NONE {
                self.pair(symbols, before, left, &mut origins);
            }
            if after != NONE {
                self.pair(symbols, left, after, &mut origins);
            } else {
                self.merges[left as usize] = NO_MERGE;
            }
        }
        // Keep what is still linked.
        let (mut place, mut kept) = (0, 0);
        while let Some(token) = self.tokens.get(place as usize).copied() {
            self.tokens[kept] = token;
            kept += 1;
            place = self.next[place as usize];
        }
        self.tokens.truncate(kept);
    }

    fn pair(&mut self, symbols: &Symbols, left: u32, right: u32, origins: &mut Option<&mut Origins>) {
        let (first, second) = (self.tokens[left as usize].symbol, self.tokens[right as usize].symbol);
        let merge = symbols.merge(first, second).unwrap_or(NO_MERGE);
        self.merges[left as usize] = merge;
        if merge.symbol != NONE {
            self.heap.push(entry(merge, left));
            if let Some(origins) = origins {
                note(origins, first, second, merge);
            }
        }
    }
}

fn entry(merge: Merge, left: u32) -> Reverse<u64> {
    Reverse(u64::from(merge.rank) << 32 | u64::from(left))
}

fn note(origins: &mut Origins, left: u32, right: u32, merge: Merge) {
    if merge.symbol != NONE {
        origins.insert(merge.symbol, (left, right));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::model_file::{ModelFile, Piece, PieceKind};
    use crate::vocabulary::Vocabulary;

    /// A source of numbers that look random.
    pub(crate) struct Random(pub u64);

    impl Random {
        pub fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }

        pub fn text(&mut self, chars: &[char], length: u64) -> String {
            (0..length).map(|_| chars[self.below(chars.len() as u64) as usize]).collect()
        }

        /// Pieces that grow out of each other, with scores in no order and some of them equal.
        pub fn pieces(&mut self, parts: &[&str]) -> Vec<(String, f32)> {
            let mut pieces: Vec<String> = Vec::new();
            for _ in 0..3 + self.below(25) {
                let pick = |random: &mut Self| match random.below(3) {
                    0 if !pieces.is_empty() => pieces[random.below(pieces.len() as u64) as usize].clone(),
                    _ => parts[random.below(parts.len() as u64) as usize].to_owned(),
                };
                let piece = pick(self) + &pick(self);
                if piece.chars().count() <= 9 && !pieces.contains(&piece) {
                    pieces.push(piece);
                }
            }
            // Not every character that occurs in a piece is one.
            pieces.extend(parts.iter().skip(1).map(|part| (*part).to_owned()));
            pieces.into_iter().map(|piece| (piece, self.below(12) as f32)).collect()
        }
    }

    /// A vocabulary of an unknown piece with id 0 and these with ids from 1 on.
    pub(crate) fn vocabulary_of(pieces: &[(String, f32)]) -> Vocabulary {
        let unknown = Piece { text: "<unk>".to_owned(), score: 0.0, kind: PieceKind::Unknown };
        let normal = pieces.iter().map(|(text, score)| Piece { text: text.clone(), score: *score, kind: PieceKind::Normal });
        let model = ModelFile { pieces: [unknown].into_iter().chain(normal).collect(), ..ModelFile::default() };
        Vocabulary::of_model(&model, Path::new("test")).unwrap()
    }

    pub(crate) fn symbols_of(pieces: &[(String, f32)]) -> Symbols {
        Symbols::of_scores(&vocabulary_of(pieces), false)
    }

    /// The rule itself, on texts: the neighbours whose joined text has the best score, the leftmost of equals, become one. Symbols
    /// as `symbols_of` numbers them, with the bytes at which they begin.
    pub(crate) fn naive(pieces: &[(String, f32)], text: &str) -> Vec<(u32, usize)> {
        let symbols = symbols_of(pieces);
        let mut parts: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let mut best: Option<(f32, usize)> = None;
            for place in 1..parts.len() {
                let joined = format!("{}{}", parts[place - 1], parts[place]);
                if let Some((_, score)) = pieces.iter().find(|(piece, _)| *piece == joined)
                    && best.is_none_or(|(best, _)| *score > best)
                {
                    best = Some((*score, place));
                }
            }
            let Some((_, place)) = best else { break };
            let right = parts.remove(place);
            parts[place - 1].push_str(&right);
        }
        let mut start = 0;
        let numbered = parts.iter().map(|part| {
            let id = pieces.iter().position(|(piece, _)| piece == part).map(|place| place as u32 + 1);
            let symbol = id.unwrap_or_else(|| symbols.of_char(part.chars().next().unwrap()));
            start += part.len();
            (symbol, start - part.len())
        });
        numbered.collect()
    }

    #[test]
    fn scan_and_heap_follow_the_rule() {
        let mut merger = Merger::default();
        for seed in 0..400 {
            let mut random = Random(seed);
            let pieces = random.pieces(&["a", "b", "é", "中"]);
            let symbols = symbols_of(&pieces);
            for _ in 0..10 {
                let length = random.below(60);
                let text = random.text(&['a', 'b', 'é', '中', 'x'], length);
                let expected = naive(&pieces, &text);
                let plain = |tokens: &[Token]| tokens.iter().map(|token| (token.symbol, token.start as usize)).collect::<Vec<_>>();
                assert_eq!(plain(merger.merge(&symbols, &text)), expected, "seed {seed}, {text:?} with {pieces:?}");
                let by_heap = merger.merge_with_origins(&symbols, &text, &mut Origins::default());
                assert_eq!(plain(by_heap), expected, "seed {seed}, by heap, {text:?} with {pieces:?}");
            }
        }
    }
}
