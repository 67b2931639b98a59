//! A model and a micro-batch as the CPU kernels take them: slices of this process's memory.
//!
//! What must stay true: nothing is copied but token ids; a model on another device is refused.

use std::ops::Range;

use openelm_kernels::{
    BlockGradients, BlockInput, BlockMatrix, BlockShape, BlockWeights, HeadNorms, Heads, HostTensor, LossSettings, RotaryTables,
};
use openelm_model::{Block, OpenElm};

use crate::counted::RowPlace;
use crate::engine::Arithmetic;
use crate::error::TrainError;
use crate::micro_batch::MicroBatch;

/// A model's weights as memory; sharing, not copying.
pub(crate) struct HostModel {
    pub model_dim: usize,
    pub padding: Option<u32>,
    pub table: HostTensor,
    pub blocks: Vec<HostBlock>,
    pub block_parameters: usize,
    pub norm: HostTensor,
    pub classifier: Option<HostTensor>,
    pub cos: HostTensor,
    pub sin: HostTensor,
}

impl HostModel {
    pub fn of(model: &OpenElm) -> Result<Self, TrainError> {
        let config = model.config();
        let (cos, sin) = model.rotary().tables();
        Ok(Self {
            model_dim: config.model_dim,
            padding: config.padding_index.and_then(|index| u32::try_from(index).ok()),
            table: host(&model.token_embeddings)?,
            blocks: model.blocks.iter().map(|block| HostBlock::of(block, config.model_dim)).collect::<Result<_, _>>()?,
            block_parameters: model.blocks.first().map_or(0, Block::num_parameters),
            norm: host(&model.norm.weight)?,
            classifier: model.classifier.as_ref().map(host).transpose()?,
            cos: host(cos)?,
            sin: host(sin)?,
        })
    }

    /// Half the channels of a head: values of a position in the rotary tables.
    pub fn half_head(&self) -> usize {
        self.blocks.first().map_or(0, |block| block.shape.heads.head_dim) / 2
    }

    pub fn head(&self) -> &HostTensor {
        self.classifier.as_ref().unwrap_or(&self.table)
    }
}

fn host<const D: usize>(tensor: &burn::tensor::Tensor<D>) -> Result<HostTensor, TrainError> {
    HostTensor::of(tensor).ok_or_else(|| TrainError::Optimizer { reason: "the weights do not lie in this process's memory".into() })
}

pub(crate) struct HostBlock {
    pub shape: BlockShape,
    /// In the model's order of parameters, the head norms apart.
    pub attn_norm: HostTensor,
    pub qkv_proj: HostTensor,
    pub q_norm: Option<HostTensor>,
    pub k_norm: Option<HostTensor>,
    pub out_proj: HostTensor,
    pub ffn_norm: HostTensor,
    pub proj_1: HostTensor,
    pub proj_2: HostTensor,
}

impl HostBlock {
    pub fn of(block: &Block, model_dim: usize) -> Result<Self, TrainError> {
        let openelm_model::LayerShape { num_query_heads, num_kv_heads, head_dim, ffn_dim } = block.shape;
        let norm = |norm: &Option<openelm_model::RmsNorm>| norm.as_ref().map(|norm| host(&norm.weight)).transpose();
        Ok(Self {
            shape: BlockShape {
                model_dim,
                heads: Heads { queries: num_query_heads, keys: num_kv_heads, head_dim },
                ffn_dim,
                gated: block.gated,
            },
            attn_norm: host(&block.attn_norm.weight)?,
            qkv_proj: host(&block.qkv_proj)?,
            q_norm: norm(&block.q_norm)?,
            k_norm: norm(&block.k_norm)?,
            out_proj: host(&block.out_proj)?,
            ffn_norm: host(&block.ffn_norm.weight)?,
            proj_1: host(&block.proj_1)?,
            proj_2: host(&block.proj_2)?,
        })
    }

    pub fn weights(&self) -> BlockWeights<'_> {
        BlockWeights {
            attn_norm: self.attn_norm.values(),
            qkv_proj: BlockMatrix::from(self.qkv_proj.values()),
            head_norms: HeadNorms {
                queries: self.q_norm.as_ref().map(HostTensor::values),
                keys: self.k_norm.as_ref().map(HostTensor::values),
            },
            out_proj: BlockMatrix::from(self.out_proj.values()),
            ffn_norm: self.ffn_norm.values(),
            proj_1: BlockMatrix::from(self.proj_1.values()),
            proj_2: BlockMatrix::from(self.proj_2.values()),
        }
    }

    /// The block's gradients, which stand in the order of its parameters; `None` when there are too few.
    pub fn gradients<'a>(&self, buffers: &'a mut [Vec<f32>], accumulate: bool) -> Option<BlockGradients<'a>> {
        let mut buffers = buffers.iter_mut().map(Vec::as_mut_slice);
        Some(BlockGradients {
            attn_norm: buffers.next()?,
            qkv_proj: buffers.next()?,
            q_norm: if self.q_norm.is_some() { Some(buffers.next()?) } else { None },
            k_norm: if self.k_norm.is_some() { Some(buffers.next()?) } else { None },
            out_proj: buffers.next()?,
            ffn_norm: buffers.next()?,
            proj_1: buffers.next()?,
            proj_2: buffers.next()?,
            accumulate,
        })
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
