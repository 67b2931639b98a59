//! A whole transformer block: attention and a gated feed-forward part, each behind a norm and around a residual.
//!
//! What must stay true: gradients are those of the forward pass as computed, its roundings to bf16 taken as exact; with
//! [`Keep::Nothing`] the backward pass computes the same values again, so its results are the same bits. A parameter without a
//! place for its gradient costs no product of its own.

mod backward;
mod forward;
mod saved;

pub use backward::block_backward;
pub use forward::block_forward;
pub use saved::{Keep, Saved};

use crate::error::check;
use crate::matmul::product::Target;
use crate::{
    AttentionShape, HeadNorms, Heads, KernelError, LowRank, LowRankGradients, Matrix, PackedMatrix, RotaryTables, Values, ValuesMut,
    Weights,
};

/// Widths of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShape {
    pub model_dim: usize,
    pub heads: Heads,
    /// Hidden width of the feed-forward part (of each half when gated).
    pub ffn_dim: usize,
    /// silu(gate) · up instead of silu alone.
    pub gated: bool,
}

impl BlockShape {
    /// Rows of `proj_1`.
    pub fn proj_1_rows(&self) -> usize {
        if self.gated { 2 * self.ffn_dim } else { self.ffn_dim }
    }
}

/// A matrix of a block [out, in], with its packed forms if it has any.
#[derive(Clone, Copy, Debug)]
pub struct BlockMatrix<'a> {
    pub values: Values<'a>,
    /// Packed for the forward and the backward product; without them each product packs what it reads.
    pub packed: Option<(&'a PackedMatrix, &'a PackedMatrix)>,
    /// What an adapter adds.
    pub low_rank: Option<LowRank<'a>>,
}

impl<'a> From<&'a [f32]> for BlockMatrix<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self { values: Values::F32(values), packed: None, low_rank: None }
    }
}

impl<'a> BlockMatrix<'a> {
    fn forward(&self, rows: usize, columns: usize) -> Result<Weights<'a>, KernelError> {
        let matrix = Matrix::new(self.values, rows, columns)?;
        Ok(self.packed.map_or(Weights::Plain(matrix), |(packed, _)| Weights::Packed(packed)))
    }

    fn backward(&self, rows: usize, columns: usize) -> Result<Weights<'a>, KernelError> {
        let matrix = Matrix::new(self.values, rows, columns)?;
        Ok(self.packed.map_or(Weights::Plain(matrix), |(_, packed)| Weights::Packed(packed)))
    }
}

/// The parameters of a block.
#[derive(Clone, Copy, Debug)]
pub struct BlockWeights<'a> {
    /// `[model_dim]`
    pub attn_norm: &'a [f32],
    /// [(queries + 2 · keys) · head_dim, model_dim]
    pub qkv_proj: BlockMatrix<'a>,
    /// `[head_dim]` each, where the model has them.
    pub head_norms: HeadNorms<'a>,
    /// [model_dim, queries · head_dim]
    pub out_proj: BlockMatrix<'a>,
    /// `[model_dim]`
    pub ffn_norm: &'a [f32],
    /// [2 · ffn_dim, model_dim], gate first; [ffn_dim, model_dim] when not gated.
    pub proj_1: BlockMatrix<'a>,
    /// [model_dim, ffn_dim]
    pub proj_2: BlockMatrix<'a>,
}

/// Where the gradients of a matrix go, shaped like it and like what an adapter adds to it.
#[derive(Debug, Default)]
pub struct MatrixGradients<'a> {
    /// Absent: the matrix is frozen.
    pub whole: Option<&'a mut [f32]>,
    pub low_rank: Option<LowRankGradients<'a>>,
}

impl<'a> From<&'a mut [f32]> for MatrixGradients<'a> {
    fn from(whole: &'a mut [f32]) -> Self {
        Self { whole: Some(whole), low_rank: None }
    }
}

/// Where the gradients of a block's parameters go, shaped like them. What is absent is frozen.
#[derive(Debug, Default)]
pub struct BlockGradients<'a> {
    pub attn_norm: Option<&'a mut [f32]>,
    pub qkv_proj: MatrixGradients<'a>,
    pub q_norm: Option<&'a mut [f32]>,
    pub k_norm: Option<&'a mut [f32]>,
    pub out_proj: MatrixGradients<'a>,
    pub ffn_norm: Option<&'a mut [f32]>,
    pub proj_1: MatrixGradients<'a>,
    pub proj_2: MatrixGradients<'a>,
    /// Added to what is there instead of replacing it.
    pub accumulate: bool,
}

/// What a block works on: `batch` rows of `sequence` tokens.
#[derive(Clone, Copy, Debug)]
pub struct BlockInput<'a> {
    pub batch: usize,
    pub sequence: usize,
    /// As in [`AttentionShape::starts`].
    pub starts: Option<&'a [u32]>,
    pub tables: RotaryTables<'a>,
}

impl<'a> BlockInput<'a> {
    fn tokens(&self) -> usize {
        self.batch * self.sequence
    }

    fn attention(&self, heads: Heads) -> AttentionShape<'a> {
        AttentionShape { heads, batch: self.batch, sequence: self.sequence, starts: self.starts }
    }
}

impl BlockWeights<'_> {
    fn check(&self, shape: &BlockShape) -> Result<(), KernelError> {
        let BlockShape { model_dim, heads, ffn_dim, .. } = *shape;
        check("block", "attn_norm", model_dim, self.attn_norm.len())?;
        check("block", "ffn_norm", model_dim, self.ffn_norm.len())?;
        check("block", "qkv_proj", heads.joint_width() * model_dim, self.qkv_proj.values.len())?;
        check("block", "out_proj", model_dim * heads.query_width(), self.out_proj.values.len())?;
        check("block", "proj_1", shape.proj_1_rows() * model_dim, self.proj_1.values.len())?;
        check("block", "proj_2", model_dim * ffn_dim, self.proj_2.values.len())
    }
}

/// A product's target that stores activations.
fn store(values: ValuesMut<'_>) -> Target<'_> {
    match values {
        ValuesMut::F32(values) => Target::Store(values),
        ValuesMut::Bf16(values) => Target::Halves(values),
    }
}
