//! A request on its way from a client to the scheduler, and what comes back.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use crate::constraint::Constraint;
use crate::sampler::SamplingSettings;
use crate::server::error::ApiError;
use crate::server::logprobs::TokenLogprob;

/// How the answers of a request are made.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    /// The seed is that of the first choice; each next one has the next.
    pub sampling: SamplingSettings,
    /// Taken off the logits of tokens that the answer has.
    pub presence_penalty: f32,
    /// Taken off for each time that the answer has the token.
    pub frequency_penalty: f32,
    pub logit_bias: Vec<(u32, f32)>,
    /// What each answer begins with, where it must have a form.
    pub constraint: Option<Constraint>,
    pub max_tokens: usize,
    pub stop: Vec<String>,
    pub ignore_eos: bool,
    /// Likeliest tokens to tell beside each one made.
    pub logprobs: Option<usize>,
    /// Tell the prompt before the answer, with its log-probabilities where those are asked for.
    pub echo: bool,
}

/// One answer to make.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// Shared by the choices of a prompt.
    pub prompt: Arc<[u32]>,
    /// The prompt as the client wrote it; `None` where it gave ids, or is not to be told it again.
    pub echo: Option<Arc<str>>,
    pub choice: usize,
}

/// What all answers of a request share.
#[derive(Debug)]
pub(super) struct Request {
    pub wishes: Wishes,
    /// Closed when the client has gone.
    pub events: UnboundedSender<Event>,
    pub arrived: Instant,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub sequences: Vec<Sequence>,
    pub request: Arc<Request>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FinishReason {
    Stop,
    Length,
}

impl FinishReason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What a client hears of its request.
#[derive(Debug)]
pub(super) enum Event {
    /// More of an answer; the text may be empty when it may yet become a stop string. Several tokens only where the prompt is told.
    Piece { choice: usize, text: String, logprobs: Vec<TokenLogprob> },
    /// An answer is whole.
    Finished { choice: usize, reason: FinishReason, usage: Usage },
    /// The whole request failed.
    Failed(ApiError),
}

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub prompt: usize,
    /// Those of the prompt that were read before, for another sequence.
    pub reused: usize,
    pub made: usize,
}
