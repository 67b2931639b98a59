//! Text to ids by merging pairs: SentencePiece's BPE, and Hugging Face's where it is the same.
//!
//! The text is cut where no merge can cross, each stretch is looked up among those seen before, and merged when it is new.

use std::sync::{Mutex, PoisonError};

use crate::boundaries::Boundaries;
use crate::long_text::{LongToken, WINDOW, merge_long};
use crate::matcher::Matcher;
use crate::merge::{Merger, Origins};
use crate::symbols::{FOREIGN, Symbols, UNKNOWN};
use crate::word_cache::WordCache;

/// Encodes text that is already normalised. Spaces may still be spaces when the symbols are `escaped`.
#[derive(Debug)]
pub(crate) struct BpeEncoder {
    pub symbols: Symbols,
    pub boundaries: Boundaries,
    pub unk: u32,
    pub bytes: Option<Box<[u32; 256]>>,
    /// Texts that are one token wherever they stand.
    pub fixed: Option<Matcher>,
    /// True when some piece may arise but not be given out. How such a piece is taken apart depends on the whole text before
    /// it, so the whole text is merged at once.
    pub unused: Option<Vec<bool>>,
    pub scratches: Scratches,
}

/// Buffers of one encoding thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    cache: WordCache,
    merger: Merger,
    first: String,
    long: Vec<LongToken>,
    origins: Origins,
}

/// Buffers that wait for a thread: as many as threads ever encoded at once.
#[derive(Debug, Default)]
pub(crate) struct Scratches {
    waiting: Mutex<Vec<Scratch>>,
}

impl Scratches {
    fn with<T>(&self, run: impl FnOnce(&mut Scratch) -> T) -> T {
        let taken = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = taken.unwrap_or_default();
        let result = run(&mut scratch);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        result
    }
}

impl BpeEncoder {
    /// Appends the ids of `text`, with a space before it when `prefix` is set.
    pub fn encode(&self, text: &str, prefix: bool, ids: &mut Vec<u32>) {
        let start = ids.len();
        self.scratches.with(|scratch| self.encode_with(scratch, text, prefix, ids));
        if self.bytes.is_none() {
            join_unknown(ids, start, self.unk);
        }
    }

    fn encode_with(&self, scratch: &mut Scratch, text: &str, prefix: bool, ids: &mut Vec<u32>) {
        if self.fixed.is_none() && self.unused.is_none() {
            return self.encode_plain(scratch, text, prefix, ids);
        }
        let whole = if prefix { format!(" {text}") } else { text.to_owned() };
        let whole = if self.symbols.escaped { whole.replace(crate::symbols::SPACE, " ") } else { whole };
        let Some(fixed) = &self.fixed else { return self.encode_whole(scratch, &whole, ids) };
        // Merges never cross a fixed token, but what unused pieces are made of is remembered across them.
        scratch.origins.clear();
        let mut stretches = Vec::new();
        fixed.cut(&whole, |stretch, token| stretches.push((stretch, token)));
        if self.unused.is_none() {
            for (stretch, token) in stretches {
                self.encode_plain(scratch, stretch, false, ids);
                ids.extend(token.map(|id| self.symbols.emit.get(id as usize).copied().unwrap_or(id)));
            }
            return;
        }
        let merged: Vec<_> = stretches
            .into_iter()
            .map(|(stretch, token)| {
                (stretch, token, scratch.merger.merge_with_origins(&self.symbols, stretch, &mut scratch.origins).to_vec())
            })
            .collect();
        for (stretch, token, tokens) in merged {
            for token in tokens {
                self.give_out_parts(token.symbol, stretch, token.start as usize, &scratch.origins, ids);
            }
            ids.extend(token.map(|id| self.symbols.emit.get(id as usize).copied().unwrap_or(id)));
        }
    }

    fn encode_plain(&self, scratch: &mut Scratch, text: &str, prefix: bool, ids: &mut Vec<u32>) {
        let mut start = 0;
        if prefix {
            let mut first = std::mem::take(&mut scratch.first);
            first.clear();
            first.push(' ');
            if let Some(char) = text.chars().next().filter(|char| !self.boundaries.between(' ', *char)) {
                start = self.boundaries.next(text, 0).max(char.len_utf8());
                first.push_str(text.get(..start).unwrap_or_default());
            }
            self.encode_stretch(scratch, &first, 0, first.len(), ids);
            scratch.first = first;
        }
        while start < text.len() {
            let end = self.boundaries.next(text, start);
            self.encode_stretch(scratch, text, start, end, ids);
            start = end;
        }
    }

    /// Encodes the bytes from `start` to `end`, which lie on boundaries.
    #[inline]
    fn encode_stretch(&self, scratch: &mut Scratch, text: &str, start: usize, end: usize, ids: &mut Vec<u32>) {
        if scratch.cache.get(text.as_bytes(), start, end, ids) {
            return;
        }
        let before = ids.len();
        let stretch = text.get(start..end).unwrap_or_default();
        self.merge_stretch(scratch, stretch, ids);
        scratch.cache.put(stretch.as_bytes(), ids.get(before..).unwrap_or_default());
    }

    fn merge_stretch(&self, scratch: &mut Scratch, stretch: &str, ids: &mut Vec<u32>) {
        if stretch.len() <= WINDOW {
            for token in scratch.merger.merge(&self.symbols, stretch) {
                self.give_out(token.symbol, stretch, token.start as usize, ids);
            }
        } else {
            let mut tokens = std::mem::take(&mut scratch.long);
            tokens.clear();
            merge_long(&mut scratch.merger, &self.symbols, stretch, WINDOW, &mut tokens);
            for token in &tokens {
                self.give_out(token.symbol, stretch, token.start, ids);
            }
            // A very long stretch should not keep its memory.
            tokens.shrink_to(WINDOW);
            scratch.long = tokens;
        }
    }

    fn encode_whole(&self, scratch: &mut Scratch, text: &str, ids: &mut Vec<u32>) {
        scratch.origins.clear();
        let tokens = scratch.merger.merge_with_origins(&self.symbols, text, &mut scratch.origins);
        for token in tokens {
            self.give_out_parts(token.symbol, text, token.start as usize, &scratch.origins, ids);
        }
    }

    /// Appends the id of a symbol, or the ids of its bytes.
    fn give_out(&self, symbol: u32, text: &str, start: usize, ids: &mut Vec<u32>) {
        match self.symbols.emit.get(symbol as usize) {
            Some(id) if *id != UNKNOWN => ids.push(*id),
            _ => self.give_out_char(text.get(start..).and_then(|rest| rest.chars().next()), ids),
        }
    }

    fn give_out_char(&self, char: Option<char>, ids: &mut Vec<u32>) {
        let Some(char) = char else { return };
        let char = if char == ' ' && self.symbols.escaped { crate::symbols::SPACE } else { char };
        match &self.bytes {
            Some(bytes) => ids.extend(char.encode_utf8(&mut [0; 4]).bytes().map(|byte| bytes[usize::from(byte)])),
            None => ids.push(self.unk),
        }
    }

    /// As `give_out`, but an unused piece is taken apart.
    fn give_out_parts(&self, symbol: u32, text: &str, start: usize, origins: &Origins, ids: &mut Vec<u32>) {
        let mut parts = vec![symbol];
        while let Some(symbol) = parts.pop() {
            let unused = self.unused.as_ref().is_some_and(|unused| unused.get(symbol as usize) == Some(&true));
            if let (true, Some((left, right))) = (unused, origins.get(&symbol)) {
                parts.extend([*right, *left]);
            } else if let Some(char) = self.symbols.extra_char(symbol).filter(|_| self.symbols.emit.get(symbol as usize) == Some(&UNKNOWN))
            {
                self.give_out_char(Some(char), ids);
            } else {
                // Only a character outside all pieces needs the text, and it is never part of another symbol.
                debug_assert!(symbol != FOREIGN || parts.is_empty());
                self.give_out(symbol, text, start, ids);
            }
        }
    }
}

/// Makes one unknown token of each run of them.
pub(crate) fn join_unknown(ids: &mut Vec<u32>, start: usize, unk: u32) {
    let mut kept = start;
    for place in start..ids.len() {
        if place == start || ids[place] != unk || ids[place - 1] != unk {
            ids[kept] = ids[place];
            kept += 1;
        }
    }
    ids.truncate(kept);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::merge::tests::Random;
    use crate::tokenizer::{Encoding, Tokenizer};

    /// The work of encoding one text: characters looked at and merges considered.
    fn work(tokenizer: &Tokenizer, text: &str) -> u64 {
        let Encoding::Bpe { encoder, .. } = &tokenizer.parts().encoding else { panic!("not BPE") };
        let mut scratch = Scratch::default();
        encoder.encode_with(&mut scratch, text, true, &mut Vec::new());
        scratch.merger.work
    }

    #[test]
    fn work_grows_with_the_length_and_no_faster() {
        let shared = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/tokenizers"));
        let paths = ["llama-spm", "spm-2k"].map(|name| shared.join(name)).into_iter().filter(|path| path.exists());
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        for path in paths.chain([own.join("trained"), own.join("models/bpe-crossing.model")]) {
            let tokenizer = Tokenizer::load(&path).unwrap();
            let base64: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
            let chinese: Vec<char> = ('\u{4e00}'..'\u{5e00}').collect();
            let emoji: Vec<char> = ('\u{1f600}'..'\u{1f640}').collect();
            let words: Vec<char> = "etaoin shr".chars().collect();
            for chars in [&[' '][..], &['a'], &['='], &base64, &chinese, &emoji, &words] {
                let text = |length| Random(9).text(chars, length);
                let (short, long) = (work(&tokenizer, &text(100_000)), work(&tokenizer, &text(800_000)));
                let kind = format!("{} with {:?}...", path.display(), chars[0]);
                assert!(long <= 9 * short.max(1000), "{kind}: {short} for 100000 characters, {long} for 800000");
                assert!(long <= 6 * 800_000, "{kind}: {long} for 800000 characters");
            }
        }
    }
}
