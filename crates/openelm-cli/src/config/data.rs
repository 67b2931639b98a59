//! Which texts a run reads, how they become sequences, and with which tokenizer.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A tokenizer that exists, or one to train: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the keys of `tokenizer`")]
pub struct TokenizerSection {
    /// A file (`tokenizer.model`, `tokenizer.json`) or a folder that holds one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Train one from the corpora when the run's folder has none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<TokenizerTraining>,
}

/// A byte-pair tokenizer to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `tokenizer.train`")]
pub struct TokenizerTraining {
    pub vocab_size: u64,
    /// Characters outside the vocabulary become bytes. Default true.
    #[serde(default = "default_true")]
    pub byte_fallback: bool,
    /// Every digit is a token. Default true.
    #[serde(default = "default_true")]
    pub split_digits: bool,
}

/// How documents are put into sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Corpora mixed by weight, documents packed without loss, one global order for any number of ranks and threads.
    #[default]
    Mixed,
    /// CoreNet's `general_lm` dataset, sample by sample.
    Corenet,
}

/// How documents share sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Laid end to end; cut every `sequence_length` tokens.
    #[default]
    Concat,
    /// Cut only when longer than a sequence; padded.
    BestFit,
}

/// What a record that cannot be read leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRecord {
    /// An error.
    #[default]
    Stop,
    /// A note in the run's folder.
    Skip,
}

/// A named source of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of a corpus")]
pub struct CorpusSection {
    pub name: String,
    /// Paths, URLs, globs, or with `file_id_range` patterns such as `wiki-{file_id:05d}.jsonl`.
    pub files: Vec<String>,
    /// First id and one past the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id_range: Option<[u64; 2]>,
    /// Key or column of the text. Default text.
    #[serde(default = "default_text_key")]
    pub text_key: String,
    /// Share of the tokens relative to the other corpora (mixed order). Default 1.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Passes over the corpus that are allowed (mixed order). Absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_epochs: Option<u64>,
    /// Default: the data section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tokens_per_text: Option<u64>,
    /// Default: the data section's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_characters_per_text: Option<u64>,
}

/// Local copies of shards in object stores, and how patient reading them is. Credentials come from the environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the keys of `data.object_store`")]
pub struct ObjectStoreSection {
    /// Folder of local copies. Default: `openelm/objects` in the user's folder of caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Bytes that the copies take together at most. Default 34359738368 (32 GiB).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// How often what fails is tried again. Default 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u64>,
}

/// What is read, and the sequences that are made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `data`")]
pub struct DataSection {
    /// Default mixed.
    #[serde(default)]
    pub order: Order,
    /// Positions of a sequence; at most the model's context length.
    pub sequence_length: u64,
    /// A text with fewer tokens, BOS and EOS included, is skipped. Default 0.
    #[serde(default)]
    pub min_tokens_per_text: u64,
    /// A text with fewer characters (lower-cased, without punctuation) is skipped. Default 0.
    #[serde(default)]
    pub min_characters_per_text: u64,
    /// Repair of broken encodings and NFC before tokenizing. Default true.
    #[serde(default = "default_true")]
    pub normalize: bool,
    /// Default true.
    #[serde(default = "default_true")]
    pub add_bos: bool,
    /// Default true.
    #[serde(default = "default_true")]
    pub add_eos: bool,
    /// Default true.
    #[serde(default = "default_true")]
    pub shuffle: bool,
    /// Seed of the order. Default: the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Words of a piece (corenet order). Default 2048.
    #[serde(default = "default_document_split_words")]
    pub document_split_words: u64,
    /// Independent streams that sequences are taken from in turn (mixed order). Default 64.
    #[serde(default = "default_lanes")]
    pub lanes: u64,
    /// Sequences of a lane that are permuted among each other (mixed order). Default 16.
    #[serde(default = "default_shuffle_buffer")]
    pub shuffle_buffer: u64,
    /// Loader workers that the corenet order imitates. Default 0.
    #[serde(default)]
    pub workers: u64,
    /// Blocks that are read ahead; changes no order. Default 2.
    #[serde(default = "default_prefetch")]
    pub prefetch: u64,
    /// Background threads; 0 means one for each core; changes no order. Default 0.
    #[serde(default)]
    pub threads: u64,
    /// How documents share sequences (mixed order). Default concat.
    #[serde(default)]
    pub packing: Packing,
    /// Attention stays inside documents. Default false.
    #[serde(default)]
    pub document_mask: bool,
    /// Default stop.
    #[serde(default)]
    pub on_bad_record: OnBadRecord,
    /// Folder that keeps tokens (mixed order). Absent: none are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// How shards named by URLs are read. Absent: the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStoreSection>,
    pub corpora: Vec<CorpusSection>,
}

impl DataSection {
    /// These corpora with the defaults, and no sequence length yet.
    pub(super) fn with(corpora: Vec<CorpusSection>) -> Self {
        Self {
            order: Order::default(),
            sequence_length: 0,
            min_tokens_per_text: 0,
            min_characters_per_text: 0,
            normalize: true,
            add_bos: true,
            add_eos: true,
            shuffle: true,
            seed: None,
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
            object_store: None,
            corpora,
        }
    }
}

/// Text that the run is scored on, never trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `validation`")]
pub struct ValidationSection {
    /// Updates between two validations; 0 validates at the end alone. Default 500.
    #[serde(default = "default_validation_every")]
    pub every: u64,
    /// Sequences that are scored each time; 0 means all. Default 64.
    #[serde(default = "default_max_sequences")]
    pub max_sequences: u64,
    pub corpora: Vec<CorpusSection>,
}

fn default_true() -> bool {
    true
}
fn default_text_key() -> String {
    "text".into()
}
fn default_weight() -> f64 {
    1.0
}
fn default_document_split_words() -> u64 {
    2048
}
fn default_lanes() -> u64 {
    64
}
fn default_shuffle_buffer() -> u64 {
    16
}
fn default_prefetch() -> u64 {
    2
}
fn default_validation_every() -> u64 {
    500
}
fn default_max_sequences() -> u64 {
    64
}
