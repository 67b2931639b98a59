//! Fine-tuning: supervised and preference objectives over conversations, and adapters.
//!
//! - [`Reader`]: files of conversations or of preference pairs into tokens and targets, with every row checked and counted.
//! - [`SupervisedObjective`], [`PreferenceObjective`]: what the trainer's loop computes of them.
//! - [`adapter`]: LoRA and DoRA in PEFT's form.
//! - [`Reference`]: what the reference model says of each pair.
//!
//! What must stay true: there is one training loop, the trainer's; an objective only says what a step computes.

pub mod adapter;
mod conversation;
mod dialogue_tokens;
mod error;
mod examples;
mod layout;
mod order;
mod packing;
mod pair_tokens;
mod preference;
mod preference_loss;
mod reference;
mod supervised;

pub use dialogue_tokens::{Learnt, TrainOn};
pub use error::FinetuneError;
pub use examples::{Examples, OnBadRow, Reader, Survey};
pub use layout::Layout;
pub use pair_tokens::{Answered, PairLimits, PairTokens};
pub use preference::{PreferenceObjective, reference_digest_of};
pub use preference_loss::{Both, PairOutcome, PreferenceLoss, PreferenceSettings};
pub use reference::{Reference, ReferenceKey, weights_digest};
pub use supervised::SupervisedObjective;
