//! PyTorch's `.pt` files: a zip archive with a pickle of the structure and an entry for each storage. Nothing is ever executed:
//! the pickle is read by a small machine of our own that knows containers, numbers, strings and tensors and refuses all else.

mod archive;
mod build;
mod file;
mod machine;
mod opcode;
mod pickler;
mod state_dict;
mod storage;
mod value;
mod writer;

pub use file::TorchFile;
pub use state_dict::StateDict;
pub use value::{PickleValue, StoredTensor};
pub use writer::write_torch;
