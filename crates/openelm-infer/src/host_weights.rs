//! A model's weights for the CPU kernels: matrices as the file stores them, mapped; norms and rotary tables as f32.
//!
//! What must stay true: nothing of a matrix is copied unless another type is asked for, or the file's type is one that no kernel reads.

use openelm_checkpoint::{CheckpointError, Weights};
use openelm_formats::{DType, TensorBytes, encode_f32};
use openelm_kernels::{BlockShape, HeadNorms, Heads, KernelError, RotaryTables, StoredBlock, StoredMatrix, StoredModel, StoredRows};
use openelm_model::{LayerShape, ModelConfig, OpenElm, ParameterInfo, rotary_values};

use crate::error::InferError;

/// Rows of one parameter, in one or two parts.
struct HostMatrix {
    columns: usize,
    parts: Vec<(DType, usize, TensorBytes)>,
}

impl HostMatrix {
    fn load(weights: &Weights, info: &ParameterInfo, convert: Option<DType>) -> Result<Self, CheckpointError> {
        let columns = info.shape.last().copied().unwrap_or(0);
        let mut parts = Vec::new();
        for (stored, bytes) in weights.parts(info)? {
            parts.push((stored.dtype, stored.shape.first().copied().unwrap_or(0), bytes));
        }
        let known = |dtype: DType| dtype.is_quantised() || matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
        // The kernels take two parts at most.
        let readable = parts.len() <= 2 && parts.iter().all(|(dtype, ..)| known(*dtype));
        let target = convert.unwrap_or(DType::F32);
        if !readable || convert.is_some() && parts.iter().any(|(dtype, ..)| *dtype != target) {
            let bytes = encode_f32(&weights.values(info)?, target)?;
            parts = vec![(target, info.shape.first().copied().unwrap_or(0), bytes.into())];
        }
        Ok(Self { columns, parts })
    }

    fn rows(&self) -> Result<StoredRows<'_>, KernelError> {
        let mut all = self.parts.iter().map(|(dtype, rows, bytes)| StoredMatrix::new(*dtype, bytes, *rows, self.columns));
        let none = || StoredMatrix::new(DType::F32, &[], 0, self.columns);
        let first = all.next().unwrap_or_else(none)?;
        StoredRows::new(first, all.next().transpose()?)
    }
}

struct HostBlock {
    shape: BlockShape,
    attn_norm: Vec<f32>,
    qkv_proj: HostMatrix,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    out_proj: HostMatrix,
    ffn_norm: Vec<f32>,
    proj_1: HostMatrix,
    proj_2: HostMatrix,
}

/// All weights of a model.
pub(crate) struct HostWeights {
    pub config: ModelConfig,
    table: HostMatrix,
    blocks: Vec<HostBlock>,
    norm: Vec<f32>,
    classifier: Option<HostMatrix>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl HostWeights {
    /// Maps `weights`, matrices as they are or, if asked, as `convert`.
    pub fn load(weights: &Weights, convert: Option<DType>) -> Result<Self, InferError> {
        let config = weights.config().clone();
        let layers = config.layers()?;
        let infos = OpenElm::infos_of(&config)?;
        let find = |name: String| {
            let info = infos.iter().find(|info| info.name == name);
            info.ok_or_else(|| InferError::Model(openelm_model::ModelError::Missing { name }))
        };
        let matrix = |name: String| -> Result<HostMatrix, InferError> { Ok(HostMatrix::load(weights, find(name)?, convert)?) };
        let vector = |name: String| -> Result<Vec<f32>, InferError> { Ok(weights.values(find(name)?)?) };
        let mut blocks = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            let LayerShape { num_query_heads, num_kv_heads, head_dim, ffn_dim } = *layer;
            let name = |tail: &str| format!("layers.{index}.{tail}.weight");
            let head_norm = |tail: &str| config.normalize_qk_projections.then(|| vector(name(tail))).transpose();
            blocks.push(HostBlock {
                shape: BlockShape {
                    model_dim: config.model_dim,
                    heads: Heads { queries: num_query_heads, keys: num_kv_heads, head_dim },
                    ffn_dim,
                    gated: config.ffn_with_glu,
                },
                attn_norm: vector(name("attn_norm"))?,
                qkv_proj: matrix(name("attn.qkv_proj"))?,
                q_norm: head_norm("attn.q_norm")?,
                k_norm: head_norm("attn.k_norm")?,
                out_proj: matrix(name("attn.out_proj"))?,
                ffn_norm: vector(name("ffn_norm"))?,
                proj_1: matrix(name("ffn.proj_1"))?,
                proj_2: matrix(name("ffn.proj_2"))?,
            });
        }
        let classifier = (!config.share_input_output_layers).then(|| matrix("classifier.weight".into())).transpose()?;
        let (cos, sin) = rotary_values(&config, config.rope_max_length);
        let loaded = Self {
            table: matrix("token_embeddings.weight".into())?,
            norm: vector("norm.weight".into())?,
            blocks,
            classifier,
            cos,
            sin,
            config,
        };
        loaded.model()?.check()?;
        Ok(loaded)
    }

    /// Heads of every layer.
    pub fn heads(&self) -> impl Iterator<Item = Heads> + '_ {
        self.blocks.iter().map(|block| block.shape.heads)
    }

    /// The weights as the kernels take them.
    pub fn model(&self) -> Result<StoredModel<'_>, KernelError> {
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            blocks.push(StoredBlock {
                shape: block.shape,
                attn_norm: &block.attn_norm,
                qkv_proj: block.qkv_proj.rows()?,
                head_norms: HeadNorms { queries: block.q_norm.as_deref(), keys: block.k_norm.as_deref() },
                out_proj: block.out_proj.rows()?,
                ffn_norm: &block.ffn_norm,
                proj_1: block.proj_1.rows()?,
                proj_2: block.proj_2.rows()?,
            });
        }
        let table = self.table.rows()?;
        Ok(StoredModel {
            model_dim: self.config.model_dim,
            table,
            blocks,
            norm: &self.norm,
            head: self.classifier.as_ref().map_or(Ok(table), HostMatrix::rows)?,
            tables: RotaryTables { cos: &self.cos, sin: &self.sin },
        })
    }
}
