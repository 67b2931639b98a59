//! One rank's endless stream of sequences, read ahead in the background.
//!
//! Mixed order: sequence number g of the run comes from lane g mod `lanes`, and rank r of w gives the numbers with
//! g mod w = r. So the ranks in turn always give the same global order, whatever w is; `lanes` must be a multiple of w so that
//! each lane has one rank.
//!
//! Corenet order: as PyTorch's DataLoader, batch i of a rank comes whole from worker i mod `workers`; a single sequence
//! counts as a batch of one.

use std::sync::Arc;

use openelm_tokenizer::Tokenizer;

use crate::config::{DataConfig, OnBadRecord, Order};
use crate::corenet::{PiecePosition, PieceStream};
use crate::corenet_files::{Partition, check_rank};
use crate::encoder::{Encode, TextEncoder};
use crate::error::DataError;
use crate::lane::{Lane, LaneState};
use crate::mixture::Mixture;
use crate::prefetch::Prefetch;
use crate::sequence::{Batch, Sequence};
use crate::shard::{list_fingerprint, list_shards};
use crate::skip_log::SkipLog;
use crate::state::{Identity, LoaderState, Progress, RankState};

/// Sequences and batches of one rank, in a reproducible order. Dropping it ends the reading.
pub struct Loader {
    identity: Identity,
    padding_id: u32,
    length: usize,
    rank: usize,
    world: usize,
    /// Sequences given by this loader.
    given: u64,
    encoder: TextEncoder,
    streams: Streams,
}

enum Streams {
    Mixed(MixedStreams),
    Corenet(CorenetStreams),
}

struct MixedStreams {
    prefetch: Prefetch<Lane>,
    /// Global number of the first sequence that no rank had given when the loader was made.
    base: u64,
    /// The start of each own lane's block and the sequences of it that were given.
    states: Vec<(Arc<LaneState>, usize)>,
}

struct CorenetStreams {
    prefetch: Prefetch<PieceStream>,
    state: RankState,
}

impl Loader {
    /// A loader at the beginning of the order.
    ///
    /// # Errors
    /// A bad configuration, missing shards, `rank` not below `world`, or `lanes` not a multiple of `world` (mixed order).
    pub fn open(config: &DataConfig, tokenizer: &Tokenizer, rank: usize, world: usize) -> Result<Loader, DataError> {
        Self::with_encode(config, Arc::new(tokenizer.clone()), rank, world, None, &SkipLog::new())
    }

    /// A loader that goes on exactly after the sequences given before `state` was taken.
    ///
    /// # Errors
    /// As [`Loader::open`], and a state of another configuration, tokenizer or list of shards, or one without this rank.
    pub fn resume(config: &DataConfig, tokenizer: &Tokenizer, rank: usize, world: usize, state: &LoaderState) -> Result<Loader, DataError> {
        Self::with_encode(config, Arc::new(tokenizer.clone()), rank, world, Some(state), &SkipLog::new())
    }

    /// A loader at `state`, else at the beginning, whose skipped records (`on_bad_record: skip`) are noted in `skipped`.
    ///
    /// # Errors
    /// As [`Loader::resume`].
    pub fn with_log(
        config: &DataConfig,
        tokenizer: &Tokenizer,
        rank: usize,
        world: usize,
        state: Option<&LoaderState>,
        skipped: &SkipLog,
    ) -> Result<Loader, DataError> {
        Self::with_encode(config, Arc::new(tokenizer.clone()), rank, world, state, skipped)
    }

    pub(crate) fn with_encode(
        config: &DataConfig,
        tokenizer: Arc<dyn Encode>,
        rank: usize,
        world: usize,
        state: Option<&LoaderState>,
        skipped: &SkipLog,
    ) -> Result<Loader, DataError> {
        config.validate()?;
        let skip = (config.on_bad_record == OnBadRecord::Skip).then(|| skipped.clone());
        check_rank(rank, world)?;
        let encoder = TextEncoder::new(config, tokenizer)?;
        let shards = list_shards(&config.corpora, &config.object_store)?;
        let identity = Identity { tokenizer: encoder.fingerprint().to_owned(), files: list_fingerprint(&shards), config: config.clone() };
        if let Some(state) = state {
            state.check(&identity)?;
        }
        let progress = state.map(|state| &state.progress);
        let counted = encoder.clone();
        let padding_id = encoder.padding_id();
        let streams = match config.order {
            Order::Mixed => Streams::Mixed(MixedStreams::new(Mixture::new(config, &shards, encoder, skip), config, rank, world, progress)?),
            Order::Corenet => {
                let state = rank_state(config, rank, world, progress)?;
                let shards: Arc<[_]> = shards.into();
                let streams = state.workers.iter().enumerate().map(|(worker, position)| {
                    let partition = Partition { rank, world, worker, workers: config.workers };
                    PieceStream::new(config, shards.clone(), &encoder, partition, *position, skip.clone())
                });
                let prefetch = Prefetch::new(streams.collect(), config.threads, config.prefetch)?;
                Streams::Corenet(CorenetStreams { prefetch, state })
            }
        };
        Ok(Self { identity, padding_id, length: config.sequence_length, rank, world, given: 0, encoder: counted, streams })
    }

    /// The rank's next sequence.
    ///
    /// # Errors
    /// What the background reading met on the way to this sequence. The loader is of no use after that.
    pub fn next_sequence(&mut self) -> Result<Sequence, DataError> {
        let sequence = self.step()?;
        self.end_batch();
        Ok(sequence)
    }

    /// The rank's next `batch` sequences.
    ///
    /// # Errors
    /// As [`Loader::next_sequence`].
    pub fn next_batch(&mut self, batch: usize) -> Result<Batch, DataError> {
        let sequences = (0..batch).map(|_| self.step()).collect::<Result<Vec<_>, _>>()?;
        if batch > 0 {
            self.end_batch();
        }
        Ok(Batch::from_sequences(sequences, self.length, self.padding_id, self.identity.config.document_mask))
    }

    /// The place after the sequences given so far; those read ahead do not count.
    pub fn state(&self) -> LoaderState {
        let progress = match &self.streams {
            Streams::Mixed(mixed) => Progress::Mixed {
                sequence: mixed.base + self.given * self.world as u64,
                lanes: mixed.states.iter().map(|(start, offset)| start.at(*offset)).collect(),
            },
            Streams::Corenet(corenet) => Progress::Corenet { world: self.world, ranks: vec![corenet.state.clone()] },
        };
        LoaderState::new(self.identity.clone(), progress)
    }

    /// Seconds that `next_sequence` and `next_batch` have waited for the background threads since the loader was made.
    pub fn wait_seconds(&self) -> f64 {
        match &self.streams {
            Streams::Mixed(mixed) => mixed.prefetch.waited().as_secs_f64(),
            Streams::Corenet(corenet) => corenet.prefetch.waited().as_secs_f64(),
        }
    }

    /// Bytes of text that were read and tokenized since the loader was made, ahead of what it has given.
    pub fn text_bytes(&self) -> u64 {
        self.encoder.bytes()
    }

    fn step(&mut self) -> Result<Sequence, DataError> {
        let sequence = match &mut self.streams {
            Streams::Mixed(mixed) => {
                let (rank, world) = (self.rank as u64, self.world as u64);
                // The first number from base on that is the rank's, and then every world-th.
                let first = mixed.base + (rank + world - mixed.base % world) % world;
                let number = first + self.given * world;
                let lane = number % self.identity.config.lanes as u64;
                let own = (lane / world) as usize;
                let item = mixed.prefetch.take(own)?;
                mixed.states[own] = (item.start, item.offset);
                item.sequence
            }
            Streams::Corenet(corenet) => {
                let worker = corenet.state.next_worker;
                let (sequence, after) = corenet.prefetch.take(worker)?;
                corenet.state.workers[worker] = after;
                corenet.state.sequences += 1;
                sequence
            }
        };
        self.given += 1;
        Ok(sequence)
    }

    fn end_batch(&mut self) {
        if let Streams::Corenet(corenet) = &mut self.streams {
            corenet.state.next_worker = (corenet.state.next_worker + 1) % corenet.state.workers.len();
        }
    }
}

impl MixedStreams {
    fn new(mixture: Mixture, config: &DataConfig, rank: usize, world: usize, progress: Option<&Progress>) -> Result<Self, DataError> {
        let lanes = config.lanes;
        if !lanes.is_multiple_of(world) {
            return Err(DataError::Ranks {
                reason: format!("data.lanes is {lanes}, which {world} ranks cannot share evenly"),
                hint: format!("set data.lanes to a multiple of {world}; another number of lanes is another order"),
            });
        }
        let (base, saved) = match progress {
            None => (0, None),
            Some(Progress::Mixed { sequence, lanes }) => (*sequence, Some(lanes)),
            Some(Progress::Corenet { .. }) => return Err(other_order()),
        };
        let mut states = Vec::with_capacity(lanes / world);
        for lane in (rank..lanes).step_by(world) {
            let state = match saved {
                None => LaneState::start(&mixture, lane),
                Some(saved) => saved.iter().find(|state| state.lane == lane).cloned().ok_or_else(|| {
                    DataError::resume(
                        format!("the state does not hold lane {lane}"),
                        "merge the states of all ranks (LoaderState::merge), or resume with the same rank and number of ranks",
                    )
                })?,
            };
            let due = base / lanes as u64 + u64::from((lane as u64) < base % lanes as u64);
            if !state.fits(&mixture) || state.sequences() != due {
                return Err(DataError::resume(
                    format!("lane {lane} of the state does not stand at sequence {base}"),
                    "the state is damaged; use an older checkpoint",
                ));
            }
            states.push(state);
        }
        let positions: Vec<_> = states.iter().flat_map(|state| state.shared(&mixture)).collect();
        let mixture = Arc::new(mixture.of_rank(rank, world, positions.into_iter()));
        let sources = states.iter().map(|state| Lane::resume(mixture.clone(), state)).collect();
        let prefetch = Prefetch::new(sources, config.threads, config.prefetch)?;
        let states = states.into_iter().map(|state| (state.offset, Arc::new(state))).map(|(offset, state)| (state, offset)).collect();
        Ok(Self { prefetch, base, states })
    }
}

fn rank_state(config: &DataConfig, rank: usize, world: usize, progress: Option<&Progress>) -> Result<RankState, DataError> {
    let workers = config.workers.max(1);
    let state = match progress {
        None => RankState { rank, sequences: 0, next_worker: 0, workers: vec![PiecePosition::default(); workers] },
        Some(Progress::Mixed { .. }) => return Err(other_order()),
        Some(Progress::Corenet { world: saved, ranks }) => {
            if *saved != world {
                return Err(DataError::resume(
                    format!("the run had {saved} ranks, now there are {world}"),
                    "the corenet order depends on the ranks; resume with the same number",
                ));
            }
            ranks.iter().find(|state| state.rank == rank).cloned().ok_or_else(|| {
                DataError::resume(format!("the state does not hold rank {rank}"), "merge the states of all ranks (LoaderState::merge)")
            })?
        }
    };
    if state.workers.len() != workers || state.next_worker >= workers {
        return Err(DataError::resume(
            format!("the state is of {} workers, the configuration of {workers}", state.workers.len()),
            "the corenet order depends on data.workers; resume with the same number",
        ));
    }
    Ok(state)
}

fn other_order() -> DataError {
    DataError::resume("data.order is not the saved run's", "set data.order to the saved run's")
}
