//! The named sizes: Apple's four (general_gpt.py, gpt_configs) and three small ones of the same make for tests and CPUs.

use crate::{ModelConfig, ModelError, Multipliers};

/// Names that [`preset`] knows, smallest last.
pub const PRESETS: [&str; 9] =
    ["OpenELM-3B", "OpenELM-1_1B", "OpenELM-450M", "OpenELM-270M", "OpenELM-25M", "OpenELM-5M", "OpenELM-tiny", "gpt-1_3B", "gpt-test"];

/// The configuration called `name`, with CoreNet's defaults: vocabulary 32000, context 2048, rotary table 4096.
///
/// # Errors
/// When there is no such size; the error lists them.
pub fn preset(name: &str) -> Result<ModelConfig, ModelError> {
    let scaled = |layers, model_dim, head_dim, divisor| ModelConfig {
        num_transformer_layers: layers,
        model_dim,
        head_dim,
        num_gqa_groups: 4,
        qkv_multipliers: Multipliers::List(vec![0.5, 1.0]),
        ffn_multipliers: Multipliers::List(vec![0.5, 4.0]),
        ffn_dim_divisor: divisor,
        vocab_size: 32000,
        max_context_length: 2048,
        padding_index: None,
        rope_freq_constant: 10000.0,
        rope_max_length: 4096,
        normalize_qk_projections: true,
        share_input_output_layers: true,
        ffn_with_glu: true,
    };
    Ok(match name {
        "OpenELM-270M" => scaled(16, 1280, 64, 256),
        "OpenELM-450M" => scaled(20, 1536, 64, 256),
        "OpenELM-1_1B" => scaled(28, 2048, 64, 256),
        "OpenELM-3B" => scaled(36, 3072, 128, 256),
        "OpenELM-25M" => scaled(10, 512, 64, 256),
        "OpenELM-5M" => scaled(8, 256, 32, 64),
        "OpenELM-tiny" => scaled(5, 128, 8, 32),
        "gpt-1_3B" => ModelConfig {
            qkv_multipliers: Multipliers::Uniform(1.0),
            ffn_multipliers: Multipliers::Uniform(3.0),
            ..scaled(24, 2048, 64, 256)
        },
        "gpt-test" => ModelConfig {
            num_gqa_groups: 1,
            qkv_multipliers: Multipliers::List(vec![0.25, 0.5]),
            ffn_multipliers: Multipliers::List(vec![0.25, 0.75]),
            ..scaled(1, 128, 64, 256)
        },
        _ => {
            return Err(ModelError::config("preset", name, "is not a known size", format!("known sizes: {}", PRESETS.join(", "))));
        }
    })
}
