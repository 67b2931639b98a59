//! A model's weights as a file stores them, block by block.

use super::{Piece, store::KvStore};
use crate::error::check;
use crate::stored::StoredRows;
use crate::{BlockShape, HeadNorms, KernelError, RotaryTables};

/// The parameters of a block.
#[derive(Clone, Copy, Debug)]
pub struct StoredBlock<'a> {
    pub shape: BlockShape,
    /// `[model_dim]`
    pub attn_norm: &'a [f32],
    /// [(queries + 2 · keys) · head_dim, model_dim]
    pub qkv_proj: StoredRows<'a>,
    /// `[head_dim]` each, where the model has them.
    pub head_norms: HeadNorms<'a>,
    /// [model_dim, queries · head_dim]
    pub out_proj: StoredRows<'a>,
    /// `[model_dim]`
    pub ffn_norm: &'a [f32],
    /// [2 · ffn_dim, model_dim], gate first; [ffn_dim, model_dim] when not gated.
    pub proj_1: StoredRows<'a>,
    /// [model_dim, ffn_dim]
    pub proj_2: StoredRows<'a>,
}

/// The parameters of a model.
#[derive(Clone, Debug)]
pub struct StoredModel<'a> {
    pub model_dim: usize,
    /// [vocabulary, model_dim]
    pub table: StoredRows<'a>,
    pub blocks: Vec<StoredBlock<'a>>,
    /// `[model_dim]`
    pub norm: &'a [f32],
    /// [vocabulary, model_dim]: the table again, or a classifier.
    pub head: StoredRows<'a>,
    /// [positions, head_dim / 2]
    pub tables: RotaryTables<'a>,
}

impl StoredModel<'_> {
    /// Fails unless every matrix has the size that its block says.
    ///
    /// # Errors
    /// The first that has another.
    pub fn check(&self) -> Result<(), KernelError> {
        let dim = self.model_dim;
        let matrix = |what, rows: &StoredRows<'_>, out: usize, inner: usize| {
            check("stored model", what, out, rows.rows())?;
            check("stored model", what, inner, rows.columns())
        };
        matrix("table", &self.table, self.head.rows(), dim)?;
        matrix("head", &self.head, self.table.rows(), dim)?;
        check("stored model", "norm", dim, self.norm.len())?;
        for block in &self.blocks {
            let BlockShape { model_dim, heads, ffn_dim, .. } = block.shape;
            check("stored model", "model_dim", dim, model_dim)?;
            check("stored model", "attn_norm", dim, block.attn_norm.len())?;
            check("stored model", "ffn_norm", dim, block.ffn_norm.len())?;
            matrix("qkv_proj", &block.qkv_proj, heads.joint_width(), dim)?;
            matrix("out_proj", &block.out_proj, dim, heads.query_width())?;
            matrix("proj_1", &block.proj_1, block.shape.proj_1_rows(), dim)?;
            matrix("proj_2", &block.proj_2, dim, ffn_dim)?;
            for norm in [block.head_norms.queries, block.head_norms.keys].into_iter().flatten() {
                check("stored model", "norm weight", heads.head_dim, norm.len())?;
            }
            if heads.head_dim == 0 || heads.head_dim % 2 == 1 || heads.keys == 0 || heads.queries % heads.keys != 0 {
                let (reason, hint) = ("which the heads do not fit", "use an even head_dim, and a multiple of the key/value heads");
                let (what, value) = ("query heads", heads.queries);
                return Err(KernelError::Dimension { operation: "stored model", what, value, reason, hint });
            }
        }
        check("stored model", "sin", self.tables.cos.len(), self.tables.sin.len())
    }

    /// The rows of the table for the ids of all pieces: [tokens, model_dim].
    pub(super) fn embed(&self, pieces: &[Piece<'_, '_>]) -> Result<Vec<f32>, KernelError> {
        let tokens: usize = pieces.iter().map(|piece| piece.ids.len()).sum();
        let mut x = vec![0.0; tokens * self.model_dim];
        for (id, x) in pieces.iter().flat_map(|piece| piece.ids).zip(x.chunks_exact_mut(self.model_dim)) {
            let (matrix, row, _) = self.table.locate(*id as usize);
            matrix.read_row(row, x)?;
        }
        Ok(x)
    }

    /// Positions of the rotary tables.
    pub fn positions(&self) -> usize {
        let half = self.blocks.first().map_or(1, |block| block.shape.heads.head_dim / 2);
        self.tables.cos.len() / half.max(1)
    }

    /// Bytes of all matrices that a token meets: what decoding reads from memory for each.
    pub fn bytes_per_token(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| {
            [&block.qkv_proj, &block.out_proj, &block.proj_1, &block.proj_2].iter().map(|rows| rows.byte_len()).sum::<usize>()
        });
        blocks.sum::<usize>() + self.head.byte_len()
    }

    pub(super) fn check_store(&self, store: &KvStore) -> Result<(), KernelError> {
        check("reading tokens", "layers of the store", self.blocks.len(), store.layers())?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let heads = block.shape.heads;
            check("reading tokens", "keys of the store", heads.keys * heads.head_dim, store.width(layer))?;
        }
        Ok(())
    }
}
