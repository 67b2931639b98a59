//! Reads the header's numbers, strings and values, each checked against what is left of the file before anything is allocated.

use std::path::Path;

use super::value::{GgufArray, GgufValue, code};
use crate::error::FormatError;

/// Arrays may nest this deep.
const MAX_DEPTH: usize = 4;

pub(super) struct Reader<'a> {
    path: &'a Path,
    file: &'a [u8],
    pub position: usize,
}

impl<'a> Reader<'a> {
    pub fn new(path: &'a Path, file: &'a [u8]) -> Self {
        Self { path, file, position: 0 }
    }

    pub fn damaged(&self, place: &str, reason: impl Into<String>) -> FormatError {
        FormatError::damaged(self.path, format!("{place}, byte {}", self.position), reason)
    }

    fn left(&self) -> usize {
        self.file.len() - self.position
    }

    /// The next `len` bytes; `place` says what they are.
    pub fn take(&mut self, len: u64, place: &str) -> Result<&'a [u8], FormatError> {
        let end = usize::try_from(len).ok().and_then(|len| self.position.checked_add(len));
        let Some((end, bytes)) = end.and_then(|end| Some((end, self.file.get(self.position..end)?))) else {
            return Err(FormatError::cut(self.path, place, len.saturating_sub(self.left() as u64)));
        };
        self.position = end;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self, place: &str) -> Result<[u8; N], FormatError> {
        let bytes = self.take(N as u64, place)?;
        bytes.try_into().map_err(|_| self.damaged(place, "a number is short"))
    }

    pub fn u32(&mut self, place: &str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(place)?))
    }

    pub fn u64(&mut self, place: &str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(place)?))
    }

    /// A count of things that take at least `least` bytes each.
    pub fn count(&mut self, least: usize, place: &str) -> Result<usize, FormatError> {
        let count = self.u64(place)?;
        let bytes = count.saturating_mul(least as u64);
        match usize::try_from(count) {
            Ok(count) if bytes <= self.left() as u64 => Ok(count),
            _ => Err(FormatError::cut(self.path, format!("{place}, whose count is {count}"), bytes.saturating_sub(self.left() as u64))),
        }
    }

    pub fn string(&mut self, place: &str) -> Result<String, FormatError> {
        let len = self.u64(place)?;
        let bytes = self.take(len, place)?;
        Ok(std::str::from_utf8(bytes).map_err(|error| self.damaged(place, format!("a string: {error}")))?.to_owned())
    }

    fn bool(&mut self, place: &str) -> Result<bool, FormatError> {
        match self.array(place)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.damaged(place, format!("a bool of {other}"))),
        }
    }

    pub fn value(&mut self, place: &str) -> Result<GgufValue, FormatError> {
        Ok(match self.u32(place)? {
            code::U8 => GgufValue::U8(u8::from_le_bytes(self.array(place)?)),
            code::I8 => GgufValue::I8(i8::from_le_bytes(self.array(place)?)),
            code::U16 => GgufValue::U16(u16::from_le_bytes(self.array(place)?)),
            code::I16 => GgufValue::I16(i16::from_le_bytes(self.array(place)?)),
            code::U32 => GgufValue::U32(self.u32(place)?),
            code::I32 => GgufValue::I32(i32::from_le_bytes(self.array(place)?)),
            code::F32 => GgufValue::F32(f32::from_le_bytes(self.array(place)?)),
            code::BOOL => GgufValue::Bool(self.bool(place)?),
            code::STRING => GgufValue::String(self.string(place)?),
            code::ARRAY => GgufValue::Array(self.items(place, MAX_DEPTH)?),
            code::U64 => GgufValue::U64(self.u64(place)?),
            code::I64 => GgufValue::I64(i64::from_le_bytes(self.array(place)?)),
            code::F64 => GgufValue::F64(f64::from_le_bytes(self.array(place)?)),
            other => return Err(self.damaged(place, format!("a value of unknown type {other}"))),
        })
    }

    fn items(&mut self, place: &str, depth: usize) -> Result<GgufArray, FormatError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.damaged(place, format!("arrays nest deeper than {MAX_DEPTH}")));
        };
        Ok(match self.u32(place)? {
            code::U8 => GgufArray::U8(self.numbers(place, u8::from_le_bytes)?),
            code::I8 => GgufArray::I8(self.numbers(place, i8::from_le_bytes)?),
            code::U16 => GgufArray::U16(self.numbers(place, u16::from_le_bytes)?),
            code::I16 => GgufArray::I16(self.numbers(place, i16::from_le_bytes)?),
            code::U32 => GgufArray::U32(self.numbers(place, u32::from_le_bytes)?),
            code::I32 => GgufArray::I32(self.numbers(place, i32::from_le_bytes)?),
            code::F32 => GgufArray::F32(self.numbers(place, f32::from_le_bytes)?),
            code::U64 => GgufArray::U64(self.numbers(place, u64::from_le_bytes)?),
            code::I64 => GgufArray::I64(self.numbers(place, i64::from_le_bytes)?),
            code::F64 => GgufArray::F64(self.numbers(place, f64::from_le_bytes)?),
            code::BOOL => {
                let count = self.count(1, place)?;
                GgufArray::Bool((0..count).map(|_| self.bool(place)).collect::<Result<_, _>>()?)
            }
            // Eight bytes of length each; an array also has its type.
            code::STRING => {
                let count = self.count(8, place)?;
                GgufArray::String((0..count).map(|_| self.string(place)).collect::<Result<_, _>>()?)
            }
            code::ARRAY => {
                let count = self.count(12, place)?;
                GgufArray::Array((0..count).map(|_| self.items(place, depth)).collect::<Result<_, _>>()?)
            }
            other => return Err(self.damaged(place, format!("an array of unknown type {other}"))),
        })
    }

    fn numbers<const N: usize, T>(&mut self, place: &str, number: fn([u8; N]) -> T) -> Result<Vec<T>, FormatError> {
        let count = self.count(N, place)?;
        let bytes = self.take((count * N) as u64, place)?;
        Ok(bytes.as_chunks().0.iter().copied().map(number).collect())
    }
}
