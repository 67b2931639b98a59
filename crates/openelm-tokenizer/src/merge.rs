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
    /// Characters taken in since the beginning: a measure of the work done.
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
