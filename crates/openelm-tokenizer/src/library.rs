//! Any `tokenizer.json` through the `tokenizers` crate.
//!
//! Two copies of the tokenizer: one that sees special tokens' texts as text, one that sees the tokens.

use std::path::Path;

use tokenizers::Tokenizer as Implementation;

use crate::error::TokenizerError;

/// A tokenizer of the `tokenizers` crate.
#[derive(Debug)]
pub(crate) struct LibraryTokenizer {
    plain: Implementation,
    special: Implementation,
}

impl LibraryTokenizer {
    pub fn parse(json: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let read = || Implementation::from_bytes(json).map_err(|error| TokenizerError::bad_json(path, format!("not a tokenizer: {error}")));
        let (mut plain, mut special) = (read()?, read()?);
        for tokenizer in [&mut plain, &mut special] {
            tokenizer.with_padding(None);
            // Setting a truncation of `None` cannot fail.
            let _ = tokenizer.with_truncation(None);
        }
        plain.set_encode_special_tokens(true);
        special.set_encode_special_tokens(false);
        Ok(Self { plain, special })
    }

    pub fn implementation(&self) -> &Implementation {
        &self.plain
    }

    /// Appends the ids of `text`. A text that the tokenizer cannot encode at all, for want of an unknown token, gives none.
    pub fn encode(&self, text: &str, with_special: bool, ids: &mut Vec<u32>) {
        let tokenizer = if with_special { &self.special } else { &self.plain };
        if let Ok(encoding) = tokenizer.encode_fast(text, false) {
            ids.extend_from_slice(encoding.get_ids());
        }
    }

    pub fn decode(&self, ids: &[u32]) -> String {
        self.plain.decode(ids, true).unwrap_or_default()
    }
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
