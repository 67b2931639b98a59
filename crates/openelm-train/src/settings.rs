//! What a run trains with, checked. The program's configuration file becomes one of these.

use openelm_model::Precision;

use crate::adamw::AdamWConfig;
use crate::engine::Arithmetic;
use crate::error::TrainError;
use crate::schedule::Schedule;

/// How the gradients of one update's micro-batches are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulation {
    /// The mean over all targets of the update, however it is cut.
    Mean,
    /// CoreNet: the sum of each micro-batch's mean.
    Sum,
}

/// Everything about the updates of a run.
#[derive(Clone, Debug)]
pub struct TrainSettings {
    /// Updates in all.
    pub steps: u64,
    /// Sequences of one update, over all ranks.
    pub global_batch: usize,
    /// Sequences that go through the model at once.
    pub micro_batch: usize,
    pub precision: Precision,
    /// Run each block again in the backward pass instead of keeping activations.
    pub recompute: bool,
    pub accumulation: Accumulation,
    /// Largest gradient norm; 0 does not clip.
    pub grad_clip: f64,
    /// Factor of the squared log-partition.
    pub z_loss: f64,
    /// Report the z-loss as CoreNet does, padding counted.
    pub corenet_z_loss: bool,
    pub optimizer: AdamWConfig,
    pub schedule: Schedule,
    /// Updates between two validations; 0: at the end alone.
    pub validate_every: u64,
    /// Updates between two checkpoints; 0: at the end alone.
    pub checkpoint_every: u64,
    pub keep_last: u64,
    pub keep_every: u64,
    /// Updates between two lines of the log.
    pub log_every: u64,
}

impl TrainSettings {
    /// Sequences of one update that this rank trains on.
    ///
    /// # Errors
    /// When the ranks or the micro-batches do not divide the global batch.
    pub fn rank_batch(&self, world: usize) -> Result<usize, TrainError> {
        let fault = |reason: String, hint: &str| TrainError::Settings { key: "training.global_batch", reason, hint: hint.into() };
        if self.micro_batch == 0 || self.global_batch == 0 {
            return Err(fault("is 0".into(), "give at least one sequence"));
        }
        if !self.global_batch.is_multiple_of(world * self.micro_batch) {
            let reason = format!("{} is no multiple of {world} ranks times micro_batch ({})", self.global_batch, self.micro_batch);
            return Err(fault(reason, "choose a micro_batch that divides each rank's share"));
        }
        Ok(self.global_batch / world)
    }

    /// What an engine computes with.
    pub fn arithmetic(&self) -> Arithmetic {
        Arithmetic { precision: self.precision, recompute: self.recompute, z_loss: self.z_loss, padding_in_z: self.corenet_z_loss }
    }
}
