//! Weights as an artefact for other engines: a Hugging Face folder.
//!
//! What must stay true: tensors go through memory one at a time; an export appears whole or not at all; what was exported reads
//! back as the same model.

mod card;
mod error;
mod hugging_face;

pub use card::CardFacts;
pub use error::ExportError;
pub use hugging_face::{ExportDtype, ExportSettings, export_hugging_face};
