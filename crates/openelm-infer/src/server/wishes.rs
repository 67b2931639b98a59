//! The fields that completions and chat share.

use std::hash::{BuildHasher, RandomState};

use serde_json::Value;

use crate::constraint::AnswerForm;
use crate::sampler::{Sampler, SamplingSettings};
use crate::server::error::ApiError;
use crate::server::fields::{Fields, unsupported};
use crate::server::form::form;
use crate::server::job::Wishes;

/// Answers to one request at most.
const MOST_CHOICES: u64 = 128;
/// Stop strings, and bytes of one of them.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 512;
pub(super) const MOST_LOGPROBS: u64 = 20;

/// What a request says beside its prompt.
#[derive(Debug)]
pub(super) struct Common {
    /// The constraint is made of the form by whoever knows the tokens.
    pub wishes: Wishes,
    pub form: Option<AnswerForm>,
    /// Answers for each prompt.
    pub choices: usize,
    pub stream: bool,
    /// A stream ends with the usage.
    pub include_usage: bool,
}

/// Takes the fields; the most tokens and the log-probabilities, whose fields differ between the endpoints, are set by them.
pub(super) fn common(fields: &mut Fields, served: &str, vocabulary: usize) -> Result<Common, ApiError> {
    if let Some(name) = fields.text("model")?
        && name != served
    {
        return Err(ApiError::no_such_model(&name, served));
    }
    let sampling = SamplingSettings {
        temperature: fields.number("temperature", 0.0, 100.0)?.unwrap_or(1.0),
        top_k: fields.integer("top_k", 0, u64::from(u32::MAX))?.unwrap_or(0) as usize,
        top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0),
        min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(0.0),
        repetition_penalty: fields.number("repetition_penalty", 0.0, 100.0)?.unwrap_or(1.0),
        seed: seed(fields)?.unwrap_or_else(|| RandomState::new().hash_one(0)),
    };
    Sampler::new(sampling).map_err(|error| ApiError::invalid(error.to_string()))?;
    let wishes = Wishes {
        sampling,
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields.take("logit_bias"), vocabulary)?,
        constraint: None,
        max_tokens: 0,
        stop: stops(fields.take("stop"))?,
        ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
        logprobs: None,
        echo: false,
    };
    let choices = fields.integer("n", 1, MOST_CHOICES)?.unwrap_or(1) as usize;
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let include_usage = stream_options(fields.take("stream_options"), stream)?;
    Ok(Common { wishes, form: form(fields)?, choices, stream, include_usage })
}

/// Any whole number; negative ones are seeds of their own.
fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let wrong = |value: &Value| ApiError::field("seed", format!("seed is {value}, but must be a whole number"));
    let number = |value: &Value| value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    fields.take("seed").map(|value| number(&value).ok_or_else(|| wrong(&value))).transpose()
}

/// Fails where one request would make more answers than a server should hold.
pub(super) fn check_choices(prompts: usize, choices: usize) -> Result<(), ApiError> {
    if prompts.saturating_mul(choices) as u64 > MOST_CHOICES {
        let message = format!("{prompts} prompts with {choices} answers each are more than {MOST_CHOICES} answers; send several requests");
        return Err(ApiError::field("n", message));
    }
    Ok(())
}

fn stops(value: Option<Value>) -> Result<Vec<String>, ApiError> {
    let wrong = |reason: String| ApiError::field("stop", format!("stop {reason}"));
    let stops = match value {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) => {
            let texts = stops.into_iter().map(|stop| match stop {
                Value::String(stop) => Ok(stop),
                other => Err(wrong(format!("holds {other}, but must hold strings"))),
            });
            texts.collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong(format!("is {other}, but must be a string or a list of strings"))),
    };
    if stops.len() > MOST_STOPS {
        return Err(wrong(format!("holds {} strings, but {MOST_STOPS} are the most", stops.len())));
    }
    if stops.iter().any(|stop| stop.is_empty() || stop.len() > LONGEST_STOP) {
        return Err(wrong(format!("holds a string that is empty or longer than {LONGEST_STOP} bytes")));
    }
    Ok(stops)
}

/// Token ids, written as strings, with what is added to their logits.
fn logit_bias(value: Option<Value>, vocabulary: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let wrong = |reason: String| ApiError::field("logit_bias", format!("logit_bias {reason}"));
    let entries = match value {
        None => return Ok(Vec::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => return Err(wrong(format!("is {other}, but must be an object of token ids and numbers"))),
    };
    let entry = |(id, bias): (String, Value)| {
        let known = id.parse::<u32>().ok().filter(|id| (*id as usize) < vocabulary);
        let known = known.ok_or_else(|| wrong(format!("names the token {id:?}, but ids are whole numbers below {vocabulary}")))?;
        let bias = bias.as_f64().filter(|bias| bias.abs() <= 100.0);
        bias.map(|bias| (known, bias as f32)).ok_or_else(|| wrong(format!("of token {id} must be a number from -100 to 100")))
    };
    entries.into_iter().map(entry).collect()
}

fn stream_options(value: Option<Value>, stream: bool) -> Result<bool, ApiError> {
    let Some(value) = value else { return Ok(false) };
    let Value::Object(mut options) = value else {
        return Err(ApiError::field("stream_options", format!("stream_options is {value}, but must be an object")));
    };
    if !stream {
        return Err(ApiError::field("stream_options", "stream_options are for streams alone; set stream to true, or leave them out"));
    }
    // Padding against eavesdroppers on the length of tokens; this server has none.
    options.remove("include_obfuscation");
    let include = options.remove("include_usage").unwrap_or(Value::Bool(false));
    if let Some((name, _)) = options.into_iter().next() {
        return Err(unsupported(&format!("stream_options.{name}")));
    }
    include.as_bool().ok_or_else(|| ApiError::field("stream_options", "stream_options.include_usage must be true or false"))
}
