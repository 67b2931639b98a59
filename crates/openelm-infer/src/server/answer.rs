//! Answers as OpenAI's JSON: whole, and chunk by chunk.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::server::job::{FinishReason, Usage};
use crate::server::logprobs::{TokenLogprob, TokenText};
use crate::server::request::Endpoint;

/// What all objects of one answer share.
#[derive(Debug)]
pub(super) struct Heading {
    pub endpoint: Endpoint,
    pub id: String,
    pub created: u64,
    pub model: String,
}

/// Seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One choice as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub text: String,
    pub logprobs: Vec<TokenLogprob>,
    pub finish: Option<(FinishReason, Usage)>,
}

impl Heading {
    fn object(&self, kind: &str, choices: Vec<Value>) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("id".into(), self.id.as_str().into());
        object.insert("object".into(), kind.into());
        object.insert("created".into(), self.created.into());
        object.insert("model".into(), self.model.as_str().into());
        object.insert("choices".into(), choices.into());
        object
    }

    /// The whole answer.
    pub fn whole(&self, choices: &[Choice], per_prompt: usize, logprobs: bool) -> Value {
        let values = choices.iter().enumerate().map(|(index, choice)| {
            let finish = choice.finish.map(|(reason, _)| reason.name());
            match self.endpoint {
                Endpoint::Completions => json!({
                    "index": index,
                    "text": choice.text,
                    "logprobs": if logprobs { completion_logprobs(&choice.logprobs) } else { Value::Null },
                    "finish_reason": finish,
                }),
                Endpoint::Chat => json!({
                    "index": index,
                    "message": {"role": "assistant", "content": choice.text, "refusal": null},
                    "logprobs": if logprobs { chat_logprobs(&choice.logprobs) } else { Value::Null },
                    "finish_reason": finish,
                }),
            }
        });
        let kind = match self.endpoint {
            Endpoint::Completions => "text_completion",
            Endpoint::Chat => "chat.completion",
        };
        let mut object = self.object(kind, values.collect());
        object.insert("usage".into(), usage(choices, per_prompt));
        object.into()
    }

    /// The first chunk of a choice, for endpoints that have one.
    pub fn opening(&self, index: usize, with_usage: bool) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        (self.endpoint == Endpoint::Chat)
            .then(|| self.chunk(json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null}), with_usage))
    }

    /// More text of a choice.
    pub fn piece(&self, index: usize, text: &str, logprobs: &[TokenLogprob], with_usage: bool) -> Value {
        let told = |told: fn(&[TokenLogprob]) -> Value| if logprobs.is_empty() { Value::Null } else { told(logprobs) };
        let value = match self.endpoint {
            Endpoint::Completions => json!({"index": index, "text": text, "logprobs": told(completion_logprobs), "finish_reason": null}),
            Endpoint::Chat => {
                json!({"index": index, "delta": {"content": text}, "logprobs": told(chat_logprobs), "finish_reason": null})
            }
        };
        self.chunk(value, with_usage)
    }

    /// The end of a choice.
    pub fn closing(&self, index: usize, reason: FinishReason, with_usage: bool) -> Value {
        let finish = reason.name();
        let value = match self.endpoint {
            Endpoint::Completions => json!({"index": index, "text": "", "logprobs": null, "finish_reason": finish}),
            Endpoint::Chat => json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": finish}),
        };
        self.chunk(value, with_usage)
    }

    /// The chunk behind all choices, with the usage.
    pub fn usage_chunk(&self, choices: &[Choice], per_prompt: usize) -> Value {
        let mut object = self.object(self.chunk_kind(), Vec::new());
        object.insert("usage".into(), usage(choices, per_prompt));
        object.into()
    }

    fn chunk_kind(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Completions => "text_completion",
            Endpoint::Chat => "chat.completion.chunk",
        }
    }

    fn chunk(&self, choice: Value, with_usage: bool) -> Value {
        let mut object = self.object(self.chunk_kind(), vec![choice]);
        if with_usage {
            object.insert("usage".into(), Value::Null);
        }
        object.into()
    }
}

/// Tokens of a whole answer: each prompt counts once, however many choices it has.
fn usage(choices: &[Choice], per_prompt: usize) -> Value {
    let (mut prompt, mut reused, mut made) = (0, 0, 0);
    for (index, usage) in choices.iter().enumerate().filter_map(|(index, choice)| Some((index, choice.finish?.1))) {
        made += usage.made;
        if index % per_prompt == 0 {
            prompt += usage.prompt;
            reused += usage.reused;
        }
    }
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": reused},
    })
}

fn completion_logprobs(tokens: &[TokenLogprob]) -> Value {
    // A byte and a piece may be the same text: the likelier of them is told.
    let top = |token: &TokenLogprob| -> Option<Map<String, Value>> {
        token.logprob.map(|_| {
            let mut texts = Map::new();
            for (text, logprob) in &token.top {
                texts.entry(text.distinct()).or_insert_with(|| (*logprob).into());
            }
            texts
        })
    };
    json!({
        "tokens": tokens.iter().map(|token| token.token.distinct()).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "text_offset": tokens.iter().map(|token| token.offset).collect::<Vec<_>>(),
    })
}

fn chat_logprobs(tokens: &[TokenLogprob]) -> Value {
    let one = |text: &TokenText, logprob: Option<f32>| json!({"token": text.lossy(), "logprob": logprob, "bytes": text.bytes});
    let content = tokens.iter().map(|token| {
        let mut value = one(&token.token, token.logprob);
        if let Some(fields) = value.as_object_mut() {
            let top = token.top.iter().map(|(text, logprob)| one(text, Some(*logprob)));
            fields.insert("top_logprobs".into(), top.collect());
        }
        value
    });
    json!({"content": content.collect::<Vec<_>>(), "refusal": null})
}
