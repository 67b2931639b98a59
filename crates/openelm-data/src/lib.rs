//! Shards of text into batches of token ids, in one reproducible order. No tensors.
//!
//! Shards (parquet; JSON lines, plain, gzip or zstd) are read by streaming, filtered, normalised and tokenized on background
//! threads ahead of the consumer. What comes out depends on the configuration, the tokenizer and the shards alone: never on
//! the number of threads, and in the [`Order::Mixed`] order never on the number of ranks.
//!
//! - [`Loader`]: an endless stream of [`Sequence`]s and [`Batch`]es for one rank, with exact resume from a [`LoaderState`].
//! - [`validation_sequences`]: one pass over the shards in file order.
//! - [`documents`]: the texts themselves, for training a tokenizer and for statistics.
//! - [`corenet_sequences`]: one worker's stream of CoreNet's order, for looking at it.

mod config;
mod corenet;
mod corenet_files;
mod encoder;
mod error;
mod fix_text;
mod json_lines;
mod lane;
mod loader;
mod mixture;
mod numeric_entity;
mod packer;
mod parquet_rows;
mod pick_text;
mod prefetch;
mod python_format;
mod python_random;
mod python_text;
mod seeded;
mod sequence;
mod shard;
mod shard_reader;
mod state;
mod validation;

pub use config::{CorpusConfig, DataConfig, Order};
pub use corenet::{CorenetSequences, PieceCounts, corenet_sequences};
pub use corenet_files::Partition;
pub use error::DataError;
pub use fix_text::fix_text;
pub use loader::Loader;
pub use python_random::PythonRandom;
pub use sequence::{Batch, Sequence};
pub use shard_reader::{Document, Place};
pub use state::LoaderState;
pub use validation::{documents, validation_sequences};
