//! Everything in an opened `.pt` file read, written again and read again.

use openelm_formats::{DType, PickleValue, StoredTensor, TorchFile, write_torch};
use openelm_fuzz::{folder, read_all};

/// The tensors of a value in the order of the tree.
fn tensors<'a>(value: &'a PickleValue, found: &mut Vec<&'a StoredTensor>) {
    match value {
        PickleValue::Tensor(tensor) => found.push(tensor),
        PickleValue::List(items) | PickleValue::Tuple(items) => items.iter().for_each(|item| tensors(item, found)),
        PickleValue::Dict(pairs) | PickleValue::OrderedDict(pairs) => pairs.iter().for_each(|(key, value)| {
            tensors(key, found);
            tensors(value, found);
        }),
        _ => {}
    }
}

fn tensors_of(torch: &TorchFile) -> Vec<&StoredTensor> {
    let mut found = Vec::new();
    tensors(torch.root(), &mut found);
    found
}

pub fn check(torch: &TorchFile) {
    for tensor in tensors_of(torch) {
        let float = matches!(tensor.dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16);
        if let Ok(bytes) = torch.tensor_bytes(tensor) {
            assert_eq!(Some(bytes.len()), tensor.count().checked_mul(tensor.dtype.size()), "{tensor:?}");
            assert_eq!(torch.tensor_f32(tensor).is_ok(), float, "{tensor:?}");
        }
        torch.release(tensor);
    }
    if let Ok(weights) = torch.state_dict() {
        read_all(&weights);
    }
    let copy = folder().join("copy.pt");
    let storage = |tensor: &StoredTensor| {
        let whole = StoredTensor::contiguous(tensor.storage.clone(), tensor.dtype, [tensor.storage_len]);
        torch.tensor_bytes(&whole).map(|bytes| bytes.into_owned())
    };
    // Storages that are not there, or of which tensors say different things, cannot be written.
    if write_torch(&copy, torch.root(), storage).is_err() {
        return;
    }
    let again = TorchFile::open(&copy).expect("what was written can be read");
    let (before, after) = (tensors_of(torch), tensors_of(&again));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!((before.dtype, &before.shape), (after.dtype, &after.shape));
        assert_eq!(torch.tensor_bytes(before).expect("it was written"), again.tensor_bytes(after).expect("it was written"));
    }
}
