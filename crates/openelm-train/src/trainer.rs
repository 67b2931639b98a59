//! A run of any objective, from its first update or from a checkpoint to its last.
//!
//! What must stay true: model, optimizer, the objective's state and the counters are the whole state, and all of it is in each
//! checkpoint, so that a resumed run is the uninterrupted one bit for bit on a deterministic device. A stop that was asked for
//! takes effect between two updates and writes a checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use openelm_checkpoint::{Checkpoint, Draft, Manifest, RunFolder, moment_name};
use openelm_model::{OpenElm, ParameterInfo};
use serde_json::Value;

use crate::adamw::{AdamW, MOMENTS};
use crate::engine::{Engine, engine_for};
use crate::error::TrainError;
use crate::evaluation::{Evaluation, EvaluationRecord, Scheduled};
use crate::metrics::{MetricsLog, StepRecord, ValidationRecord};
use crate::objective::Objective;
use crate::settings::TrainSettings;
use crate::step::apply_gradients;
use crate::tensorboard::EventLog;

/// Told what happens during a run; does nothing by default.
pub trait Observer {
    /// An update that is logged was done.
    fn step(&mut self, _record: &StepRecord) {}
    /// Held-out text was scored.
    fn validation(&mut self, _record: &ValidationRecord) {}
    /// The model was evaluated.
    fn evaluation(&mut self, _record: &EvaluationRecord) {}
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
    objective: Box<dyn Objective>,
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
    /// PEFT's configuration of the adapter that is trained.
    adapter: Option<Value>,
    evaluation: Option<Scheduled>,
}

impl Trainer {
    /// A run at its beginning, or where `checkpoint` stood: then `model` must have its weights and `objective` its state.
    ///
    /// # Errors
    /// When the optimizer state does not fit, or the logs cannot be opened.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        settings: TrainSettings,
        facts: RunFacts,
        folder: RunFolder,
        model: OpenElm,
        objective: Box<dyn Objective>,
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
        Ok(Self {
            settings,
            facts,
            folder,
            model,
            optimizer,
            engine,
            objective,
            step,
            tokens,
            saved,
            good: None,
            metrics,
            events,
            adapter: None,
            evaluation: None,
        })
    }

    /// Checkpoints hold the model's adapter with this configuration (PEFT's), and not its base.
    pub fn saving_adapter(mut self, config: Value) -> Self {
        self.adapter = Some(config);
        self
    }

    /// The model is evaluated every `every` updates and after the last one (0: after the last one alone).
    pub fn evaluating(mut self, every: u64, evaluation: Box<dyn Evaluation>) -> Self {
        self.evaluation = Some(Scheduled { every, evaluation });
        self
    }

    /// Trains until all updates are done or `stop` is set.
    ///
    /// # Errors
    /// What stopped the run. Everything up to the last checkpoint is kept.
    pub fn run(&mut self, observer: &mut dyn Observer, stop: &Arc<AtomicBool>) -> Result<Ended, TrainError> {
        self.settings.rank_batch(1)?;
        while self.step < self.settings.steps {
            if stop.load(Ordering::Relaxed) {
                self.save(observer)?;
                return Ok(Ended::Stopped);
            }
            let record = self.update()?;
            if self.step.is_multiple_of(self.settings.log_every.max(1)) || self.step == self.settings.steps {
                self.metrics.write(&record)?;
                if let Some(events) = &mut self.events {
                    let own = record.metrics.reals();
                    let rest = [
                        ("grad_norm", record.grad_norm),
                        ("learning_rate", record.learning_rate),
                        ("tokens", record.tokens as f64),
                        ("tokens_per_second", record.tokens_per_second),
                        ("data_wait_seconds", record.data_wait_seconds),
                    ];
                    let values = [("loss", record.loss)].into_iter().chain(own).chain(rest);
                    events.write(self.step, "train", values)?;
                }
                observer.step(&record);
            }
            let step = self.step;
            let due = |every: u64| every > 0 && step.is_multiple_of(every);
            let last = self.step == self.settings.steps;
            let (validate, save) = (due(self.settings.validate_every) || last, due(self.settings.checkpoint_every) || last);
            if validate {
                self.validate(observer)?;
            }
            if self.evaluation.as_ref().is_some_and(|evaluation| due(evaluation.every) || last) {
                self.evaluate(observer)?;
            }
            if save {
                self.save(observer)?;
            }
        }
        Ok(Ended::Finished)
    }

    fn update(&mut self) -> Result<StepRecord, TrainError> {
        let begin = Instant::now();
        let waited = self.objective.wait_seconds();
        self.engine.begin(self.step);
        let losses = self.objective.accumulate(&mut *self.engine, &self.model, &self.settings);
        let losses = losses.map_err(|error| self.with_last_checkpoint(error))?;
        let applied = apply_gradients(&mut *self.engine, &mut self.model, &mut self.optimizer, losses.loss, self.step, &self.settings);
        let applied = applied.map_err(|error| self.with_last_checkpoint(error))?;
        self.good.clone_from(&self.saved);
        self.step += 1;
        self.tokens += losses.targets;
        Ok(StepRecord {
            step: self.step,
            loss: losses.loss,
            metrics: losses.metrics,
            grad_norm: applied.grad_norm,
            learning_rate: applied.learning_rate,
            tokens: self.tokens,
            tokens_per_second: losses.targets as f64 / begin.elapsed().as_secs_f64(),
            data_wait_seconds: self.objective.wait_seconds() - waited,
        })
    }

    fn validate(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let found = self.objective.validate(&mut *self.engine, &self.model, &self.settings);
        let Some(found) = found.map_err(|error| self.with_last_checkpoint(error))? else { return Ok(()) };
        let record = ValidationRecord { step: self.step, validation_loss: found.loss, metrics: found.metrics };
        self.metrics.write(&record)?;
        if let Some(events) = &mut self.events {
            let values = [("loss", record.validation_loss)].into_iter().chain(record.metrics.reals());
            events.write(self.step, "validation", values)?;
        }
        observer.validation(&record);
        Ok(())
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let Some(evaluation) = &mut self.evaluation else { return Ok(()) };
        let record = evaluation.run(self.step, &self.model)?;
        self.metrics.write(&record)?;
        if let Some(events) = &mut self.events {
            events.write(self.step, "eval", record.scores.0.iter().map(|(name, value)| (name.as_str(), *value)))?;
        }
        observer.evaluation(&record);
        Ok(())
    }

    /// Writes a checkpoint of the present state, unless there is one already.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.saved.as_ref().is_some_and(|(step, _)| *step == self.step) {
            return Ok(());
        }
        let data = self.objective.state()?;
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
        let infos = self.model.trained_infos().to_vec();
        let (model, optimizer, adapter) = (&mut self.model, &self.optimizer, &self.adapter);
        let path = self.folder.save(manifest, |draft: &mut Draft| -> Result<(), TrainError> {
            match adapter {
                Some(config) => draft.adapter(model, config)?,
                None => draft.weights(model)?,
            }
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

fn moments_of(infos: &[ParameterInfo]) -> Vec<(String, Vec<usize>)> {
    let both = infos.iter().flat_map(|info| MOMENTS.map(|kind| (info, kind)));
    both.map(|(info, kind)| (moment_name(kind, &info.name), info.shape.clone())).collect()
}
