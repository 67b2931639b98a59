//! Apple's Hugging Face `config.json` and [`ModelConfig`], both ways.
//!
//! What must stay true: every key of Apple's file that shapes the model is read, those that repeat what follows from others
//! (heads of each layer) are compared; what is written reads back as the same model.

use std::path::Path;

use openelm_model::{ModelConfig, ModelError, Multipliers, resolve_layers, spread_multipliers};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::CheckpointError;

/// The keys that matter of a file that has many others.
#[derive(Deserialize)]
struct HfConfig {
    model_type: Option<String>,
    num_transformer_layers: usize,
    model_dim: usize,
    head_dim: usize,
    num_gqa_groups: usize,
    qkv_multipliers: Multipliers,
    ffn_multipliers: Multipliers,
    ffn_dim_divisor: usize,
    vocab_size: usize,
    max_context_length: usize,
    #[serde(default = "rope_freq_constant")]
    rope_freq_constant: f64,
    rope_max_length: usize,
    #[serde(default)]
    normalize_qk_projections: bool,
    #[serde(default)]
    share_input_output_layers: bool,
    ffn_with_glu: bool,
    num_query_heads: Option<Vec<usize>>,
    num_kv_heads: Option<Vec<usize>>,
    activation_fn_name: Option<String>,
    normalization_layer_name: Option<String>,
    padding_index: Option<usize>,
}

fn rope_freq_constant() -> f64 {
    10_000.0
}

/// Reads `config.json` at `path`.
///
/// # Errors
/// When the file cannot be read, is of another kind of model, lacks a key, or contradicts itself.
pub fn from_hf_config(path: &Path) -> Result<ModelConfig, CheckpointError> {
    let fault = |reason: String, hint: &str| CheckpointError::Config { path: path.to_owned(), reason, hint: hint.into() };
    let text = std::fs::read(path).map_err(|source| CheckpointError::io(path, "reading it", source))?;
    let hint = "the folder must hold an OpenELM model in Apple's Hugging Face layout";
    let hf: HfConfig = serde_json::from_slice(&text).map_err(|error| fault(error.to_string(), hint))?;
    let expected = [
        ("model_type", &hf.model_type, "openelm"),
        ("activation_fn_name", &hf.activation_fn_name, "swish"),
        ("normalization_layer_name", &hf.normalization_layer_name, "rms_norm"),
    ];
    for (key, found, expected) in expected {
        if let Some(found) = found
            && found != expected
        {
            return Err(fault(format!("{key} is {found:?}, not {expected:?}"), hint));
        }
    }
    let config = ModelConfig {
        num_transformer_layers: hf.num_transformer_layers,
        model_dim: hf.model_dim,
        head_dim: hf.head_dim,
        num_gqa_groups: hf.num_gqa_groups,
        qkv_multipliers: hf.qkv_multipliers,
        ffn_multipliers: hf.ffn_multipliers,
        ffn_dim_divisor: hf.ffn_dim_divisor,
        vocab_size: hf.vocab_size,
        max_context_length: hf.max_context_length,
        padding_index: hf.padding_index,
        rope_freq_constant: hf.rope_freq_constant,
        rope_max_length: hf.rope_max_length,
        normalize_qk_projections: hf.normalize_qk_projections,
        share_input_output_layers: hf.share_input_output_layers,
        ffn_with_glu: hf.ffn_with_glu,
    };
    let model_fault = |source| CheckpointError::Model { path: path.to_owned(), source };
    config.validate().map_err(model_fault)?;
    let layers = config.layers().map_err(model_fault)?;
    let query: Vec<usize> = layers.iter().map(|layer| layer.num_query_heads).collect();
    let kv: Vec<usize> = layers.iter().map(|layer| layer.num_kv_heads).collect();
    for (key, stated, computed) in [("num_query_heads", hf.num_query_heads, query), ("num_kv_heads", hf.num_kv_heads, kv)] {
        if let Some(stated) = stated
            && stated != computed
        {
            let reason = format!("{key} is {stated:?}, but the multipliers give {computed:?}");
            return Err(fault(reason, "fetch the file again; the two must agree"));
        }
    }
    Ok(config)
}

/// Apple's `config.json` for `config`: per-layer lists written out. `dtype` is PyTorch's name of the weights' type; the ids are the
/// tokenizer's.
///
/// # Errors
/// When the configuration is impossible.
pub fn to_hf_config(config: &ModelConfig, dtype: &str, bos: Option<u32>, eos: Option<u32>) -> Result<Value, ModelError> {
    let layers = resolve_layers(config)?;
    let expanded = |multipliers: &Multipliers| match multipliers {
        Multipliers::Uniform(value) => vec![*value; layers.len()],
        Multipliers::List(list) => match list[..] {
            [first, last] => spread_multipliers(first, last, layers.len()),
            _ => list.clone(),
        },
    };
    let mut value = json!({
        "activation_fn_name": "swish",
        "architectures": ["OpenELMForCausalLM"],
        "bos_token_id": bos,
        "eos_token_id": eos,
        "ffn_dim_divisor": config.ffn_dim_divisor,
        "ffn_multipliers": expanded(&config.ffn_multipliers),
        "ffn_with_glu": config.ffn_with_glu,
        "head_dim": config.head_dim,
        "initializer_range": 0.02,
        "max_context_length": config.max_context_length,
        "model_dim": config.model_dim,
        "model_type": "openelm",
        "normalization_layer_name": "rms_norm",
        "normalize_qk_projections": config.normalize_qk_projections,
        "num_gqa_groups": config.num_gqa_groups,
        "num_kv_heads": layers.iter().map(|layer| layer.num_kv_heads).collect::<Vec<_>>(),
        "num_query_heads": layers.iter().map(|layer| layer.num_query_heads).collect::<Vec<_>>(),
        "num_transformer_layers": config.num_transformer_layers,
        // Apple's own reader takes the two ends of a line here, and one number a layer where the line has no ends.
        "qkv_multipliers": match &config.qkv_multipliers {
            Multipliers::List(list) if list.len() == 2 => json!(list),
            other => json!(expanded(other)),
        },
        "rope_freq_constant": config.rope_freq_constant,
        "rope_max_length": config.rope_max_length,
        "share_input_output_layers": config.share_input_output_layers,
        "tie_word_embeddings": config.share_input_output_layers,
        "torch_dtype": dtype,
        "use_cache": true,
        "vocab_size": config.vocab_size,
    });
    if let (Some(index), Some(object)) = (config.padding_index, value.as_object_mut()) {
        object.insert("padding_index".into(), json!(index));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use openelm_model::{PRESETS, preset};

    use super::*;

    #[test]
    fn written_and_read_is_the_same_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for name in PRESETS {
            let mut config = preset(name).unwrap();
            config.padding_index = Some(7);
            let value = to_hf_config(&config, "float32", Some(1), Some(2)).unwrap();
            std::fs::write(&path, value.to_string()).unwrap();
            let back = from_hf_config(&path).unwrap();
            assert_eq!(back.layers().unwrap(), config.layers().unwrap(), "{name}");
            let same =
                ModelConfig { qkv_multipliers: config.qkv_multipliers.clone(), ffn_multipliers: config.ffn_multipliers.clone(), ..back };
            assert_eq!(same, config, "{name}");
        }
    }

    #[test]
    fn contradictions_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let config = preset("OpenELM-5M").unwrap();
        let reason = |key: &str, value: Value| {
            let mut file = to_hf_config(&config, "float32", None, None).unwrap();
            file[key] = value;
            std::fs::write(&path, file.to_string()).unwrap();
            from_hf_config(&path).unwrap_err().to_string()
        };
        assert!(reason("num_kv_heads", json!([1])).contains("num_kv_heads is [1]"));
        assert!(reason("model_type", json!("llama")).contains("\"llama\""));
        assert!(reason("model_dim", Value::Null).contains("config.json"));
        assert!(reason("head_dim", json!(3)).contains("head_dim"));
    }
}
