//! What the `openelm` program is made of. Glue only: everything that computes lives in the other crates.

pub mod args;
pub mod commands;
pub mod config;
mod convert;
mod convert_finetune;
mod progress;

pub use convert::{data_config, model_config, train_settings, validation_config};
