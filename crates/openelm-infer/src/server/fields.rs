//! The fields of a request's JSON object, taken out one by one; whatever is left over is refused.

use serde_json::{Map, Value};

use crate::server::error::ApiError;

/// Fields of OpenAI's interface that change nothing in an answer of this server.
const WITHOUT_EFFECT: [&str; 8] =
    ["user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"];

#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The object in a request's body.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let value = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body is not JSON: {error}")).with_code("invalid_json"))?;
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(ApiError::invalid("the body must be a JSON object").with_code("invalid_json")),
        }
    }

    /// A field's value; null is as good as none.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        let wrong = |value: &Value| ApiError::field(name, format!("{name} is {value}, but must be true or false"));
        self.take(name).map(|value| value.as_bool().ok_or_else(|| wrong(&value))).transpose()
    }

    /// A whole number from `least` to `most`.
    pub fn integer(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
        let wrong = |value: &Value| {
            let upper = if most == u64::MAX { String::new() } else { format!(" to {most}") };
            ApiError::field(name, format!("{name} is {value}, but must be a whole number from {least}{upper}"))
        };
        let number = |value: &Value| value.as_u64().filter(|number| (least..=most).contains(number));
        self.take(name).map(|value| number(&value).ok_or_else(|| wrong(&value))).transpose()
    }

    /// A number from `least` to `most`.
    pub fn number(&mut self, name: &str, least: f32, most: f32) -> Result<Option<f32>, ApiError> {
        let wrong = |value: &Value| ApiError::field(name, format!("{name} is {value}, but must be a number from {least} to {most}"));
        let number = |value: &Value| value.as_f64().map(|number| number as f32).filter(|number| (least..=most).contains(number));
        self.take(name).map(|value| number(&value).ok_or_else(|| wrong(&value))).transpose()
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(ApiError::field(name, format!("{name} is {other}, but must be a string"))),
        }
    }

    /// Takes a field out that is harmless with some values; with any other it would change the answer in a way that is not to be
    /// had here.
    pub fn only(&mut self, name: &str, harmless: impl FnOnce(&Value) -> bool) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if !harmless(&value) => Err(unsupported(name)),
            _ => Ok(()),
        }
    }

    /// Fails when a field is left over.
    pub fn finish(self) -> Result<(), ApiError> {
        let left = self.0.into_iter().find(|(name, value)| !value.is_null() && !WITHOUT_EFFECT.contains(&name.as_str()));
        left.map_or(Ok(()), |(name, _)| Err(unsupported(&name)))
    }
}

pub(super) fn unsupported(name: &str) -> ApiError {
    let message = format!("{name} is not supported by this server, and the answer would not be what it asks for; leave it out");
    ApiError::field(name, message).with_code("unsupported_parameter")
}
