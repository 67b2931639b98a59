//! A lane's place in one corpus: which document comes next, and its tokens, read from text or from the token cache.
//!
//! What must stay true: where tokens come from changes neither what is drawn nor a state. A cache file that turns out damaged is
//! removed, and the text is read from the same document and part on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::encoder::{Verdict, Verdicts};
use crate::error::DataError;
use crate::mixture::{Mixture, Pass, Share};
use crate::shard_reader::{Mark, Read, ShardReader};
use crate::shared_shard::{Shared, SharedShard};
use crate::token_cache::{CachedPart, TokenReader, TokenWriter};

/// The next document of a lane in one corpus: epoch, shard in the epoch's order, document in the shard, whether the lane takes
/// the whole corpus, and a mark in the shard from which the document is reached. A tuple, because a state holds lanes × corpora
/// of them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct CursorState(u64, u64, u64, bool, Mark);

impl CursorState {
    /// At a share's first document.
    pub fn start(first: u64) -> Self {
        Self(0, 0, first, false, Mark::default())
    }

    /// The pass over a shard that lanes share, the document and a mark for it; `None` when a lane has its shards for itself.
    pub fn shared(&self, mixture: &Mixture, corpus: usize, lane: usize) -> Option<(Pass, u64, Mark)> {
        let share = mixture.share(corpus, lane, self.3);
        match *share.shards {
            [shard] if share.stride > 1 && self.1 == 0 => Some(((corpus, shard, self.0), self.2, self.4)),
            _ => None,
        }
    }

    /// Whether both stand at the same document; marks may differ.
    pub fn is_document(&self, other: &Self) -> bool {
        (self.0, self.1, self.2, self.3) == (other.0, other.1, other.2, other.3)
    }
}

/// A document, or a part of a long one; its tokens are given apart.
pub(crate) struct DrawnText {
    /// The place of the document.
    pub place: CursorState,
    pub part: u64,
    /// Nothing of the document follows.
    pub last: bool,
    pub source: Arc<str>,
}

/// An open shard.
enum Open {
    Text(Box<ShardReader>, Option<TokenWriter>),
    /// Read together with the lanes that share the shard.
    Shared(Arc<SharedShard>, Option<TokenWriter>),
    Tokens(TokenReader),
}

/// A lane's place in one corpus.
pub(crate) struct Cursor {
    corpus: usize,
    lane: usize,
    /// The next document to begin.
    state: CursorState,
    /// The document that is open, and its next part.
    inside: Option<(CursorState, u64)>,
    share: Share,
    /// The epoch's order of `share.shards`.
    order: Vec<usize>,
    open: Option<Open>,
    /// What the filters did, for the message when nothing passes them.
    verdicts: Verdicts,
    found: bool,
}

impl Cursor {
    pub fn new(mixture: &Mixture, corpus: usize, lane: usize, state: CursorState) -> Self {
        let share = mixture.share(corpus, lane, state.3);
        let order = mixture.shard_order(corpus, lane, state.0, share.shards.len());
        // A cursor that has moved at all had found a document: it is saved only after a document was drawn.
        let found = state.0 > 0 || state.1 > 0 || state.2 > share.first;
        let cursor = Self { corpus, lane, state, inside: None, share, order, open: None, verdicts: Verdicts::default(), found };
        cursor.fetch_ahead(mixture, state.1);
        cursor
    }

    /// Has a shard of this epoch fetched in the background where it is an object whose tokens are not kept.
    fn fetch_ahead(&self, mixture: &Mixture, number: u64) {
        let corpus = &mixture.corpora[self.corpus];
        let Some(shard) = self.order.get(number as usize).map(|at| &corpus.shards[self.share.shards[*at]]) else { return };
        if shard.remote.is_none() || corpus.weight <= 0.0 {
            return;
        }
        let kept = mixture.cache.as_ref().is_some_and(|cache| {
            let key = cache.key(shard, &corpus.encoder, self.share.first, self.share.stride);
            key.is_ok_and(|key| cache.holds(&key).unwrap_or(false))
        });
        if !kept {
            shard.fetch_ahead();
        }
    }

    pub fn state(&self) -> CursorState {
        self.state
    }

    /// The next part of the open document, else the first part of the next document that the filters keep, its tokens in `ids`.
    /// Of a document that is begun here, parts before `from` are passed over. `None` when stopped.
    pub fn draw(&mut self, mixture: &Mixture, from: u64, ids: &mut Vec<u32>, stop: &AtomicBool) -> Result<Option<DrawnText>, DataError> {
        let corpus = &mixture.corpora[self.corpus];
        while !stop.load(Ordering::Relaxed) {
            let Some(shard) = self.order.get(self.state.1 as usize).map(|at| &corpus.shards[self.share.shards[*at]]) else {
                self.end_epoch(mixture)?;
                continue;
            };
            let drawn = match &mut self.open {
                None => {
                    self.open = Some(self.enter(mixture)?);
                    continue;
                }
                Some(Open::Tokens(_)) => self.next_cached(from, ids)?,
                Some(Open::Text(..)) => self.next_read(mixture, from, ids)?,
                Some(Open::Shared(..)) => self.next_shared(mixture, from, ids)?,
            };
            if let Some((place, part, last)) = drawn {
                self.found = true;
                return Ok(Some(DrawnText { place, part, last, source: shard.source.clone() }));
            }
        }
        Ok(None)
    }

    /// Opens the shard that the state stands in.
    fn enter(&mut self, mixture: &Mixture) -> Result<Open, DataError> {
        let corpus = &mixture.corpora[self.corpus];
        let shard = &corpus.shards[self.share.shards[self.order[self.state.1 as usize]]];
        self.fetch_ahead(mixture, self.state.1 + 1);
        let mut writer = None;
        if let Some(cache) = &mixture.cache {
            let key = cache.key(shard, &corpus.encoder, self.share.first, self.share.stride)?;
            if let Some(reader) = cache.open(&key)? {
                return Ok(Open::Tokens(reader));
            }
            // Only a shard that is read from its first document on can be kept whole.
            if self.state.2 == self.share.first && self.inside.is_none() {
                writer = Some(cache.create(&key)?);
            }
        }
        if self.inside.is_none()
            && let Some((pass, document, mark)) = self.state.shared(mixture, self.corpus, self.lane)
        {
            return Ok(Open::Shared(mixture.pass(pass, document, mark)?, writer));
        }
        let reader = ShardReader::open_at(shard, self.state.4, mixture.skip.as_ref())?;
        Ok(Open::Text(Box::new(reader), writer))
    }

    /// One step through a shard that lanes share. What the others do not pass on is read alone, up to the shard's end.
    fn next_shared(&mut self, mixture: &Mixture, from: u64, ids: &mut Vec<u32>) -> Result<Option<(CursorState, u64, bool)>, DataError> {
        let Some(Open::Shared(shared, writer)) = &mut self.open else { return Ok(None) };
        let (corpus, stride) = (self.corpus, self.share.stride);
        let shard = self.share.shards[self.order[self.state.1 as usize]];
        let waiting = match shared.take(self.state.2, |document| mixture.wants(corpus, shard, document, stride))? {
            Shared::Document(waiting) if from == 0 => waiting,
            Shared::End => {
                if let Some(writer) = writer.take() {
                    writer.finish()?;
                }
                self.next_shard();
                return Ok(None);
            }
            Shared::Document(_) | Shared::Alone => {
                let writer = writer.take();
                let reader = ShardReader::open_at(&mixture.corpora[corpus].shards[shard], self.state.4, mixture.skip.as_ref())?;
                self.open = Some(Open::Text(Box::new(reader), writer));
                return Ok(None);
            }
        };
        self.state.4 = waiting.mark;
        let place = self.state;
        self.state.2 += stride;
        let verdict = mixture.corpora[corpus].encoder.encode(&waiting.text, ids);
        self.verdicts.count(verdict);
        let kept = verdict == Verdict::Kept;
        if let Some(writer) = writer {
            writer.write(0, true, if kept { ids } else { &[] })?;
        }
        Ok(kept.then_some((place, 0, true)))
    }

    fn next_shard(&mut self) {
        (self.open, self.inside) = (None, None);
        self.state = CursorState(self.state.0, self.state.1 + 1, self.share.first, self.state.3, Mark::default());
    }

    /// One step through a cached shard: a part (its document, number, and whether it is the last), or nothing yet.
    fn next_cached(&mut self, from: u64, ids: &mut Vec<u32>) -> Result<Option<(CursorState, u64, bool)>, DataError> {
        let Some(Open::Tokens(reader)) = &mut self.open else { return Ok(None) };
        let (place, part) = self.inside.unwrap_or((self.state, from));
        let number = (place.2 - self.share.first) / self.share.stride.max(1);
        match reader.read(number, part, ids) {
            Some(CachedPart::Kept { last }) => {
                if self.inside.is_none() {
                    self.state.2 += self.share.stride;
                }
                self.inside = (!last).then_some((place, part + 1));
                Ok(Some((place, part, last)))
            }
            Some(CachedPart::Filtered) => {
                self.state.2 += self.share.stride;
                Ok(None)
            }
            Some(CachedPart::End) => {
                self.next_shard();
                Ok(None)
            }
            None => {
                reader.remove();
                self.open = None;
                if self.inside.is_some() {
                    // The text is entered at the document that is open, not at the one after it.
                    self.state = place;
                }
                Ok(None)
            }
        }
    }

    /// One step through a shard's text.
    fn next_read(&mut self, mixture: &Mixture, from: u64, ids: &mut Vec<u32>) -> Result<Option<(CursorState, u64, bool)>, DataError> {
        let Some(Open::Text(reader, writer)) = &mut self.open else { return Ok(None) };
        // A document that was begun in a damaged cache file is begun again and its parts passed over.
        let rebegun = self.inside.filter(|(place, _)| place.is_document(&self.state));
        if self.inside.is_none() || (rebegun.is_some() && reader.document() <= self.state.2) {
            reader.skip_to(self.state.2)?;
            let reached = reader.document();
            if reached > self.state.2 {
                // Passing over documents met a bad part of the shard, and with it this document is lost.
                (*writer, self.inside) = (None, None);
                if reached == u64::MAX {
                    self.next_shard();
                } else {
                    self.state.2 += (reached - self.state.2).next_multiple_of(self.share.stride.max(1));
                }
                return Ok(None);
            }
        }
        let part = match reader.read()? {
            Read::Part(part) => part,
            Read::End => {
                if let Some(writer) = writer.take() {
                    writer.finish()?;
                }
                self.next_shard();
                return Ok(None);
            }
            Read::Skipped => {
                // What is kept must not hide a bad record from a later run that would stop at it.
                *writer = None;
                self.inside = None;
                let reached = reader.document();
                if reached == u64::MAX {
                    self.next_shard();
                } else {
                    self.state.2 += reached.saturating_sub(self.state.2).next_multiple_of(self.share.stride.max(1));
                }
                return Ok(None);
            }
        };
        let (place, wanted) = match self.inside {
            Some(inside) => inside,
            None => {
                self.state.4 = reader.mark();
                (self.state, from)
            }
        };
        if self.inside.is_none() || rebegun.is_some() {
            self.state.2 = place.2 + self.share.stride;
        }
        self.inside = (!part.last).then_some((place, wanted));
        if part.index < wanted {
            return Ok(None);
        }
        let verdict = mixture.corpora[self.corpus].encoder.encode_part(&part.text, part.index, part.last, ids);
        if part.index == 0 {
            self.verdicts.count(verdict);
        }
        if let Some(writer) = writer {
            writer.write(part.index, part.last || verdict != Verdict::Kept, if verdict == Verdict::Kept { ids } else { &[] })?;
        }
        if verdict != Verdict::Kept {
            self.inside = None;
            return Ok(None);
        }
        self.inside = (!part.last).then_some((place, part.index + 1));
        Ok(Some((place, part.index, part.last)))
    }

    fn end_epoch(&mut self, mixture: &Mixture) -> Result<(), DataError> {
        let corpus = &mixture.corpora[self.corpus];
        let (mut epoch, mut whole) = (self.state.0 + 1, self.state.3);
        if !self.found {
            if whole {
                return Err(self.verdicts.empty_corpus(&corpus.name, corpus.shards.len()));
            }
            if corpus.max_epochs.is_some() {
                return Err(DataError::config(
                    format!("corpora ({}).max_epochs", corpus.name),
                    format!(
                        "cannot hold: no document in the share of lane {} passes the filters, and taking the whole corpus would repeat it",
                        self.lane
                    ),
                    "lower data.lanes, or leave max_epochs out",
                ));
            }
            (epoch, whole) = (0, true);
            self.share = mixture.share(self.corpus, self.lane, true);
            self.verdicts = Verdicts::default();
        } else if corpus.max_epochs.is_some_and(|limit| epoch >= limit) {
            return Err(DataError::Repeated { corpus: corpus.name.clone(), lane: self.lane, epochs: epoch });
        }
        self.state = CursorState(epoch, 0, self.share.first, whole, Mark::default());
        self.order = mixture.shard_order(self.corpus, self.lane, epoch, self.share.shards.len());
        Ok(())
    }
}
