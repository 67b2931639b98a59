//! A shard that several lanes share, read once for all of them.
//!
//! Lanes that share a shard take its documents in turn and advance about equally fast, so one reader serves them and what a lane
//! has not taken yet waits in a window. This changes no order: the window is asked for documents by their numbers. What it does
//! not hold (a document that was dropped because its lane lags too far behind, a long one, a bad record) the lane reads by
//! itself, and meets there what is to be met.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::error::DataError;
use crate::shard::Shard;
use crate::shard_reader::{Mark, Read, ShardReader};
use crate::skip_log::SkipLog;

/// Text that waits for its lanes.
const WINDOW_BYTES: usize = 16 << 20;

/// A document as it waits.
pub(crate) struct Waiting {
    pub text: String,
    pub mark: Mark,
}

/// What asking for a document came to.
pub(crate) enum Shared {
    Document(Waiting),
    /// The asker has to read the document by itself.
    Alone,
    /// The shard has no such document.
    End,
}

/// One pass over the shard.
pub(crate) struct SharedShard(Mutex<Window>);

struct Window {
    reader: ShardReader,
    /// Number of the first slot.
    first: u64,
    /// `None`: taken, dropped, or to be read alone.
    slots: VecDeque<Option<Waiting>>,
    bytes: usize,
    /// Number of documents, once known.
    end: Option<u64>,
}

impl SharedShard {
    /// A pass from document `start` on.
    pub fn open(shard: &Shard, start: u64, mark: Mark) -> Result<Self, DataError> {
        // Bad records are passed over here and left to their owners.
        let mut reader = ShardReader::open_at(shard, mark, Some(&SkipLog::new()))?;
        reader.skip_to(start)?;
        Ok(Self(Mutex::new(Window { reader, first: start, slots: VecDeque::new(), bytes: 0, end: None })))
    }

    /// Takes a document out of the window. `wanted` tells which documents lanes of this process will ask for.
    pub fn take(&self, document: u64, wanted: impl Fn(u64) -> bool) -> Result<Shared, DataError> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if document < window.first {
            return Ok(Shared::Alone);
        }
        loop {
            let at = usize::try_from(document - window.first).unwrap_or(usize::MAX);
            if let Some(slot) = window.slots.get_mut(at) {
                let Some(waiting) = slot.take() else { return Ok(Shared::Alone) };
                window.bytes -= waiting.text.len();
                window.shrink(false);
                return Ok(Shared::Document(waiting));
            }
            if window.end.is_some_and(|end| document >= end) {
                return Ok(Shared::End);
            }
            window.read(&wanted)?;
            // The wanted document may be the one that makes the window too large; it is taken next.
            let newest = window.first + window.slots.len() as u64;
            window.shrink(newest <= document);
            if document < window.first {
                return Ok(Shared::Alone);
            }
        }
    }
}

impl Window {
    /// Reads one more document.
    fn read(&mut self, wanted: &impl Fn(u64) -> bool) -> Result<(), DataError> {
        let number = self.reader.document();
        let reached = self.first + self.slots.len() as u64;
        match self.reader.read()? {
            Read::Part(part) => {
                // A later part belongs to the document before; a first one of several is read alone.
                if part.index == 0 {
                    let keep = part.last && wanted(number);
                    self.bytes += if keep { part.text.len() } else { 0 };
                    let mark = self.reader.mark();
                    self.slots.push_back(keep.then_some(Waiting { text: part.text, mark }));
                }
            }
            Read::Skipped if self.reader.document() != u64::MAX => {
                // The documents that were lost; at least the one that was begun, when it was a long one, stands there already.
                for _ in reached..self.reader.document() {
                    self.slots.push_back(None);
                }
            }
            // The rest of the shard is lost: every owner is to find that out by itself.
            Read::Skipped => self.end = Some(u64::MAX),
            Read::End if self.end.is_none() => self.end = Some(reached),
            Read::End => self.slots.push_back(None),
        }
        Ok(())
    }

    /// Gives up what was taken at the front, and what is too much when `all`.
    fn shrink(&mut self, all: bool) {
        while let Some(front) = self.slots.front() {
            match front {
                None => {}
                Some(waiting) if all && self.bytes > WINDOW_BYTES => self.bytes -= waiting.text.len(),
                Some(_) => break,
            }
            self.slots.pop_front();
            self.first += 1;
        }
    }
}
