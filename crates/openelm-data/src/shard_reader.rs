//! The documents of one shard, in file order, with memory bounded by a few documents.
//!
//! Documents are numbered from 0 in every layout (blank lines are no documents), and `skip` passes over the same numbers that
//! `next` would give, without decoding the texts. Whatever is skipped is not checked.

use std::fmt;
use std::sync::Arc;

use crate::error::DataError;
use crate::json_lines::JsonLines;
use crate::parquet_rows::ParquetRows;
use crate::shard::{Layout, Shard};

/// Where a document stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Line of a JSON lines file, from 1.
    Line(u64),
    /// Row of a parquet file: row group and row in it, both from 0.
    Row { group: usize, row: u64 },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row { group, row } => write!(f, "row group {group}, row {row}"),
        }
    }
}

/// A text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The text as it stands in the shard.
    pub text: String,
    /// Path of the shard.
    pub source: Arc<str>,
    /// Place in the shard.
    pub place: Place,
}

/// An open shard of any layout.
pub(crate) enum ShardReader {
    Lines(Box<JsonLines>),
    Rows(Box<ParquetRows>),
}

impl ShardReader {
    /// Opens the shard at its first document.
    pub fn open(shard: &Shard) -> Result<Self, DataError> {
        Ok(match shard.layout {
            Layout::Parquet => Self::Rows(Box::new(ParquetRows::open(shard)?)),
            Layout::Lines | Layout::GzipLines | Layout::ZstdLines => Self::Lines(Box::new(JsonLines::open(shard)?)),
        })
    }

    /// Passes over `count` documents, or all that are left.
    pub fn skip(&mut self, count: u64) -> Result<(), DataError> {
        match self {
            Self::Lines(lines) => lines.skip(count),
            Self::Rows(rows) => rows.skip(count),
        }
    }

    /// The next document's text and place; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(String, Place)>, DataError> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Rows(rows) => rows.next(),
        }
    }
}
