//! Adapters: LoRA, rsLoRA and DoRA in PEFT's form, from their configuration to a fused model.
//!
//! - [`AdapterConfig`]: PEFT's `adapter_config.json`, read and written strictly.
//! - [`modules()`]: which matrices of a model it names, and how each is changed.
//! - [`attach_new`], [`attach_saved`]: an adapter onto a model, to be trained.
//! - [`fused`]: a base with an adapter added to its weights as they are read.
//!
//! What must stay true: an adapter that PEFT wrote means here what it means there; what is not supported is refused by its name.

mod attach;
mod config;
mod error;
mod fuse;
mod modules;
mod pattern;

pub use attach::{attach_new, attach_saved};
pub use config::{AdapterConfig, Targets};
pub use error::AdapterError;
pub use fuse::fused;
pub use modules::modules;
