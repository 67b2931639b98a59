//! Generation on any burn device: prefill, decode with a key/value cache, sampling, streaming.
//!
//! What must stay true: with a cache the logits are those of the whole sequence without one; greedy decoding takes the first of
//! equal logits; a seed gives the same text again.

mod burn_decoder;
mod cache;
mod constraint;
mod conversation;
mod decoder;
mod decoder_scorer;
mod draft;
mod error;
mod generate;
mod host_decoder;
mod host_weights;
mod process;
mod sampler;
mod score;
mod score_model;
pub mod server;

pub use burn_decoder::BurnDecoder;
pub use cache::KvCache;
pub use constraint::{AnswerForm, Constraint, Constraints};
pub use conversation::{Answer, Conversation, ConversationError};
pub use decoder::{Cache, Decoder, Run, Wanted};
pub use decoder_scorer::DecoderScorer;
pub use draft::Draft;
pub use error::InferError;
pub use generate::{Generation, Limits, StopReason, generate};
pub use host_decoder::{HostDecoder, HostOptions};
pub use openelm_kernels::KvType;
pub use process::process_memory;
pub use sampler::{Sampler, SamplingSettings};
pub use score::{ContextGroup, TokenScore, TokenScorer, check_groups};
pub use score_model::ModelScorer;
