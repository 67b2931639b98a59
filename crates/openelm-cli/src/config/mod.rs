//! Configuration files: of a pretraining run, in our own YAML form or Apple's CoreNet form, into one [`RunConfig`]; of a
//! fine-tuning run into a [`FinetuneConfig`].
//!
//! What must stay true: reading is strict (an unknown key, a wrong type or an impossible number is an error with its place, its
//! key, a reason and a hint); a configuration that was loaded has passed [`RunConfig::validate`] and names files by absolute
//! path; writing one and reading it back gives the same value. No other crate of the workspace is used here.

mod adapter;
pub mod corenet;
#[cfg(test)]
mod damage_tests;
mod data;
mod error;
mod eval;
mod finetune;
mod load;
mod locate;
mod model;
mod overrides;
mod parse;
mod paths;
mod run;
#[cfg(test)]
mod shipped_tests;
#[cfg(test)]
mod tests;
mod training;
mod validate;
mod validate_data;
mod validate_finetune;

pub use adapter::{AdapterSection, BaseDtype, TargetModules};
pub use data::{
    CorpusSection, DataSection, ObjectStoreSection, OnBadRecord, Order, Packing, TokenizerSection, TokenizerTraining, ValidationSection,
};
pub use error::{ConfigError, Place};
pub use eval::EvalSection;
pub use finetune::{
    ConversationSection, FinetuneConfig, HeldOutSection, LayoutName, ObjectiveKind, ObjectiveSection, PreferenceLossName, ReferenceName,
    TrainOnName, TuningOptimizerSection, TuningScheduleSection, TuningSection,
};
pub use load::Loaded;
pub use model::{ModelSection, Multipliers, Preset};
pub use run::{CheckpointSection, ExportFormat, ExportSection, LogSection, RunConfig, SampleSection};
pub use training::{Accumulation, Dtype, OptimizerSection, ScheduleSection, TrainingSection};
