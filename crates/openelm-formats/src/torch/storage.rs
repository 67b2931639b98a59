//! Names of PyTorch's storage types.

use crate::dtype::DType;

/// Storage types and their elements. Unsigned types above eight bits have no storage type of their own and are left out.
const STORAGES: [(&str, DType); 10] = [
    ("DoubleStorage", DType::F64),
    ("FloatStorage", DType::F32),
    ("HalfStorage", DType::F16),
    ("BFloat16Storage", DType::BF16),
    ("LongStorage", DType::I64),
    ("IntStorage", DType::I32),
    ("ShortStorage", DType::I16),
    ("CharStorage", DType::I8),
    ("ByteStorage", DType::U8),
    ("BoolStorage", DType::Bool),
];

/// The elements of `torch.NAME`.
pub(super) fn dtype_of_storage(name: &str) -> Option<DType> {
    STORAGES.into_iter().find(|(storage, _)| *storage == name).map(|(_, dtype)| dtype)
}

/// The NAME of `torch.NAME` for these elements; `None` for those without a storage type.
pub(super) fn storage_of_dtype(dtype: DType) -> Option<&'static str> {
    STORAGES.into_iter().find(|(_, elements)| *elements == dtype).map(|(storage, _)| storage)
}
