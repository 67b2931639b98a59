//! A GGUF file for llama.cpp, equal to what its converter and its quantiser make of the model's Hugging Face folder.
//!
//! What must stay true: the plain types and Q8_0 are the converter's file (`convert_hf_to_gguf.py --outtype`), the others the
//! quantiser's (`llama-quantize`), which orders tensors and metadata in its own way; a model that llama.cpp could not load is refused.

mod metadata;
mod model_name;
mod recipe;
mod tensors;

use std::path::Path;

use openelm_checkpoint::{ModelConfig, OpenElm, ParameterInfo, Weights, refuse_existing};
use openelm_formats::{DType, GgufWriter, TensorInfo};
use openelm_tokenizer::Tokenizer;

pub use recipe::GgufType;

use crate::error::ExportError;
use crate::gguf::tensors::{GgufTensor, Rows};
use crate::hugging_face::check_rows;

/// Writes `weights` and `tokenizer` to the new file `out`. `name` is the model's name as llama.cpp would find it: that of the folder.
///
/// # Errors
/// When llama.cpp could not load the model or its tokenizer, `out` exists, or reading or writing fails.
pub fn export_gguf(weights: &Weights, tokenizer: Option<&Tokenizer>, name: &str, kind: GgufType, out: &Path) -> Result<(), ExportError> {
    let config = weights.config();
    check_model(config)?;
    check_rows(config, tokenizer)?;
    let tokenizer = check_tokenizer(tokenizer)?;
    refuse_existing(out)?;
    let parameters = OpenElm::infos_of(config)?;
    let tensors = tensors::tensors(&parameters, kind)?;
    let total = parameters.iter().map(ParameterInfo::count).sum();
    let metadata = metadata::metadata(config, tokenizer, weights.chat_template(), name, total, kind)?;
    let layers = config.num_transformer_layers;
    let infos: Vec<TensorInfo> =
        tensors.iter().map(|tensor| TensorInfo::new(tensor.name.clone(), kind.dtype_of(tensor, layers), tensor.shape())).collect();
    let mut writer = GgufWriter::create(out, &metadata, &infos)?;
    for (tensor, info) in tensors.iter().zip(&infos) {
        writer.write(&info.name, &bytes(weights, tensor, info.dtype)?)?;
    }
    Ok(writer.finish()?)
}

/// The tensor's bytes: of half of a parameter's rows where it is half of it.
fn bytes(weights: &Weights, tensor: &GgufTensor, dtype: DType) -> Result<Vec<u8>, ExportError> {
    let mut bytes = weights.bytes(tensor.parameter, dtype)?;
    let half = bytes.len() / 2;
    match tensor.rows {
        Rows::All => {}
        Rows::FirstHalf => bytes.truncate(half),
        Rows::SecondHalf => drop(bytes.drain(..half)),
    }
    Ok(bytes)
}

fn check_model(config: &ModelConfig) -> Result<(), ExportError> {
    let refused = |reason, hint| Err(ExportError::LlamaCpp { reason, hint });
    let other = "export it with --format hf, mlx or corenet";
    match config {
        config if !config.share_input_output_layers => {
            refused("it has an output head of its own, and llama.cpp's OpenELM always uses the embedding", other)
        }
        config if !config.normalize_qk_projections => {
            refused("it has no norms of queries and keys, which llama.cpp's OpenELM always reads", other)
        }
        config if !config.ffn_with_glu => refused("its feed-forward part has no gate, which llama.cpp's OpenELM always reads", other),
        _ => Ok(()),
    }
}

fn check_tokenizer(tokenizer: Option<&Tokenizer>) -> Result<&Tokenizer, ExportError> {
    let refused = |reason, hint| Err(ExportError::LlamaCpp { reason, hint });
    let model = "use a SentencePiece BPE model (tokenizer.model), such as `openelm tokenizer train` makes";
    let Some(tokenizer) = tokenizer else {
        return refused("no tokenizer lies beside the weights, and a GGUF file holds its own", "name one with --tokenizer");
    };
    match tokenizer.piece_rules() {
        None => refused("its tokenizer is no SentencePiece model", model),
        Some(rules) if !rules.bpe => {
            refused("its tokenizer is a unigram model, which its LLaMA tokenizer does not cut as SentencePiece does", model)
        }
        Some(rules) if rules.replaces_characters => refused(
            "its tokenizer normalises characters, which its LLaMA tokenizer does not do",
            "train the tokenizer with the rule identity",
        ),
        Some(rules) if rules.collapses_spaces => refused(
            "its tokenizer makes one space of several, which its LLaMA tokenizer does not do",
            "train it with remove_extra_whitespaces off",
        ),
        Some(_) => Ok(tokenizer),
    }
}
