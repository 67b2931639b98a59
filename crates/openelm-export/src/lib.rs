//! Weights as an artefact for other engines: a Hugging Face folder, a GGUF file, an MLX folder, CoreNet's .pt files.
//!
//! What must stay true: tensors go through memory one at a time; an export appears whole or not at all; what was exported reads
//! back as the same model.

mod card;
mod corenet;
mod error;
mod gguf;
mod hugging_face;
mod mlx;
mod settings;
mod tokenizer_files;

pub use card::CardFacts;
pub use corenet::{CoreNetTraining, export_corenet, export_corenet_training};
pub use error::ExportError;
pub use gguf::{GgufType, export_gguf};
pub use hugging_face::{ExportSettings, export_hugging_face};
pub use mlx::{MlxSettings, export_mlx};
pub use settings::ExportDtype;
