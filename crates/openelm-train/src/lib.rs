//! Training: objective, gradients, AdamW, schedule, the step, and a run with its logs, validation and checkpoints.
//!
//! What must stay true: a step is one optimizer update; nothing here depends on the wall clock but the reported speeds; whatever
//! a run needs to continue is in its checkpoint.

mod adamw;
mod burn_engine;
mod cpu_engine;
mod engine;
mod error;
mod gradients;
mod head_loss;
mod host_model;
mod metrics;
mod micro_batch;
mod schedule;
mod settings;
mod step;
mod tensorboard;
mod trainer;

pub use adamw::{AdamW, AdamWConfig, MOMENTS};
pub use burn_engine::BurnEngine;
pub use cpu_engine::CpuEngine;
pub use engine::{Arithmetic, Engine, LossSums, Update, clip_factor, engine_for};
pub use error::TrainError;
pub use metrics::{MetricsLog, StepRecord, ValidationRecord};
pub use micro_batch::MicroBatch;
pub use schedule::Schedule;
pub use settings::{Accumulation, TrainSettings};
pub use step::{StepOutcome, train_step};
pub use tensorboard::EventLog;
pub use trainer::{Ended, Observer, RunFacts, Trainer, loader_state};

/// What run folders, weights and models are, for crates that build on this one.
pub use openelm_checkpoint;
