//! Keys and values of the positions of one sequence, for every layer, in one of four types.
//!
//! What must stay true: keys are normed and turned before they are kept; what lies beyond `length` is never read.

use half::{f16, slice::HalfFloatSliceExt};
use openelm_formats::DType;

use crate::simd::round_half;
use crate::stored::StoredMatrix;
use crate::threads::Parts;
use crate::{Heads, KernelError};

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    #[default]
    F32,
    F16,
    Bf16,
    /// 8 bits, 32 values with one scale (llama.cpp's q8_0).
    Q8,
}

impl KvType {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::Q8 => DType::Q8_0,
        }
    }

    fn row_bytes(self, head_dim: usize) -> usize {
        head_dim / self.dtype().block_len() * self.dtype().size()
    }
}

#[derive(Clone, Debug)]
struct Layer {
    heads: usize,
    head_dim: usize,
    /// [heads, capacity, row_bytes]
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// Room for the keys and values of `capacity` positions.
#[derive(Clone, Debug)]
pub struct KvStore {
    kind: KvType,
    capacity: usize,
    length: usize,
    layers: Vec<Layer>,
}

impl KvStore {
    /// An empty store for layers with these heads.
    ///
    /// # Errors
    /// When a head is no whole number of the type's blocks.
    pub fn new(kind: KvType, heads: impl IntoIterator<Item = Heads>, capacity: usize) -> Result<Self, KernelError> {
        let mut empty = Self { kind, capacity: 0, length: 0, layers: Vec::new() };
        for heads in heads {
            if !heads.head_dim.is_multiple_of(kind.dtype().block_len()) {
                let (reason, hint) = ("which is no whole number of blocks of 32", "keep keys and values in f16, bf16 or f32");
                return Err(KernelError::Dimension { operation: "key/value store", what: "head_dim", value: heads.head_dim, reason, hint });
            }
            empty.layers.push(Layer { heads: heads.keys, head_dim: heads.head_dim, keys: Vec::new(), values: Vec::new() });
        }
        Ok(empty.sized(capacity))
    }

    /// An empty store of the same kind with room for `capacity` positions. Its zeros cost nothing until they are touched.
    pub fn sized(&self, capacity: usize) -> Self {
        let layers = self.layers.iter().map(|layer| {
            let bytes = layer.heads * capacity * self.kind.row_bytes(layer.head_dim);
            Layer { heads: layer.heads, head_dim: layer.head_dim, keys: vec![0; bytes], values: vec![0; bytes] }
        });
        Self { kind: self.kind, capacity, length: 0, layers: layers.collect() }
    }

    /// Positions kept.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How keys and values are kept.
    pub fn kind(&self) -> KvType {
        self.kind
    }

    /// Bytes of one position in all layers.
    pub fn position_bytes(&self) -> usize {
        self.layers.iter().map(|layer| 2 * layer.heads * self.kind.row_bytes(layer.head_dim)).sum()
    }

    /// Forgets all positions from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// A store of the same capacity with the first `length` positions of this one.
    pub fn fork(&self, length: usize) -> Self {
        let mut fork = self.sized(self.capacity);
        fork.length = length.min(self.length);
        for (to, from) in fork.layers.iter_mut().zip(&self.layers) {
            let row = self.kind.row_bytes(from.head_dim);
            for head in 0..from.heads {
                let kept = head * self.capacity * row..(head * self.capacity + fork.length) * row;
                to.keys[kept.clone()].copy_from_slice(&from.keys[kept.clone()]);
                to.values[kept.clone()].copy_from_slice(&from.values[kept]);
            }
        }
        fork
    }

    pub(super) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Values of one position's keys in a layer.
    pub(super) fn width(&self, layer: usize) -> usize {
        self.layers.get(layer).map_or(0, |layer| layer.heads * layer.head_dim)
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.length += count;
    }

    /// The layers, for tasks that each take some heads.
    pub(super) fn parts(&mut self) -> Vec<LayerParts<'_>> {
        let (kind, capacity) = (self.kind, self.capacity);
        let layers = self.layers.iter_mut();
        layers
            .map(|layer| LayerParts {
                kind,
                capacity,
                head_dim: layer.head_dim,
                keys: Parts::new(&mut layer.keys),
                values: Parts::new(&mut layer.values),
            })
            .collect()
    }
}

/// One layer's keys and values, shared by tasks.
#[derive(Clone, Copy)]
pub(crate) struct LayerParts<'a> {
    pub(crate) kind: KvType,
    pub(crate) capacity: usize,
    pub(crate) head_dim: usize,
    keys: Parts<'a, u8>,
    values: Parts<'a, u8>,
}

impl<'a> LayerParts<'a> {
    fn row_bytes(&self) -> usize {
        self.kind.row_bytes(self.head_dim)
    }

    /// Keeps a key and a value, `head_dim` long each.
    ///
    /// # Safety
    /// No other task touches this position of this head meanwhile.
    pub(crate) unsafe fn put(&self, head: usize, position: usize, key: &[f32], value: &[f32]) {
        assert!(position < self.capacity, "position {position} of {}", self.capacity);
        let (at, row) = ((head * self.capacity + position) * self.row_bytes(), self.row_bytes());
        // SAFETY: the caller's promise.
        unsafe {
            write_row(self.kind, key, self.keys.part(at, row));
            write_row(self.kind, value, self.values.part(at, row));
        }
    }

    /// The keys and values of the first `length` positions of a head, as matrices [length, head_dim].
    ///
    /// # Safety
    /// No task writes these positions meanwhile.
    pub(crate) unsafe fn head(&self, head: usize, length: usize) -> (StoredMatrix<'a>, StoredMatrix<'a>) {
        let (at, row) = (head * self.capacity * self.row_bytes(), self.row_bytes());
        assert!(length <= self.capacity, "{length} positions of {}", self.capacity);
        // SAFETY: the caller's promise.
        let (keys, values) = unsafe { (self.keys.shared(at, length * row), self.values.shared(at, length * row)) };
        let matrix = |bytes| StoredMatrix { dtype: self.kind.dtype(), bytes, rows: length, columns: self.head_dim, row_bytes: row };
        (matrix(keys), matrix(values))
    }
}

fn write_row(kind: KvType, values: &[f32], to: &mut [u8]) {
    match kind {
        KvType::F32 => to.copy_from_slice(bytemuck::cast_slice(values)),
        KvType::F16 => {
            // Many at a time: asked one by one, the processor's own conversion is looked for each time.
            let mut halves = [f16::ZERO; 64];
            for (to, values) in to.chunks_mut(2 * halves.len()).zip(values.chunks(halves.len())) {
                halves[..values.len()].convert_from_f32_slice(values);
                to.as_chunks_mut::<2>().0.iter_mut().zip(&halves).for_each(|(to, half)| *to = half.to_le_bytes());
            }
        }
        KvType::Bf16 => {
            for (to, value) in to.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *to = round_half(*value).to_le_bytes();
            }
        }
        KvType::Q8 => {
            for (to, values) in to.as_chunks_mut::<34>().0.iter_mut().zip(values.as_chunks::<32>().0) {
                let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                let scale = largest / 127.0;
                let factor = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                to[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
                for (to, value) in to[2..].iter_mut().zip(values) {
                    *to = (value * factor).round_ties_even() as i8 as u8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn what_is_put_comes_back() {
        let heads = [Heads { queries: 4, keys: 2, head_dim: 32 }, Heads { queries: 6, keys: 3, head_dim: 64 }];
        for (kind, bound) in [(KvType::F32, 0.0), (KvType::F16, 5e-4), (KvType::Bf16, 4e-3), (KvType::Q8, 5e-3)] {
            let mut store = KvStore::new(kind, heads, 5).unwrap();
            let row = |head: usize, position: usize, width: usize| -> Vec<f32> {
                (0..width).map(|i| ((head * 31 + position * 7 + i * 3) as f32 * 0.37).sin()).collect()
            };
            for isa in Isa::available() {
                for (layer, parts) in store.parts().iter().enumerate() {
                    for head in 0..heads[layer].keys {
                        for position in 0..5 {
                            let key = row(head, position, parts.head_dim);
                            let value = row(head + 9, position, parts.head_dim);
                            // SAFETY: the instruction set is available; one task alone.
                            unsafe { parts.put(head, position, &key, &value) };
                        }
                        // SAFETY: as above.
                        let (keys, values) = unsafe { parts.head(head, 5) };
                        for (matrix, other) in [(keys, 0), (values, 9)] {
                            let mut found = vec![0.0; 2 * parts.head_dim];
                            // SAFETY: as above.
                            unsafe { matrix.unpack_rows(isa, 3, 2, &mut found) };
                            for (i, found) in found.iter().enumerate() {
                                let expected = row(head + other, 3 + i / parts.head_dim, parts.head_dim)[i % parts.head_dim];
                                assert!((found - expected).abs() <= bound, "{kind:?} {isa:?} {i}: {found} {expected}");
                            }
                        }
                    }
                }
            }
            store.advance(4);
            let fork = store.fork(3);
            assert_eq!((fork.length(), fork.capacity(), store.length()), (3, 5, 4));
            let row = kind.row_bytes(64);
            assert_eq!(fork.layers[1].keys[5 * row..8 * row], store.layers[1].keys[5 * row..8 * row]);
            assert_eq!(fork.layers[1].keys[8 * row..10 * row], vec![0; 2 * row]);
            store.truncate(9);
            assert_eq!(store.length(), 4);
        }
        assert!(KvStore::new(KvType::Q8, [Heads { queries: 1, keys: 1, head_dim: 24 }], 5).unwrap_err().to_string().contains("24"));
    }
}
