//! What a run learns: where its examples come from, what one update computes of them, and how it is scored.
//!
//! What must stay true: the trainer alone updates, logs, saves and resumes; an objective gives the gradients of the next global
//! batch through the engine and says how to go on from there. Equal states give equal batches.

use openelm_model::OpenElm;
use serde_json::Value;

use crate::engine::Engine;
use crate::error::TrainError;
use crate::metrics::Metrics;
use crate::settings::TrainSettings;

/// Pretraining, supervised fine-tuning, preference tuning.
pub trait Objective: Send {
    /// Takes the next global batch and leaves the gradient of its loss in `engine`, which holds none before.
    ///
    /// # Errors
    /// When the data end or break, or the device fails.
    fn accumulate(&mut self, engine: &mut dyn Engine, model: &OpenElm, settings: &TrainSettings) -> Result<StepLosses, TrainError>;

    /// The loss on held-out examples, if there are any; `loss` of the answer is the validation loss.
    ///
    /// # Errors
    /// When the device fails.
    fn validate(&mut self, engine: &mut dyn Engine, model: &OpenElm, settings: &TrainSettings) -> Result<Option<StepLosses>, TrainError>;

    /// Where the data stand: what a checkpoint keeps, for whoever makes the objective of a resumed run.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    fn state(&self) -> Result<Value, TrainError>;

    /// Seconds that were spent waiting for data so far.
    fn wait_seconds(&self) -> f64 {
        0.0
    }
}

/// What one update, or one validation, computed.
#[derive(Clone, Debug, PartialEq)]
pub struct StepLosses {
    /// The loss whose gradient was taken.
    pub loss: f64,
    /// Targets that it is of.
    pub targets: u64,
    /// What else is logged, by name.
    pub metrics: Metrics,
}
