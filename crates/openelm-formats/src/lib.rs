//! Weight files read and written: safetensors (sharded), GGUF with its quantised blocks, MLX's affine groups, and CoreNet's .pt. No
//! tensors, no network.
//!
//! What must stay true: files are mapped, never loaded whole, so reading takes the memory of one tensor; nothing in a file is
//! ever executed; every length, offset and count in a file is checked against the file before anything is allocated for it; and
//! a writer puts a file under its name only once it is whole and on the disk.

mod affine;
mod blocks;
mod dtype;
mod error;
mod float;
mod gguf;
mod mapped_file;
mod partial_file;
mod safetensors;
mod source;
mod torch;

pub use affine::{AffineLayout, AffineTensor};
pub use dtype::{DType, TensorInfo};
pub use error::FormatError;
pub use float::{decode_f32, encode_f32};
pub use gguf::{Gguf, GgufArray, GgufValue, GgufWriter};
pub use safetensors::{Safetensors, SafetensorsWriter, write_sharded};
pub use source::{TensorBytes, TensorSource};
pub use torch::{PickleValue, StateDict, StoredTensor, TorchFile, write_torch};
