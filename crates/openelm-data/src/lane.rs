//! One lane of the mixed order: an endless stream of sequences that depends on the configuration, the shards and the lane's
//! number, and on nothing else.
//!
//! A lane draws whole documents, each from the corpus that lags most behind its weight in tokens given so far, lays them end
//! to end (`packer.rs`), and permutes the sequences inside blocks. A block's start is a complete state: positions only, no
//! tokens. What waits in the packer there is the rest of the last document drawn, so the state holds that document's place
//! instead of the place after it, and the token to go on from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::encoder::{Verdict, Verdicts};
use crate::error::DataError;
use crate::mixture::{Mixture, Share};
use crate::packer::Packer;
use crate::prefetch::Source;
use crate::sequence::Sequence;
use crate::shard_reader::ShardReader;

/// The next document of a lane in one corpus: epoch, shard in the epoch's order, document in the shard, and whether the lane
/// takes the whole corpus. A tuple, because a state holds lanes × corpora of them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct CursorState(u64, u64, u64, bool);

/// A lane after `offset` sequences of block `block`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaneState {
    pub lane: usize,
    pub block: u64,
    /// Sequences of the block that were given; everything else stands at the block's start.
    pub offset: usize,
    /// Tokens drawn from each corpus.
    drawn: Vec<u64>,
    cursors: Vec<CursorState>,
    /// The corpus whose cursor stands on a document that was begun, and the token to go on from.
    begun: Option<(usize, u64)>,
}

impl LaneState {
    /// A lane that has given nothing.
    pub fn start(mixture: &Mixture, lane: usize) -> Self {
        let cursors = (0..mixture.corpora.len()).map(|corpus| CursorState(0, 0, mixture.share(corpus, lane, false).first, false));
        Self { lane, block: 0, offset: 0, drawn: vec![0; mixture.corpora.len()], cursors: cursors.collect(), begun: None }
    }

    /// Sequences given since the run began.
    pub fn sequences(&self, mixture: &Mixture) -> u64 {
        self.block * mixture.block as u64 + self.offset as u64
    }

    /// The same block after `offset` of its sequences.
    pub fn at(&self, offset: usize) -> Self {
        Self { offset, ..self.clone() }
    }

    /// Whether the state fits a mixture of so many corpora.
    pub fn fits(&self, mixture: &Mixture) -> bool {
        let corpora = mixture.corpora.len();
        self.lane < mixture.lanes
            && self.offset <= mixture.block
            && self.drawn.len() == corpora
            && self.cursors.len() == corpora
            && self.begun.is_none_or(|(corpus, _)| corpus < corpora)
    }
}

/// A lane's place in one corpus.
struct Cursor {
    corpus: usize,
    lane: usize,
    state: CursorState,
    share: Share,
    /// The epoch's order of `share.shards`.
    order: Vec<usize>,
    /// The open shard, and the document that it gives next.
    reader: Option<(ShardReader, u64)>,
    /// What the filters did, for the message when nothing passes them.
    verdicts: Verdicts,
    found: bool,
}

impl Cursor {
    fn new(mixture: &Mixture, corpus: usize, lane: usize, state: CursorState) -> Self {
        let share = mixture.share(corpus, lane, state.3);
        let order = mixture.shard_order(corpus, lane, state.0, share.shards.len());
        // A cursor that has moved at all had found a document: it is saved only after a document was drawn.
        let found = state.0 > 0 || state.1 > 0 || state.2 > share.first;
        Self { corpus, lane, state, share, order, reader: None, verdicts: Verdicts::default(), found }
    }

    /// The next document that the filters keep: its place, its shard's path, and its tokens in `ids`. `None` when stopped.
    fn draw(&mut self, mixture: &Mixture, ids: &mut Vec<u32>, stop: &AtomicBool) -> Result<Option<(CursorState, Arc<str>)>, DataError> {
        let corpus = &mixture.corpora[self.corpus];
        while !stop.load(Ordering::Relaxed) {
            let Some(shard) = self.order.get(self.state.1 as usize).map(|at| &corpus.shards[self.share.shards[*at]]) else {
                self.end_epoch(mixture)?;
                continue;
            };
            let (reader, at) = match &mut self.reader {
                Some(open) => open,
                none => none.insert((ShardReader::open(shard)?, 0)),
            };
            reader.skip(self.state.2.saturating_sub(*at))?;
            *at = self.state.2.max(*at);
            let Some((text, _)) = reader.next()? else {
                self.reader = None;
                self.state = CursorState(self.state.0, self.state.1 + 1, self.share.first, self.state.3);
                continue;
            };
            *at += 1;
            let place = self.state;
            self.state.2 += self.share.stride;
            let verdict = mixture.encoder.encode(&text, ids);
            self.verdicts.count(verdict);
            if verdict == Verdict::Kept {
                self.found = true;
                return Ok(Some((place, shard.source.clone())));
            }
        }
        Ok(None)
    }

    fn end_epoch(&mut self, mixture: &Mixture) -> Result<(), DataError> {
        let (mut epoch, mut whole) = (self.state.0 + 1, self.state.3);
        if !self.found {
            let corpus = &mixture.corpora[self.corpus];
            if whole {
                return Err(self.verdicts.empty_corpus(&corpus.name, corpus.shards.len()));
            }
            (epoch, whole) = (0, true);
            self.share = mixture.share(self.corpus, self.lane, true);
            self.verdicts = Verdicts::default();
        }
        self.state = CursorState(epoch, 0, self.share.first, whole);
        self.order = mixture.shard_order(self.corpus, self.lane, epoch, self.share.shards.len());
        Ok(())
    }
}

/// A sequence and the lane's state after it.
pub(crate) struct LaneItem {
    pub sequence: Sequence,
    /// The block's start, and the sequences of it given with this one.
    pub start: Arc<LaneState>,
    pub offset: usize,
}

/// A lane at the start of a block.
pub(crate) struct Lane {
    mixture: Arc<Mixture>,
    lane: usize,
    block: u64,
    /// Sequences at the head of the first block that were given before the lane was resumed.
    given: usize,
    credits: Vec<f64>,
    drawn: Vec<u64>,
    cursors: Vec<Cursor>,
    /// Corpus and place of the document drawn last.
    last: Option<(usize, CursorState)>,
    /// The state's `begun`, until it is read again.
    begun: Option<(usize, u64)>,
    packer: Packer,
    ids: Vec<u32>,
}

impl Lane {
    pub fn resume(mixture: Arc<Mixture>, state: &LaneState) -> Self {
        let cursors = state.cursors.iter().enumerate().map(|(corpus, cursor)| Cursor::new(&mixture, corpus, state.lane, *cursor));
        Self {
            lane: state.lane,
            block: state.block,
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
        let mut sequences = Vec::with_capacity(self.mixture.block);
        while sequences.len() < self.mixture.block {
            match self.packer.pop() {
                Some(sequence) => sequences.push(Some(sequence)),
                None if !self.draw(stop)? => return Ok(Vec::new()),
                None => {}
            }
        }
        let order = self.mixture.block_order(self.lane, self.block);
        self.block += 1;
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

    fn state(&self) -> LaneState {
        let mut cursors: Vec<CursorState> = self.cursors.iter().map(|cursor| cursor.state).collect();
        let begun = self.last.zip(self.packer.offset()).map(|((corpus, place), offset)| {
            cursors[corpus] = place;
            (corpus, offset)
        });
        LaneState { lane: self.lane, block: self.block, offset: 0, drawn: self.drawn.clone(), cursors, begun }
    }

    /// Draws one document. False when stopped.
    fn draw(&mut self, stop: &AtomicBool) -> Result<bool, DataError> {
        let lag = |corpus: usize| (self.drawn[corpus] as f64 + self.credits[corpus]) / self.mixture.corpora[corpus].weight;
        let weighted = (0..self.cursors.len()).filter(|corpus| self.mixture.corpora[*corpus].weight > 0.0);
        let Some(corpus) = weighted.min_by(|a, b| lag(*a).total_cmp(&lag(*b))) else {
            return Err(DataError::config("corpora", "have no weight above 0", "give at least one corpus a positive weight"));
        };
        let Some((place, source)) = self.cursors[corpus].draw(&self.mixture, &mut self.ids, stop)? else {
            return Ok(false);
        };
        self.drawn[corpus] += self.ids.len() as u64;
        self.last = Some((corpus, place));
        self.packer.push(&self.ids, &source);
        Ok(true)
    }

    /// Reads the document again that the state stands in. False when stopped.
    fn continue_document(&mut self, (corpus, offset): (usize, u64), stop: &AtomicBool) -> Result<bool, DataError> {
        let expected = self.cursors[corpus].state;
        let Some((place, source)) = self.cursors[corpus].draw(&self.mixture, &mut self.ids, stop)? else {
            return Ok(false);
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if place != expected || offset >= self.ids.len() {
            return Err(DataError::resume(
                format!("a document of {source} is not what it was when the state was saved"),
                "resume with the shards that the run was started with",
            ));
        }
        self.last = Some((corpus, place));
        self.packer.push_rest(&self.ids, offset, &source);
        Ok(true)
    }
}

impl Source for Lane {
    type Item = LaneItem;

    fn advance(&mut self, stop: &AtomicBool) -> Result<Vec<LaneItem>, DataError> {
        Lane::advance(self, stop)
    }
}
