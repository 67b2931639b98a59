//! Element types and tensor descriptions, shared by all formats.

use std::fmt;

/// How the elements of a tensor are stored, always little endian. The quantised types store the elements of a row in blocks that share
/// their scales; they are llama.cpp's but for `Affine4` and `Affine8`, which no file has: MLX's levels, 32 to a block.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
    Affine4,
    Affine8,
}

impl DType {
    /// The types that store each element by itself.
    pub const PLAIN: [Self; 13] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U64,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::Bool,
    ];

    /// The types that store blocks.
    pub const QUANTISED: [Self; 10] =
        [Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0, Self::Q4_K, Self::Q5_K, Self::Q6_K, Self::Affine4, Self::Affine8];

    /// Name, elements of a block, bytes of a block.
    const fn layout(self) -> (&'static str, usize, usize) {
        match self {
            Self::F64 => ("F64", 1, 8),
            Self::F32 => ("F32", 1, 4),
            Self::F16 => ("F16", 1, 2),
            Self::BF16 => ("BF16", 1, 2),
            Self::I64 => ("I64", 1, 8),
            Self::I32 => ("I32", 1, 4),
            Self::I16 => ("I16", 1, 2),
            Self::I8 => ("I8", 1, 1),
            Self::U64 => ("U64", 1, 8),
            Self::U32 => ("U32", 1, 4),
            Self::U16 => ("U16", 1, 2),
            Self::U8 => ("U8", 1, 1),
            Self::Bool => ("BOOL", 1, 1),
            // A scale of 2 bytes, then 4, 5 or 8 bits an element.
            Self::Q4_0 => ("Q4_0", 32, 2 + 16),
            Self::Q5_0 => ("Q5_0", 32, 2 + 4 + 16),
            Self::Q8_0 => ("Q8_0", 32, 2 + 32),
            // A scale and a minimum of 2 bytes each, then 4 or 5 bits an element.
            Self::Q4_1 => ("Q4_1", 32, 4 + 16),
            Self::Q5_1 => ("Q5_1", 32, 4 + 4 + 16),
            // A scale and a minimum of 4 bytes each, then 4 or 8 bits an element.
            Self::Affine4 => ("AFFINE4", 32, 8 + 16),
            Self::Affine8 => ("AFFINE8", 32, 8 + 32),
            // Two scales of 2 bytes, 12 bytes of scales and minima of 6 bits each, then 4 or 5 bits an element.
            Self::Q4_K => ("Q4_K", 256, 4 + 12 + 128),
            Self::Q5_K => ("Q5_K", 256, 4 + 12 + 32 + 128),
            // 6 bits an element, 16 scales of a byte, a scale of 2 bytes.
            Self::Q6_K => ("Q6_K", 256, 128 + 64 + 16 + 2),
        }
    }

    /// The name that safetensors or llama.cpp uses, upper case.
    pub const fn name(self) -> &'static str {
        self.layout().0
    }

    /// The plain type that safetensors calls so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::PLAIN.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes of one element; of one block for the quantised types.
    pub const fn size(self) -> usize {
        self.layout().2
    }

    /// Elements of one block; 1 for the plain types. Blocks lie within a row, so a row's length must be a multiple.
    pub const fn block_len(self) -> usize {
        self.layout().1
    }

    /// True for the types that store blocks.
    pub const fn is_quantised(self) -> bool {
        self.block_len() > 1
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor's name, element type and shape (slowest dimension first; a scalar has none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl TensorInfo {
    pub fn new(name: impl Into<String>, dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }

    /// Elements; `usize::MAX` where the product overflows, which no reader lets through.
    pub fn count(&self) -> usize {
        product(&self.shape).unwrap_or(usize::MAX)
    }

    /// Bytes of the data; `usize::MAX` where the product overflows or a row is no whole number of blocks, which no reader lets through.
    pub fn byte_len(&self) -> usize {
        self.checked_byte_len().unwrap_or(usize::MAX)
    }

    /// As `byte_len`; `None` where it overflows or where a row is no whole number of blocks.
    pub(crate) fn checked_byte_len(&self) -> Option<usize> {
        let block = self.dtype.block_len();
        if !self.shape.last().unwrap_or(&1).is_multiple_of(block) {
            return None;
        }
        (product(&self.shape)? / block).checked_mul(self.dtype.size())
    }
}

/// The product of all dimensions, overflow checked; 1 for none. A dimension of 0 makes it 0 whatever the others are.
pub(crate) fn product(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for dtype in DType::PLAIN {
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(DType::from_name("f32"), None);
    }

    #[test]
    fn lengths_saturate() {
        let info = TensorInfo::new("a", DType::F32, [3, 4]);
        assert_eq!((info.count(), info.byte_len()), (12, 48));
        assert_eq!(TensorInfo::new("scalar", DType::F64, []).byte_len(), 8);
        assert_eq!(TensorInfo::new("blocks", DType::Q4_K, [3, 512]).byte_len(), 6 * 144);
        assert_eq!(TensorInfo::new("no whole blocks", DType::Q8_0, [2, 48]).checked_byte_len(), None);
        let huge = TensorInfo::new("a", DType::F32, [usize::MAX / 2, 1]);
        assert_eq!((huge.byte_len(), huge.checked_byte_len()), (usize::MAX, None));
        assert_eq!(TensorInfo::new("a", DType::F32, [usize::MAX, usize::MAX, 0]).byte_len(), 0);
    }
}
