//! Metadata values, with the type codes of the format.

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(GgufArray),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array: all items are of one type, which is kept for an empty one too.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Self>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The format's number of each type.
pub(super) mod code {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

impl GgufValue {
    pub(super) fn code(&self) -> u32 {
        match self {
            Self::U8(_) => code::U8,
            Self::I8(_) => code::I8,
            Self::U16(_) => code::U16,
            Self::I16(_) => code::I16,
            Self::U32(_) => code::U32,
            Self::I32(_) => code::I32,
            Self::F32(_) => code::F32,
            Self::Bool(_) => code::BOOL,
            Self::String(_) => code::STRING,
            Self::Array(_) => code::ARRAY,
            Self::U64(_) => code::U64,
            Self::I64(_) => code::I64,
            Self::F64(_) => code::F64,
        }
    }

    /// Any integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::U8(number) => Some((*number).into()),
            Self::U16(number) => Some((*number).into()),
            Self::U32(number) => Some((*number).into()),
            Self::U64(number) => Some(*number),
            Self::I8(number) => u64::try_from(*number).ok(),
            Self::I16(number) => u64::try_from(*number).ok(),
            Self::I32(number) => u64::try_from(*number).ok(),
            Self::I64(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A floating-point number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::F32(number) => Some((*number).into()),
            Self::F64(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_strings(&self) -> Option<&[String]> {
        match self {
            Self::Array(GgufArray::String(texts)) => Some(texts),
            _ => None,
        }
    }

    pub fn as_f32s(&self) -> Option<&[f32]> {
        match self {
            Self::Array(GgufArray::F32(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// An array of integers none of which is negative.
    pub fn as_u64s(&self) -> Option<Vec<u64>> {
        fn all<T: Copy>(numbers: &[T]) -> Option<Vec<u64>>
        where
            u64: TryFrom<T>,
        {
            numbers.iter().map(|number| u64::try_from(*number).ok()).collect()
        }
        match self {
            Self::Array(GgufArray::U8(numbers)) => all(numbers),
            Self::Array(GgufArray::U16(numbers)) => all(numbers),
            Self::Array(GgufArray::U32(numbers)) => all(numbers),
            Self::Array(GgufArray::U64(numbers)) => all(numbers),
            Self::Array(GgufArray::I8(numbers)) => all(numbers),
            Self::Array(GgufArray::I16(numbers)) => all(numbers),
            Self::Array(GgufArray::I32(numbers)) => all(numbers),
            Self::Array(GgufArray::I64(numbers)) => all(numbers),
            _ => None,
        }
    }
}

impl GgufArray {
    pub(super) fn code(&self) -> u32 {
        match self {
            Self::U8(_) => code::U8,
            Self::I8(_) => code::I8,
            Self::U16(_) => code::U16,
            Self::I16(_) => code::I16,
            Self::U32(_) => code::U32,
            Self::I32(_) => code::I32,
            Self::F32(_) => code::F32,
            Self::Bool(_) => code::BOOL,
            Self::String(_) => code::STRING,
            Self::Array(_) => code::ARRAY,
            Self::U64(_) => code::U64,
            Self::I64(_) => code::I64,
            Self::F64(_) => code::F64,
        }
    }
}
