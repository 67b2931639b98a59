//! What a block's forward pass keeps for its backward pass, in memory that is used again at the next step.

use super::BlockShape;
use crate::{Precision, Values, ValuesMut};

/// How much a forward pass keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Everything that the backward pass reads.
    #[default]
    Everything,
    /// Nothing: the backward pass runs the forward pass again.
    Nothing,
}

/// Kept activations of one block. Their memory stays for the next step; make one for each block and keep it.
#[derive(Debug, Default)]
pub struct Saved {
    pub(super) keep: Keep,
    /// 1 / root mean square of each token before either norm, `[tokens]`.
    pub(super) attn_scales: Vec<f32>,
    pub(super) ffn_scales: Vec<f32>,
    /// The joint projection, [tokens, joint width].
    pub(super) joint: Stored,
    /// [batch, queries, sequence]
    pub(super) log_sums: Vec<f32>,
    /// [tokens, queries · head_dim]
    pub(super) attended: Stored,
    /// After attention's residual, [tokens, model_dim].
    pub(super) middle: Vec<f32>,
    /// Before the activation, [tokens, rows of proj_1].
    pub(super) gates: Stored,
}

impl Saved {
    pub fn new(keep: Keep) -> Self {
        Self { keep, ..Self::default() }
    }

    pub fn keep(&self) -> Keep {
        self.keep
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let floats = [&self.attn_scales, &self.ffn_scales, &self.log_sums, &self.middle];
        let stored = [&self.joint, &self.attended, &self.gates];
        4 * (floats.iter().map(|v| v.capacity()).sum::<usize>() + stored.iter().map(|s| s.words.capacity()).sum::<usize>())
    }

    pub(super) fn reserve(&mut self, shape: &BlockShape, tokens: usize, precision: Precision) {
        self.attn_scales.resize(tokens, 0.0);
        self.ffn_scales.resize(tokens, 0.0);
        self.log_sums.resize(tokens * shape.heads.queries, 0.0);
        self.middle.resize(tokens * shape.model_dim, 0.0);
        self.joint.resize(precision, tokens * shape.heads.joint_width());
        self.attended.resize(precision, tokens * shape.heads.query_width());
        self.gates.resize(precision, tokens * shape.proj_1_rows());
    }
}

/// Activations in the precision of the products that read them, in memory of their own.
#[derive(Debug, Default)]
pub(super) struct Stored {
    words: Vec<u32>,
    halves: bool,
    len: usize,
}

impl Stored {
    fn resize(&mut self, precision: Precision, len: usize) {
        self.halves = precision == Precision::Bf16;
        self.len = len;
        self.words.resize(if self.halves { len.div_ceil(2) } else { len }, 0);
    }

    pub(super) fn values(&self) -> Values<'_> {
        if self.halves {
            return Values::Bf16(&bytemuck::cast_slice(&self.words)[..self.len]);
        }
        Values::F32(bytemuck::cast_slice(&self.words))
    }

    pub(super) fn values_mut(&mut self) -> ValuesMut<'_> {
        if self.halves {
            return ValuesMut::Bf16(&mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]);
        }
        ValuesMut::F32(bytemuck::cast_slice_mut(&mut self.words))
    }
}
