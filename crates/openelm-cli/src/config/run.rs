//! The whole run file, and its small sections: checkpoints, logs, the text at the end and the export at the end.

use serde::{Deserialize, Serialize};

use super::{
    ConfigError, DataSection, EvalSection, ModelSection, OptimizerSection, ScheduleSection, TokenizerSection, TrainingSection,
    ValidationSection,
};

/// One pretraining run. Every key that is absent from a file has the default written beside its field here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the sections of a run file")]
pub struct RunConfig {
    /// What logs, cards and exports call the run.
    pub name: String,
    /// Seed of the initial weights, and of the data order where `data.seed` is absent. Default 0.
    #[serde(default)]
    pub seed: u64,
    pub model: ModelSection,
    pub tokenizer: TokenizerSection,
    pub data: DataSection,
    /// Absent: no validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationSection>,
    /// Absent: no tasks are asked while the model is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalSection>,
    pub training: TrainingSection,
    #[serde(default)]
    pub optimizer: OptimizerSection,
    pub schedule: ScheduleSection,
    #[serde(default)]
    pub checkpoint: CheckpointSection,
    #[serde(default)]
    pub log: LogSection,
    /// Absent: no text is printed at the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleSection>,
    /// Absent: nothing is exported at the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<ExportSection>,
}

/// When checkpoints are written, and which stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the keys of `checkpoint`")]
pub struct CheckpointSection {
    /// Updates between two checkpoints; 0 writes one at the end alone. Default 1000.
    pub every: u64,
    /// Newest checkpoints that stay. Default 2.
    pub keep_last: u64,
    /// Checkpoints of steps that are a multiple of this stay for ever; 0 keeps none so. Default 0.
    pub keep_every: u64,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        Self { every: 1000, keep_last: 2, keep_every: 0 }
    }
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the keys of `log`")]
pub struct LogSection {
    /// Updates between two lines. Default 1.
    pub every: u64,
    /// TensorBoard event files beside the text log. Default true.
    pub tensorboard: bool,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { every: 1, tensorboard: true }
    }
}

/// Text that the finished model writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `sample`")]
pub struct SampleSection {
    pub prompt: String,
    /// Default 64.
    #[serde(default = "default_max_new_tokens")]
    pub max_new_tokens: u64,
    /// 0 takes the likeliest token each time. Default 0.
    #[serde(default)]
    pub temperature: f64,
    /// Likeliest tokens that are drawn from; 0 means all. Default 0.
    #[serde(default)]
    pub top_k: u64,
    /// Smallest set of tokens with this probability is drawn from; 1 means all. Default 1.
    #[serde(default = "default_top_p")]
    pub top_p: f64,
}

fn default_max_new_tokens() -> u64 {
    64
}
fn default_top_p() -> f64 {
    1.0
}

/// The artefact that is made of the finished model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `export`")]
pub struct ExportSection {
    pub format: ExportFormat,
}

/// Artefacts that the end of a run can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A Hugging Face folder.
    Hf,
}

impl RunConfig {
    /// The seed of the data order: `data.seed`, else the run's.
    pub fn data_seed(&self) -> u64 {
        self.data.seed.unwrap_or(self.seed)
    }

    /// The iteration at which the learning rate would reach its minimum: `schedule.max_iterations`, else the number of updates.
    pub fn max_iterations(&self) -> u64 {
        self.schedule.max_iterations.unwrap_or(self.training.steps)
    }

    /// Micro-batches of one update (validation has made sure that there is no remainder).
    pub fn accumulation_steps(&self) -> u64 {
        self.training.global_batch / self.training.micro_batch.max(1)
    }

    /// The file that reads back as this configuration, without comments.
    ///
    /// # Errors
    /// When the writer fails; no value of this type makes it do so.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        serde_yaml_ng::to_string(self).map_err(|source| ConfigError::Write { reason: source.to_string() })
    }
}
