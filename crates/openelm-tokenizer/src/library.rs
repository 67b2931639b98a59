//! Any `tokenizer.json` through the `tokenizers` crate.
//!
//! Two copies of the tokenizer: one that sees special tokens' texts as text, one that sees the tokens.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::Tokenizer as Implementation;

use crate::error::TokenizerError;

/// A tokenizer of the `tokenizers` crate.
#[derive(Debug)]
pub(crate) struct LibraryTokenizer {
    plain: Implementation,
    special: Implementation,
}

/// Odd characters; whoever can encode these can encode any.
const PROBE: &str = " a\0\u{1}\u{378} \u{10ffff}";

impl LibraryTokenizer {
    /// Reads the file and tries it: what the crate cannot encode or decode now, it must not meet in a corpus.
    pub fn parse(json: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let bad = |reason: String| TokenizerError::bad_json(path, format!("not a tokenizer: {reason}"));
        let read = || guarded(|| Implementation::from_bytes(json).map_err(|error| error.to_string())).map_err(bad);
        let (mut plain, mut special) = (read()?, read()?);
        for tokenizer in [&mut plain, &mut special] {
            tokenizer.with_padding(None);
            // Setting a truncation of `None` cannot fail.
            let _ = tokenizer.with_truncation(None);
        }
        plain.set_encode_special_tokens(true);
        special.set_encode_special_tokens(false);
        let tokenizer = Self { plain, special };
        for with_special in [false, true] {
            let ids = guarded(|| tokenizer.try_encode(PROBE, with_special))
                .map_err(|reason| bad(format!("it cannot encode every text: {reason}")))?;
            guarded(|| tokenizer.try_decode(&ids)).map_err(|reason| bad(format!("it cannot decode what it encodes: {reason}")))?;
        }
        Ok(tokenizer)
    }

    pub fn implementation(&self) -> &Implementation {
        &self.plain
    }

    /// Appends the ids of `text`; none where the crate fails, which `parse` has made sure of as far as can be.
    pub fn encode(&self, text: &str, with_special: bool, ids: &mut Vec<u32>) {
        ids.extend(guarded(|| self.try_encode(text, with_special)).unwrap_or_default());
    }

    pub fn decode(&self, ids: &[u32]) -> String {
        guarded(|| self.try_decode(ids)).unwrap_or_default()
    }

    fn try_encode(&self, text: &str, with_special: bool) -> Result<Vec<u32>, String> {
        let tokenizer = if with_special { &self.special } else { &self.plain };
        tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).map_err(|error| error.to_string())
    }

    fn try_decode(&self, ids: &[u32]) -> Result<String, String> {
        self.plain.decode(ids, true).map_err(|error| error.to_string())
    }
}

/// The crate panics on some files that contradict themselves; to a user that is an error like any other.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("its parts contradict each other".to_owned()))
}

/// Ids that came, and how much of their text is out. Only the ids since the last certain place are decoded again.
#[derive(Clone, Debug, Default)]
pub(crate) struct LibraryDecoder {
    ids: Vec<u32>,
    /// Ids whose text is out; they stay as context, because the first piece of a text may decode differently.
    done: usize,
}

impl LibraryDecoder {
    pub fn push(&mut self, library: &LibraryTokenizer, id: u32, text: &mut String) {
        self.ids.push(id);
        let before = library.decode(self.ids.get(..self.done).unwrap_or_default());
        let now = library.decode(&self.ids);
        // A character that is not whole yet decodes to U+FFFD.
        if let Some(new) = now.strip_prefix(before.as_str()).filter(|new| !new.is_empty() && !new.ends_with('\u{fffd}')) {
            text.push_str(new);
            self.ids.drain(..self.done);
            self.done = self.ids.len();
        }
    }

    pub fn finish(&mut self, library: &LibraryTokenizer, text: &mut String) {
        let before = library.decode(self.ids.get(..self.done).unwrap_or_default());
        let now = library.decode(&self.ids);
        text.push_str(now.strip_prefix(before.as_str()).unwrap_or_default());
        (self.ids, self.done) = (Vec::new(), 0);
    }
}
