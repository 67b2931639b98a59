//! The part of a run file that says which texts are read, and how they become sequences.
//!
//! Every field that changes the order or the tokens is compared on resume (see `state.rs`); `threads`, `prefetch`, `cache` and
//! `object_store` are not, because the result must not depend on them, nor `on_bad_record` and `max_epochs`, which decide only whether it goes on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// A named source of text: shards that share a layout.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CorpusConfig {
    /// The name that messages and logs use.
    pub name: String,
    /// Paths and URLs, globs (`*`, `?`, `[..]`), or with `file_id_range` patterns such as `wiki-{file_id:05d}.jsonl`.
    pub files: Vec<String>,
    /// First id and one past the last, put into the patterns in turn.
    #[serde(default)]
    pub file_id_range: Option<[u64; 2]>,
    /// The JSON key or parquet column that holds the text.
    #[serde(default = "default_text_key")]
    pub text_key: String,
    /// Share of the tokens, relative to the other corpora's weights (mixed order only).
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Passes over the corpus after which the loader stops with an error instead of repeating it once more (mixed order only).
    /// Each lane counts the passes over its own share.
    #[serde(default)]
    pub max_epochs: Option<u64>,
    /// Instead of [`DataConfig::min_tokens_per_text`].
    #[serde(default)]
    pub min_tokens_per_text: Option<usize>,
    /// Instead of [`DataConfig::min_characters_per_text`].
    #[serde(default)]
    pub min_characters_per_text: Option<usize>,
}

/// How documents share sequences (mixed order).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Laid end to end and cut every `sequence_length` tokens: no padding, most sequences begin inside a document.
    #[default]
    Concat,
    /// A document is cut only when it is longer than a sequence; what fits best shares one, and the rest is padding.
    BestFit,
}

/// What a record that cannot be read leads to.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRecord {
    /// An error that names it.
    #[default]
    Stop,
    /// It is noted (see [`SkipLog`](crate::SkipLog)) and passed over; the order of everything else stays.
    Skip,
}

/// How documents are put into sequences.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Corpora mixed by weight, documents packed without loss, one global order for any number of ranks and threads.
    #[default]
    Mixed,
    /// CoreNet's `general_lm` dataset sample by sample: one piece of 2048 words a sequence, cut or padded.
    Corenet,
}

/// What the loader reads and the sequences that it makes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The sources of text.
    pub corpora: Vec<CorpusConfig>,
    /// How documents become sequences.
    #[serde(default)]
    pub order: Order,
    /// Positions that the model sees; a sequence has one token more.
    pub sequence_length: usize,
    /// A text (a document, or a piece of one in the corenet order) with fewer tokens, BOS and EOS included, is skipped.
    #[serde(default)]
    pub min_tokens_per_text: usize,
    /// A text with fewer characters, lower-cased, without ASCII punctuation and with runs of spaces as one, is skipped.
    #[serde(default)]
    pub min_characters_per_text: usize,
    /// Repair of mojibake and NFC before tokenizing, as `ftfy.fix_text(text, normalization="NFC")` does it.
    #[serde(default = "default_true")]
    pub normalize: bool,
    /// The beginning-of-sequence token before every text.
    #[serde(default = "default_true")]
    pub add_bos: bool,
    /// The end-of-sequence token after every text.
    #[serde(default = "default_true")]
    pub add_eos: bool,
    /// Shuffling of shards (both orders) and of sequences (mixed).
    #[serde(default = "default_true")]
    pub shuffle: bool,
    /// Seed of every random choice.
    #[serde(default)]
    pub seed: u64,
    /// Words of a piece (corenet order).
    #[serde(default = "default_document_split_words")]
    pub document_split_words: usize,
    /// Independent streams that sequences are taken from in turn (mixed order); a multiple of the number of ranks. Each keeps
    /// one shard of every corpus open.
    #[serde(default = "default_lanes")]
    pub lanes: usize,
    /// Sequences of a lane that are permuted among each other (mixed order).
    #[serde(default = "default_shuffle_buffer")]
    pub shuffle_buffer: usize,
    /// PyTorch loader workers that the corenet order imitates; 0 and 1 give the same order.
    #[serde(default)]
    pub workers: usize,
    /// Blocks read ahead for each lane or worker.
    #[serde(default = "default_prefetch")]
    pub prefetch: usize,
    /// Background threads; 0 means one for each core.
    #[serde(default)]
    pub threads: usize,
    /// How documents share sequences (mixed order).
    #[serde(default)]
    pub packing: Packing,
    /// Attention stays inside documents and positions start anew in each. The loader only hands the boundaries on.
    #[serde(default)]
    pub document_mask: bool,
    /// What a record that cannot be read leads to.
    #[serde(default)]
    pub on_bad_record: OnBadRecord,
    /// Folder that keeps the tokens of shards (mixed order).
    #[serde(default)]
    pub cache: Option<PathBuf>,
    /// How shards in object stores are read.
    #[serde(default)]
    pub object_store: ObjectStoreConfig,
}

/// How shards named by URLs are read. Changes no order.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectStoreConfig {
    /// Folder of local copies, which processes may share. Absent: `openelm/objects` in the user's folder of caches.
    pub cache: Option<PathBuf>,
    /// Bytes that the copies take together at most.
    pub max_bytes: u64,
    /// How often a request or transfer that fails is tried again.
    pub retries: usize,
}

impl Default for ObjectStoreConfig {
    fn default() -> Self {
        Self { cache: None, max_bytes: 32 << 30, retries: 8 }
    }
}

impl ObjectStoreConfig {
    /// The folder of local copies.
    pub fn folder(&self) -> PathBuf {
        let user = || {
            let named =
                |name, below: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(|path| PathBuf::from(path).join(below));
            named("XDG_CACHE_HOME", "").or_else(|| named("HOME", ".cache")).unwrap_or_else(std::env::temp_dir).join("openelm/objects")
        };
        self.cache.clone().unwrap_or_else(user)
    }
}

fn default_text_key() -> String {
    "text".into()
}
fn default_weight() -> f64 {
    1.0
}
fn default_true() -> bool {
    true
}
fn default_document_split_words() -> usize {
    2048
}
fn default_lanes() -> usize {
    64
}
fn default_shuffle_buffer() -> usize {
    16
}
fn default_prefetch() -> usize {
    2
}

impl CorpusConfig {
    /// A corpus of these files with the default text key and weight.
    pub fn new(name: impl Into<String>, files: Vec<String>) -> Self {
        Self {
            name: name.into(),
            files,
            file_id_range: None,
            text_key: default_text_key(),
            weight: default_weight(),
            max_epochs: None,
            min_tokens_per_text: None,
            min_characters_per_text: None,
        }
    }
}

impl DataConfig {
    /// These corpora at this length, everything else at its default.
    pub fn new(corpora: Vec<CorpusConfig>, sequence_length: usize) -> Self {
        Self {
            corpora,
            order: Order::default(),
            sequence_length,
            min_tokens_per_text: 0,
            min_characters_per_text: 0,
            normalize: true,
            add_bos: true,
            add_eos: true,
            shuffle: true,
            seed: 0,
            document_split_words: default_document_split_words(),
            lanes: default_lanes(),
            shuffle_buffer: default_shuffle_buffer(),
            workers: 0,
            prefetch: default_prefetch(),
            threads: 0,
            packing: Packing::default(),
            document_mask: false,
            on_bad_record: OnBadRecord::default(),
            cache: None,
            object_store: ObjectStoreConfig::default(),
        }
    }

    /// Checks every value by itself and against the others. No file is looked at.
    pub fn validate(&self) -> Result<(), DataError> {
        check_corpora(&self.corpora)?;
        let positive = [
            ("sequence_length", self.sequence_length, "the model's context length, for example 2048"),
            ("document_split_words", self.document_split_words, "CoreNet's value, 2048"),
            ("lanes", self.lanes, "the default, 64"),
            ("shuffle_buffer", self.shuffle_buffer, "1 to switch the shuffling of sequences off, or the default, 16"),
            ("prefetch", self.prefetch, "the default, 2"),
        ];
        for (field, value, remedy) in positive {
            if value == 0 {
                return Err(DataError::config(field, "is 0, but must be at least 1", format!("use {remedy}")));
            }
        }
        // Positions and boundaries are u32, and one block of sequences of one lane must fit into memory many times over.
        if self.sequence_length > 1 << 24 {
            return Err(DataError::config(
                "sequence_length",
                format!("is {}, more than 16777216", self.sequence_length),
                "use the model's context length, for example 2048",
            ));
        }
        if self.order == Order::Corenet {
            let mixed_only = [
                ("packing", self.packing != Packing::Concat, "CoreNet gives each piece its own sequence"),
                ("cache", self.cache.is_some(), "pieces are not whole documents"),
            ];
            for (field, given, reason) in mixed_only {
                if given {
                    return Err(DataError::config(
                        field,
                        format!("does not go with order: corenet ({reason})"),
                        "leave it out, or use order: mixed",
                    ));
                }
            }
        }
        if self.order == Order::Mixed && !self.corpora.iter().any(|corpus| corpus.weight > 0.0) {
            return Err(DataError::config("corpora", "have no weight above 0", "give at least one corpus a positive weight"));
        }
        Ok(())
    }
}

/// The checks of corpora that need no other setting.
pub(crate) fn check_corpora(corpora: &[CorpusConfig]) -> Result<(), DataError> {
    if corpora.is_empty() {
        return Err(DataError::config("corpora", "is empty", "name at least one corpus with its files"));
    }
    for (index, corpus) in corpora.iter().enumerate() {
        let field = |name: &str| format!("corpora[{index}] ({}).{name}", corpus.name);
        if corpus.files.is_empty() {
            return Err(DataError::config(field("files"), "is empty", "name the corpus's files"));
        }
        if !corpus.weight.is_finite() || corpus.weight < 0.0 {
            return Err(DataError::config(
                field("weight"),
                format!("is {}", corpus.weight),
                "use a number that is 0 or more; weights are relative to each other",
            ));
        }
        if corpus.max_epochs == Some(0) {
            return Err(DataError::config(field("max_epochs"), "is 0", "give at least 1, or set the weight to 0 to leave the corpus out"));
        }
        if corpus.text_key.is_empty() {
            return Err(DataError::config(field("text_key"), "is empty", "name the key or column that holds the text"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_strictness() {
        let config: DataConfig =
            serde_json::from_str(r#"{"corpora": [{"name": "a", "files": ["a.jsonl"]}], "sequence_length": 8}"#).unwrap();
        assert_eq!(config, DataConfig::new(vec![CorpusConfig::new("a", vec!["a.jsonl".into()])], 8));
        assert_eq!((config.lanes, config.shuffle_buffer, config.document_split_words), (64, 16, 2048));
        assert_eq!(config.order, Order::Mixed);
        assert!(config.validate().is_ok());
        let unknown = serde_json::from_str::<DataConfig>(r#"{"corpora": [], "sequence_length": 8, "lane": 3}"#);
        assert!(unknown.unwrap_err().to_string().contains("unknown field `lane`"));
        let order = serde_json::to_string(&Order::Corenet).unwrap();
        assert_eq!(order, "\"corenet\"");
    }

    #[test]
    fn bad_values_are_named() {
        let good = DataConfig::new(vec![CorpusConfig::new("a", vec!["a.jsonl".into()])], 8);
        let fails = |change: fn(&mut DataConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(fails(|c| c.sequence_length = 0).starts_with("data.sequence_length is 0"));
        assert!(fails(|c| c.lanes = 0).contains("lanes"));
        assert!(fails(|c| c.corpora.clear()).contains("corpora is empty"));
        assert!(fails(|c| c.corpora[0].weight = f64::NAN).contains("corpora[0] (a).weight is NaN"));
        assert!(fails(|c| c.corpora[0].weight = 0.0).contains("no weight above 0"));
        assert!(fails(|c| c.corpora[0].max_epochs = Some(0)).contains("max_epochs is 0"));
        assert!(fails(|c| (c.order, c.packing) = (Order::Corenet, Packing::BestFit)).contains("packing does not go with order: corenet"));
        assert!(fails(|c| c.corpora[0].files.clear()).contains("files is empty"));
    }
}
