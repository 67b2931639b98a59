//! A pretraining run, from its first update or from a checkpoint to its last.
//!
//! What must stay true: model, optimizer, loader state and the counters are the whole state, and all of it is in each
//! checkpoint, so that a resumed run is the uninterrupted one bit for bit on a deterministic device. A stop that was asked for
//! takes effect between two updates and writes a checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use openelm_checkpoint::{Checkpoint, CheckpointError, Draft, Manifest, RunFolder, moment_name};
use openelm_data::{Loader, LoaderState};
use openelm_model::{OpenElm, ParameterInfo};
use serde_json::Value;

use crate::adamw::{AdamW, MOMENTS};
use crate::engine::{Engine, LossSums, engine_for};
use crate::error::TrainError;
use crate::metrics::{MetricsLog, StepRecord, ValidationRecord};
use crate::micro_batch::MicroBatch;
use crate::settings::TrainSettings;
use crate::step::train_step;
use crate::tensorboard::EventLog;

/// Told what happens during a run; does nothing by default.
pub trait Observer {
    /// An update that is logged was done.
    fn step(&mut self, _record: &StepRecord) {}
    /// Held-out text was scored.
    fn validation(&mut self, _record: &ValidationRecord) {}
    /// A checkpoint was written.
    fn checkpoint(&mut self, _step: u64, _path: &std::path::Path) {}
}

impl Observer for () {}

/// Facts of a run that checkpoints repeat.
#[derive(Clone, Debug)]
pub struct RunFacts {
    pub seed: u64,
    /// The tokenizer's digest.
    pub tokenizer: String,
    /// The resolved configuration.
    pub config: Value,
    /// The program's version.
    pub program: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All updates are done.
    Finished,
    /// The stop flag was set; a checkpoint holds everything so far.
    Stopped,
}

/// A run in progress.
pub struct Trainer {
    settings: TrainSettings,
    facts: RunFacts,
    folder: RunFolder,
    model: OpenElm,
    optimizer: AdamW,
    engine: Box<dyn Engine>,
    loader: Loader,
    validation: Vec<MicroBatch>,
    /// Updates done.
    step: u64,
    /// Targets seen.
    tokens: u64,
    /// The step of the newest checkpoint, and its folder.
    saved: Option<(u64, std::path::PathBuf)>,
    /// The newest checkpoint whose weights have given a finite loss since: the only proof that they are good.
    good: Option<(u64, std::path::PathBuf)>,
    metrics: MetricsLog,
    events: Option<EventLog>,
}

impl Trainer {
    /// A run at its beginning, or where `checkpoint` stood: then `model` must have its weights and `loader` its state.
    ///
    /// # Errors
    /// When the optimizer state does not fit, or the logs cannot be opened.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        settings: TrainSettings,
        facts: RunFacts,
        folder: RunFolder,
        model: OpenElm,
        loader: Loader,
        validation: Vec<MicroBatch>,
        checkpoint: Option<&Checkpoint>,
        tensorboard: bool,
    ) -> Result<Self, TrainError> {
        let (optimizer, step, tokens) = match checkpoint {
            None => (AdamW::new(settings.optimizer, &model), 0, 0),
            Some(checkpoint) => {
                let state = checkpoint.optimizer()?;
                let read = |info: &ParameterInfo, kind: &'static str| -> Result<Vec<f32>, TrainError> {
                    Ok(state.values(&moment_name(kind, &info.name))?)
                };
                let optimizer = AdamW::restore(settings.optimizer, &model, read)?;
                (optimizer, checkpoint.manifest().step, checkpoint.manifest().tokens)
            }
        };
        let engine = engine_for(&model)?;
        let metrics = MetricsLog::open(folder.path(), step)?;
        let events = tensorboard.then(|| EventLog::create(&folder.path().join("tensorboard"))).transpose()?;
        let saved = checkpoint.map(|checkpoint| (step, checkpoint.path().to_owned()));
        Ok(Self { settings, facts, folder, model, optimizer, engine, loader, validation, step, tokens, saved, good: None, metrics, events })
    }

    /// Trains until all updates are done or `stop` is set.
    ///
    /// # Errors
    /// What stopped the run. Everything up to the last checkpoint is kept.
    pub fn run(&mut self, observer: &mut dyn Observer, stop: &Arc<AtomicBool>) -> Result<Ended, TrainError> {
        let rank_batch = self.settings.rank_batch(1)?;
        while self.step < self.settings.steps {
            if stop.load(Ordering::Relaxed) {
                self.save(observer)?;
                return Ok(Ended::Stopped);
            }
            let record = self.update(rank_batch)?;
            if self.step.is_multiple_of(self.settings.log_every.max(1)) || self.step == self.settings.steps {
                self.metrics.write(&record)?;
                if let Some(events) = &mut self.events {
                    let values = [
                        ("train/loss", record.loss),
                        ("train/ce_loss", record.ce_loss),
                        ("train/z_loss", record.z_loss),
                        ("train/grad_norm", record.grad_norm),
                        ("train/learning_rate", record.learning_rate),
                        ("train/tokens", record.tokens as f64),
                        ("train/tokens_per_second", record.tokens_per_second),
                        ("train/data_wait_seconds", record.data_wait_seconds),
                    ];
                    events.write(self.step, &values)?;
                }
                observer.step(&record);
            }
            let due = |every: u64| every > 0 && self.step.is_multiple_of(every);
            let last = self.step == self.settings.steps;
            let (validate, save) = (due(self.settings.validate_every) || last, due(self.settings.checkpoint_every) || last);
            if validate {
                self.validate(observer)?;
            }
            if save {
                self.save(observer)?;
            }
        }
        Ok(Ended::Finished)
    }

    fn update(&mut self, rank_batch: usize) -> Result<StepRecord, TrainError> {
        let begin = Instant::now();
        let waited = self.loader.wait_seconds();
        let batch = self.loader.next_batch(rank_batch)?;
        let batches = MicroBatch::cut(&batch, self.settings.micro_batch, self.model.config().vocab_size)?;
        let outcome = train_step(&mut *self.engine, &mut self.model, &mut self.optimizer, &batches, self.step, &self.settings);
        let outcome = outcome.map_err(|error| self.with_last_checkpoint(error))?;
        self.good.clone_from(&self.saved);
        self.step += 1;
        self.tokens += outcome.losses.targets;
        Ok(StepRecord {
            step: self.step,
            loss: outcome.ce_loss + outcome.z_loss,
            ce_loss: outcome.ce_loss,
            z_loss: outcome.z_loss,
            grad_norm: outcome.grad_norm,
            learning_rate: outcome.learning_rate,
            tokens: self.tokens,
            tokens_per_second: outcome.losses.targets as f64 / begin.elapsed().as_secs_f64(),
            data_wait_seconds: self.loader.wait_seconds() - waited,
        })
    }

    fn validate(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.validation.is_empty() {
            return Ok(());
        }
        let mut sums = LossSums::default();
        for batch in &self.validation {
            sums.add(self.engine.losses(&self.model, batch, &self.settings.arithmetic())?);
        }
        let loss = sums.ce_loss();
        let record = ValidationRecord { step: self.step, validation_loss: loss, perplexity: loss.exp(), validation_tokens: sums.targets };
        self.metrics.write(&record)?;
        if let Some(events) = &mut self.events {
            events.write(self.step, &[("validation/loss", record.validation_loss), ("validation/perplexity", record.perplexity)])?;
        }
        observer.validation(&record);
        Ok(())
    }

    /// Writes a checkpoint of the present state, unless there is one already.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.saved.as_ref().is_some_and(|(step, _)| *step == self.step) {
            return Ok(());
        }
        let data = serde_json::to_value(self.loader.state()).map_err(|error| TrainError::Log {
            path: self.folder.path().to_owned(),
            action: "writing the loader's state",
            source: error.into(),
        })?;
        let manifest = Manifest {
            version: Manifest::VERSION,
            program: self.facts.program.clone(),
            step: self.step,
            tokens: self.tokens,
            seed: self.facts.seed,
            tokenizer: self.facts.tokenizer.clone(),
            model: self.model.config().clone(),
            data,
            config: self.facts.config.clone(),
            files: Vec::new(),
        };
        let infos = self.model.infos().to_vec();
        let (model, optimizer) = (&mut self.model, &self.optimizer);
        let path = self.folder.save(manifest, |draft: &mut Draft| -> Result<(), TrainError> {
            draft.weights(model)?;
            draft.optimizer(&moments_of(&infos), |write| {
                optimizer.read(&infos, |info, kind, values| Ok(write(&moment_name(kind, &info.name), &values)?))
            })
        })?;
        self.folder.prune(self.settings.keep_last, self.settings.keep_every)?;
        observer.checkpoint(self.step, &path);
        self.saved = Some((self.step, path));
        Ok(())
    }

    fn with_last_checkpoint(&self, error: TrainError) -> TrainError {
        match error {
            TrainError::NotFinite { step, what, value, .. } => {
                // Weights that were saved right before may be what gives this.
                let suspect = self.saved.as_ref().filter(|saved| Some(*saved) != self.good.as_ref());
                let suspect = suspect.map(|(_, path)| path.display().to_string());
                let good = self.good.as_ref().filter(|(_, path)| path.exists());
                let last = match (good, suspect) {
                    (Some((step, path)), None) => format!("the last good checkpoint is of step {step}: {}", path.display()),
                    (Some((step, path)), Some(suspect)) => {
                        format!(
                            "the last good checkpoint is of step {step}: {}; remove the newer one, {suspect}, before you resume",
                            path.display()
                        )
                    }
                    (None, Some(suspect)) => {
                        format!("the newest checkpoint may be the cause: remove {suspect} and resume from an older one")
                    }
                    (None, None) => "there is no checkpoint yet".into(),
                };
                TrainError::NotFinite { step, what, value, last }
            }
            TrainError::Device { what, reason, .. } => TrainError::Device { step: self.step + 1, what, reason },
            other => other,
        }
    }

    /// Updates done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Targets seen, padding not counted.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The model as it stands.
    pub fn into_model(self) -> OpenElm {
        self.model
    }
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

fn moments_of(infos: &[ParameterInfo]) -> Vec<(String, Vec<usize>)> {
    let both = infos.iter().flat_map(|info| MOMENTS.map(|kind| (info, kind)));
    both.map(|(info, kind)| (moment_name(kind, &info.name), info.shape.clone())).collect()
}
