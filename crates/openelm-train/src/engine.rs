//! Who computes losses, gradients and updates: burn's operations on any device, or this project's own kernels on the CPU.
//!
//! What must stay true: both compute the same; everything that looks at the gradients of one update as a whole (their sum over
//! micro-batches, their norm, the update) is behind this one interface, so that gradients of several ranks can be added in one
//! place. Gradients are held between [`accumulate`](Engine::accumulate) and [`update`](Engine::update).

use openelm_kernels::Dropout;
use openelm_model::{OpenElm, Precision};

use crate::adamw::AdamW;
use crate::burn_engine::BurnEngine;
use crate::cpu_engine::CpuEngine;
use crate::error::TrainError;
use crate::micro_batch::MicroBatch;

/// How losses and gradients are computed.
#[derive(Clone, Copy, Debug)]
pub struct Arithmetic {
    /// Type of the matrix products.
    pub precision: Precision,
    /// Run each block a second time in the backward pass instead of keeping its activations.
    pub recompute: bool,
    /// Factor of the squared log-partition in the loss.
    pub z_loss: f64,
    /// Count each padding target's ln(vocabulary)² in the reported z-loss, as CoreNet does (it multiplies those logits by 0).
    pub padding_in_z: bool,
}

/// Sums over targets; micro-batches add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Σ cross entropy over counted targets, in nats.
    pub ce: f64,
    /// Σ logsumexp² over counted targets, and over padding where CoreNet counts it.
    pub z: f64,
    /// Counted targets.
    pub targets: u64,
}

impl LossSums {
    /// What one micro-batch adds: its sums over counted targets, and CoreNet's share of its padding.
    pub(crate) fn of(batch: &MicroBatch, ce: f64, z: f64, arithmetic: &Arithmetic, vocabulary: usize) -> Self {
        let targets = batch.target_count();
        let padding = if arithmetic.padding_in_z { batch.positions() as u64 - targets } else { 0 };
        Self { ce, z: z + padding as f64 * (vocabulary as f64).ln().powi(2), targets }
    }

    /// Adds another micro-batch.
    pub fn add(&mut self, other: Self) {
        self.ce += other.ce;
        self.z += other.z;
        self.targets += other.targets;
    }

    /// Mean cross entropy.
    pub fn ce_loss(&self) -> f64 {
        self.ce / self.targets.max(1) as f64
    }

    /// The z-loss as it enters the total.
    pub fn z_loss(&self, weight: f64) -> f64 {
        weight * self.z / self.targets.max(1) as f64
    }
}

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Counted from 1.
    pub step: u64,
    pub learning_rate: f64,
    /// What the gradients are multiplied by first.
    pub factor: f64,
}

/// Losses, gradients and updates of one model.
pub trait Engine: Send {
    /// The losses of `batch`, without gradients.
    ///
    /// # Errors
    /// When the sequence is longer than the rotary table, or the device fails.
    fn losses(&mut self, model: &OpenElm, batch: &MicroBatch, arithmetic: &Arithmetic) -> Result<LossSums, TrainError>;

    /// The losses of `batch`; adds `scale` times the gradient of Σ (ce + z_loss · lse²) over its counted targets to the held
    /// gradients.
    ///
    /// # Errors
    /// As [`losses`](Engine::losses).
    fn accumulate(&mut self, model: &OpenElm, batch: &MicroBatch, scale: f64, arithmetic: &Arithmetic) -> Result<LossSums, TrainError>;

    /// Σ ln p of each row's counted targets, in nats: what preference objectives compare.
    ///
    /// # Errors
    /// As [`losses`](Engine::losses).
    fn row_log_probabilities(&mut self, model: &OpenElm, batch: &MicroBatch, arithmetic: &Arithmetic) -> Result<Vec<f64>, TrainError>;

    /// The same sums; `weigh` makes one weight for each row of them, and the gradient of Σ over rows of weight · sum is added to the
    /// held gradients. The blocks run forward once. A row of weight 0 adds exactly nothing, yet its parameters have a gradient then.
    ///
    /// # Errors
    /// As [`losses`](Engine::losses), and when `weigh` gives another number of weights.
    fn accumulate_weighted(
        &mut self,
        model: &OpenElm,
        batch: &MicroBatch,
        arithmetic: &Arithmetic,
        weigh: &mut dyn FnMut(&[f64]) -> Vec<f64>,
    ) -> Result<Vec<f64>, TrainError>;

    /// The Euclidean norm of the held gradients over all parameters.
    ///
    /// # Errors
    /// When the device fails.
    fn norm(&self, model: &OpenElm) -> Result<f64, TrainError>;

    /// A copy of the held gradient of parameter number `index`, if there is one.
    ///
    /// # Errors
    /// When the device fails.
    fn gradient(&self, index: usize) -> Result<Option<Vec<f32>>, TrainError>;

    /// Updates the weights with the held gradients, which are gone afterwards.
    ///
    /// # Errors
    /// When weights or moments are not where the engine can reach them.
    fn update(&mut self, model: &mut OpenElm, optimizer: &mut AdamW, update: &Update) -> Result<(), TrainError>;

    /// Drops the held gradients.
    fn discard(&mut self);

    /// Begins update number `step`, counted from 0, without gradients. What an adapter's dropout drops depends on the step and on how
    /// many training passes came before in it, so that a resumed run drops the same.
    fn begin(&mut self, step: u64);
}

/// The training passes of one update so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passes {
    step: u64,
    done: u64,
}

impl Passes {
    pub fn begin(step: u64) -> Self {
        Self { step, done: 0 }
    }

    /// The seed of what the next pass drops, where `model` has an adapter.
    pub fn seed(&mut self, model: &OpenElm) -> Option<u64> {
        let number = self.done;
        self.done += 1;
        model.is_adapted().then(|| Dropout::seed_of(model.dropout_seed(), &[self.step, number]))
    }
}

/// The engine for the device of `model`: the CPU kernels on Flex, burn elsewhere. With OPENELM_KERNELS=off, burn everywhere.
///
/// # Errors
/// When the environment asks for an instruction set or threads that are not there.
pub fn engine_for(model: &OpenElm) -> Result<Box<dyn Engine>, TrainError> {
    let off = std::env::var("OPENELM_KERNELS").is_ok_and(|value| value == "off");
    if !off && CpuEngine::can_run(model) {
        return Ok(Box::new(CpuEngine::new()?));
    }
    Ok(Box::new(BurnEngine::new(model)))
}

/// The weights that `weigh` makes of `sums`, one each.
pub(crate) fn row_weights(sums: &[f64], weigh: &mut dyn FnMut(&[f64]) -> Vec<f64>) -> Result<Vec<f64>, TrainError> {
    let weights = weigh(sums);
    if weights.len() == sums.len() {
        return Ok(weights);
    }
    Err(TrainError::Batch { reason: format!("{} weights for {} rows", weights.len(), sums.len()) })
}

/// Added to the norm before the division, as in PyTorch's `clip_grad_norm_`.
const CLIP_EPSILON: f64 = 1e-6;

/// The factor that brings a gradient of this norm to at most `limit`; 1 when `limit` is 0 (no clipping).
pub fn clip_factor(norm: f64, limit: f64) -> f64 {
    if limit > 0.0 { (limit / (norm + CLIP_EPSILON)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_reaches_the_limit() {
        assert!((clip_factor(5.0, 1.0) * 5.0 - 1.0).abs() < 1e-6);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert_eq!(clip_factor(5.0, 0.0), 1.0);
    }
}
