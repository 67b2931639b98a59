//! A folder in Apple's Hugging Face layout: config.json, safetensors, generation_config.json, tokenizer files and a card.
//!
//! What must stay true: embedding rows past the tokenizer's vocabulary were padding for the matrix shapes and are left out, and
//! the configuration says so; everything is written beside the output folder and renamed into place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use openelm_checkpoint::{Weights, hf_name, to_hf_config};
use openelm_formats::{DType, TensorInfo, encode_f32, write_sharded};
use openelm_model::{ModelConfig, OpenElm, ParameterInfo};
use openelm_tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::card::{CardFacts, card};
use crate::error::ExportError;

/// Element type of the written weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportDtype {
    F32,
    F16,
    Bf16,
}

impl ExportDtype {
    fn stored(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// PyTorch's name.
    fn torch(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// How to write.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    pub dtype: ExportDtype,
    /// Bytes of tensors in one file before another is begun.
    pub max_shard_bytes: u64,
}

impl Default for ExportSettings {
    fn default() -> Self {
        Self { dtype: ExportDtype::F32, max_shard_bytes: 5_000_000_000 }
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
    let fault = |action, path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::Io { path, action, source }
    };
    let occupied = out.is_file() || out.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(ExportError::NotEmpty { path: out.to_owned() });
    }
    let config = trimmed(weights.config(), tokenizer)?;
    let absolute = std::path::absolute(out).map_err(fault("finding the folder", out))?;
    let parent = absolute.parent().unwrap_or(&absolute);
    std::fs::create_dir_all(parent).map_err(fault("making the folder", parent))?;
    let draft = tempfile::Builder::new().prefix(".openelm-export-").tempdir_in(parent).map_err(fault("making a folder", parent))?;
    let folder = draft.path();
    // Permissions of an ordinary folder; temporary ones are private.
    #[cfg(unix)]
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(fault("opening up the folder", folder))?;

    write_weights(weights, &config, settings, folder)?;
    let (bos, eos) = (tokenizer.and_then(Tokenizer::bos_id), tokenizer.and_then(Tokenizer::eos_id));
    let put = |name: &str, text: String| std::fs::write(folder.join(name), text).map_err(fault("writing it", &folder.join(name)));
    put("config.json", pretty(&to_hf_config(&config, settings.dtype.torch(), bos, eos)?))?;
    put("generation_config.json", pretty(&json!({"bos_token_id": bos, "eos_token_id": eos})))?;
    put("README.md", card(&config, facts))?;
    if let Some(tokenizer) = tokenizer {
        tokenizer.save(folder)?;
        put("tokenizer_config.json", pretty(&tokenizer_config(tokenizer, &config)))?;
        put("special_tokens_map.json", pretty(&special_tokens(tokenizer)))?;
    }
    if out.is_dir() {
        std::fs::remove_dir(out).map_err(fault("replacing the empty folder", out))?;
    }
    std::fs::rename(folder, out).map_err(fault("renaming the draft", out))?;
    // The folder has moved; there is nothing left to remove.
    let _ = draft.keep();
    let mut files: Vec<PathBuf> = out.read_dir().map_err(fault("listing it", out))?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    Ok(files)
}

/// The configuration without padding rows.
fn trimmed(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> Result<ModelConfig, ExportError> {
    let mut config = config.clone();
    if let Some(tokenizer) = tokenizer {
        let (tokens, rows) = (tokenizer.vocab_size(), config.vocab_size);
        if tokens > rows {
            return Err(ExportError::Vocabulary { tokens, rows });
        }
        config.vocab_size = tokens;
        config.padding_index = config.padding_index.filter(|index| *index < tokens);
    }
    Ok(config)
}

fn write_weights(weights: &Weights, config: &ModelConfig, settings: &ExportSettings, folder: &Path) -> Result<(), ExportError> {
    let full = OpenElm::infos_of(weights.config())?;
    let kept = OpenElm::infos_of(config)?;
    let dtype = settings.dtype.stored();
    let infos: Vec<TensorInfo> = kept.iter().map(|info| TensorInfo::new(hf_name(&info.name), dtype, info.shape.clone())).collect();
    let pairs: BTreeMap<String, (&ParameterInfo, usize)> =
        full.iter().zip(&kept).map(|(full, kept)| (hf_name(&full.name), (full, kept.count()))).collect();
    let metadata = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
    write_sharded(folder, &infos, settings.max_shard_bytes, &metadata, |info| -> Result<Vec<u8>, ExportError> {
        let Some((full, count)) = pairs.get(&info.name) else {
            return Err(ExportError::Model(openelm_model::ModelError::Missing { name: info.name.clone() }));
        };
        let values = weights.values(full)?;
        // Rows that are left out stand at the end.
        Ok(encode_f32(values.get(..*count).unwrap_or(&values), dtype)?)
    })?;
    Ok(())
}

fn tokenizer_config(tokenizer: &Tokenizer, config: &ModelConfig) -> Value {
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
    json!({
        "add_bos_token": true,
        "add_eos_token": false,
        "bos_token": token(tokenizer.bos_id()),
        "clean_up_tokenization_spaces": false,
        "eos_token": token(tokenizer.eos_id()),
        "model_max_length": config.max_context_length,
        "pad_token": token(tokenizer.pad_id()),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": token(tokenizer.unk_id()),
    })
}

fn special_tokens(tokenizer: &Tokenizer) -> Value {
    let ids = [("bos_token", tokenizer.bos_id()), ("eos_token", tokenizer.eos_id()), ("unk_token", tokenizer.unk_id())];
    let named = ids.into_iter().filter_map(|(name, id)| Some((name.to_owned(), json!(tokenizer.token(id?)?))));
    Value::Object(named.collect())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
