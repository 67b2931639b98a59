//! A model with its tokenizer and its chat template, from what the command line names.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use openelm_checkpoint::Weights;
use openelm_infer::Decoder;
use openelm_tokenizer::{ChatTemplate, Tokenizer};

use super::adapter::open_weights;
use super::decoder::open_decoder;
use super::needed_tokenizer;
use crate::args::ChatModelArguments;

pub(super) struct ChatModel {
    pub decoder: Arc<dyn Decoder>,
    pub tokenizer: Tokenizer,
    pub template: ChatTemplate,
}

impl ChatModel {
    pub fn open(path: &Path, arguments: &ChatModelArguments) -> Result<Self> {
        let weights = open_weights(path, arguments.adapter.as_deref())?;
        let tokenizer = needed_tokenizer(&weights, arguments.tokenizer.as_deref())?;
        let template = template_of(&weights, arguments.chat_template.as_deref(), "--chat-template")?;
        let decoder = open_decoder(&weights, &arguments.decoder)?;
        Ok(Self { decoder: decoder.into(), tokenizer, template })
    }
}

/// The `named` template, which `key` names, else the weights' own, else OpenELM-instruct's.
pub(super) fn template_of(weights: &Weights, named: Option<&Path>, key: &str) -> Result<ChatTemplate> {
    if let Some(path) = named {
        let place = path.display();
        let source = std::fs::read_to_string(path)
            .with_context(|| format!("{place}: reading the chat template failed\nhint: give {key} a file with a template in Jinja"))?;
        return Ok(ChatTemplate::new(&source, &format!("in {place}"))?);
    }
    match weights.chat_template() {
        Some(source) => Ok(ChatTemplate::new(source, &format!("of {}", weights.path().display()))?),
        None => {
            eprintln!("note: no chat template lies with the weights, so OpenELM-instruct's is used; {key} takes another");
            Ok(ChatTemplate::openelm_instruct()?)
        }
    }
}
