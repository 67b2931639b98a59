//! One lane of the mixed order: an endless stream of sequences that depends on the configuration, the shards and the lane's
//! number, and on nothing else.
//!
//! A lane draws whole documents, each from the corpus that lags most behind its weight in tokens given so far, and makes blocks
//! of sequences of them, which it permutes. With `packing: concat` documents lie end to end (`packer.rs`); with `best_fit` the
//! documents of a block share sequences as they fit (`best_fit.rs`), and a block ends with what was drawn for it. A block's start is
//! a complete state: positions only, no tokens. What waits in the packer there is the rest of the last part of a document drawn,
//! so the state holds that document's place instead of the place after it, the part, and the token to go on from.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::best_fit;
use crate::config::Packing;
use crate::cursor::{Cursor, CursorState};
use crate::error::DataError;
use crate::mixture::{Mixture, Pass};
use crate::packer::Packer;
use crate::prefetch::Source;
use crate::sequence::Sequence;
use crate::shard_reader::Mark;

/// With `best_fit`, documents for so many times `shuffle_buffer` sequences are fitted together: the last sequence of a block is
/// about half full, so longer blocks have less padding.
const BEST_FIT_BLOCKS: usize = 4;

/// A lane after `offset` sequences of block `block`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaneState {
    pub lane: usize,
    pub block: u64,
    /// Sequences of the blocks before.
    before: u64,
    /// Sequences of the block that were given; everything else stands at the block's start.
    pub offset: usize,
    /// Tokens drawn from each corpus.
    drawn: Vec<u64>,
    cursors: Vec<CursorState>,
    /// The corpus whose cursor stands on a document that was begun, and the part and the token in it to go on from.
    begun: Option<(usize, u64, u64)>,
}

impl LaneState {
    /// A lane that has given nothing.
    pub fn start(mixture: &Mixture, lane: usize) -> Self {
        let cursors = (0..mixture.corpora.len()).map(|corpus| CursorState::start(mixture.share(corpus, lane, false).first));
        Self { lane, block: 0, before: 0, offset: 0, drawn: vec![0; mixture.corpora.len()], cursors: cursors.collect(), begun: None }
    }

    /// Sequences given since the run began.
    pub fn sequences(&self) -> u64 {
        self.before.saturating_add(self.offset as u64)
    }

    /// Where the lane stands in shards that it shares.
    pub fn shared(&self, mixture: &Mixture) -> Vec<(Pass, u64, Mark)> {
        self.cursors.iter().enumerate().filter_map(|(corpus, cursor)| cursor.shared(mixture, corpus, self.lane)).collect()
    }

    /// The same block after `offset` of its sequences.
    pub fn at(&self, offset: usize) -> Self {
        Self { offset, ..self.clone() }
    }

    /// Whether the state fits a mixture of so many corpora.
    pub fn fits(&self, mixture: &Mixture) -> bool {
        let corpora = mixture.corpora.len();
        self.lane < mixture.lanes
            && self.drawn.len() == corpora
            && self.cursors.len() == corpora
            && self.begun.is_none_or(|(corpus, ..)| corpus < corpora)
    }
}

/// A sequence and the lane's state after it.
pub(crate) struct LaneItem {
    pub sequence: Sequence,
    /// The block's start, and the sequences of it given with this one.
    pub start: Arc<LaneState>,
    pub offset: usize,
}

/// The part of a document that was drawn last.
struct Drawn {
    corpus: usize,
    place: CursorState,
    part: u64,
    /// The document has no more parts.
    last: bool,
}

/// A lane at the start of a block.
pub(crate) struct Lane {
    mixture: Arc<Mixture>,
    lane: usize,
    block: u64,
    before: u64,
    /// Sequences at the head of the first block that were given before the lane was resumed.
    given: usize,
    credits: Vec<f64>,
    drawn: Vec<u64>,
    cursors: Vec<Cursor>,
    last: Option<Drawn>,
    /// The state's `begun`, until it is read again.
    begun: Option<(usize, u64, u64)>,
    packer: Packer,
    ids: Vec<u32>,
}

impl Lane {
    pub fn resume(mixture: Arc<Mixture>, state: &LaneState) -> Self {
        let cursors = state.cursors.iter().enumerate().map(|(corpus, cursor)| Cursor::new(&mixture, corpus, state.lane, *cursor));
        Self {
            lane: state.lane,
            block: state.block,
            before: state.before,
            given: state.offset,
            credits: mixture.first_credits(state.lane),
            drawn: state.drawn.clone(),
            cursors: cursors.collect(),
            last: None,
            begun: state.begun,
            packer: Packer::new(mixture.length),
            ids: Vec::new(),
            mixture,
        }
    }

    /// The next block, in the order in which it is given; less what was given before a resume. Empty when stopped.
    pub fn advance(&mut self, stop: &AtomicBool) -> Result<Vec<LaneItem>, DataError> {
        if let Some(begun) = self.begun {
            if !self.continue_document(begun, stop)? {
                return Ok(Vec::new());
            }
            self.begun = None;
        }
        let start = Arc::new(self.state());
        let filled = match self.mixture.packing {
            Packing::Concat => self.concat(stop)?,
            Packing::BestFit => self.best_fit(stop)?,
        };
        let Some(sequences) = filled else { return Ok(Vec::new()) };
        let mut sequences: Vec<Option<Sequence>> = sequences.into_iter().map(Some).collect();
        let order = self.mixture.block_order(self.lane, self.block, sequences.len());
        self.block += 1;
        self.before += sequences.len() as u64;
        let given = std::mem::take(&mut self.given);
        let mut items = Vec::with_capacity(sequences.len());
        for (offset, from) in order.into_iter().enumerate().skip(given) {
            if let Some(sequence) = sequences[from].take() {
                items.push(LaneItem { sequence, start: start.clone(), offset: offset + 1 });
            }
        }
        // At the end of a block the next one's start is the shorter way to resume.
        if let Some(item) = items.last_mut() {
            (item.start, item.offset) = (Arc::new(self.state()), 0);
        }
        Ok(items)
    }

    /// A block of documents laid end to end. `None` when stopped.
    fn concat(&mut self, stop: &AtomicBool) -> Result<Option<Vec<Sequence>>, DataError> {
        let mut sequences = Vec::with_capacity(self.mixture.block);
        while sequences.len() < self.mixture.block {
            match self.packer.pop() {
                Some(sequence) => sequences.push(sequence),
                None if !self.draw(stop)? => return Ok(None),
                None => {}
            }
        }
        Ok(Some(sequences))
    }

    /// A block of documents that share sequences as they fit. `None` when stopped.
    fn best_fit(&mut self, stop: &AtomicBool) -> Result<Option<Vec<Sequence>>, DataError> {
        let room = self.mixture.length + 1;
        let budget = BEST_FIT_BLOCKS * self.mixture.block * room;
        let mut pieces = Vec::new();
        let mut total = 0;
        loop {
            while total < budget
                && let Some(whole) = self.packer.pop()
            {
                total += whole.tokens.len();
                pieces.push((whole.tokens, whole.source));
            }
            if total < budget
                && self.last.as_ref().is_none_or(|last| last.last)
                && let Some(rest) = self.packer.take_rest()
            {
                total += rest.0.len();
                pieces.push(rest);
            }
            if total >= budget {
                return Ok(Some(best_fit::pack(pieces, room, self.mixture.padding_id)));
            }
            if !self.draw(stop)? {
                return Ok(None);
            }
        }
    }

    fn state(&self) -> LaneState {
        let mut cursors: Vec<CursorState> = self.cursors.iter().map(Cursor::state).collect();
        let mut begun = None;
        if let Some(Drawn { corpus, place, part, last }) = self.last {
            begun = match self.packer.offset() {
                Some(offset) => Some((corpus, part, offset)),
                None if !last => Some((corpus, part + 1, 0)),
                None => None,
            };
            if begun.is_some() {
                cursors[corpus] = place;
            }
        }
        LaneState { lane: self.lane, block: self.block, before: self.before, offset: 0, drawn: self.drawn.clone(), cursors, begun }
    }

    /// Draws the rest of the open document, else the next document; of a long one, the next part. False when stopped.
    fn draw(&mut self, stop: &AtomicBool) -> Result<bool, DataError> {
        let lag = |corpus: usize| (self.drawn[corpus] as f64 + self.credits[corpus]) / self.mixture.corpora[corpus].weight;
        let weighted = (0..self.cursors.len()).filter(|corpus| self.mixture.corpora[*corpus].weight > 0.0);
        let open = self.last.as_ref().filter(|last| !last.last).map(|last| last.corpus);
        let Some(corpus) = open.or_else(|| weighted.min_by(|a, b| lag(*a).total_cmp(&lag(*b)))) else {
            return Err(DataError::config("corpora", "have no weight above 0", "give at least one corpus a positive weight"));
        };
        let Some(text) = self.cursors[corpus].draw(&self.mixture, 0, &mut self.ids, stop)? else {
            return Ok(false);
        };
        self.drawn[corpus] += self.ids.len() as u64;
        if text.part == 0 && self.mixture.packing == Packing::BestFit {
            // The rest of a document whose later parts could not be read.
            self.packer = Packer::new(self.mixture.length);
        }
        self.packer.push(&self.ids, text.part, &text.source);
        self.last = Some(Drawn { corpus, place: text.place, part: text.part, last: text.last });
        Ok(true)
    }

    /// Reads the part of a document again that the state stands in. False when stopped.
    fn continue_document(&mut self, (corpus, part, offset): (usize, u64, u64), stop: &AtomicBool) -> Result<bool, DataError> {
        let expected = self.cursors[corpus].state();
        let Some(text) = self.cursors[corpus].draw(&self.mixture, part, &mut self.ids, stop)? else {
            return Ok(false);
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if !text.place.is_document(&expected) || text.part != part || offset > self.ids.len() {
            return Err(DataError::resume(
                format!("a document of {} is not what it was when the state was saved", text.source),
                "resume with the shards that the run was started with",
            ));
        }
        self.packer.push_rest(&self.ids, part, offset, &text.source);
        self.last = Some(Drawn { corpus, place: text.place, part, last: text.last });
        Ok(true)
    }
}

impl Source for Lane {
    type Item = LaneItem;

    fn advance(&mut self, stop: &AtomicBool) -> Result<Vec<LaneItem>, DataError> {
        Lane::advance(self, stop)
    }
}
