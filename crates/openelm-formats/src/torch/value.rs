//! What a `.pt` file holds, as plain values.

use std::sync::Arc;

use crate::dtype::DType;

/// A Python value.
#[derive(Debug, Clone, PartialEq)]
pub enum PickleValue {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Vec<Self>),
    Tuple(Vec<Self>),
    /// Keys and values in the order of insertion.
    Dict(Vec<(Self, Self)>),
    /// As `Dict`; what `state_dict()` of a module gives. Attributes set on it (`_metadata`) are left out.
    OrderedDict(Vec<(Self, Self)>),
    Tensor(Box<StoredTensor>),
}

/// A tensor as a view of a storage, which several tensors may share. Sizes, strides and offset count elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// The storage's key: the archive holds it under `data/KEY`.
    pub storage: Arc<str>,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
    pub offset: usize,
    /// Elements of the whole storage.
    pub storage_len: usize,
}

impl StoredTensor {
    /// A tensor that fills its storage row by row.
    pub fn contiguous(storage: impl Into<Arc<str>>, dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let stride = row_major(&shape);
        let storage_len = shape.iter().fold(1, |product: usize, size| product.saturating_mul(*size));
        Self { storage: storage.into(), dtype, shape, stride, offset: 0, storage_len }
    }

    /// Elements; saturating.
    pub fn count(&self) -> usize {
        crate::dtype::product(&self.shape).unwrap_or(usize::MAX)
    }

    /// Elements of the storage up to the last one of the tensor; `None` where that overflows. The strides must be as many as the sizes.
    pub(super) fn reach(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let last = self
            .shape
            .iter()
            .zip(&self.stride)
            .try_fold(self.offset, |last, (size, stride)| (size - 1).checked_mul(*stride)?.checked_add(last));
        last?.checked_add(1)
    }

    /// True where the elements follow each other row by row; strides of dimensions of size 1 do not matter.
    pub(super) fn is_contiguous(&self) -> bool {
        let expected = row_major(&self.shape);
        self.shape.iter().zip(&self.stride).zip(&expected).all(|((size, stride), expected)| *size == 1 || stride == expected)
    }
}

/// Strides of a tensor stored row by row.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut stride = vec![1_usize; shape.len()];
    let mut step = 1_usize;
    for (stride, size) in stride.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(*size);
    }
    stride
}

impl PickleValue {
    /// Keys and values of a dict, ordered or not.
    pub fn pairs(&self) -> Option<&[(Self, Self)]> {
        match self {
            Self::Dict(pairs) | Self::OrderedDict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The value under a string key of a dict. As in Python, the last one counts where a key comes twice.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.pairs()?.iter().rev().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The value under an integer key of a dict.
    pub fn get_int(&self, key: i64) -> Option<&Self> {
        self.pairs()?.iter().rev().find(|(name, _)| *name == Self::Int(key)).map(|(_, value)| value)
    }

    /// The items of a list or a tuple.
    pub fn items(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) | Self::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// An integer or a bool.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bool(flag) => Some(i64::from(*flag)),
            _ => None,
        }
    }

    /// A float or an integer.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            Self::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    pub fn as_tensor(&self) -> Option<&StoredTensor> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// What Python calls the type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::OrderedDict(_) => "OrderedDict",
            Self::Tensor(_) => "Tensor",
        }
    }
}
