//! Fine-tuning: supervised and preference objectives over conversations, and adapters.
//!
//! What must stay true: there is one training loop, the trainer's; an objective only says what a step computes.

pub mod adapter;
