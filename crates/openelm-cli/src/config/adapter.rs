//! The `adapter` section of a fine-tuning file: a low-rank adapter is trained, and the weights stay as they are. Its keys are PEFT's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the adapter changes, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `adapter`")]
pub struct AdapterSection {
    /// Rank of each addition.
    pub r: u64,
    /// Additions are multiplied by this over r. Default: r.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_alpha: Option<f64>,
    /// Share of each module's input that is dropped in training. Default 0.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Ends of modules' names, or one regular expression for whole names such as transformer.layers.0.attn.qkv_proj.
    pub target_modules: TargetModules,
    /// Other ranks, by regular expressions for the ends of names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, u64>,
    /// Other alphas, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Multiply by lora_alpha over √r instead. Default false.
    #[serde(default)]
    pub use_rslora: bool,
    /// DoRA: train a magnitude for each row besides. Default false.
    #[serde(default)]
    pub use_dora: bool,
    /// How the frozen weights lie in memory. Default f32.
    #[serde(default)]
    pub base_dtype: BaseDtype,
}

/// Names, or an expression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a list of modules' names, or one regular expression")]
pub enum TargetModules {
    Names(Vec<String>),
    Pattern(String),
}

/// Types of a frozen base in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BaseDtype {
    #[default]
    #[serde(rename = "f32")]
    F32,
    #[serde(rename = "bf16")]
    Bf16,
    #[serde(rename = "q8_0")]
    Q8_0,
}
