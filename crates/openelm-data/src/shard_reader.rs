//! The documents of one shard, in file order, with memory bounded by a few parts of documents.
//!
//! Documents are numbered from 0 in every layout (blank lines are no documents), and `skip_to` passes over the same numbers that
//! `read` would give, without decoding the texts. Whatever is skipped is not checked. Where bad records are to be skipped, a bad
//! one takes its number with it, so that every other document keeps its own.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Loss};
use crate::json_lines::JsonLines;
use crate::parquet_rows::ParquetRows;
use crate::part::{Part, part_end};
use crate::shard::{Layout, Shard};
use crate::skip_log::SkipLog;

/// Where a document stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Line of a JSON lines file, from 1.
    Line(u64),
    /// Row of a parquet file: row group and row in it, both from 0.
    Row { group: usize, row: u64 },
    /// Element of a JSON array, from 1.
    Element(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row { group, row } => write!(f, "row group {group}, row {row}"),
            Self::Element(number) => write!(f, "element {number}"),
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

/// A place at which a plain file can be entered: documents, lines and bytes before it. All 0 where there is none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Mark(u64, u64, u64);

impl Mark {
    pub fn new(documents: u64, lines: u64, bytes: u64) -> Self {
        Self(documents, lines, bytes)
    }
    pub fn documents(self) -> u64 {
        self.0
    }
    pub fn lines(self) -> u64 {
        self.1
    }
    pub fn bytes(self) -> u64 {
        self.2
    }
}

/// What reading came to.
pub(crate) enum Read {
    Part(Part),
    /// Something bad was noted and passed over; the reader's `document` says how far.
    Skipped,
    End,
}

enum Layouts {
    Lines(Box<JsonLines>),
    Rows(Box<ParquetRows>),
}

/// An open shard of any layout.
pub(crate) struct ShardReader {
    /// Gone when the rest of the shard was lost.
    inner: Option<Layouts>,
    source: Arc<str>,
    /// Notes bad records; without it they are errors.
    skip: Option<SkipLog>,
    /// The document that is open: its place, and the parts given.
    open: Option<(Place, u64)>,
    /// A text that is held whole, and where its next part begins.
    held: Option<(String, usize)>,
    /// The start of the document that was given last.
    mark: Mark,
}

impl ShardReader {
    /// Opens the shard at its first document. Bad records are noted in `skip`, or are errors.
    pub fn open(shard: &Shard, skip: Option<&SkipLog>) -> Result<Self, DataError> {
        Self::open_at(shard, Mark::default(), skip)
    }

    /// Opens the shard at a mark.
    pub fn open_at(shard: &Shard, mark: Mark, skip: Option<&SkipLog>) -> Result<Self, DataError> {
        let mut reader = Self { inner: None, source: shard.source.clone(), skip: skip.cloned(), open: None, held: None, mark };
        let inner = match shard.layout {
            Layout::Parquet => ParquetRows::open(shard).map(|rows| Layouts::Rows(Box::new(rows))),
            Layout::Lines | Layout::GzipLines | Layout::ZstdLines => {
                JsonLines::open(shard, mark).map(|lines| Layouts::Lines(Box::new(lines)))
            }
        };
        match inner {
            Ok(inner) => reader.inner = Some(inner),
            Err(error) => reader.lose(error)?,
        }
        Ok(reader)
    }

    /// The number of the next document.
    pub fn document(&self) -> u64 {
        match &self.inner {
            Some(Layouts::Lines(lines)) => lines.document(),
            Some(Layouts::Rows(rows)) => rows.document(),
            None => u64::MAX,
        }
    }

    /// Documents in the shard, where it says so itself.
    pub fn documents(&self) -> Option<u64> {
        match &self.inner {
            Some(Layouts::Rows(rows)) => Some(rows.documents()),
            _ => None,
        }
    }

    /// Bytes of the file that were read so far, where they are counted.
    pub fn consumed(&self) -> Option<u64> {
        match &self.inner {
            Some(Layouts::Lines(lines)) => Some(lines.consumed()),
            _ => None,
        }
    }

    /// A place at or before the document that was given last, where the file can be entered again.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Passes over the documents before number `document`, or all that are left.
    pub fn skip_to(&mut self, document: u64) -> Result<(), DataError> {
        (self.open, self.held) = (None, None);
        let count = document.saturating_sub(self.document());
        let result = match &mut self.inner {
            Some(Layouts::Lines(lines)) => lines.skip(count),
            Some(Layouts::Rows(rows)) => rows.skip(count),
            None => Ok(()),
        };
        result.or_else(|error| self.lose(error))
    }

    /// The next part of the open document, else the first one of the next.
    pub fn read(&mut self) -> Result<Read, DataError> {
        match self.step() {
            Ok(Some(part)) => {
                self.open = (!part.last).then_some((part.place, part.index + 1));
                Ok(Read::Part(part))
            }
            Ok(None) => Ok(Read::End),
            Err(error) => self.lose(error).map(|()| Read::Skipped),
        }
    }

    /// The next document whole, however long; bad ones are passed over where they may be.
    pub fn read_whole(&mut self) -> Result<Option<(String, Place)>, DataError> {
        let mut whole: Option<(String, Place)> = None;
        loop {
            match self.read()? {
                Read::End => return Ok(None),
                Read::Skipped => whole = None,
                Read::Part(part) => {
                    let (text, place) = match whole.take() {
                        Some((mut text, place)) if part.index > 0 => {
                            text.push_str(&part.text);
                            (text, place)
                        }
                        _ => (part.text, part.place),
                    };
                    if part.last {
                        return Ok(Some((text, place)));
                    }
                    whole = Some((text, place));
                }
            }
        }
    }

    fn step(&mut self) -> Result<Option<Part>, DataError> {
        if let Some((text, begin)) = &mut self.held {
            let end = part_end(text, *begin);
            let (place, index) = self.open.unwrap_or((Place::Line(0), 0));
            let part = Part { text: text[*begin..end].to_owned(), place, index, last: end == text.len() };
            *begin = end;
            if part.last {
                self.held = None;
            }
            return Ok(Some(part));
        }
        match (&mut self.inner, self.open) {
            (None, _) => Ok(None),
            (Some(Layouts::Lines(lines)), Some((place, index))) => {
                let (text, last) = lines.more()?;
                Ok(Some(Part { text, place, index, last }))
            }
            (Some(Layouts::Lines(lines)), None) => {
                self.mark = lines.mark();
                match lines.next()? {
                    Some((text, place, true)) => Ok(Some(self.hold(text, place))),
                    Some((text, place, false)) => Ok(Some(Part { text, place, index: 0, last: false })),
                    None => Ok(None),
                }
            }
            (Some(Layouts::Rows(rows)), _) => Ok(rows.next()?.map(|(text, place)| self.hold(text, place))),
        }
    }

    /// A text that is whole, or its first part.
    fn hold(&mut self, text: String, place: Place) -> Part {
        let end = part_end(&text, 0);
        if end == text.len() {
            return Part { text, place, index: 0, last: true };
        }
        let part = Part { text: text[..end].to_owned(), place, index: 0, last: false };
        self.held = Some((text, end));
        part
    }

    /// Notes what is bad and passes over it, where that may be.
    fn lose(&mut self, error: DataError) -> Result<(), DataError> {
        let (Some(skip), Some((place, reason, loss))) = (&self.skip, error.bad_record()) else { return Err(error) };
        skip.note(&self.source, place, reason)?;
        (self.open, self.held) = (None, None);
        let passed = match (loss, &mut self.inner) {
            (Loss::Shard, inner) => {
                *inner = None;
                Ok(())
            }
            (Loss::Record, Some(Layouts::Lines(lines))) => lines.pass_line(),
            (Loss::Record, Some(Layouts::Rows(rows))) => {
                rows.pass_row();
                Ok(())
            }
            (Loss::Group, Some(Layouts::Rows(rows))) => {
                rows.pass_group();
                Ok(())
            }
            (Loss::Group, Some(Layouts::Lines(_))) | (_, None) => Ok(()),
        };
        // The rest of a long line may be broken as well; that loses the shard.
        passed.or_else(|error| self.lose(error))
    }
}
