//! The bodies of `/v1/completions` and `/v1/chat/completions` as work for the scheduler.
//!
//! What must stay true: a field that would change the answer and is not known here is refused by its name, never passed over.

use std::sync::Arc;

use openelm_tokenizer::ChatMessage;
use serde_json::Value;

use crate::server::app::App;
use crate::server::error::ApiError;
use crate::server::fields::{Fields, unsupported};
use crate::server::job::{Sequence, Wishes};
use crate::server::settings::ServedModel;
use crate::server::wishes::{Common, MOST_LOGPROBS, check_choices, common};

/// Tokens of a completion whose request does not say; OpenAI's number.
const COMPLETION_TOKENS: u64 = 16;

/// Which of the two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Completions,
    Chat,
}

impl Endpoint {
    pub fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

/// A request that was understood.
#[derive(Debug)]
pub(super) struct Prepared {
    pub sequences: Vec<Sequence>,
    pub wishes: Wishes,
    /// Answers to each prompt.
    pub choices: usize,
    pub stream: bool,
    pub include_usage: bool,
}

/// What is to be continued.
struct Prompt {
    ids: Vec<u32>,
    /// As the client wrote it, where it wrote a text.
    text: Option<String>,
}

/// Reads the body of a request.
pub(super) fn prepare(endpoint: Endpoint, body: &[u8], app: &App) -> Result<Prepared, ApiError> {
    let model = &app.model;
    let mut fields = Fields::parse(body)?;
    let vocabulary = model.decoder.config().vocab_size;
    let mut common = common(&mut fields, &model.name, vocabulary)?;
    let prompts = match endpoint {
        Endpoint::Completions => completions(&mut fields, &mut common, model)?,
        Endpoint::Chat => chat(&mut fields, &mut common, model)?,
    };
    fields.finish()?;
    check_choices(prompts.len(), common.choices)?;
    // The last token of a prompt is read for what follows it alone.
    let room = app.context.saturating_add(usize::from(common.wishes.max_tokens == 0));
    for prompt in &prompts {
        check_prompt(endpoint, &prompt.ids, vocabulary, room)?;
    }
    common.wishes.constraint = common.form.as_ref().map(|form| app.constraint(form)).transpose()?;
    let choices = common.choices;
    let sequences = prompts.into_iter().enumerate().flat_map(|(place, Prompt { ids, text })| {
        let (prompt, echo): (Arc<[u32]>, Option<Arc<str>>) = (ids.into(), text.filter(|_| common.wishes.echo).map(Arc::from));
        (0..choices).map(move |choice| Sequence { prompt: Arc::clone(&prompt), echo: echo.clone(), choice: place * choices + choice })
    });
    let sequences: Vec<Sequence> = sequences.collect();
    let Common { wishes, stream, include_usage, .. } = common;
    Ok(Prepared { sequences, wishes, choices, stream, include_usage })
}

fn completions(fields: &mut Fields, common: &mut Common, model: &ServedModel) -> Result<Vec<Prompt>, ApiError> {
    common.wishes.echo = fields.boolean("echo")?.unwrap_or(false);
    // Without an answer there must be something else to tell.
    let least = u64::from(!common.wishes.echo);
    common.wishes.max_tokens = fields.integer("max_tokens", least, u64::MAX)?.unwrap_or(COMPLETION_TOKENS) as usize;
    common.wishes.logprobs = fields.integer("logprobs", 0, MOST_LOGPROBS)?.map(|count| count as usize);
    fields.only("suffix", |value| value == "")?;
    fields.only("best_of", |value| value.as_u64() == Some(common.choices as u64))?;
    let prompt = fields.take("prompt").ok_or_else(|| ApiError::field("prompt", "prompt is missing"))?;
    let wrong = || ApiError::field("prompt", "prompt must be a string, a list of strings, a list of token ids, or a list of such lists");
    let ids = |values: &[Value]| {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
        Ok(Prompt { ids: values.iter().map(id).collect::<Result<_, _>>()?, text: None })
    };
    let of_text = |text: String| {
        let mut ids: Vec<u32> = model.tokenizer.bos_id().into_iter().collect();
        model.tokenizer.encode_into(&text, &mut ids);
        Prompt { ids, text: Some(text) }
    };
    match prompt {
        Value::String(text) => Ok(vec![of_text(text)]),
        Value::Array(parts) if parts.is_empty() => Err(ApiError::field("prompt", "prompt is an empty list")),
        Value::Array(parts) if parts.iter().all(Value::is_number) => Ok(vec![ids(&parts)?]),
        Value::Array(parts) => {
            let one = |part| match part {
                Value::String(text) => Ok(of_text(text)),
                Value::Array(values) => ids(&values),
                _ => Err(wrong()),
            };
            parts.into_iter().map(one).collect()
        }
        _ => Err(wrong()),
    }
}

fn chat(fields: &mut Fields, common: &mut Common, model: &ServedModel) -> Result<Vec<Prompt>, ApiError> {
    let old = fields.integer("max_tokens", 1, u64::MAX)?;
    let limit = fields.integer("max_completion_tokens", 1, u64::MAX)?;
    common.wishes.max_tokens = limit.or(old).map_or(usize::MAX, |limit| limit as usize);
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0, MOST_LOGPROBS)?;
    if top.is_some_and(|top| top > 0) && !wanted {
        return Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs to be true"));
    }
    common.wishes.logprobs = wanted.then_some(top.unwrap_or(0) as usize);
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    fields.only("tools", empty)?;
    fields.only("functions", empty)?;
    fields.only("tool_choice", |value| value == "none")?;
    fields.only("function_call", |value| value == "none")?;
    fields.only("modalities", |value| value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "text")))?;
    let messages = messages(fields.take("messages"))?;
    let ids = model.template.encode(&messages, &model.tokenizer, true);
    let ids = ids.map_err(|error| ApiError::field("messages", error.to_string()).with_code("chat_template"))?;
    Ok(vec![Prompt { ids, text: None }])
}

fn messages(value: Option<Value>) -> Result<Vec<ChatMessage>, ApiError> {
    let wrong = |reason: String| ApiError::field("messages", reason);
    let messages = match value {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => return Err(wrong("messages is an empty list".into())),
        Some(_) => return Err(wrong("messages must be a list of objects with role and content".into())),
        None => return Err(wrong("messages is missing".into())),
    };
    messages.into_iter().enumerate().map(|(place, message)| one_message(place, message)).collect()
}

fn one_message(place: usize, message: Value) -> Result<ChatMessage, ApiError> {
    let wrong = |reason: &str| ApiError::field(&format!("messages[{place}]"), format!("messages[{place}] {reason}"));
    let Value::Object(mut message) = message else { return Err(wrong("is no object")) };
    let Some(Value::String(role)) = message.remove("role") else { return Err(wrong("has no role that is a string")) };
    let content = match message.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let text = |part: &Value| {
                part.get("text").filter(|_| part.get("type").is_some_and(|kind| kind == "text"))?.as_str().map(str::to_owned)
            };
            let texts: Option<Vec<String>> = parts.iter().map(text).collect();
            texts.ok_or_else(|| wrong("has a part that is no text; this model reads text alone"))?.concat()
        }
        _ => return Err(wrong("has no content that is a string or a list of text parts")),
    };
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match message.into_iter().find(|(_, value)| !empty(value)) {
        Some((key, _)) => Err(unsupported(&format!("messages[{place}].{key}"))),
        None => Ok(ChatMessage { role, content }),
    }
}

fn check_prompt(endpoint: Endpoint, prompt: &[u32], vocabulary: usize, context: usize) -> Result<(), ApiError> {
    let name = match endpoint {
        Endpoint::Completions => "prompt",
        Endpoint::Chat => "messages",
    };
    if prompt.is_empty() {
        return Err(ApiError::field(name, "the prompt has no tokens"));
    }
    if let Some(id) = prompt.iter().find(|id| **id as usize >= vocabulary) {
        let message = format!("token id {id} is outside the model's vocabulary of {vocabulary}");
        return Err(ApiError::field(name, message).with_code("unknown_token"));
    }
    if prompt.len() > context {
        let message = format!("the prompt has {} tokens, the context holds {context}; shorten it", prompt.len());
        return Err(ApiError::field(name, message).with_code("context_length_exceeded"));
    }
    Ok(())
}
