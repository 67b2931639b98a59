//! Slices of activations: f32, or bf16 as the upper halves of f32.

use crate::simd::{Sink, Source};
use crate::{Arena, Buffer, Precision};

/// Values to read.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Values<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::F32(values)
    }
}

/// Values to write.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [u16]),
}

impl<'a> Values<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `len` values from `start`.
    pub(crate) fn part(self, start: usize, len: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[start..start + len]),
            Self::Bf16(values) => Self::Bf16(&values[start..start + len]),
        }
    }

    pub(crate) fn source(self) -> Source {
        match self {
            Self::F32(values) => Source::F32(values.as_ptr()),
            Self::Bf16(values) => Source::Bf16(values.as_ptr()),
        }
    }
}

impl ValuesMut<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn sink(&mut self) -> Sink {
        match self {
            Self::F32(values) => Sink::F32(values.as_mut_ptr()),
            Self::Bf16(values) => Sink::Bf16(values.as_mut_ptr()),
        }
    }
}

/// A buffer of activations in the precision of the products that read them.
#[derive(Debug)]
pub(crate) struct Activations<'a> {
    buffer: Buffer<'a>,
    precision: Precision,
    len: usize,
}

impl<'a> Activations<'a> {
    pub(crate) fn take(arena: &'a Arena, precision: Precision, len: usize) -> Self {
        let words = if precision == Precision::Bf16 { len.div_ceil(2) } else { len };
        Self { buffer: arena.take(words), precision, len }
    }

    pub(crate) fn values(&self) -> Values<'_> {
        match self.precision {
            Precision::F32 => Values::F32(self.buffer.floats()),
            Precision::Bf16 => Values::Bf16(&self.buffer.halves()[..self.len]),
        }
    }

    pub(crate) fn values_mut(&mut self) -> ValuesMut<'_> {
        match self.precision {
            Precision::F32 => ValuesMut::F32(self.buffer.floats_mut()),
            Precision::Bf16 => ValuesMut::Bf16(&mut self.buffer.halves_mut()[..self.len]),
        }
    }
}
