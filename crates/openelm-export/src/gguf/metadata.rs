//! The metadata of a GGUF file: keys, types and order are those of llama.cpp's converter, or of its quantiser, which moves its two
//! keys to the end.

use openelm_checkpoint::ModelConfig;
use openelm_formats::{GgufArray, GgufValue};
use openelm_tokenizer::{PieceKind, Tokenizer};

use crate::error::ExportError;
use crate::gguf::model_name::ModelName;
use crate::gguf::recipe::GgufType;

/// RMS norm's epsilon in every OpenELM.
const EPSILON: f32 = 1e-6;
/// llama.cpp's version of its block layouts.
const QUANTISATION_VERSION: u32 = 2;
/// Score of tokens that fill up the vocabulary.
const FILLER_SCORE: f32 = -10_000.0;

type Metadata = Vec<(String, GgufValue)>;

/// All keys and values. `parameters` is the number of weights.
pub(super) fn metadata(
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    chat_template: Option<&str>,
    name: &str,
    parameters: usize,
    kind: GgufType,
) -> Result<Metadata, ExportError> {
    let mut metadata = model_keys(config, name, parameters)?;
    let mut stored = vec![
        ("general.file_type".to_owned(), GgufValue::U32(kind.file_type())),
        ("general.quantization_version".to_owned(), GgufValue::U32(QUANTISATION_VERSION)),
    ];
    if kind.by_converter() {
        metadata.append(&mut stored);
    }
    metadata.append(&mut tokenizer_keys(tokenizer, config.vocab_size));
    if let Some(template) = chat_template {
        metadata.push(("tokenizer.chat_template".into(), GgufValue::String(template.into())));
    }
    stored.reverse();
    metadata.append(&mut stored);
    Ok(metadata)
}

fn model_keys(config: &ModelConfig, name: &str, parameters: usize) -> Result<Metadata, ExportError> {
    let layers = config.layers()?;
    let list = |values: Vec<usize>| GgufValue::Array(GgufArray::I32(values.into_iter().map(clamped_i32).collect()));
    let name = ModelName::parse(name, parameters);
    let mut metadata = Metadata::new();
    let mut put = |key: &str, value| metadata.push((key.to_owned(), value));
    put("general.architecture", GgufValue::String("openelm".into()));
    put("general.type", GgufValue::String("model".into()));
    put("general.name", GgufValue::String(name.title));
    for (key, value) in [("version", name.version), ("finetune", name.finetune), ("basename", name.basename)] {
        if let Some(value) = value {
            put(&format!("general.{key}"), GgufValue::String(value));
        }
    }
    put("general.size_label", GgufValue::String(name.size_label));
    put("openelm.block_count", GgufValue::U32(clamped_u32(layers.len())));
    put("openelm.context_length", GgufValue::U32(clamped_u32(config.max_context_length)));
    put("openelm.embedding_length", GgufValue::U32(clamped_u32(config.model_dim)));
    put("openelm.feed_forward_length", list(layers.iter().map(|layer| layer.ffn_dim).collect()));
    put("openelm.attention.head_count", list(layers.iter().map(|layer| layer.num_query_heads).collect()));
    put("openelm.attention.head_count_kv", list(layers.iter().map(|layer| layer.num_kv_heads).collect()));
    put("openelm.rope.freq_base", GgufValue::F32(config.rope_freq_constant as f32));
    put("openelm.attention.layer_norm_rms_epsilon", GgufValue::F32(EPSILON));
    put("openelm.rope.dimension_count", GgufValue::U32(clamped_u32(config.head_dim)));
    put("openelm.attention.key_length", GgufValue::U32(clamped_u32(config.head_dim)));
    put("openelm.attention.value_length", GgufValue::U32(clamped_u32(config.head_dim)));
    Ok(metadata)
}

/// The vocabulary, filled up to the embedding's rows.
fn tokenizer_keys(tokenizer: &Tokenizer, rows: usize) -> Metadata {
    let (mut tokens, mut scores, mut kinds) = (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
    for id in 0..clamped_u32(rows) {
        let piece = tokenizer.token(id);
        tokens.push(piece.map_or_else(|| format!("[PAD{id}]"), str::to_owned));
        scores.push(piece.and_then(|_| tokenizer.score(id)).unwrap_or(FILLER_SCORE));
        let kind = piece.and_then(|_| tokenizer.kind(id)).unwrap_or(PieceKind::Unused);
        kinds.push(i32::try_from(kind.number()).unwrap_or_default());
    }
    let mut metadata = Metadata::new();
    let mut put = |key: &str, value| metadata.push((format!("tokenizer.ggml.{key}"), value));
    put("model", GgufValue::String("llama".into()));
    put("pre", GgufValue::String("default".into()));
    put("tokens", GgufValue::Array(GgufArray::String(tokens)));
    put("scores", GgufValue::Array(GgufArray::F32(scores)));
    put("token_type", GgufValue::Array(GgufArray::I32(kinds)));
    for (key, id) in [("bos_token_id", tokenizer.bos_id()), ("eos_token_id", tokenizer.eos_id()), ("padding_token_id", tokenizer.pad_id())]
    {
        if let Some(id) = id {
            put(key, GgufValue::U32(id));
        }
    }
    put("add_bos_token", GgufValue::Bool(tokenizer.bos_id().is_some()));
    put("add_sep_token", GgufValue::Bool(false));
    if tokenizer.piece_rules().is_some_and(|rules| !rules.space_prefix) {
        put("add_space_prefix", GgufValue::Bool(false));
    }
    metadata
}

/// Sizes of models that fit into a memory are far below either limit.
fn clamped_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn clamped_i32(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
