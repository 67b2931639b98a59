//! An opened `.pt` file: its structure in memory, its tensors read on demand.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use super::archive::Archive;
use super::machine::Machine;
use super::state_dict::StateDict;
use super::value::{PickleValue, StoredTensor};
use crate::error::FormatError;
use crate::float::decode_f32;

/// A `.pt` file of `torch.save`. Cloning shares it.
#[derive(Clone)]
pub struct TorchFile {
    contents: Arc<Contents>,
}

struct Contents {
    archive: Archive,
    root: PickleValue,
}

impl TorchFile {
    /// Opens the archive and reads its pickle; tensors stay in the mapped file.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let archive = Archive::open(path)?;
        let root = Machine::run(path, &archive.pickle()?)?;
        Ok(Self { contents: Arc::new(Contents { archive, root }) })
    }

    pub fn path(&self) -> &Path {
        self.contents.archive.path()
    }

    /// The saved value.
    pub fn root(&self) -> &PickleValue {
        &self.contents.root
    }

    /// The model's weights: the saved value itself where it is a dict of tensors, or else what lies under `model_state_dict`, as in
    /// CoreNet's training checkpoints.
    pub fn state_dict(&self) -> Result<StateDict, FormatError> {
        StateDict::find(self)
    }

    /// A tensor's elements, row by row and little endian, whatever its strides are.
    pub fn tensor_bytes(&self, tensor: &StoredTensor) -> Result<Cow<'_, [u8]>, FormatError> {
        let size = tensor.dtype.size();
        let outside = || FormatError::damaged(self.path(), format!("storage {}", tensor.storage), "a tensor leaves its storage");
        let storage_bytes = tensor.storage_len.checked_mul(size).ok_or_else(outside)?;
        let storage = self.contents.archive.storage(&tensor.storage, storage_bytes)?;
        if tensor.count() == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if tensor.is_contiguous() {
            let from = tensor.offset.checked_mul(size).ok_or_else(outside)?;
            let to = tensor.count().checked_mul(size).and_then(|len| from.checked_add(len)).ok_or_else(outside)?;
            return match storage {
                Cow::Borrowed(bytes) => bytes.get(from..to).map(Cow::Borrowed),
                Cow::Owned(mut bytes) if to <= bytes.len() => {
                    bytes.truncate(to);
                    bytes.drain(..from);
                    Some(Cow::Owned(bytes))
                }
                Cow::Owned(_) => None,
            }
            .ok_or_else(outside);
        }
        gather(&storage, tensor).map(Cow::Owned).ok_or_else(outside)
    }

    /// Says that the storage of a tensor is not read again soon: its pages leave the process's memory.
    pub fn release(&self, tensor: &StoredTensor) {
        self.contents.archive.release(&tensor.storage);
    }

    /// A tensor's elements, row by row, converted from F32, F16, BF16 or F64; other types are refused.
    pub fn tensor_f32(&self, tensor: &StoredTensor) -> Result<Vec<f32>, FormatError> {
        let bytes = self.tensor_bytes(tensor)?;
        decode_f32(&bytes, tensor.dtype).ok_or_else(|| FormatError::NotFloat {
            path: self.path().to_owned(),
            name: format!("storage {}", tensor.storage),
            dtype: tensor.dtype,
        })
    }
}

/// Copies a strided tensor's elements in row order. `None` where one lies outside; the tensor has at least one.
fn gather(storage: &[u8], tensor: &StoredTensor) -> Option<Vec<u8>> {
    let size = tensor.dtype.size();
    let mut bytes = Vec::with_capacity(tensor.count().checked_mul(size)?.min(storage.len()));
    let mut index = vec![0_usize; tensor.shape.len()];
    let mut position = tensor.offset;
    loop {
        let from = position.checked_mul(size)?;
        bytes.extend_from_slice(storage.get(from..from.checked_add(size)?)?);
        // Counts up like an odometer: the last dimension turns fastest.
        let mut dimensions = index.iter_mut().zip(&tensor.shape).zip(&tensor.stride).rev();
        loop {
            let Some(((index, shape), stride)) = dimensions.next() else {
                return Some(bytes);
            };
            if *index + 1 < *shape {
                *index += 1;
                position = position.checked_add(*stride)?;
                break;
            }
            position -= *index * stride;
            *index = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn view(shape: &[usize], stride: &[usize], offset: usize) -> StoredTensor {
        StoredTensor { shape: shape.into(), stride: stride.into(), offset, ..StoredTensor::contiguous("0", DType::U8, [12]) }
    }

    #[test]
    fn strides_are_followed() {
        let storage: Vec<u8> = (0..12).collect();
        assert_eq!(gather(&storage, &view(&[3, 4], &[1, 3], 0)).unwrap(), [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11], "a transposed matrix");
        assert_eq!(gather(&storage, &view(&[2, 1, 2], &[4, 99, 2], 1)).unwrap(), [1, 3, 5, 7], "columns 1 and 3 of two rows");
        assert_eq!(gather(&storage, &view(&[2, 2], &[8, 4], 0)), None);
        assert!(view(&[3, 1, 4], &[4, 7, 1], 0).is_contiguous());
        assert!(!view(&[3, 4], &[1, 3], 0).is_contiguous());
    }
}
