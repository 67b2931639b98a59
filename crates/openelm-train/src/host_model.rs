//! A model and a micro-batch as the CPU kernels take them: slices of this process's memory.
//!
//! What must stay true: nothing is copied but token ids, and quantised matrices while they are used; a model on another device is
//! refused.

use std::ops::Range;

use burn::tensor::{DType, Tensor};
use openelm_kernels::{
    BlockGradients, BlockInput, BlockMatrix, BlockShape, BlockWeights, Cpu, Dropout, HeadNorms, Heads, HostMatrix, HostTensor,
    LossSettings, MatrixGradients, RotaryTables,
};
use openelm_model::{Block, OpenElm};

use crate::counted::RowPlace;
use crate::engine::Arithmetic;
use crate::error::TrainError;
use crate::host_adapter::HostLowRank;
use crate::micro_batch::MicroBatch;
use crate::places::Places;

/// A model's weights as memory; sharing, not copying, where they are not quantised.
pub(crate) struct HostModel {
    pub model_dim: usize,
    pub padding: Option<u32>,
    pub table: HostMatrix,
    pub embedding_adapter: Option<HostLowRank>,
    pub blocks: Vec<HostBlock>,
    pub places: Places,
    pub norm: HostTensor,
    pub classifier: Option<HostMatrix>,
    pub cos: HostTensor,
    pub sin: HostTensor,
}

impl HostModel {
    pub fn of(cpu: &Cpu, model: &OpenElm) -> Result<Self, TrainError> {
        let config = model.config();
        let (cos, sin) = model.rotary().tables();
        Ok(Self {
            model_dim: config.model_dim,
            padding: config.padding_index.and_then(|index| u32::try_from(index).ok()),
            table: open(&model.token_embeddings)?,
            embedding_adapter: model.embedding_adapter.as_ref().map(|low| HostLowRank::of(cpu, low, None)).transpose()?,
            blocks: model.blocks.iter().map(|block| HostBlock::of(cpu, block, config.model_dim)).collect::<Result<_, _>>()?,
            places: Places::of(model),
            norm: host(&model.norm.weight)?,
            classifier: model.classifier.as_ref().map(open).transpose()?,
            cos: host(cos)?,
            sin: host(sin)?,
        })
    }

    /// Half the channels of a head: values of a position in the rotary tables.
    pub fn half_head(&self) -> usize {
        self.blocks.first().map_or(0, |block| block.shape.heads.head_dim) / 2
    }

    pub fn head(&self) -> &HostMatrix {
        self.classifier.as_ref().unwrap_or(&self.table)
    }
}

pub(crate) fn host<const D: usize>(tensor: &Tensor<D>) -> Result<HostTensor, TrainError> {
    HostTensor::of(tensor).ok_or_else(elsewhere)
}

/// A matrix in f32 or bf16; what is quantised is unpacked.
pub(crate) fn open(tensor: &Tensor<2>) -> Result<HostMatrix, TrainError> {
    HostMatrix::of(tensor).ok_or_else(elsewhere)
}

fn elsewhere() -> TrainError {
    TrainError::Optimizer { reason: "the weights do not lie in this process's memory".into() }
}

/// A matrix of a block, and what an adapter adds to it.
pub(crate) struct HostLinear {
    matrix: Kept,
    low: Option<HostLowRank>,
}

/// A matrix that can be read, or one that is unpacked for each use.
enum Kept {
    Open(HostMatrix),
    Packed(Tensor<2>),
}

impl HostLinear {
    fn of(cpu: &Cpu, matrix: &Tensor<2>, low: Option<&openelm_model::LowRank>) -> Result<Self, TrainError> {
        let low = low.map(|low| HostLowRank::of(cpu, low, Some(matrix))).transpose()?;
        let matrix = if matches!(matrix.dtype(), DType::QFloat(_)) { Kept::Packed(matrix.clone()) } else { Kept::Open(open(matrix)?) };
        Ok(Self { matrix, low })
    }

    fn open(&self) -> Result<HostMatrix, TrainError> {
        match &self.matrix {
            Kept::Open(matrix) => Ok(matrix.clone()),
            Kept::Packed(tensor) => open(tensor),
        }
    }
}

pub(crate) struct HostBlock {
    pub shape: BlockShape,
    pub attn_norm: HostTensor,
    pub q_norm: Option<HostTensor>,
    pub k_norm: Option<HostTensor>,
    pub ffn_norm: HostTensor,
    /// qkv_proj, out_proj, proj_1, proj_2
    pub linears: [HostLinear; 4],
}

/// A block whose matrices can be read, until it is dropped.
pub(crate) struct OpenBlock<'a> {
    block: &'a HostBlock,
    matrices: [HostMatrix; 4],
}

impl HostBlock {
    pub fn of(cpu: &Cpu, block: &Block, model_dim: usize) -> Result<Self, TrainError> {
        let openelm_model::LayerShape { num_query_heads, num_kv_heads, head_dim, ffn_dim } = block.shape;
        let norm = |norm: &Option<openelm_model::RmsNorm>| norm.as_ref().map(|norm| host(&norm.weight)).transpose();
        let low = &block.adapter;
        Ok(Self {
            shape: BlockShape {
                model_dim,
                heads: Heads { queries: num_query_heads, keys: num_kv_heads, head_dim },
                ffn_dim,
                gated: block.gated,
            },
            attn_norm: host(&block.attn_norm.weight)?,
            q_norm: norm(&block.q_norm)?,
            k_norm: norm(&block.k_norm)?,
            ffn_norm: host(&block.ffn_norm.weight)?,
            linears: [
                HostLinear::of(cpu, &block.qkv_proj, low.qkv_proj.as_ref())?,
                HostLinear::of(cpu, &block.out_proj, low.out_proj.as_ref())?,
                HostLinear::of(cpu, &block.proj_1, low.proj_1.as_ref())?,
                HostLinear::of(cpu, &block.proj_2, low.proj_2.as_ref())?,
            ],
        })
    }

    pub fn open(&self) -> Result<OpenBlock<'_>, TrainError> {
        let [qkv_proj, out_proj, proj_1, proj_2] = &self.linears;
        Ok(OpenBlock { block: self, matrices: [qkv_proj.open()?, out_proj.open()?, proj_1.open()?, proj_2.open()?] })
    }

    /// The block's gradients, which stand in the order of its parameters; `None` when there are too few.
    pub fn gradients<'a>(&self, buffers: &'a mut [Vec<f32>], whole: bool, accumulate: bool) -> Option<BlockGradients<'a>> {
        let mut buffers = buffers.iter_mut().map(Vec::as_mut_slice);
        if !whole {
            let mut low = |linear: &HostLinear| match &linear.low {
                Some(low) => low.gradients(&mut buffers),
                None => Some(MatrixGradients::default()),
            };
            let [qkv_proj, out_proj, proj_1, proj_2] = &self.linears;
            return Some(BlockGradients {
                qkv_proj: low(qkv_proj)?,
                out_proj: low(out_proj)?,
                proj_1: low(proj_1)?,
                proj_2: low(proj_2)?,
                accumulate,
                ..BlockGradients::default()
            });
        }
        Some(BlockGradients {
            attn_norm: Some(buffers.next()?),
            qkv_proj: buffers.next()?.into(),
            q_norm: if self.q_norm.is_some() { Some(buffers.next()?) } else { None },
            k_norm: if self.k_norm.is_some() { Some(buffers.next()?) } else { None },
            out_proj: buffers.next()?.into(),
            ffn_norm: Some(buffers.next()?),
            proj_1: buffers.next()?.into(),
            proj_2: buffers.next()?.into(),
            accumulate,
        })
    }
}

impl OpenBlock<'_> {
    /// As the kernels take it; with a seed, what dropout drops of each matrix's input is drawn from it.
    pub fn weights(&self, seed: Option<u64>) -> BlockWeights<'_> {
        let matrix = |index: usize| {
            let seed = seed.map(|seed| Dropout::seed_of(seed, &[index as u64]));
            let low_rank = self.block.linears[index].low.as_ref().map(|low| low.low_rank(seed));
            BlockMatrix { values: self.matrices[index].values(), packed: None, low_rank }
        };
        BlockWeights {
            attn_norm: self.block.attn_norm.values(),
            qkv_proj: matrix(0),
            head_norms: HeadNorms {
                queries: self.block.q_norm.as_ref().map(HostTensor::values),
                keys: self.block.k_norm.as_ref().map(HostTensor::values),
            },
            out_proj: matrix(1),
            ffn_norm: self.block.ffn_norm.values(),
            proj_1: matrix(2),
            proj_2: matrix(3),
        }
    }
}

/// A micro-batch as the kernels take it.
pub(crate) struct HostBatch {
    pub batch: usize,
    pub sequence: usize,
    pub inputs: Vec<u32>,
    pub targets: Vec<u32>,
    pub padding_id: u32,
    /// Where the document of each position begins in its row, [batch · sequence], when attention stays inside documents.
    pub starts: Option<Vec<u32>>,
    /// Where the rows of the micro-batch are among the tokens.
    pub places: Vec<RowPlace>,
    /// Cosines and sines of each token's position, [tokens, head_dim / 2], where rows stand one behind the other.
    tables: Option<[Vec<f32>; 2]>,
}

impl HostBatch {
    pub fn of(model: &OpenElm, batch: &MicroBatch) -> Result<Self, TrainError> {
        // The same check as on other devices.
        model.rotation(0, batch.sequence())?;
        Ok(Self {
            batch: batch.batch(),
            sequence: batch.sequence(),
            inputs: batch.input_rows(model.config().vocab_size),
            targets: batch.target_ids().to_vec(),
            padding_id: batch.padding_id(),
            starts: batch.documents().map(|documents| document_starts(documents, batch.sequence())),
            places: (0..batch.batch()).map(|row| RowPlace::whole(row * batch.sequence())).collect(),
            tables: None,
        })
    }

    /// The rows one behind the other, as one long row whose documents they are: nothing is computed for what fills them up, and what
    /// a row begins with as its sibling does is there once. Such a row stands behind its sibling, whose own part it does not see.
    pub fn end_to_end(model: &OpenElm, host: &HostModel, batch: &MicroBatch) -> Result<Self, TrainError> {
        let padded = Self::of(model, batch)?;
        if padded.starts.is_some() {
            return Ok(padded);
        }
        let half = host.half_head();
        let mut packed = Self { batch: 1, inputs: Vec::new(), targets: Vec::new(), places: Vec::new(), ..padded };
        let mut rows = EndToEnd::default();
        let siblings: Vec<Option<usize>> = (0..batch.batch()).map(|row| batch.shared_with(row).map(|(sibling, _)| sibling)).collect();
        let mut places = vec![RowPlace::whole(0); batch.batch()];
        for row in (0..batch.batch()).filter(|row| siblings[*row].is_none()) {
            let (begin, length) = (rows.starts.len(), batch.row_length(row));
            places[row] = RowPlace::whole(begin);
            let mut put = |row: usize, positions: Range<usize>, gap: Range<usize>| {
                let tokens = row * batch.sequence() + positions.start..row * batch.sequence() + positions.end;
                packed.inputs.extend_from_slice(part(&padded.inputs, tokens.clone()));
                packed.targets.extend_from_slice(part(&padded.targets, tokens));
                let table = positions.start * half..positions.end * half;
                rows.cos.extend_from_slice(part(host.cos.values(), table.clone()));
                rows.sin.extend_from_slice(part(host.sin.values(), table));
                rows.put(begin, &gap, positions.len());
            };
            put(row, 0..length, begin..begin);
            for follower in (0..batch.batch()).filter(|follower| siblings[*follower] == Some(row)) {
                let shared = batch.shared_with(follower).map_or(0, |(_, shared)| shared);
                let own = begin + length;
                put(follower, shared..batch.row_length(follower), begin + shared..own);
                places[follower] = RowPlace { begin, shared, own };
            }
        }
        let EndToEnd { starts, gap_begins, gap_ends, cos, sin } = rows;
        let sequence = starts.len();
        let starts = if siblings.iter().any(Option::is_some) { [starts, gap_begins, gap_ends].concat() } else { starts };
        Ok(Self { sequence, starts: Some(starts), tables: Some([cos, sin]), places, ..packed })
    }

    pub fn input<'a>(&'a self, host: &'a HostModel) -> BlockInput<'a> {
        let values = self.sequence * host.half_head();
        let rows = |table: &'a HostTensor| table.values().get(..values).unwrap_or_default();
        let tables = match &self.tables {
            Some([cos, sin]) => RotaryTables { cos, sin },
            None => RotaryTables { cos: rows(&host.cos), sin: rows(&host.sin) },
        };
        BlockInput {
            batch: self.batch,
            sequence: self.sequence,
            // Positions need not begin anew: rotary scores depend on the distance alone, and no distance crosses a start.
            starts: self.starts.as_deref(),
            tables,
        }
    }

    pub fn loss_settings(&self, arithmetic: &Arithmetic, scale: f64) -> LossSettings {
        LossSettings { ignored: Some(self.padding_id), z_weight: arithmetic.z_loss as f32, scale: scale as f32 }
    }
}

/// What attention and the rotation need of rows that stand one behind the other.
#[derive(Default)]
struct EndToEnd {
    starts: Vec<u32>,
    gap_begins: Vec<u32>,
    gap_ends: Vec<u32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl EndToEnd {
    /// `count` tokens of a document that begins at `start`, which do not see `gap`.
    fn put(&mut self, start: usize, gap: &Range<usize>, count: usize) {
        self.starts.extend(std::iter::repeat_n(start as u32, count));
        self.gap_begins.extend(std::iter::repeat_n(gap.start as u32, count));
        self.gap_ends.extend(std::iter::repeat_n(gap.end as u32, count));
    }
}

/// A range that lies inside by construction; empty where it does not.
fn part<T>(values: &[T], range: Range<usize>) -> &[T] {
    values.get(range).unwrap_or_default()
}

/// For each position of each row, where its document begins; `documents` has the ascending beginnings of each row.
fn document_starts(documents: &[Vec<u32>], sequence: usize) -> Vec<u32> {
    let mut starts = Vec::with_capacity(documents.len() * sequence);
    for row in documents {
        let mut begin = 0;
        let mut next = row.iter().peekable();
        for position in 0..sequence as u32 {
            while let Some(start) = next.next_if(|start| **start <= position) {
                begin = *start;
            }
            starts.push(begin);
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_knows_its_documents_start() {
        assert_eq!(document_starts(&[vec![0, 2, 3], vec![], vec![4]], 5), [0, 0, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
    }
}
