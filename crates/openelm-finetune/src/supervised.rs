//! The supervised objective: cross entropy (and z-loss) of the targets of conversations.
//!
//! What must stay true: the loss is the mean over the global batch's targets, however it is cut; packed conversations do not see
//! each other.

use openelm_train::{
    Engine, Metrics, MicroBatch, Objective, OpenElm, StepLosses, TrainError, TrainSettings, accumulate_batches, mean_loss,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dialogue_tokens::Learnt;
use crate::error::FinetuneError;
use crate::examples::digest;
use crate::order::Order;
use crate::packing::pack;

/// What a checkpoint keeps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    objective: String,
    /// Rows taken so far.
    taken: u64,
    /// Digest of the training conversations and how they are packed.
    conversations: String,
}

const NAME: &str = "supervised";

/// Conversations in rows.
pub struct SupervisedObjective {
    training: Rows,
    validation: Rows,
    order: Order,
    taken: u64,
    digest: String,
}

/// Conversations, and which of them share a row.
struct Rows {
    conversations: Vec<Learnt>,
    rows: Vec<Vec<usize>>,
    packed: bool,
}

impl Rows {
    /// One conversation a row, or as many as fit into `packed` tokens.
    fn new(conversations: Vec<Learnt>, packed: Option<usize>) -> Self {
        let rows = match packed {
            None => (0..conversations.len()).map(|index| vec![index]).collect(),
            Some(limit) => pack(&conversations.iter().map(|conversation| conversation.ids.len()).collect::<Vec<_>>(), limit),
        };
        Self { conversations, rows, packed: packed.is_some() }
    }

    fn length(&self, row: usize) -> usize {
        self.rows[row].iter().map(|index| self.conversations[*index].ids.len()).sum()
    }

    /// Micro-batches of `size` of these rows, rows of like length together.
    fn batches(&self, mut rows: Vec<usize>, size: usize, model: &OpenElm) -> Result<Vec<MicroBatch>, TrainError> {
        rows.sort_by_key(|row| self.length(*row));
        rows.chunks(size.max(1)).map(|group| self.batch(group, model)).collect()
    }

    fn batch(&self, rows: &[usize], model: &OpenElm) -> Result<MicroBatch, TrainError> {
        let mut content = Vec::with_capacity(rows.len());
        let mut boundaries = Vec::with_capacity(rows.len());
        for row in rows {
            let (mut ids, mut counts, mut starts) = (Vec::new(), Vec::new(), Vec::new());
            for conversation in self.rows[*row].iter().map(|index| &self.conversations[*index]) {
                starts.push(ids.len() as u32);
                ids.extend_from_slice(&conversation.ids);
                counts.extend_from_slice(&conversation.counts);
            }
            content.push((ids, counts));
            boundaries.push(starts);
        }
        let batch = MicroBatch::of_targets(content.iter().map(|(ids, counts)| (&ids[..], &counts[..])), model.config().vocab_size)?;
        if self.packed { batch.inside_documents(&boundaries) } else { Ok(batch) }
    }
}

impl SupervisedObjective {
    /// Conversations in the order of `seed`, from the first one on, or from where `state`, a checkpoint's, stood; packed into rows of
    /// at most `packed` tokens, if so.
    ///
    /// # Errors
    /// When `state` is of other conversations.
    pub fn new(
        (training, validation): (Vec<Learnt>, Vec<Learnt>),
        packed: Option<usize>,
        seed: u64,
        state: Option<&Value>,
    ) -> Result<Self, FinetuneError> {
        let targets = |conversation: &Learnt| conversation.counts.iter().filter(|counts| **counts).count();
        let content = training.iter().map(|conversation| (&conversation.ids[..], targets(conversation)));
        let digest = digest(content.chain([(&[][..], packed.unwrap_or(0))]));
        let taken = match state {
            None => 0,
            Some(state) => taken_of(state, &digest)?,
        };
        let (training, validation) = (Rows::new(training, packed), Rows::new(validation, packed));
        let order = Order::new(seed, training.rows.len());
        Ok(Self { training, validation, order, taken, digest })
    }

    /// Rows of one pass.
    pub fn rows(&self) -> usize {
        self.training.rows.len()
    }
}

impl Objective for SupervisedObjective {
    fn accumulate(&mut self, engine: &mut dyn Engine, model: &OpenElm, settings: &TrainSettings) -> Result<StepLosses, TrainError> {
        let count = settings.rank_batch(1)?;
        let batches = self.training.batches(self.order.take(self.taken, count), settings.micro_batch, model)?;
        let losses = accumulate_batches(engine, model, &batches, settings)?;
        self.taken += count as u64;
        let mut metrics = Metrics::default();
        metrics.real("ce_loss", losses.ce_loss);
        metrics.real("z_loss", losses.z_loss);
        Ok(StepLosses { loss: losses.ce_loss + losses.z_loss, targets: losses.sums.targets, metrics })
    }

    fn validate(&mut self, engine: &mut dyn Engine, model: &OpenElm, settings: &TrainSettings) -> Result<Option<StepLosses>, TrainError> {
        let batches = self.validation.batches((0..self.validation.rows.len()).collect(), settings.micro_batch, model)?;
        mean_loss(engine, model, &batches, settings)
    }

    fn state(&self) -> Result<Value, TrainError> {
        let state = State { objective: NAME.into(), taken: self.taken, conversations: self.digest.clone() };
        serde_json::to_value(state).map_err(|error| TrainError::State { reason: error.to_string() })
    }
}

fn taken_of(state: &Value, digest: &str) -> Result<u64, FinetuneError> {
    let state: State = serde_json::from_value(state.clone()).map_err(|error| FinetuneError::Resume {
        reason: format!("its state is no supervised run's: {error}"),
        hint: "resume with the configuration that the run was begun with",
    })?;
    if state.conversations != digest {
        let hint = "resume with the files, the lengths, the template and the tokenizer that the run was begun with";
        return Err(FinetuneError::Resume { reason: "the conversations are others than the saved run's".into(), hint });
    }
    Ok(state.taken)
}
