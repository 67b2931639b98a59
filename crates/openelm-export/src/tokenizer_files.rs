//! The tokenizer's files in a folder of Hugging Face's layout.

use openelm_checkpoint::{ModelConfig, NewFolder};
use openelm_tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::error::ExportError;

/// Writes tokenizer.json and tokenizer.model as far as there are such, what names their special tokens, and the chat template.
pub(crate) fn write_tokenizer(
    folder: &NewFolder,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
    chat_template: Option<&str>,
) -> Result<(), ExportError> {
    tokenizer.save(folder.path())?;
    folder.put_json("tokenizer_config.json", &tokenizer_config(tokenizer, config))?;
    folder.put_json("special_tokens_map.json", &special_tokens(tokenizer))?;
    match chat_template {
        Some(template) => Ok(folder.put("chat_template.jinja", template)?),
        None => Ok(()),
    }
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
