//! One text to token ids, with the filters on both sides of the tokenizer.
//!
//! Order of the steps, as in CoreNet: characters are counted on the raw text, then comes repair, then tokenizing, then BOS
//! and EOS, then tokens are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openelm_tokenizer::Tokenizer;

use crate::config::{CorpusConfig, DataConfig};
use crate::error::DataError;
use crate::fix_text::fix_text;
use crate::python_text::has_characters;

/// What the loader needs of a tokenizer; tests use a smaller one.
pub(crate) trait Encode: Send + Sync {
    fn encode_into(&self, text: &str, ids: &mut Vec<u32>);
    fn bos_id(&self) -> Option<u32>;
    fn eos_id(&self) -> Option<u32>;
    fn padding_id(&self) -> u32;
    fn fingerprint(&self) -> &str;
}

impl Encode for Tokenizer {
    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
        Tokenizer::encode_into(self, text, ids);
    }
    fn bos_id(&self) -> Option<u32> {
        Tokenizer::bos_id(self)
    }
    fn eos_id(&self) -> Option<u32> {
        Tokenizer::eos_id(self)
    }
    fn padding_id(&self) -> u32 {
        Tokenizer::padding_id(self)
    }
    fn fingerprint(&self) -> &str {
        Tokenizer::fingerprint(self)
    }
}

/// The outcome for one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    FewCharacters,
    FewTokens,
}

/// How many texts had which outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    pub kept: u64,
    pub few_characters: u64,
    pub few_tokens: u64,
}

impl Verdicts {
    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Kept => self.kept += 1,
            Verdict::FewCharacters => self.few_characters += 1,
            Verdict::FewTokens => self.few_tokens += 1,
        }
    }

    /// The error for a corpus of which nothing was kept.
    pub fn empty_corpus(&self, corpus: &str, files: usize) -> DataError {
        DataError::EmptyCorpus {
            corpus: corpus.to_owned(),
            files,
            texts: self.kept + self.few_characters + self.few_tokens,
            short_characters: self.few_characters,
            short_tokens: self.few_tokens,
            kept: self.kept,
        }
    }
}

/// The tokenizer with the configuration's filters round it.
#[derive(Clone)]
pub(crate) struct TextEncoder {
    tokenizer: Arc<dyn Encode>,
    normalize: bool,
    bos: Option<u32>,
    eos: Option<u32>,
    min_characters: usize,
    min_tokens: usize,
    /// Bytes of text that were looked at, by all clones together.
    bytes: Arc<AtomicU64>,
}

impl TextEncoder {
    pub fn new(config: &DataConfig, tokenizer: Arc<dyn Encode>) -> Result<Self, DataError> {
        let special = |wanted: bool, id: Option<u32>, field: &str| match (wanted, id) {
            (true, None) => Err(DataError::config(
                field,
                "is true, but the tokenizer has no such token",
                format!("set {field}: false, or use another tokenizer"),
            )),
            (wanted, id) => Ok(id.filter(|_| wanted)),
        };
        Ok(Self {
            bos: special(config.add_bos, tokenizer.bos_id(), "add_bos")?,
            eos: special(config.add_eos, tokenizer.eos_id(), "add_eos")?,
            tokenizer,
            normalize: config.normalize,
            min_characters: config.min_characters_per_text,
            min_tokens: config.min_tokens_per_text,
            bytes: Arc::default(),
        })
    }

    /// The same with a corpus's own filters.
    pub fn for_corpus(&self, corpus: &CorpusConfig) -> Self {
        Self {
            min_characters: corpus.min_characters_per_text.unwrap_or(self.min_characters),
            min_tokens: corpus.min_tokens_per_text.unwrap_or(self.min_tokens),
            ..self.clone()
        }
    }

    /// Everything but the text that the ids depend on.
    pub fn describe(&self) -> String {
        let Self { tokenizer, normalize, bos, eos, min_characters, min_tokens, bytes: _ } = self;
        format!("{} {normalize} {bos:?} {eos:?} {min_characters} {min_tokens}", tokenizer.fingerprint())
    }

    /// Bytes of text that were looked at, by all clones together.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn tokenizer(&self) -> &dyn Encode {
        &*self.tokenizer
    }

    pub fn padding_id(&self) -> u32 {
        self.tokenizer.padding_id()
    }

    pub fn fingerprint(&self) -> &str {
        self.tokenizer.fingerprint()
    }

    /// Puts the text's ids into `ids`, whose old content is dropped. A text without any token is never kept.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Verdict {
        self.encode_part(text, 0, true, ids)
    }

    /// As `encode`, for part `index` of a document. The first part alone decides whether the document is kept: a text with more
    /// than one part is far longer than any filter asks for.
    pub fn encode_part(&self, text: &str, index: u64, last: bool, ids: &mut Vec<u32>) -> Verdict {
        self.bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
        ids.clear();
        if index == 0 {
            if !has_characters(text, self.min_characters) {
                return Verdict::FewCharacters;
            }
            ids.extend(self.bos);
        }
        if self.normalize {
            self.tokenizer.encode_into(&fix_text(text), ids);
        } else {
            self.tokenizer.encode_into(text, ids);
        }
        if last {
            ids.extend(self.eos);
        }
        if index == 0 && ids.len() < self.min_tokens.max(1) { Verdict::FewTokens } else { Verdict::Kept }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One token a byte, 1 before and 2 after.
    pub(crate) struct Bytes;

    impl Encode for Bytes {
        fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
            ids.extend(text.bytes().map(|byte| u32::from(byte) + 3));
        }
        fn bos_id(&self) -> Option<u32> {
            Some(1)
        }
        fn eos_id(&self) -> Option<u32> {
            Some(2)
        }
        fn padding_id(&self) -> u32 {
            259
        }
        fn fingerprint(&self) -> &str {
            "bytes"
        }
    }

    #[test]
    fn filters_on_both_sides() {
        let mut config = DataConfig::new(Vec::new(), 8);
        config.min_characters_per_text = 2;
        config.min_tokens_per_text = 6;
        let encoder = TextEncoder::new(&config, Arc::new(Bytes)).unwrap();
        let mut ids = Vec::new();
        assert_eq!(encoder.encode("a!!!!!!!!!", &mut ids), Verdict::FewCharacters);
        assert_eq!(encoder.encode("abc", &mut ids), Verdict::FewTokens);
        assert_eq!(encoder.encode("“ab”", &mut ids), Verdict::Kept);
        assert_eq!(ids, [1, 37, 100, 101, 37, 2]);
    }

    #[test]
    fn a_text_without_tokens_is_not_kept() {
        let mut config = DataConfig::new(Vec::new(), 8);
        (config.add_bos, config.add_eos) = (false, false);
        let encoder = TextEncoder::new(&config, Arc::new(Bytes)).unwrap();
        assert_eq!(encoder.encode("", &mut Vec::new()), Verdict::FewTokens);
    }
}
