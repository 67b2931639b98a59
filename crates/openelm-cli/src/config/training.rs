//! How long, how large and with which arithmetic a run trains; its optimizer and its learning rate.

use serde::{Deserialize, Serialize};

/// Size, length and arithmetic of the updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `training`")]
pub struct TrainingSection {
    /// Optimizer updates.
    pub steps: u64,
    /// Sequences of one update, over all ranks; a multiple of `micro_batch`.
    pub global_batch: u64,
    /// Sequences that go through the model at once.
    pub micro_batch: u64,
    /// Arithmetic of the forward and backward pass. Default f32.
    #[serde(default)]
    pub dtype: Dtype,
    /// Recompute each layer in the backward pass instead of keeping its activations. Default false.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Largest global norm of the gradient; 0 leaves it as it is. Default 1.
    #[serde(default = "default_grad_clip")]
    pub grad_clip: f64,
    /// Factor of the squared log-partition that is added to the loss; 0 adds none. Default 1e-4.
    #[serde(default = "default_z_loss")]
    pub z_loss: f64,
    /// How micro-batches become one gradient. Default mean.
    #[serde(default)]
    pub accumulation: Accumulation,
    /// Where tensors live: flex, wgpu, cuda, tch and whatever else the program was built with. Default flex.
    #[serde(default = "default_device")]
    pub device: String,
}

pub(super) fn default_grad_clip() -> f64 {
    1.0
}
fn default_z_loss() -> f64 {
    1e-4
}
pub(super) fn default_device() -> String {
    "flex".into()
}

/// Arithmetic of the forward and backward pass; weights and optimizer state stay f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    #[default]
    F32,
    Bf16,
}

/// How the gradients of one update's micro-batches are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accumulation {
    /// The gradient does not depend on how an update is cut into micro-batches.
    #[default]
    Mean,
    /// CoreNet's way: the gradient grows with the number of micro-batches, until clipping.
    Sum,
}

/// AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the keys of `optimizer`")]
pub struct OptimizerSection {
    /// Default 0.1.
    pub weight_decay: f64,
    /// Default 0.9.
    pub beta1: f64,
    /// Default 0.95.
    pub beta2: f64,
    /// Default 1e-8.
    pub eps: f64,
    /// Norm weights and other vectors do not decay. Default true.
    pub no_decay_1d: bool,
}

impl Default for OptimizerSection {
    fn default() -> Self {
        Self { weight_decay: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, no_decay_1d: true }
    }
}

/// Linear warm-up, then CoreNet's cosine (`corenet/optims/scheduler/cosine.py`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `schedule`")]
pub struct ScheduleSection {
    /// Updates before the peak.
    pub warmup_steps: u64,
    /// Learning rate of the first update. Default 1e-6.
    #[serde(default = "default_warmup_init_lr")]
    pub warmup_init_lr: f64,
    /// The peak.
    pub max_lr: f64,
    /// The end of the cosine.
    pub min_lr: f64,
    /// CoreNet's `max_iterations`: the cosine ends one update after it. Default: the number of updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_iterations: Option<u64>,
}

fn default_warmup_init_lr() -> f64 {
    1e-6
}
