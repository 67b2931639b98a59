//! Which pieces to make: again and again the most frequent text that two neighbours form.
//!
//! Counted is the text that two neighbours make, not the pair, because SentencePiece merges whatever makes a piece. No text is
//! made twice: wherever it stands with both its ends free, it goes through the same merges, and is made at the same time. Of equally
//! frequent texts the shorter one wins, then the one that comes first by its characters' codes. Counts are kept up to date unit by
//! unit: a merge takes the unit's old neighbours out of the counts and puts the new ones in.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::symbols::SPACE;

/// A text seen once is not worth a piece.
const LEAST: u64 = 2;
/// Not a symbol: a character without a token, or a text that may not be a piece.
const NONE: u32 = u32::MAX;

struct Unit {
    symbols: Vec<u32>,
    count: u64,
}

/// Texts by number: the characters first, then whatever two neighbours ever made.
struct Symbol {
    text: String,
    length: usize,
    /// How often it could be made now.
    count: u64,
    /// Units in which it could be made, at some time.
    units: Vec<u32>,
}

#[derive(PartialEq, Eq)]
struct Candidate {
    count: u64,
    length: Reverse<usize>,
    text: Reverse<String>,
    symbol: u32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        // UTF-8 sorts as the characters' codes do.
        (self.count, self.length, &self.text).cmp(&(other.count, other.length, &other.text))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct Learner {
    max_length: usize,
    units: Vec<Unit>,
    symbols: Vec<Symbol>,
    by_text: FxHashMap<String, u32>,
    /// What two neighbours make; `NONE` for what may not be a piece.
    joined: FxHashMap<(u32, u32), u32>,
    heap: BinaryHeap<Candidate>,
    /// Symbols whose count rose since they were last put into the heap.
    risen: Vec<u32>,
}

/// At most `room` pieces of at most `max_length` characters, in the order of their making. Fewer when no text is left that occurs
/// twice.
pub(super) fn learn(units: &[(String, u64)], characters: &[char], room: usize, max_length: usize) -> Vec<String> {
    let mut learner = Learner {
        max_length,
        units: Vec::new(),
        symbols: Vec::new(),
        by_text: FxHashMap::default(),
        joined: FxHashMap::default(),
        heap: BinaryHeap::new(),
        risen: Vec::new(),
    };
    let ids: FxHashMap<char, u32> = characters.iter().map(|char| (*char, learner.symbol(char.to_string()))).collect();
    for (text, count) in units {
        // A character without a token parts a unit.
        let mut symbols = Vec::new();
        for char in text.chars() {
            match ids.get(&char) {
                Some(id) => symbols.push(*id),
                None => learner.add_unit(std::mem::take(&mut symbols), *count),
            }
        }
        learner.add_unit(symbols, *count);
    }
    learner.raise();
    let mut merged = Vec::new();
    while merged.len() < room
        && let Some(symbol) = learner.best()
    {
        merged.push(learner.symbols[symbol as usize].text.clone());
        learner.merge(symbol);
    }
    merged
}

impl Learner {
    fn symbol(&mut self, text: String) -> u32 {
        let id = self.symbols.len() as u32;
        self.by_text.insert(text.clone(), id);
        self.symbols.push(Symbol { length: text.chars().count(), text, count: 0, units: Vec::new() });
        id
    }

    fn add_unit(&mut self, symbols: Vec<u32>, count: u64) {
        if symbols.len() > 1 {
            let unit = self.units.len() as u32;
            self.units.push(Unit { symbols, count });
            self.count_in(unit);
        }
    }

    /// What two neighbours make, or `NONE`.
    fn join(&mut self, left: u32, right: u32) -> u32 {
        if let Some(symbol) = self.joined.get(&(left, right)) {
            return *symbol;
        }
        let (first, second) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        let spaces = |text: &str| text.chars().all(|char| char == SPACE);
        let allowed = match (spaces(&first.text), second.text.starts_with(SPACE)) {
            (true, true) => spaces(&second.text),
            (true, false) => first.length == 1,
            (false, true) => false,
            (false, false) => true,
        };
        let symbol = if allowed && first.length + second.length <= self.max_length {
            let text = format!("{}{}", first.text, second.text);
            match self.by_text.get(&text) {
                Some(symbol) => *symbol,
                None => self.symbol(text),
            }
        } else {
            NONE
        };
        self.joined.insert((left, right), symbol);
        symbol
    }

    /// Adds the unit's neighbours to the counts.
    fn count_in(&mut self, unit: u32) {
        let Unit { symbols, count } = &self.units[unit as usize];
        let (symbols, count) = (symbols.clone(), *count);
        for pair in symbols.windows(2) {
            let joined = self.join(pair[0], pair[1]);
            if let Some(symbol) = self.symbols.get_mut(joined as usize) {
                symbol.count += count;
                if symbol.units.last() != Some(&unit) {
                    symbol.units.push(unit);
                }
                self.risen.push(joined);
            }
        }
    }

    fn count_out(&mut self, unit: u32) {
        let Unit { symbols, count } = &self.units[unit as usize];
        for pair in symbols.windows(2) {
            let joined = self.joined.get(&(pair[0], pair[1])).copied().unwrap_or(NONE);
            if let Some(symbol) = self.symbols.get_mut(joined as usize) {
                symbol.count -= count;
            }
        }
    }

    fn raise(&mut self) {
        let mut risen = std::mem::take(&mut self.risen);
        risen.sort_unstable();
        risen.dedup();
        for id in &risen {
            self.offer(*id);
        }
        risen.clear();
        self.risen = risen;
    }

    fn offer(&mut self, id: u32) {
        let symbol = &self.symbols[id as usize];
        if symbol.count >= LEAST {
            self.heap.push(Candidate {
                count: symbol.count,
                length: Reverse(symbol.length),
                text: Reverse(symbol.text.clone()),
                symbol: id,
            });
        }
    }

    /// The symbol to make next. An entry whose count has fallen since goes back with the count of now.
    fn best(&mut self) -> Option<u32> {
        while let Some(candidate) = self.heap.pop() {
            let now = self.symbols[candidate.symbol as usize].count;
            if candidate.count == now {
                return Some(candidate.symbol);
            }
            if now < candidate.count {
                self.offer(candidate.symbol);
            }
        }
        None
    }

    /// Makes the symbol wherever two neighbours form it, from the left.
    fn merge(&mut self, made: u32) {
        let mut units = std::mem::take(&mut self.symbols[made as usize].units);
        units.sort_unstable();
        units.dedup();
        for unit in units {
            self.count_out(unit);
            let joined = &self.joined;
            let symbols = &mut self.units[unit as usize].symbols;
            let mut kept: Vec<u32> = Vec::with_capacity(symbols.len());
            let mut place = 0;
            while let Some(left) = symbols.get(place).copied() {
                let pair = symbols.get(place + 1).map(|right| (left, *right));
                if pair.and_then(|pair| joined.get(&pair)) == Some(&made) {
                    kept.push(made);
                    place += 2;
                } else {
                    kept.push(left);
                    place += 1;
                }
            }
            *symbols = kept;
            self.count_in(unit);
        }
        self.raise();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(units: &[(&str, u64)], room: usize) -> Vec<String> {
        let units: Vec<_> = units.iter().map(|(unit, count)| ((*unit).to_owned(), *count)).collect();
        let mut characters: Vec<char> = units.iter().flat_map(|(unit, _)| unit.chars()).filter(|char| *char != 'Z').collect();
        characters.sort_unstable();
        characters.dedup();
        learn(&units, &characters, room, 5)
    }

    #[test]
    fn the_most_frequent_first_then_the_shorter_then_the_earlier() {
        // ▁l 7, lo 8 (5 + 3), ow 5, ot 3: lo first; then ▁lo 5... and low 5: the same length, l comes before ▁.
        assert_eq!(learned(&[("▁low", 5), ("lot", 3)], 9), ["lo", "low", "▁low", "lot"]);
        // Three of ab, three of cd: a comes first.
        assert_eq!(learned(&[("cd", 3), ("ab", 3)], 9), ["ab", "cd"]);
    }

    #[test]
    fn what_may_not_be_a_piece() {
        // Spaces join spaces, one joins a word, none follows a letter; nothing crosses Z, which has no token.
        assert_eq!(learned(&[("▁▁▁a", 9)], 9), ["▁▁", "▁a"]);
        assert_eq!(learned(&[("aZb", 9)], 9), Vec::<String>::new());
        assert!(learned(&[("abcdefgh", 9)], 99).iter().all(|piece| piece.len() <= 5));
        assert_eq!(learned(&[("ab", 1)], 9), Vec::<String>::new(), "once is not enough");
    }

    #[test]
    fn no_text_is_made_twice() {
        for seed in 0..200u64 {
            let mut state = seed;
            let mut next = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % bound
            };
            let units: Vec<(String, u64)> =
                (0..20).map(|_| ((0..=next(9)).map(|_| ['a', 'b', 'c'][next(3) as usize]).collect(), 1 + next(9))).collect();
            let mut pieces = learn(&units, &['a', 'b', 'c'], 99, 8);
            let count = pieces.len();
            pieces.sort();
            pieces.dedup();
            assert_eq!(pieces.len(), count, "seed {seed}");
        }
    }

    #[test]
    fn counts_stay_true() {
        // Overlaps, repeats and several units: after each merge the counts must be what a count from scratch gives.
        let units: Vec<(String, u64)> =
            [("aaaaaaa", 3), ("abababab", 2), ("aabb", 5), ("▁▁aab", 4)].map(|(unit, count)| (unit.to_owned(), count)).to_vec();
        let mut learner = Learner {
            max_length: 6,
            units: Vec::new(),
            symbols: Vec::new(),
            by_text: FxHashMap::default(),
            joined: FxHashMap::default(),
            heap: BinaryHeap::new(),
            risen: Vec::new(),
        };
        let ids: FxHashMap<char, u32> = ['a', 'b', SPACE].into_iter().map(|char| (char, learner.symbol(char.to_string()))).collect();
        for (text, count) in &units {
            learner.add_unit(text.chars().map(|char| ids[&char]).collect(), *count);
        }
        learner.raise();
        let mut merges = 0;
        while let Some(symbol) = learner.best() {
            learner.merge(symbol);
            merges += 1;
            let mut expected: FxHashMap<String, u64> = FxHashMap::default();
            for unit in &learner.units {
                for pair in unit.symbols.windows(2) {
                    if learner.joined[&(pair[0], pair[1])] != NONE {
                        let text = format!("{}{}", learner.symbols[pair[0] as usize].text, learner.symbols[pair[1] as usize].text);
                        *expected.entry(text).or_default() += unit.count;
                    }
                }
            }
            for symbol in &learner.symbols {
                assert_eq!(symbol.count, expected.get(&symbol.text).copied().unwrap_or(0), "{} after {merges} merges", symbol.text);
            }
        }
        assert!(merges > 5);
    }
}
