//! The format's numbers for element types.

use crate::dtype::DType;

const TYPES: [(u32, DType); 16] = [
    (0, DType::F32),
    (1, DType::F16),
    (2, DType::Q4_0),
    (3, DType::Q4_1),
    (6, DType::Q5_0),
    (7, DType::Q5_1),
    (8, DType::Q8_0),
    (12, DType::Q4_K),
    (13, DType::Q5_K),
    (14, DType::Q6_K),
    (24, DType::I8),
    (25, DType::I16),
    (26, DType::I32),
    (27, DType::I64),
    (28, DType::F64),
    (30, DType::BF16),
];

/// Types that exist and are not read here, for messages.
const OTHERS: [(u32, &str); 3] = [(9, "Q8_1"), (10, "Q2_K"), (11, "Q3_K")];

pub(super) fn from_code(code: u32) -> Option<DType> {
    TYPES.into_iter().find(|(number, _)| *number == code).map(|(_, dtype)| dtype)
}

pub(super) fn code(dtype: DType) -> Option<u32> {
    TYPES.into_iter().find(|(_, known)| *known == dtype).map(|(number, _)| number)
}

/// What to call a type that `from_code` does not know.
pub(super) fn unknown(code: u32) -> String {
    OTHERS.into_iter().find(|(number, _)| *number == code).map_or_else(|| format!("number {code}"), |(_, name)| name.to_owned())
}
