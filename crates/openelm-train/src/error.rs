//! What can go wrong while training. Every message says what to do; a failed run leaves its checkpoints as they are.

use std::path::PathBuf;

use openelm_checkpoint::CheckpointError;
use openelm_data::DataError;
use openelm_kernels::KernelError;
use openelm_model::ModelError;
use thiserror::Error;

/// Why a run stopped or could not begin.
#[derive(Debug, Error)]
pub enum TrainError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A batch that does not fit the model.
    #[error("a batch does not fit the model: {reason}\nhint: use the tokenizer that the model's vocabulary was made for")]
    Batch { reason: String },
    /// NaN or infinity, found before the weights were touched.
    #[error(
        "step {step}: {what} is {value}; the weights were left as they were before this step\nhint: {last}; lower schedule.max_lr or raise schedule.warmup_steps, and look for damaged text in the shards of this step"
    )]
    NotFinite { step: u64, what: &'static str, value: f64, last: String },
    /// A kernel refused its input, or the environment asks for what the processor lacks.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The device gave no values.
    #[error(
        "step {step}: reading {what} back from the device failed: {reason}\nhint: the device may be out of memory; lower training.micro_batch or set training.activation_checkpointing"
    )]
    Device { step: u64, what: &'static str, reason: String },
    /// The evaluation that the run was given failed.
    #[error("step {step}: evaluating the model failed: {source}")]
    Evaluation { step: u64, source: crate::evaluation::EvaluationError },
    /// A log that cannot be written.
    #[error("{path}: {action} failed: {source}\nhint: check the free space and the permissions of the run folder", path = path.display())]
    Log { path: PathBuf, action: &'static str, source: std::io::Error },
    /// A log whose content is not what this program writes.
    #[error("{path}, line {line}: {reason}\nhint: move the file away; the run goes on without the old lines", path = path.display())]
    BadLog { path: PathBuf, line: usize, reason: String },
    /// Optimizer state that does not belong to the weights.
    #[error(
        "the optimizer state does not fit the model: {reason}\nhint: resume with the configuration that the checkpoint was written with"
    )]
    Optimizer { reason: String },
    /// A state of the data that cannot be written down.
    #[error("the state of the data cannot be saved: {reason}\nhint: report this, with the configuration")]
    State { reason: String },
    /// Settings that make no run.
    #[error("{key}: {reason}\nhint: {hint}")]
    Settings { key: &'static str, reason: String, hint: String },
}
