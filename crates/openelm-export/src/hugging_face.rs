//! A folder in Apple's Hugging Face layout: config.json, safetensors, generation_config.json, tokenizer files, a card, and the
//! Python files with which `transformers` (version 5) loads it.
//!
//! What must stay true: embedding rows past the tokenizer's vocabulary were padding for the matrix shapes and are left out, and
//! the configuration says so; everything is written beside the output folder and renamed into place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use openelm_checkpoint::{ModelConfig, NewFolder, OpenElm, ParameterInfo, Weights, hf_name, to_hf_config};
use openelm_formats::{TensorInfo, encode_f32, write_sharded};
use openelm_tokenizer::Tokenizer;
use serde_json::json;

use crate::card::{CardFacts, card};
use crate::error::ExportError;
use crate::settings::ExportDtype;
use crate::tokenizer_files::write_tokenizer;

/// The model in PyTorch, for `trust_remote_code`: Apple's own file does not load in current versions of `transformers`.
const MODELLING: (&str, &str) = ("modeling_openelm.py", include_str!("../python/modeling_openelm.py"));
const CONFIGURATION: (&str, &str) = ("configuration_openelm.py", include_str!("../python/configuration_openelm.py"));

/// How to write.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// `None`: f32, or bf16 for a model of the size of OpenELM-3B.
    pub dtype: Option<ExportDtype>,
    /// Bytes of tensors in one file before another is begun.
    pub max_shard_bytes: u64,
}

impl Default for ExportSettings {
    fn default() -> Self {
        Self { dtype: None, max_shard_bytes: 5_000_000_000 }
    }
}

/// Writes `weights` and `tokenizer` into the new folder `out`. Gives the files' paths.
///
/// # Errors
/// When `out` holds something already, the tokenizer has more tokens than the model, or reading or writing fails.
pub fn export_hugging_face(
    weights: &Weights,
    tokenizer: Option<&Tokenizer>,
    facts: &CardFacts,
    settings: &ExportSettings,
    out: &Path,
) -> Result<Vec<PathBuf>, ExportError> {
    let config = trimmed(weights.config(), tokenizer)?;
    let folder = NewFolder::new(out)?;
    let dtype = settings.dtype.map_or_else(|| default_dtype(weights), Ok)?;
    write_weights(weights, &config, dtype, settings.max_shard_bytes, folder.path())?;
    let (bos, eos) = (tokenizer.and_then(Tokenizer::bos_id), tokenizer.and_then(Tokenizer::eos_id));
    let mut hf_config = to_hf_config(&config, dtype.torch(), bos, eos)?;
    if let Some(object) = hf_config.as_object_mut() {
        let map = json!({
            "AutoConfig": "configuration_openelm.OpenELMConfig",
            "AutoModelForCausalLM": "modeling_openelm.OpenELMForCausalLM",
        });
        object.insert("auto_map".into(), map);
    }
    folder.put_json("config.json", &hf_config)?;
    folder.put_json("generation_config.json", &json!({"bos_token_id": bos, "eos_token_id": eos}))?;
    folder.put("README.md", card(&config, facts))?;
    for (name, text) in [MODELLING, CONFIGURATION] {
        folder.put(name, text)?;
    }
    if let Some(tokenizer) = tokenizer {
        write_tokenizer(&folder, tokenizer, &config, weights.chat_template())?;
    }
    Ok(folder.publish()?)
}

/// The element type that fits the model's size.
pub(crate) fn default_dtype(weights: &Weights) -> Result<ExportDtype, ExportError> {
    Ok(ExportDtype::for_size(OpenElm::infos_of(weights.config())?.iter().map(ParameterInfo::count).sum()))
}

/// Fails where a tokenizer has ids that the model has no rows for.
pub(crate) fn check_rows(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> Result<(), ExportError> {
    let (tokens, rows) = (tokenizer.map_or(0, Tokenizer::vocab_size), config.vocab_size);
    if tokens > rows { Err(ExportError::Vocabulary { tokens, rows }) } else { Ok(()) }
}

/// The configuration without padding rows.
fn trimmed(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> Result<ModelConfig, ExportError> {
    check_rows(config, tokenizer)?;
    let mut config = config.clone();
    if let Some(tokenizer) = tokenizer {
        let tokens = tokenizer.vocab_size();
        config.vocab_size = tokens;
        config.padding_index = config.padding_index.filter(|index| *index < tokens);
    }
    Ok(config)
}

fn write_weights(
    weights: &Weights,
    config: &ModelConfig,
    dtype: ExportDtype,
    max_shard_bytes: u64,
    folder: &Path,
) -> Result<(), ExportError> {
    let full = OpenElm::infos_of(weights.config())?;
    let kept = OpenElm::infos_of(config)?;
    let dtype = dtype.stored();
    let infos: Vec<TensorInfo> = kept.iter().map(|info| TensorInfo::new(hf_name(&info.name), dtype, info.shape.clone())).collect();
    let pairs: BTreeMap<String, (&ParameterInfo, usize)> =
        full.iter().zip(&kept).map(|(full, kept)| (hf_name(&full.name), (full, kept.count()))).collect();
    let metadata = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
    write_sharded(folder, &infos, max_shard_bytes, &metadata, |info| -> Result<Vec<u8>, ExportError> {
        let Some((full, count)) = pairs.get(&info.name) else {
            return Err(ExportError::Model(openelm_checkpoint::ModelError::Missing { name: info.name.clone() }));
        };
        let values = weights.values(full)?;
        // Rows that are left out stand at the end.
        Ok(encode_f32(values.get(..*count).unwrap_or(&values), dtype)?)
    })?;
    Ok(())
}
