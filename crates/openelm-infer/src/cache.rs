//! Keys and values of the positions seen so far, for every layer.
//!
//! What must stay true: keys are normed and turned before they are kept; what lies beyond `length` is never read.

use burn::tensor::{Device, Tensor};
use openelm_model::OpenElm;

/// Room for a fixed number of positions of one sequence.
#[derive(Debug)]
pub struct KvCache {
    /// Keys and values of each layer: [1, kv_heads, capacity, head_dim]
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    length: usize,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for `capacity` positions of `model`.
    pub fn new(model: &OpenElm, capacity: usize) -> Self {
        let device: &Device = model.device();
        let zeros = |heads, width| Tensor::zeros([1, heads, capacity, width], device);
        let layers = model.blocks.iter().map(|block| {
            let (heads, width) = (block.shape.num_kv_heads, block.shape.head_dim);
            (zeros(heads, width), zeros(heads, width))
        });
        Self { layers: layers.collect(), length: 0, capacity }
    }

    /// Positions kept.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all positions from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// A cache for another sequence, with the first `length` positions of this one.
    pub(crate) fn fork(&self, length: usize) -> Self {
        // Tensors are copied when one of their owners writes.
        Self { layers: self.layers.clone(), length: self.length.min(length), capacity: self.capacity }
    }

    /// Puts `keys` and `values` [1, kv_heads, new, head_dim] of a layer behind the kept positions and gives all of them. The
    /// length moves on with [`advance`](Self::advance), after the last layer.
    pub(crate) fn append(&mut self, layer: usize, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [_, heads, new, width] = keys.dims();
        let (start, end) = (self.length, self.length + new);
        // Taken out, the old tensor has one owner, so the device can write in place.
        let put = |slot: &mut Tensor<4>, part: Tensor<4>| {
            let empty = Tensor::empty([0, 0, 0, 0], &part.device());
            *slot = std::mem::replace(slot, empty).slice_assign([0..1, 0..heads, start..end, 0..width], part);
            slot.clone().narrow(2, 0, end)
        };
        let (kept_keys, kept_values) = &mut self.layers[layer];
        (put(kept_keys, keys), put(kept_values, values))
    }

    pub(crate) fn advance(&mut self, new: usize) {
        self.length += new;
    }
}
