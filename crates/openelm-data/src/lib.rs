//! Shards of text into batches of token ids, in one reproducible order. No tensors.
//!
//! Shards (parquet; JSON lines, plain, gzip or zstd) are read by streaming, filtered, normalised and tokenized on background
//! threads ahead of the consumer; shards in object stores through a bounded folder of local copies. What comes out depends on the configuration, the tokenizer and the shards alone: never on
//! the number of threads, and in the [`Order::Mixed`] order never on the number of ranks.
//!
//! - [`Loader`]: an endless stream of [`Sequence`]s and [`Batch`]es for one rank, with exact resume from a [`LoaderState`].
//! - [`validation_sequences`]: one pass over the shards in file order.
//! - [`read_rows`]: whole rows as JSON objects, for conversations.
//! - [`documents`]: the texts themselves, for training a tokenizer and for statistics.
//! - [`plan`], [`survey`], [`verify`], [`stage_rates`]: what a run would read, what the shards hold, whether they are sound, how fast
//!   they are read. [`tokenize`] fills the token cache ahead.
//! - [`corenet_sequences`]: one worker's stream of CoreNet's order, for looking at it.

mod best_fit;
mod config;
mod corenet;
mod corenet_files;
mod cursor;
#[cfg(test)]
mod damage_tests;
mod encoder;
mod error;
mod fix_text;
mod json_lines;
mod lane;
mod loader;
mod long_line;
mod mixture;
mod numeric_entity;
mod object;
#[cfg(test)]
mod order_tests;
mod packer;
mod parquet_rows;
mod parquet_values;
mod part;
mod pick_text;
mod plan;
mod prefetch;
mod python_format;
mod python_random;
mod python_text;
mod rows;
mod seeded;
mod sequence;
mod shard;
mod shard_reader;
mod shared_shard;
mod skip_log;
mod stages;
mod state;
mod survey;
#[cfg(test)]
mod test_shards;
mod token_cache;
mod tokenize;
mod validation;
mod verify;

pub use config::{CorpusConfig, DataConfig, ObjectStoreConfig, OnBadRecord, Order, Packing};
pub use corenet::{CorenetSequences, PieceCounts, corenet_sequences};
pub use corenet_files::Partition;
pub use error::DataError;
pub use fix_text::fix_text;
pub use loader::Loader;
pub use plan::{CorpusPlan, Plan, plan};
pub use python_random::PythonRandom;
pub use rows::{Row, read_rows};
pub use seeded::SplitMix64;
pub use sequence::{Batch, Sequence};
pub use shard_reader::{Document, Place};
pub use skip_log::{SkipLog, SkippedRecord};
pub use stages::{StageRates, stage_rates};
pub use state::LoaderState;
pub use survey::{CorpusSurvey, survey};
pub use tokenize::{TokenizedShard, tokenize};
pub use validation::{documents, validation_sequences};
pub use verify::{ShardReport, verify};
