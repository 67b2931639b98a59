//! The shape of the model under CoreNet's names: a named size, keys of its own, or a named size with some keys changed.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// CoreNet's default context length (`GPTConfig.max_context_length`), which a preset has until a key says otherwise.
pub(super) const PRESET_CONTEXT: u64 = 2048;
/// CoreNet's default vocabulary (`GPTConfig.vocab_size`), which a preset has until a key says otherwise.
pub(super) const PRESET_VOCABULARY: u64 = 32000;
/// CoreNet's default rotary table (`GPTConfig.rope_max_length`), with a preset or without.
pub(super) const ROPE_MAX_LENGTH: u64 = 4096;

/// Named sizes: Apple's four (`general_gpt.py`), CoreNet's two examples, and three small ones for tests and CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    #[serde(rename = "OpenELM-270M")]
    OpenElm270M,
    #[serde(rename = "OpenELM-450M")]
    OpenElm450M,
    #[serde(rename = "OpenELM-1_1B")]
    OpenElm1_1B,
    #[serde(rename = "OpenELM-3B")]
    OpenElm3B,
    #[serde(rename = "OpenELM-25M")]
    OpenElm25M,
    #[serde(rename = "OpenELM-5M")]
    OpenElm5M,
    #[serde(rename = "OpenELM-tiny")]
    OpenElmTiny,
    #[serde(rename = "gpt-1_3B")]
    Gpt1_3B,
    #[serde(rename = "gpt-test")]
    GptTest,
}

impl Preset {
    /// The name that files use.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenElm270M => "OpenELM-270M",
            Self::OpenElm450M => "OpenELM-450M",
            Self::OpenElm1_1B => "OpenELM-1_1B",
            Self::OpenElm3B => "OpenELM-3B",
            Self::OpenElm25M => "OpenELM-25M",
            Self::OpenElm5M => "OpenELM-5M",
            Self::OpenElmTiny => "OpenELM-tiny",
            Self::Gpt1_3B => "gpt-1_3B",
            Self::GptTest => "gpt-test",
        }
    }
}

/// A width relative to the model's, over the layers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Multipliers {
    /// The same for all layers.
    Uniform(f64),
    /// The two ends of a line over the layers, or one number for each layer.
    List(Vec<f64>),
}

impl<'de> Deserialize<'de> for Multipliers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrList;

        impl<'de> Visitor<'de> for NumberOrList {
            type Value = Multipliers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a list such as [0.5, 4.0]")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Multipliers, E> {
                Ok(Multipliers::Uniform(value))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Multipliers, E> {
                Ok(Multipliers::Uniform(value as f64))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Multipliers, E> {
                Ok(Multipliers::Uniform(value as f64))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Multipliers, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Multipliers::List(list))
            }
        }

        deserializer.deserialize_any(NumberOrList)
    }
}

/// A preset, keys, or both; a key wins over the preset. Without a preset, the keys down to `max_context_length` are required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "the keys of `model`")]
pub struct ModelSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_transformer_layers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_dim: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<u64>,
    /// Query heads that share a key and value head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_gqa_groups: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qkv_multipliers: Option<Multipliers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ffn_multipliers: Option<Multipliers>,
    /// Feed-forward widths are multiples of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ffn_dim_divisor: Option<u64>,
    /// Rows of the embedding, the padding row included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_context_length: Option<u64>,
    /// Id that fills short sequences and is no target. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding_index: Option<u64>,
    /// Default 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_freq_constant: Option<f64>,
    /// Default 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_max_length: Option<u64>,
    /// Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize_qk_projections: Option<bool>,
    /// Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_input_output_layers: Option<bool>,
    /// Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ffn_with_glu: Option<bool>,
}

impl ModelSection {
    /// Longest sequence of the model, where the file says enough to know it.
    pub fn context_length(&self) -> Option<u64> {
        self.max_context_length.or(self.preset.map(|_| PRESET_CONTEXT))
    }

    /// Rows of the embedding, where the file says enough to know them.
    pub fn vocabulary(&self) -> Option<u64> {
        self.vocab_size.or(self.preset.map(|_| PRESET_VOCABULARY))
    }

    /// Positions of the rotary table.
    pub fn rope_length(&self) -> u64 {
        self.rope_max_length.unwrap_or(ROPE_MAX_LENGTH)
    }
}
