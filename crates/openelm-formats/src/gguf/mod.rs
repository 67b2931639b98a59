//! GGUF, llama.cpp's file: typed metadata, a list of tensors, then their data, each tensor at a multiple of the alignment.

mod data_type;
mod file;
mod header;
mod reader;
mod value;
mod writer;

pub use file::Gguf;
pub use value::{GgufArray, GgufValue};
pub use writer::GgufWriter;

/// What a file begins with.
const MAGIC: [u8; 4] = *b"GGUF";
/// The version written. Version 2 differs only in what it says about byte order.
const VERSION: u32 = 3;
/// The metadata key that changes the alignment.
const ALIGNMENT_KEY: &str = "general.alignment";
/// Alignment where the metadata gives none.
const DEFAULT_ALIGNMENT: usize = 32;
/// Tensors have at most this many dimensions.
const MAX_DIMENSIONS: usize = 4;

/// The alignment that metadata asks for; `None` where it is no power of two or no u32.
fn alignment(metadata: &[(String, GgufValue)]) -> Option<usize> {
    match metadata.iter().find(|(key, _)| key == ALIGNMENT_KEY) {
        None => Some(DEFAULT_ALIGNMENT),
        Some((_, GgufValue::U32(alignment))) if alignment.is_power_of_two() => Some(*alignment as usize),
        Some(_) => None,
    }
}
