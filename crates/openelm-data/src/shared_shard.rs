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
            // Nothing that is asked for now is in the window yet.
            window.shrink(true);
            window.read(&wanted)?;
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

    /// Gives up what was taken at the front, and with `all` what is too much.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::list_shards;
    use crate::test_shards::Shards;

    #[test]
    fn the_window_is_bounded_and_who_lags_reads_alone() {
        let shards = Shards::new();
        shards.write("a-0", "jsonl", &vec!["x".repeat(1 << 20); 60]);
        let shard = list_shards(&shards.config(&[("a", 1.0)], 8).corpora, &Default::default()).unwrap().remove(0);
        let shared = SharedShard::open(&shard, 0, Mark::default()).unwrap();
        for document in 40..60 {
            assert!(matches!(shared.take(document, |_| true).unwrap(), Shared::Document(_)), "{document}");
            assert!(shared.0.lock().unwrap().bytes <= WINDOW_BYTES + (1 << 20));
        }
        assert!(matches!(shared.take(3, |_| true).unwrap(), Shared::Alone));
        assert!(matches!(shared.take(39, |_| true).unwrap(), Shared::Document(_)));
        assert!(matches!(shared.take(39, |_| true).unwrap(), Shared::Alone));
        assert!(matches!(shared.take(60, |_| true).unwrap(), Shared::End));
    }

    #[test]
    fn what_no_lane_wants_is_not_held() {
        let shards = Shards::new();
        shards.write("a-0", "parquet", &vec!["x".repeat(1 << 20); 20]);
        let shard = list_shards(&shards.config(&[("a", 1.0)], 8).corpora, &Default::default()).unwrap().remove(0);
        let shared = SharedShard::open(&shard, 0, Mark::default()).unwrap();
        assert!(matches!(shared.take(19, |document| document == 19).unwrap(), Shared::Document(_)));
        assert_eq!(shared.0.lock().unwrap().bytes, 0);
    }
}
