//! Hugging Face's safetensors: eight bytes of header length, a JSON header, then the tensors' bytes without gaps.

mod file;
mod folder;
mod header;
mod sharded;
mod writer;

pub use folder::Safetensors;
pub use sharded::write_sharded;
pub use writer::SafetensorsWriter;

/// The single file of a Hugging Face folder.
const SINGLE_FILE: &str = "model.safetensors";
/// The list of shards of a Hugging Face folder.
const INDEX_FILE: &str = "model.safetensors.index.json";
