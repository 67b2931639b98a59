//! Losses, gradients and updates on the CPU with this project's own kernels, straight on the memory of Flex tensors.
//!
//! What must stay true: the same arithmetic as [`BurnEngine`](crate::BurnEngine); results do not depend on the number of threads;
//! buffers live as long as the engine, so that a step allocates next to nothing.

use openelm_kernels::{
    AdamW as KernelAdamW, BlockGradients, BlockInput, BlockMatrix, BlockShape, BlockWeights, Cpu, HeadGradients, HeadLoss, HeadNorms,
    Heads, HostTensor, Keep, LossSettings, RotaryTables, Saved, Values, ValuesMut, adamw_step, block_backward, block_forward,
    change_values, embedding_backward, embedding_forward, head_loss, rms_norm_backward, rms_norm_forward, sum_of_squares,
};
use openelm_model::{Block, OpenElm, Precision};

use crate::adamw::AdamW;
use crate::engine::{Arithmetic, Engine, LossSums, Update};
use crate::error::TrainError;
use crate::micro_batch::MicroBatch;

/// The kernels with their buffers.
pub struct CpuEngine {
    cpu: Cpu,
    /// One gradient a parameter, in the model's order; empty before the first use.
    gradients: Vec<Vec<f32>>,
    /// Whether `gradients` hold something to add to.
    held: bool,
    /// The input of each block and the output of the last: [tokens, model_dim] each.
    states: Vec<Vec<f32>>,
    saved: Vec<Saved>,
    /// The last norm's output, and its 1 / root mean square of each token.
    normed: Vec<f32>,
    scales: Vec<f32>,
    /// Gradients by activations, [tokens, model_dim], in turn.
    upper: Vec<f32>,
    lower: Vec<f32>,
}

impl CpuEngine {
    /// Whether the weights of `model` lie in this process's memory.
    pub fn can_run(model: &OpenElm) -> bool {
        HostTensor::of(&model.token_embeddings).is_some()
    }

    /// With the best instruction set of this processor, or what OPENELM_ISA and OPENELM_THREADS say.
    ///
    /// # Errors
    /// When the environment asks for what is not there.
    pub fn new() -> Result<Self, TrainError> {
        Ok(Self::with_cpu(Cpu::from_env()?))
    }

    /// With a given processor.
    pub fn with_cpu(cpu: Cpu) -> Self {
        Self {
            cpu,
            gradients: Vec::new(),
            held: false,
            states: Vec::new(),
            saved: Vec::new(),
            normed: Vec::new(),
            scales: Vec::new(),
            upper: Vec::new(),
            lower: Vec::new(),
        }
    }

    /// Embedding, blocks and last norm; `states`, `normed` and `scales` hold the results.
    fn forward(&mut self, host: &HostModel, batch: &HostBatch, precision: Precision, keep: Option<Keep>) -> Result<(), TrainError> {
        let (layers, width) = (host.blocks.len(), host.model_dim);
        self.states.resize_with(layers + 1, Vec::new);
        self.states.iter_mut().for_each(|state| state.resize(batch.inputs.len() * width, 0.0));
        self.normed.resize(batch.inputs.len() * width, 0.0);
        self.scales.resize(batch.inputs.len(), 0.0);
        let keep = keep.unwrap_or(Keep::Nothing);
        if self.saved.len() != layers || self.saved.iter().any(|saved| saved.keep() != keep) {
            self.saved = (0..layers).map(|_| Saved::new(keep)).collect();
        }
        let Self { cpu, states, saved, normed, scales, .. } = self;
        let input = batch.input(host);
        embedding_forward(cpu, host.table.values(), width, &batch.inputs, &mut states[0])?;
        for (layer, (block, saved)) in host.blocks.iter().zip(saved).enumerate() {
            let (before, after) = states.split_at_mut(layer + 1);
            block_forward(cpu, kernel_precision(precision), &block.shape, &block.weights(), &input, &before[layer], &mut after[0], saved)?;
        }
        rms_norm_forward(cpu, &states[layers], host.norm.values(), ValuesMut::F32(normed), scales)?;
        Ok(())
    }

    fn gradients_for(&mut self, model: &OpenElm) {
        if self.gradients.len() != model.infos().len() {
            self.gradients = model.infos().iter().map(|info| vec![0.0; info.count()]).collect();
            self.held = false;
        }
    }
}

impl Engine for CpuEngine {
    fn losses(&mut self, model: &OpenElm, batch: &MicroBatch, arithmetic: &Arithmetic) -> Result<LossSums, TrainError> {
        let (host, data) = (HostModel::of(model)?, HostBatch::of(model, batch)?);
        self.forward(&host, &data, arithmetic.precision, None)?;
        let settings = data.loss_settings(arithmetic, 1.0);
        let (precision, hidden) = (kernel_precision(arithmetic.precision), Values::F32(&self.normed));
        let loss = head_loss(&self.cpu, precision, hidden, host.head().values(), host.model_dim, &data.targets, settings, None)?;
        Ok(sums(loss, batch, arithmetic, model))
    }

    fn accumulate(&mut self, model: &OpenElm, batch: &MicroBatch, scale: f64, arithmetic: &Arithmetic) -> Result<LossSums, TrainError> {
        let (host, data) = (HostModel::of(model)?, HostBatch::of(model, batch)?);
        let keep = if arithmetic.recompute { Keep::Nothing } else { Keep::Everything };
        self.gradients_for(model);
        self.forward(&host, &data, arithmetic.precision, Some(keep))?;
        let (width, layers, precision) = (host.model_dim, host.blocks.len(), kernel_precision(arithmetic.precision));
        let accumulate = self.held;
        self.held = true;
        let Self { cpu, gradients, states, saved, normed, scales, upper, lower, .. } = self;
        upper.resize(normed.len(), 0.0);
        lower.resize(normed.len(), 0.0);
        let damaged = || TrainError::Batch { reason: "the model has another number of parameters than its blocks say".into() };

        let Some((by_table, rest)) = gradients.split_first_mut() else { return Err(damaged()) };
        let (by_blocks, rest) = rest.split_at_mut_checked(layers * host.block_parameters).ok_or_else(damaged)?;
        let Some((by_norm, rest)) = rest.split_first_mut() else { return Err(damaged()) };
        // The kernel divides by the counted targets of the micro-batch; `scale` is for their sum.
        let settings = data.loss_settings(arithmetic, scale * batch.target_count() as f64);
        let d_table = match rest.first_mut() {
            Some(by_classifier) => {
                if !accumulate {
                    by_table.fill(0.0);
                }
                by_classifier
            }
            None => &mut *by_table,
        };
        let head = HeadGradients { d_hidden: lower, d_table, accumulate };
        let hidden = Values::F32(normed);
        let loss = head_loss(cpu, precision, hidden, host.head().values(), width, &data.targets, settings, Some(head))?;
        upper.fill(0.0);
        rms_norm_backward(cpu, lower, &states[layers], host.norm.values(), scales, upper, accumulate, by_norm)?;

        let input = data.input(&host);
        let blocks = host.blocks.iter().zip(saved.iter()).zip(by_blocks.chunks_mut(host.block_parameters.max(1)));
        for (layer, ((block, saved), by_block)) in blocks.enumerate().rev() {
            let gradients = block.gradients(by_block, accumulate).ok_or_else(damaged)?;
            block_backward(cpu, precision, &block.shape, &block.weights(), &input, &states[layer], saved, upper, lower, gradients)?;
            std::mem::swap(upper, lower);
        }
        embedding_backward(cpu, upper, width, &data.inputs, host.padding, by_table)?;
        Ok(sums(loss, batch, arithmetic, model))
    }

    fn norm(&self, _: &OpenElm) -> Result<f64, TrainError> {
        Ok(if self.held { self.gradients.iter().map(|gradient| sum_of_squares(&self.cpu, gradient)).sum::<f64>().sqrt() } else { 0.0 })
    }

    fn gradient(&self, index: usize) -> Result<Option<Vec<f32>>, TrainError> {
        Ok(self.gradients.get(index).filter(|_| self.held).cloned())
    }

    fn update(&mut self, model: &mut OpenElm, optimizer: &mut AdamW, update: &Update) -> Result<(), TrainError> {
        if !std::mem::take(&mut self.held) {
            return Ok(());
        }
        let config = *optimizer.config();
        let infos = model.infos().to_vec();
        for (index, (info, mut parameter)) in infos.iter().zip(model.parameters_mut()).enumerate() {
            let (Some(gradient), Some((first, second))) = (self.gradients.get(index), optimizer.moments_mut(index)) else { continue };
            let settings = KernelAdamW {
                learning_rate: update.learning_rate,
                beta1: config.beta1,
                beta2: config.beta2,
                epsilon: config.eps,
                weight_decay: config.decay_of(info),
                step: update.step,
                gradient_scale: update.factor as f32,
            };
            let mut done = Ok(());
            let mut values = parameter.take();
            let reached = change_values(&mut values, |values| {
                change_values(first, |first| {
                    change_values(second, |second| done = adamw_step(&self.cpu, &settings, values, gradient, first, second));
                });
            });
            parameter.put(values, &info.shape);
            done?;
            if !reached {
                return Err(TrainError::Optimizer { reason: format!("{} does not lie in this process's memory", info.name) });
            }
        }
        Ok(())
    }

    fn discard(&mut self) {
        self.held = false;
    }
}

fn kernel_precision(precision: Precision) -> openelm_kernels::Precision {
    match precision {
        Precision::F32 => openelm_kernels::Precision::F32,
        Precision::Bf16 => openelm_kernels::Precision::Bf16,
    }
}

fn sums(loss: HeadLoss, batch: &MicroBatch, arithmetic: &Arithmetic, model: &OpenElm) -> LossSums {
    let count = loss.count as f64;
    // A z-loss of weight 0 is 0, whatever the squares were.
    let z = if arithmetic.z_loss > 0.0 { loss.z_loss * count / f64::from(arithmetic.z_loss as f32) } else { 0.0 };
    let [vocabulary, _] = model.head().dims();
    LossSums::of(batch, loss.cross_entropy * count, z, arithmetic, vocabulary)
}

/// A model's weights as memory; sharing, not copying.
struct HostModel {
    model_dim: usize,
    padding: Option<u32>,
    table: HostTensor,
    blocks: Vec<HostBlock>,
    block_parameters: usize,
    norm: HostTensor,
    classifier: Option<HostTensor>,
    cos: HostTensor,
    sin: HostTensor,
}

impl HostModel {
    fn of(model: &OpenElm) -> Result<Self, TrainError> {
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

    fn head(&self) -> &HostTensor {
        self.classifier.as_ref().unwrap_or(&self.table)
    }
}

fn host<const D: usize>(tensor: &burn::tensor::Tensor<D>) -> Result<HostTensor, TrainError> {
    HostTensor::of(tensor).ok_or_else(|| TrainError::Optimizer { reason: "the weights do not lie in this process's memory".into() })
}

struct HostBlock {
    shape: BlockShape,
    /// In the model's order of parameters, the head norms apart.
    attn_norm: HostTensor,
    qkv_proj: HostTensor,
    q_norm: Option<HostTensor>,
    k_norm: Option<HostTensor>,
    out_proj: HostTensor,
    ffn_norm: HostTensor,
    proj_1: HostTensor,
    proj_2: HostTensor,
}

impl HostBlock {
    fn of(block: &Block, model_dim: usize) -> Result<Self, TrainError> {
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

    fn weights(&self) -> BlockWeights<'_> {
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
    fn gradients<'a>(&self, buffers: &'a mut [Vec<f32>], accumulate: bool) -> Option<BlockGradients<'a>> {
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
struct HostBatch {
    batch: usize,
    sequence: usize,
    inputs: Vec<u32>,
    targets: Vec<u32>,
    padding_id: u32,
    /// Where the document of each position begins in its row, [batch · sequence], when attention stays inside documents.
    starts: Option<Vec<u32>>,
}

impl HostBatch {
    fn of(model: &OpenElm, batch: &MicroBatch) -> Result<Self, TrainError> {
        // The same check as on other devices.
        model.rotation(0, batch.sequence())?;
        Ok(Self {
            batch: batch.batch(),
            sequence: batch.sequence(),
            inputs: batch.input_rows(model.config().vocab_size),
            targets: batch.target_ids().to_vec(),
            padding_id: batch.padding_id(),
            starts: batch.documents().map(|documents| document_starts(documents, batch.sequence())),
        })
    }

    fn input<'a>(&self, host: &'a HostModel) -> BlockInput<'a> {
        let values = self.sequence * host.blocks.first().map_or(0, |block| block.shape.heads.head_dim) / 2;
        let rows = |table: &'a HostTensor| table.values().get(..values).unwrap_or_default();
        BlockInput {
            batch: self.batch,
            sequence: self.sequence,
            // Positions need not begin anew: rotary scores depend on the distance alone, and no distance crosses a start.
            starts: self.starts.as_deref(),
            tables: RotaryTables { cos: rows(&host.cos), sin: rows(&host.sin) },
        }
    }

    fn loss_settings(&self, arithmetic: &Arithmetic, scale: f64) -> LossSettings {
        LossSettings { ignored: Some(self.padding_id), z_weight: arithmetic.z_loss as f32, scale: scale as f32 }
    }
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
