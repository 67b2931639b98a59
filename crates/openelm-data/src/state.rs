//! Where a loader stands, for a checkpoint: positions only, never tokens, and what the positions refer to.
//!
//! A state names its tokenizer, its configuration and its list of shards; resuming with others is an error that says which of
//! them differs. In the mixed order a rank's state holds the rank's lanes; [`LoaderState::merge`] joins the states of all
//! ranks into one that any number of ranks can resume from. In the corenet order the ranks and workers must stay the same.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{CorpusConfig, DataConfig, Order};
use crate::corenet::PiecePosition;
use crate::error::DataError;
use crate::lane::LaneState;

/// Raised whenever an old state would lead to another order than it did.
const VERSION: u32 = 2;

const SAME_RUN: &str = "resume with the configuration, tokenizer and shards that the run was started with, or start anew";

/// The place after the sequences that a loader has given.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    version: u32,
    pub(crate) identity: Identity,
    pub(crate) progress: Progress,
}

/// What the positions refer to.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub tokenizer: String,
    pub files: String,
    pub config: DataConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Progress {
    Mixed {
        /// Global number of the first sequence that no rank has given.
        sequence: u64,
        lanes: Vec<LaneState>,
    },
    Corenet {
        world: usize,
        ranks: Vec<RankState>,
    },
}

/// One rank in the corenet order.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RankState {
    pub rank: usize,
    /// Sequences that the rank has given.
    pub sequences: u64,
    /// The worker that gives the next batch.
    pub next_worker: usize,
    pub workers: Vec<PiecePosition>,
}

impl LoaderState {
    pub(crate) fn new(identity: Identity, progress: Progress) -> Self {
        Self { version: VERSION, identity, progress }
    }

    /// Sequences that all ranks together have given (of the ranks in this state, in the corenet order).
    pub fn sequences(&self) -> u64 {
        match &self.progress {
            Progress::Mixed { sequence, .. } => *sequence,
            Progress::Corenet { ranks, .. } => ranks.iter().map(|rank| rank.sequences).sum(),
        }
    }

    /// Joins the states of all ranks, taken after the same number of sequences.
    pub fn merge(states: Vec<LoaderState>) -> Result<LoaderState, DataError> {
        let mut states = states.into_iter();
        let wrong = |differs: String| Err(DataError::resume(differs, "merge one state of each rank, all taken at the same step"));
        let Some(mut merged) = states.next() else {
            return wrong("there is no state to merge".into());
        };
        for state in states {
            merged.check(&state.identity)?;
            match (&mut merged.progress, state.progress) {
                (Progress::Mixed { sequence, lanes }, Progress::Mixed { sequence: other, lanes: more }) => {
                    if *sequence != other {
                        return wrong(format!("one rank's state stands at sequence {sequence}, another's at {other}"));
                    }
                    lanes.extend(more);
                }
                (Progress::Corenet { world, ranks }, Progress::Corenet { world: other, ranks: more }) => {
                    if *world != other {
                        return wrong(format!("one rank's state is of {world} ranks, another's of {other}"));
                    }
                    ranks.extend(more);
                }
                _ => return wrong("the states are of different orders".into()),
            }
        }
        let (numbers, count, what): (Vec<usize>, usize, &str) = match &mut merged.progress {
            Progress::Mixed { lanes, .. } => {
                lanes.sort_by_key(|lane| lane.lane);
                (lanes.iter().map(|lane| lane.lane).collect(), merged.identity.config.lanes, "lane")
            }
            Progress::Corenet { world, ranks } => {
                ranks.sort_by_key(|rank| rank.rank);
                (ranks.iter().map(|rank| rank.rank).collect(), *world, "rank")
            }
        };
        match (0..count.max(numbers.len())).find(|number| numbers.get(*number) != Some(number)) {
            None => Ok(merged),
            Some(number) => wrong(format!("the states hold {what} {number} not at all or twice")),
        }
    }

    /// Fails when the state is of another run, and says what differs.
    pub(crate) fn check(&self, identity: &Identity) -> Result<(), DataError> {
        if self.version != VERSION {
            return Err(DataError::resume(
                format!("the state has version {}, this program writes version {VERSION}", self.version),
                "resume with the program version that saved it, or start anew",
            ));
        }
        let mut differs = config_differences(&self.identity.config, &identity.config);
        if self.identity.tokenizer != identity.tokenizer {
            differs.push("the tokenizer".into());
        }
        if differs.is_empty() && self.identity.files != identity.files {
            differs.push("the list of shards (names, sizes, versions or order)".into());
        }
        if differs.is_empty() {
            return Ok(());
        }
        Err(DataError::resume(format!("these differ from the saved run: {}", differs.join(", ")), SAME_RUN))
    }
}

/// A number that was written as JSON and read again may differ in its last digit.
fn same_weight(saved: f64, now: f64) -> bool {
    (saved - now).abs() <= 1e-12 * now.abs()
}

/// The settings that differ and matter to the order. Where the shards lie does not; their list is compared by itself.
fn config_differences(saved: &DataConfig, now: &DataConfig) -> Vec<String> {
    let idle: &[&str] = match now.order {
        Order::Mixed => &[
            "threads",
            "prefetch",
            "cache",
            "object_store",
            "on_bad_record",
            "document_mask",
            "corpora",
            "document_split_words",
            "workers",
        ],
        Order::Corenet => &["threads", "prefetch", "object_store", "on_bad_record", "document_mask", "corpora", "lanes", "shuffle_buffer"],
    };
    let mut differs = Vec::new();
    let fields = |config| match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (old, new) = (fields(saved), fields(now));
    for (name, value) in &new {
        let before = old.get(name);
        if !idle.contains(&name.as_str()) && before != Some(value) {
            differs.push(format!("data.{name} (was {}, is {value})", before.unwrap_or(&Value::Null)));
        }
    }
    if saved.corpora.len() != now.corpora.len() {
        differs.push(format!("the number of corpora (was {}, is {})", saved.corpora.len(), now.corpora.len()));
        return differs;
    }
    for (old, new) in saved.corpora.iter().zip(&now.corpora) {
        if old.text_key != new.text_key {
            differs.push(format!("text_key of {} (was {}, is {})", new.name, old.text_key, new.text_key));
        }
        let filters = |corpus: &CorpusConfig| (corpus.min_tokens_per_text, corpus.min_characters_per_text);
        if filters(old) != filters(new) {
            differs.push(format!("the filters of {} (were {:?}, are {:?})", new.name, filters(old), filters(new)));
        }
        if now.order == Order::Mixed && !same_weight(old.weight, new.weight) {
            differs.push(format!("weight of {} (was {}, is {})", new.name, old.weight, new.weight));
        }
    }
    differs
}
