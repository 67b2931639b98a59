//! What a server allows, and what it serves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openelm_tokenizer::{ChatTemplate, Tokenizer};

use crate::decoder::Decoder;
use crate::draft::Draft;
use crate::server::error::ServerError;

/// A model with its text side.
#[derive(Clone)]
pub struct ServedModel {
    /// Its name for clients.
    pub name: String,
    pub decoder: Arc<dyn Decoder>,
    /// Guesses the next tokens of answers, which are then checked several at a time.
    pub draft: Option<Arc<Draft>>,
    pub tokenizer: Tokenizer,
    pub template: ChatTemplate,
}

impl fmt::Debug for ServedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedModel").field("name", &self.name).field("template", &self.template).finish_non_exhaustive()
    }
}

/// The limits of a server. The default suits one machine with few users.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Sequences that are continued at once.
    pub slots: usize,
    /// Positions of a sequence, prompt and answer together, at most those of the model's rotary table; `None`: those that it was
    /// trained with.
    pub context: Option<usize>,
    /// Requests that may wait for a slot. One more is refused.
    pub queue: usize,
    /// From a request's arrival to the end of its answer.
    pub timeout: Duration,
    /// For running requests, once the server was told to end.
    pub drain: Duration,
    /// Bytes of a request's body.
    pub body_limit: usize,
    /// Clients that may be connected at once; more wait to be let in.
    pub connections: usize,
    /// Prompt tokens that are read at a time, beside the tokens of the running answers.
    pub prefill_chunk: usize,
    /// Caches of finished sequences that are kept for prompts that begin like them.
    pub kept_caches: usize,
    /// What clients must show, if anything: `Authorization: Bearer KEY`.
    pub api_key: Option<String>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            slots: 4,
            context: None,
            queue: 64,
            timeout: Duration::from_secs(600),
            drain: Duration::from_secs(30),
            body_limit: 4 << 20,
            connections: 512,
            prefill_chunk: 256,
            kept_caches: 4,
            api_key: None,
        }
    }
}

impl ServerSettings {
    /// Fails for limits with which nothing could be served. Gives the context, too.
    pub(super) fn checked(&self, model: &ServedModel) -> Result<usize, ServerError> {
        let least_one = [
            ("slots", self.slots),
            ("context", self.context.unwrap_or(1)),
            ("body limit", self.body_limit),
            ("connections", self.connections),
            ("prefill chunk", self.prefill_chunk),
            ("timeout", usize::from(!self.timeout.is_zero())),
        ];
        if let Some((name, _)) = least_one.iter().find(|(_, value)| *value == 0) {
            return Err(ServerError::Setting { name, reason: "is 0", hint: "give at least 1" });
        }
        if self.api_key.as_ref().is_some_and(|key| key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            let reason = "is empty, or holds what no HTTP header can";
            return Err(ServerError::Setting { name: "API key", reason, hint: "take letters, digits and signs of ASCII, without spaces" });
        }
        let config = model.decoder.config();
        match self.context {
            Some(asked) if asked > config.rope_max_length => Err(ServerError::Context { asked, model: config.rope_max_length }),
            Some(asked) => Ok(asked),
            None => Ok(config.max_context_length.min(config.rope_max_length)),
        }
    }
}
