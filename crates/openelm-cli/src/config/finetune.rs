//! The run file of a fine-tuning: what is learnt from which conversations, and how long. The model is that of the weights.
//!
//! What must stay true: as for pretraining, reading is strict, a loaded file has passed [`FinetuneConfig::validate`] and names files
//! by absolute path, and writing one and reading it back gives the same value.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_yaml_ng::Value;

use super::error::ConfigError;
use super::load::Source;
use super::overrides::{folder_of, parse_all};
use super::parse::from_text;
use super::training::{default_device, default_grad_clip};
use super::{AdapterSection, CheckpointSection, Dtype, EvalSection, ExportSection, LogSection, OnBadRecord, SampleSection, paths};

/// One fine-tuning run. Every key that is absent from a file has the default written beside its field here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the sections of a fine-tuning file")]
pub struct FinetuneConfig {
    /// What logs, cards and exports call the run.
    pub name: String,
    /// Seed of the order of the examples. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Weights to begin from; `--init` wins. They are needed again when a run is resumed whose reference has to be asked anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// A file with a chat template. Absent: the weights' own, else OpenELM-instruct's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PathBuf>,
    pub objective: ObjectiveSection,
    /// A low-rank adapter is trained, and the weights stay as they are. Absent: all weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterSection>,
    pub data: ConversationSection,
    /// Absent: no validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<HeldOutSection>,
    /// Absent: no tasks are asked while the model is tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalSection>,
    pub training: TuningSection,
    #[serde(default)]
    pub optimizer: TuningOptimizerSection,
    pub schedule: TuningScheduleSection,
    #[serde(default)]
    pub checkpoint: CheckpointSection,
    #[serde(default)]
    pub log: LogSection,
    /// What the tuned model answers to `sample.prompt`. Absent: nothing is printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleSection>,
    /// Absent: nothing is exported at the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<ExportSection>,
}

/// What is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveKind {
    /// To write the answers.
    Supervised,
    /// To prefer one answer to another.
    Preference,
}

/// The function of the log-ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PreferenceLossName {
    Sigmoid,
    Hinge,
    Ipo,
}

/// Where the reference's log-probabilities come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceName {
    /// Computed once before the first update and kept in the run folder.
    Kept,
    /// Computed with every update by a copy of the initial weights.
    Frozen,
}

/// Which tokens are learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainOnName {
    Answers,
    Everything,
}

/// The objective and its constants; a key of the other kind is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `objective`")]
pub struct ObjectiveSection {
    pub kind: ObjectiveKind,
    /// Preference. Default sigmoid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<PreferenceLossName>,
    /// Preference: how much a log-ratio weighs. Default 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Preference, sigmoid: the share of pairs whose order is taken to be wrong. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,
    /// Preference: compare means over the tokens of an answer instead of sums. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<bool>,
    /// Preference. Default kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceName>,
    /// Supervised. Default answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_on: Option<TrainOnName>,
    /// Supervised: several conversations share a sequence of `data.max_length` tokens and do not see each other. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing: Option<bool>,
}

/// How rows of a supervised run say their conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayoutName {
    /// By the keys of each row.
    #[default]
    Auto,
    Messages,
    Sharegpt,
    Alpaca,
    Commonsense,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `data`")]
pub struct ConversationSection {
    /// Paths or globs of JSON lines (plain, gzip, zstd), JSON arrays and parquet files.
    pub files: Vec<String>,
    /// Supervised. Default auto.
    #[serde(default)]
    pub layout: LayoutName,
    /// Tokens of a sequence, at most.
    pub max_length: u64,
    /// Preference: tokens of a prompt that has to be cut. Default: half of max_length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prompt_length: Option<u64>,
    /// What a row that is no conversation leads to. Default stop.
    #[serde(default)]
    pub on_bad_row: OnBadRecord,
}

/// Conversations that the run is scored on, never trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `validation`")]
pub struct HeldOutSection {
    pub files: Vec<String>,
    /// Updates between two validations; 0 validates at the end alone. Default 100.
    #[serde(default = "default_every")]
    pub every: u64,
    /// Examples that are scored, the files' first; 0 means all. Default 0.
    #[serde(default)]
    pub max_examples: u64,
}

/// Size, length and arithmetic of the updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `training`")]
pub struct TuningSection {
    /// Passes over the examples; this or `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Updates; this or `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Examples of one update (pairs, conversations, or packed sequences); a multiple of `micro_batch`.
    pub global_batch: u64,
    /// Examples that go through the model at once.
    pub micro_batch: u64,
    /// Arithmetic of the forward and backward pass. Default f32.
    #[serde(default)]
    pub dtype: Dtype,
    /// Recompute each layer in the backward pass instead of keeping its activations. Default false.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Largest global norm of the gradient; 0 leaves it as it is. Default 1.
    #[serde(default = "default_grad_clip")]
    pub grad_clip: f64,
    /// Supervised: factor of the squared log-partition that is added to the loss. Default 0.
    #[serde(default)]
    pub z_loss: f64,
    /// Where tensors live. Default flex.
    #[serde(default = "default_device")]
    pub device: String,
}

/// AdamW, with PyTorch's constants of `adamw_torch` in transformers' trainer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the keys of `optimizer`")]
pub struct TuningOptimizerSection {
    /// Default 0.
    pub weight_decay: f64,
    /// Default 0.9.
    pub beta1: f64,
    /// Default 0.999.
    pub beta2: f64,
    /// Default 1e-8.
    pub eps: f64,
}

impl Default for TuningOptimizerSection {
    fn default() -> Self {
        Self { weight_decay: 0.0, beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }
}

/// Linear warm-up from 0, then half a cosine over the rest of the run (transformers' `cosine`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `schedule`")]
pub struct TuningScheduleSection {
    /// The peak.
    pub max_lr: f64,
    /// The end of the cosine. Default 0.
    #[serde(default)]
    pub min_lr: f64,
    /// Share of the updates before the peak, rounded up. Default 0.1.
    #[serde(default = "default_warmup_ratio")]
    pub warmup_ratio: f64,
}

fn default_every() -> u64 {
    100
}
fn default_warmup_ratio() -> f64 {
    0.1
}

impl FinetuneConfig {
    /// Reads a file and lays `overrides` (`dotted.key=value`, the value in YAML) over it. Relative paths in the file are relative to
    /// the file's folder; relative paths in an override are relative to the current directory.
    ///
    /// # Errors
    /// The first problem: a file that cannot be read, broken YAML, an unknown or missing key, a value that cannot be.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::load_text(&text, path, overrides)
    }

    /// The same for a text that was read already; `path` names it in errors, and its folder is what paths are relative to.
    ///
    /// # Errors
    /// As [`FinetuneConfig::load`].
    pub fn load_text(text: &str, path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let source = Source { text, path };
        let value: Value = from_text(text).map_err(|fault| source.fault(fault, &[]))?;
        let overrides = parse_all(overrides)?;
        let mut config: Self = source.read(value, &overrides)?;
        config.resolve(&folder_of(path)?);
        config.validate().map_err(|error| source.place(error, &overrides))?;
        Ok(config)
    }

    /// Makes every path absolute.
    fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.init, &mut self.template].into_iter().flatten() {
            *path = paths::absolute(path, folder);
        }
        let held_out = self.validation.iter_mut().flat_map(|validation| &mut validation.files);
        for file in self.data.files.iter_mut().chain(held_out) {
            *file = paths::absolute_text(file, folder);
        }
        if let Some(eval) = &mut self.eval {
            eval.resolve(folder);
        }
    }

    /// The file that reads back as this configuration, without comments.
    ///
    /// # Errors
    /// When the writer fails; no value of this type makes it do so.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        serde_yaml_ng::to_string(self).map_err(|source| ConfigError::Write { reason: source.to_string() })
    }

    /// Updates of a run over `examples` examples: `training.steps`, or the passes, rounded up.
    pub fn steps(&self, examples: usize) -> u64 {
        let of_epochs = |epochs: f64| (epochs * examples as f64 / self.training.global_batch.max(1) as f64).ceil() as u64;
        self.training.steps.or(self.training.epochs.map(of_epochs)).unwrap_or(0).max(1)
    }
}
