//! One transformer block: attention and a gated feed-forward part, each behind a norm and around a residual
//! (CoreNet general_gpt.py: TransformerDecoderLayer, MultiHeadCausalAttention, FeedForwardNetwork).
//!
//! What must stay true: queries and keys are normed, then turned; a query head h reads key/value head h / groups; the
//! rows of `proj_1` are gate first, then up.

use burn::tensor::{DType, Tensor, activation};

use crate::{BlockAdapter, CausalMask, LayerShape, LowRank, Precision, RmsNorm, rope::Rotation, storage::plain};

/// Large enough that exp gives exactly 0, small enough for every float type's range on every device.
const HIDDEN: f32 = -1e30;

/// The parameters of one block. Matrices are [out, in], as in CoreNet's files.
#[derive(Clone, Debug)]
pub struct Block {
    pub shape: LayerShape,
    pub gated: bool,
    pub attn_norm: RmsNorm,
    /// [(query heads + 2 · key/value heads) · head_dim, model_dim]
    pub qkv_proj: Tensor<2>,
    pub q_norm: Option<RmsNorm>,
    pub k_norm: Option<RmsNorm>,
    /// [model_dim, query heads · head_dim]
    pub out_proj: Tensor<2>,
    pub ffn_norm: RmsNorm,
    /// [2 · ffn_dim, model_dim] when gated, else [ffn_dim, model_dim]
    pub proj_1: Tensor<2>,
    /// [model_dim, ffn_dim]
    pub proj_2: Tensor<2>,
    /// What an adapter adds to the matrices.
    pub adapter: BlockAdapter,
}

/// What attention needs of a run of positions. Keys are normed and turned: ready for a cache.
#[derive(Clone, Debug)]
pub struct Projected {
    /// [batch, query heads, sequence, head_dim]
    pub queries: Tensor<4>,
    /// [batch, key/value heads, sequence, head_dim]
    pub keys: Tensor<4>,
    /// [batch, key/value heads, sequence, head_dim]
    pub values: Tensor<4>,
}

impl Block {
    /// The whole block over `x` [batch, sequence, model_dim].
    pub fn forward(&self, x: Tensor<3>, rotation: &Rotation, mask: &CausalMask, precision: Precision) -> Tensor<3> {
        let Projected { queries, keys, values } = self.project(x.clone(), rotation, precision);
        let attended = self.attend(queries, keys, values, Some(mask), precision);
        self.finish(x, attended, precision)
    }

    /// Norm, joint projection, query/key norm and rotation of `x` [batch, sequence, model_dim].
    pub fn project(&self, x: Tensor<3>, rotation: &Rotation, precision: Precision) -> Projected {
        let [batch, sequence, _] = x.dims();
        let LayerShape { num_query_heads, num_kv_heads, head_dim, .. } = self.shape;
        let qkv = linear(self.attn_norm.forward(x), &self.qkv_proj, self.adapter.qkv_proj.as_ref(), precision).reshape([
            batch,
            sequence,
            num_query_heads + 2 * num_kv_heads,
            head_dim,
        ]);
        let queries = qkv.clone().narrow(2, 0, num_query_heads);
        let keys = qkv.clone().narrow(2, num_query_heads, num_kv_heads);
        let values = qkv.narrow(2, num_query_heads + num_kv_heads, num_kv_heads);
        let normed = |x: Tensor<4>, norm: &Option<RmsNorm>| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        Projected {
            queries: rotation.apply(normed(queries, &self.q_norm)).swap_dims(1, 2),
            keys: rotation.apply(normed(keys, &self.k_norm)).swap_dims(1, 2),
            values: values.swap_dims(1, 2),
        }
    }

    /// Softmax attention. Keys and values [batch, key/value heads, keys, head_dim] may reach further back than the
    /// queries; without a mask every key is seen. Gives [batch, sequence, query heads · head_dim].
    pub fn attend(
        &self,
        queries: Tensor<4>,
        keys: Tensor<4>,
        values: Tensor<4>,
        mask: Option<&CausalMask>,
        precision: Precision,
    ) -> Tensor<3> {
        let [batch, heads, sequence, head_dim] = queries.dims();
        let kv_heads = self.shape.num_kv_heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        // The groups of one key/value head become rows of one matrix: keys and values are never repeated.
        let queries = queries.mul_scalar(scale).reshape([batch, kv_heads, heads / kv_heads * sequence, head_dim]);
        let scores = product(queries, keys.swap_dims(2, 3), precision);
        let scores = match mask {
            Some(CausalMask(hidden)) => {
                let shape = scores.dims();
                scores.mask_fill(hidden.clone().expand(shape), HIDDEN)
            }
            None => scores,
        };
        product(activation::softmax(scores, 3), values, precision).reshape([batch, heads, sequence, head_dim]).swap_dims(1, 2).reshape([
            batch,
            sequence,
            heads * head_dim,
        ])
    }

    /// Output projection and residual, then the feed-forward part and its residual.
    pub fn finish(&self, x: Tensor<3>, attended: Tensor<3>, precision: Precision) -> Tensor<3> {
        let x = x + linear(attended, &self.out_proj, self.adapter.out_proj.as_ref(), precision);
        let hidden = linear(self.ffn_norm.forward(x.clone()), &self.proj_1, self.adapter.proj_1.as_ref(), precision);
        let hidden = if self.gated {
            let width = self.shape.ffn_dim;
            activation::silu(hidden.clone().narrow(2, 0, width)) * hidden.narrow(2, width, width)
        } else {
            activation::silu(hidden)
        };
        x + linear(hidden, &self.proj_2, self.adapter.proj_2.as_ref(), precision)
    }
}

/// `x` [batch, sequence, in] times the transpose of `weight` [out, in], in one matrix product, and what an adapter adds; f32 in,
/// f32 out.
pub(crate) fn linear(x: Tensor<3>, weight: &Tensor<2>, low: Option<&LowRank>, precision: Precision) -> Tensor<3> {
    let [batch, sequence, width] = x.dims();
    let [out, _] = weight.dims();
    let x = x.reshape([batch * sequence, width]);
    let y = match low {
        Some(low) => low.forward(x, plain(weight), precision),
        None => product(x, plain(weight).transpose(), precision),
    };
    y.reshape([batch, sequence, out])
}

/// A matrix product of f32 tensors in the asked precision, back in f32.
pub fn product<const D: usize>(a: Tensor<D>, b: Tensor<D>, precision: Precision) -> Tensor<D> {
    match precision {
        Precision::F32 => a.matmul(b),
        Precision::Bf16 => a.cast(DType::BF16).matmul(b.cast(DType::BF16)).cast(DType::F32),
    }
}
