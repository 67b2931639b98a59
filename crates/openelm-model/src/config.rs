//! The model's configuration under CoreNet's names (`corenet/modeling/models/language_modeling/general_gpt.py`, GPTConfig),
//! which are also the keys of Apple's Hugging Face `config.json`.
//!
//! What must stay true: a configuration that passes `validate` can be built on any device; defaults are CoreNet's.

use serde::{Deserialize, Serialize};

use crate::{LayerShape, ModelError, resolve_layers};

/// One number for all layers, the two ends of a line over the layers, or (as in Apple's config.json) one value a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Multipliers {
    Uniform(f64),
    List(Vec<f64>),
}

/// Everything that fixes the shapes and the arithmetic of one OpenELM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    pub num_transformer_layers: usize,
    pub model_dim: usize,
    pub head_dim: usize,
    /// Query heads that share one key/value head.
    pub num_gqa_groups: usize,
    pub qkv_multipliers: Multipliers,
    pub ffn_multipliers: Multipliers,
    /// Feed-forward widths are multiples of this.
    pub ffn_dim_divisor: usize,
    /// Rows of the embedding, padding rows included.
    pub vocab_size: usize,
    /// Longest sequence that the model is trained on.
    pub max_context_length: usize,
    /// Id whose embedding receives no gradient from the input and whose targets do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_index: Option<usize>,
    pub rope_freq_constant: f64,
    /// Positions in the rotary table.
    pub rope_max_length: usize,
    pub normalize_qk_projections: bool,
    pub share_input_output_layers: bool,
    pub ffn_with_glu: bool,
}

/// Far beyond any model: what is above is a mistake, and would ask for memory that no machine has.
const MOST_LAYERS: usize = 1 << 12;
const LARGEST: usize = 1 << 24;
const LARGEST_TABLE: usize = 1 << 28;

impl ModelConfig {
    /// Heads and widths of every layer.
    ///
    /// # Errors
    /// When the numbers allow no such model; the error names the key.
    pub fn layers(&self) -> Result<Vec<LayerShape>, ModelError> {
        resolve_layers(self)
    }

    /// Checks all numbers against each other.
    ///
    /// # Errors
    /// The first key that makes the model impossible, with the reason and a remedy.
    pub fn validate(&self) -> Result<(), ModelError> {
        let positive = [
            ("num_transformer_layers", self.num_transformer_layers),
            ("model_dim", self.model_dim),
            ("head_dim", self.head_dim),
            ("num_gqa_groups", self.num_gqa_groups),
            ("ffn_dim_divisor", self.ffn_dim_divisor),
            ("vocab_size", self.vocab_size),
            ("max_context_length", self.max_context_length),
            ("rope_max_length", self.rope_max_length),
        ];
        for (key, value) in positive {
            let limit = if key == "num_transformer_layers" { MOST_LAYERS } else { LARGEST };
            if value > limit {
                return Err(ModelError::config(key, value, format!("is more than {limit}"), "check the number"));
            }
            if value == 0 {
                return Err(ModelError::config(key, value, "must be at least 1", "give a positive number"));
            }
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ModelError::config(
                "head_dim",
                self.head_dim,
                "rotary embeddings turn pairs of channels, so the head dimension must be even",
                "use an even number, such as 64",
            ));
        }
        if self.rope_max_length * self.head_dim > LARGEST_TABLE {
            let reason = format!("makes a rotary table of more than {LARGEST_TABLE} numbers");
            return Err(ModelError::config("rope_max_length", self.rope_max_length, reason, "OpenELM uses 4096"));
        }
        if !(self.rope_freq_constant.is_finite() && self.rope_freq_constant > 1.0) {
            return Err(ModelError::config(
                "rope_freq_constant",
                self.rope_freq_constant,
                "must be a finite number above 1",
                "OpenELM uses 10000",
            ));
        }
        if self.rope_max_length < self.max_context_length {
            return Err(ModelError::config(
                "rope_max_length",
                self.rope_max_length,
                format!("is below max_context_length ({})", self.max_context_length),
                "OpenELM uses twice the context length",
            ));
        }
        if let Some(index) = self.padding_index
            && index >= self.vocab_size
        {
            return Err(ModelError::config(
                "padding_index",
                index,
                format!("is outside the vocabulary of {} rows", self.vocab_size),
                "raise vocab_size (OpenELM: 32128 rows for 32000 pieces and padding id 32000)",
            ));
        }
        resolve_layers(self).map(drop)
    }
}
