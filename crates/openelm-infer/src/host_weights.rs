//! A model's weights for the CPU kernels: matrices as the file stores them, mapped; norms and rotary tables as f32.
//!
//! What must stay true: nothing of a matrix is copied unless another type is asked for, or the file's layout is one that no kernel reads.

use std::collections::BTreeMap;

use openelm_checkpoint::{CheckpointError, Weights};
use openelm_formats::{DType, TensorBytes, decode_f32, encode_f32};
use openelm_kernels::{BlockShape, HeadNorms, Heads, KernelError, RotaryTables, StoredBlock, StoredMatrix, StoredModel, StoredRows};
use openelm_model::{LayerShape, ModelConfig, ModelError, OpenElm, ParameterInfo, rotary_values};

use crate::error::InferError;

/// A part of a parameter: its type, its rows (values, where it is a vector), its bytes.
type Part = (DType, usize, TensorBytes);

/// A parameter as the file has it, or as `convert`, or as f32 where no kernel reads the file's type.
fn parts_of(weights: &Weights, info: &ParameterInfo, convert: Option<DType>) -> Result<Vec<Part>, CheckpointError> {
    let rows = info.shape.first().copied().unwrap_or(0);
    let stored = weights.parts(info)?;
    let known = |dtype: DType| dtype.is_quantised() || matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    // The kernels take two parts at most; norms are read as f32 in any case.
    let readable = stored.len() <= 2 && stored.iter().all(|(part, _)| known(part.dtype));
    let asked = convert.filter(|_| info.shape.len() > 1);
    let target = asked.unwrap_or(DType::F32);
    if !readable || asked.is_some() && stored.iter().any(|(part, _)| part.dtype != target) {
        return Ok(vec![(target, rows, encode_f32(&weights.values(info)?, target)?.into())]);
    }
    Ok(stored.into_iter().map(|(part, bytes)| (part.dtype, part.shape.first().copied().unwrap_or(0), bytes)).collect())
}

/// Rows of one parameter, in one or two parts.
struct HostMatrix {
    columns: usize,
    parts: Vec<Part>,
}

impl HostMatrix {
    /// All values: of norms, which are no matrices.
    fn values(&self) -> Vec<f32> {
        self.parts.iter().flat_map(|(dtype, _, bytes)| decode_f32(bytes, *dtype).unwrap_or_default()).collect()
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
    /// Maps `weights`, matrices as they are or, if asked, as `convert`, or copies them into memory.
    pub fn load(weights: &Weights, convert: Option<DType>, in_memory: bool) -> Result<Self, InferError> {
        Self::build(weights.config(), |info| -> Result<_, InferError> {
            let mut parts = parts_of(weights, info, convert)?;
            if in_memory && info.shape.len() > 1 {
                for (.., bytes) in &mut parts {
                    *bytes = bytes.in_memory().map_err(|source| InferError::Memory { name: info.name.clone(), source })?;
                }
                weights.release(info);
            }
            Ok(parts)
        })
    }

    /// A model of `config` of the parts that `parts` gives for each parameter, in their order.
    pub fn build<E: From<InferError>>(
        config: &ModelConfig,
        mut parts: impl FnMut(&ParameterInfo) -> Result<Vec<Part>, E>,
    ) -> Result<Self, E> {
        let infos = OpenElm::infos_of(config).map_err(InferError::from)?;
        let mut all = BTreeMap::new();
        for info in infos {
            let parts = parts(&info)?;
            all.insert(info.name.clone(), (info, parts));
        }
        Ok(Self::assemble(config, all)?)
    }

    fn assemble(config: &ModelConfig, mut all: BTreeMap<String, (ParameterInfo, Vec<Part>)>) -> Result<Self, InferError> {
        let config = config.clone();
        let layers = config.layers()?;
        let mut take = |name: String| all.remove(&name).ok_or(InferError::Model(ModelError::Missing { name }));
        let mut matrix = |name: String| -> Result<HostMatrix, InferError> {
            let (info, parts) = take(name)?;
            Ok(HostMatrix { columns: info.shape.last().copied().unwrap_or(0), parts })
        };
        let mut blocks = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            let LayerShape { num_query_heads, num_kv_heads, head_dim, ffn_dim } = *layer;
            let name = |tail: &str| format!("layers.{index}.{tail}.weight");
            let head_norms = config.normalize_qk_projections;
            blocks.push(HostBlock {
                shape: BlockShape {
                    model_dim: config.model_dim,
                    heads: Heads { queries: num_query_heads, keys: num_kv_heads, head_dim },
                    ffn_dim,
                    gated: config.ffn_with_glu,
                },
                attn_norm: matrix(name("attn_norm"))?.values(),
                qkv_proj: matrix(name("attn.qkv_proj"))?,
                q_norm: if head_norms { Some(matrix(name("attn.q_norm"))?.values()) } else { None },
                k_norm: if head_norms { Some(matrix(name("attn.k_norm"))?.values()) } else { None },
                out_proj: matrix(name("attn.out_proj"))?,
                ffn_norm: matrix(name("ffn_norm"))?.values(),
                proj_1: matrix(name("ffn.proj_1"))?,
                proj_2: matrix(name("ffn.proj_2"))?,
            });
        }
        let classifier = (!config.share_input_output_layers).then(|| matrix("classifier.weight".into())).transpose()?;
        let (cos, sin) = rotary_values(&config, config.rope_max_length);
        let loaded = Self {
            table: matrix("token_embeddings.weight".into())?,
            norm: matrix("norm.weight".into())?.values(),
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
