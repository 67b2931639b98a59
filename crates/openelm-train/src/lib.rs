//! Training: objective, gradients, AdamW, schedule, the step, and a run with its logs, validation and checkpoints.
//!
//! What must stay true: a step is one optimizer update; nothing here depends on the wall clock but the reported speeds; whatever
//! a run needs to continue is in its checkpoint.

mod adamw;
mod burn_engine;
mod counted;
mod cpu_engine;
mod engine;
mod error;
mod evaluation;
mod gradients;
mod head_loss;
mod host_adapter;
mod host_model;
mod metrics;
mod micro_batch;
mod objective;
mod places;
mod pretraining;
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
pub use evaluation::{Evaluation, EvaluationError, EvaluationRecord, Scores};
pub use metrics::{Metrics, MetricsLog, Number, StepRecord, ValidationRecord};
pub use micro_batch::MicroBatch;
pub use objective::{Objective, StepLosses};
pub use pretraining::{Pretraining, loader_state, mean_loss};
pub use schedule::{CORENET_DECIMALS, Schedule};
pub use settings::{Accumulation, TrainSettings};
pub use step::{Applied, BatchLosses, StepOutcome, accumulate_batches, apply_gradients, train_step};
pub use tensorboard::EventLog;
pub use trainer::{Ended, Observer, RunFacts, Trainer};

/// What a run is made of and read from: in the interface of this crate, so that whoever has an objective of its own needs no other.
pub use openelm_checkpoint;
pub use openelm_checkpoint::{Checkpoint, CheckpointError, RunFolder, Weights};
pub use openelm_data::{DataError, Place, Row, SplitMix64, fix_text, read_rows};
pub use openelm_model::{ModelConfig, ModelError, OpenElm, ParameterInfo, Precision, open_device};
