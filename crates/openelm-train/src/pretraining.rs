//! The pretraining objective: cross entropy and z-loss of the loader's next batch.
//!
//! What must stay true: the loader's state is the whole state.

use openelm_checkpoint::{Checkpoint, CheckpointError};
use openelm_data::{Loader, LoaderState};
use openelm_model::OpenElm;
use serde_json::Value;

use crate::engine::{Engine, LossSums};
use crate::error::TrainError;
use crate::metrics::Metrics;
use crate::micro_batch::MicroBatch;
use crate::objective::{Objective, StepLosses};
use crate::settings::TrainSettings;
use crate::step::accumulate_batches;

/// Text from a loader, and held-out text.
pub struct Pretraining {
    loader: Loader,
    validation: Vec<MicroBatch>,
}

impl Pretraining {
    /// Goes on where `loader` stands; without `validation` nothing is scored.
    pub fn new(loader: Loader, validation: Vec<MicroBatch>) -> Self {
        Self { loader, validation }
    }
}

impl Objective for Pretraining {
    fn accumulate(&mut self, engine: &mut dyn Engine, model: &OpenElm, settings: &TrainSettings) -> Result<StepLosses, TrainError> {
        let batch = self.loader.next_batch(settings.rank_batch(1)?)?;
        let batches = MicroBatch::cut(&batch, settings.micro_batch, model.config().vocab_size)?;
        let losses = accumulate_batches(engine, model, &batches, settings)?;
        let mut metrics = Metrics::default();
        metrics.real("ce_loss", losses.ce_loss);
        metrics.real("z_loss", losses.z_loss);
        Ok(StepLosses { loss: losses.ce_loss + losses.z_loss, targets: losses.sums.targets, metrics })
    }

    fn validate(&mut self, engine: &mut dyn Engine, model: &OpenElm, settings: &TrainSettings) -> Result<Option<StepLosses>, TrainError> {
        mean_loss(engine, model, &self.validation, settings)
    }

    fn state(&self) -> Result<Value, TrainError> {
        serde_json::to_value(self.loader.state()).map_err(|error| TrainError::State { reason: error.to_string() })
    }

    fn wait_seconds(&self) -> f64 {
        self.loader.wait_seconds()
    }
}

/// Mean cross entropy of held-out batches and its perplexity; `None` without batches.
///
/// # Errors
/// When the device fails.
pub fn mean_loss(
    engine: &mut dyn Engine,
    model: &OpenElm,
    batches: &[MicroBatch],
    settings: &TrainSettings,
) -> Result<Option<StepLosses>, TrainError> {
    if batches.is_empty() {
        return Ok(None);
    }
    let mut sums = LossSums::default();
    for batch in batches {
        sums.add(engine.losses(model, batch, &settings.arithmetic())?);
    }
    let loss = sums.ce_loss();
    let mut metrics = Metrics::default();
    metrics.real("perplexity", loss.exp());
    metrics.count("validation_tokens", sums.targets);
    Ok(Some(StepLosses { loss, targets: sums.targets, metrics }))
}

/// The loader's state in a checkpoint.
///
/// # Errors
/// When the manifest holds no such state.
pub fn loader_state(checkpoint: &Checkpoint) -> Result<LoaderState, TrainError> {
    serde_json::from_value(checkpoint.manifest().data.clone()).map_err(|error| {
        TrainError::Checkpoint(CheckpointError::Damaged {
            path: checkpoint.path().to_owned(),
            reason: format!("its manifest holds no loader state: {error}"),
            hint: "resume from an older checkpoint".into(),
        })
    })
}
