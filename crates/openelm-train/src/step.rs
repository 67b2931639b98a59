//! One update: micro-batches into one gradient, its norm, clipping, the optimizer.
//!
//! What must stay true: the model and the optimizer change only after the loss and the norm were found finite; the result does
//! not depend on how a [`Mean`](crate::Accumulation::Mean) update is cut into micro-batches, up to rounding.

use openelm_model::OpenElm;

use crate::adamw::AdamW;
use crate::engine::{Engine, LossSums, Update, clip_factor};
use crate::error::TrainError;
use crate::micro_batch::MicroBatch;
use crate::settings::{Accumulation, TrainSettings};

/// What one update on given batches computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    pub losses: LossSums,
    /// Mean cross entropy, with CoreNet's mean over micro-batches where it sums them.
    pub ce_loss: f64,
    /// The z-loss as it enters the total.
    pub z_loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
}

/// Does update number `step`, counted from 0, on `batches`.
///
/// # Errors
/// When the loss or the norm is not finite (nothing was changed then), or the device fails.
pub fn train_step(
    engine: &mut dyn Engine,
    model: &mut OpenElm,
    optimizer: &mut AdamW,
    batches: &[MicroBatch],
    step: u64,
    settings: &TrainSettings,
) -> Result<StepOutcome, TrainError> {
    engine.begin(step);
    let BatchLosses { sums, ce_loss, z_loss } = accumulate_batches(engine, model, batches, settings)?;
    let Applied { grad_norm, learning_rate } = apply_gradients(engine, model, optimizer, ce_loss + z_loss, step, settings)?;
    Ok(StepOutcome { losses: sums, ce_loss, z_loss, grad_norm, learning_rate })
}

/// The losses of one update's micro-batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchLosses {
    pub sums: LossSums,
    /// Mean cross entropy, with CoreNet's mean over micro-batches where it sums them.
    pub ce_loss: f64,
    /// The z-loss as it enters the total.
    pub z_loss: f64,
}

/// Adds the gradients of all `batches` to those that `engine` holds, as the settings put them together.
///
/// # Errors
/// When the device fails.
pub fn accumulate_batches(
    engine: &mut dyn Engine,
    model: &OpenElm,
    batches: &[MicroBatch],
    settings: &TrainSettings,
) -> Result<BatchLosses, TrainError> {
    let arithmetic = settings.arithmetic();
    let total: u64 = batches.iter().map(MicroBatch::target_count).sum();
    let mut sums = LossSums::default();
    let (mut ce_loss, mut z_loss) = (0.0, 0.0);
    for batch in batches {
        let targets = match settings.accumulation {
            Accumulation::Mean => total,
            Accumulation::Sum => batch.target_count(),
        };
        let of_batch = engine.accumulate(model, batch, 1.0 / targets.max(1) as f64, &arithmetic)?;
        ce_loss += of_batch.ce_loss() / batches.len() as f64;
        z_loss += of_batch.z_loss(settings.z_loss) / batches.len() as f64;
        sums.add(of_batch);
    }
    if settings.accumulation == Accumulation::Mean {
        (ce_loss, z_loss) = (sums.ce_loss(), sums.z_loss(settings.z_loss));
    }
    Ok(BatchLosses { sums, ce_loss, z_loss })
}

/// What an update did with its gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied {
    /// Before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
}

/// Update number `step`, counted from 0, with the held gradients of `loss`.
///
/// # Errors
/// When the loss or the norm is not finite (nothing was changed then), or the device fails.
pub fn apply_gradients(
    engine: &mut dyn Engine,
    model: &mut OpenElm,
    optimizer: &mut AdamW,
    loss: f64,
    step: u64,
    settings: &TrainSettings,
) -> Result<Applied, TrainError> {
    let grad_norm = engine.norm(model)?;
    for (what, value) in [("the loss", loss), ("the gradient's norm", grad_norm)] {
        if !value.is_finite() {
            engine.discard();
            return Err(TrainError::NotFinite { step: step + 1, what, value, last: String::new() });
        }
    }
    let learning_rate = settings.schedule.rate(step);
    let factor = clip_factor(grad_norm, settings.grad_clip);
    engine.update(model, optimizer, &Update { step: step + 1, learning_rate, factor })?;
    Ok(Applied { grad_norm, learning_rate })
}
