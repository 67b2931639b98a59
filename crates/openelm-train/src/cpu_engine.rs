//! Losses, gradients and updates on the CPU with this project's own kernels, straight on the memory of Flex tensors.
//!
//! What must stay true: the same arithmetic as [`BurnEngine`](crate::BurnEngine); results do not depend on the number of threads;
//! buffers live as long as the engine, so that a step allocates next to nothing.

use openelm_kernels::{
    AdamW as KernelAdamW, Cpu, Dropout, HeadGradients, HeadLoss, HostTensor, Keep, Saved, Values, ValuesMut, adamw_step, block_backward,
    block_forward, change_values, embedding_backward, embedding_forward, head_log_probabilities, head_log_probabilities_backward,
    head_loss, rms_norm_backward, rms_norm_forward, sum_of_squares,
};
use openelm_model::{OpenElm, Precision};

use crate::adamw::AdamW;
use crate::counted::Counted;
use crate::engine::{Arithmetic, Engine, LossSums, Passes, Update, row_weights};
use crate::error::TrainError;
use crate::host_model::{HostBatch, HostModel};
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
    passes: Passes,
}

impl CpuEngine {
    /// Whether the weights of `model` lie in this process's memory.
    pub fn can_run(model: &OpenElm) -> bool {
        HostTensor::of(&model.norm.weight).is_some()
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
            passes: Passes::default(),
        }
    }

    /// Embedding, blocks and last norm; `states`, `normed` and `scales` hold the results.
    /// With a seed, adapters drop what it says.
    fn forward(
        &mut self,
        host: &HostModel,
        batch: &HostBatch,
        precision: Precision,
        keep: Option<Keep>,
        seed: Option<u64>,
    ) -> Result<(), TrainError> {
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
        if let Some(low) = &host.embedding_adapter {
            low.add_look_up(cpu, &batch.inputs, width, &mut states[0])?;
        }
        for (layer, (block, saved)) in host.blocks.iter().zip(saved).enumerate() {
            let (before, after) = states.split_at_mut(layer + 1);
            let (open, precision) = (block.open()?, kernel_precision(precision));
            let weights = open.weights(seed.map(|seed| Dropout::seed_of(seed, &[layer as u64])));
            block_forward(cpu, precision, &block.shape, &weights, &input, &before[layer], &mut after[0], saved)?;
        }
        rms_norm_forward(cpu, &states[layers], host.norm.values(), ValuesMut::F32(normed), scales)?;
        Ok(())
    }

    /// The forward pass with what the backward pass needs; room for the gradients is made. Whether they hold something to add to,
    /// and the seed of what is dropped.
    fn forward_for_gradients(
        &mut self,
        model: &OpenElm,
        host: &HostModel,
        data: &HostBatch,
        arithmetic: &Arithmetic,
    ) -> Result<(bool, Option<u64>), TrainError> {
        let keep = if arithmetic.recompute { Keep::Nothing } else { Keep::Everything };
        self.gradients_for(model);
        let seed = self.passes.seed(model);
        self.forward(host, data, arithmetic.precision, Some(keep), seed)?;
        self.upper.resize(self.normed.len(), 0.0);
        self.lower.resize(self.normed.len(), 0.0);
        Ok((std::mem::replace(&mut self.held, true), seed))
    }

    /// From the head's gradients, by the normed states in `lower` and by its table, to everything below.
    fn backward(
        &mut self,
        host: &HostModel,
        data: &HostBatch,
        precision: openelm_kernels::Precision,
        (accumulate, seed): (bool, Option<u64>),
    ) -> Result<(), TrainError> {
        let (width, layers, places) = (host.model_dim, host.blocks.len(), &host.places);
        let Self { cpu, gradients, states, saved, scales, upper, lower, .. } = self;
        let (by_embedding, mut rest) = gradients.split_at_mut_checked(places.embedding).ok_or_else(damaged)?;
        let mut by_blocks = Vec::with_capacity(layers);
        for count in &places.blocks {
            let (by_block, others) = rest.split_at_mut_checked(*count).ok_or_else(damaged)?;
            by_blocks.push(by_block);
            rest = others;
        }
        // The kernel gives the norm's gradient with that by its input; where the norm is frozen it goes nowhere.
        let mut nowhere = cpu.arena().take(width);
        let by_norm = match rest.first_mut() {
            Some(by_norm) if places.whole => by_norm.as_mut_slice(),
            _ => nowhere.floats_mut(),
        };
        upper.fill(0.0);
        rms_norm_backward(cpu, lower, &states[layers], host.norm.values(), scales, upper, accumulate, by_norm)?;
        let input = data.input(host);
        let blocks = host.blocks.iter().zip(saved.iter()).zip(by_blocks);
        // Below the lowest block that learns nothing does, unless the embedding learns.
        let lowest = if places.embedding > 0 { 0 } else { places.blocks.iter().position(|count| *count > 0).unwrap_or(layers) };
        for (layer, ((block, saved), by_block)) in blocks.enumerate().skip(lowest).rev() {
            let gradients = block.gradients(by_block, places.whole, accumulate).ok_or_else(damaged)?;
            let open = block.open()?;
            let weights = open.weights(seed.map(|seed| Dropout::seed_of(seed, &[layer as u64])));
            block_backward(cpu, precision, &block.shape, &weights, &input, &states[layer], saved, upper, lower, gradients)?;
            std::mem::swap(upper, lower);
        }
        match (&host.embedding_adapter, by_embedding) {
            (Some(low), by_embedding) if !places.whole => {
                low.look_up_backward(cpu, upper, width, &data.inputs, host.padding, accumulate, by_embedding)
            }
            (_, [by_table]) if places.whole => Ok(embedding_backward(cpu, upper, width, &data.inputs, host.padding, by_table)?),
            _ => Ok(()),
        }
    }

    fn gradients_for(&mut self, model: &OpenElm) {
        if self.gradients.len() != model.trained_infos().len() {
            self.gradients = model.trained_infos().iter().map(|info| vec![0.0; info.count()]).collect();
            self.held = false;
        }
    }
}

impl Engine for CpuEngine {
    fn losses(&mut self, model: &OpenElm, batch: &MicroBatch, arithmetic: &Arithmetic) -> Result<LossSums, TrainError> {
        let (host, data) = (HostModel::of(&self.cpu, model)?, HostBatch::of(model, batch)?);
        self.forward(&host, &data, arithmetic.precision, None, None)?;
        let settings = data.loss_settings(arithmetic, 1.0);
        let (precision, hidden) = (kernel_precision(arithmetic.precision), Values::F32(&self.normed));
        let loss = head_loss(&self.cpu, precision, hidden, host.head().values(), host.model_dim, &data.targets, settings, None)?;
        Ok(sums(loss, batch, arithmetic, model))
    }

    fn accumulate(&mut self, model: &OpenElm, batch: &MicroBatch, scale: f64, arithmetic: &Arithmetic) -> Result<LossSums, TrainError> {
        let (host, data) = (HostModel::of(&self.cpu, model)?, HostBatch::of(model, batch)?);
        let (accumulate, seed) = self.forward_for_gradients(model, &host, &data, arithmetic)?;
        // The kernel divides by the counted targets of the micro-batch; `scale` is for their sum.
        let settings = data.loss_settings(arithmetic, scale * batch.target_count() as f64);
        let (precision, width) = (kernel_precision(arithmetic.precision), host.model_dim);
        let Self { cpu, gradients, normed, lower, .. } = self;
        let d_table = table_gradient(gradients, &host, accumulate)?;
        let head = HeadGradients { d_hidden: lower, d_table, accumulate };
        let hidden = Values::F32(normed);
        let loss = head_loss(cpu, precision, hidden, host.head().values(), width, &data.targets, settings, Some(head))?;
        self.backward(&host, &data, precision, (accumulate, seed))?;
        Ok(sums(loss, batch, arithmetic, model))
    }

    fn row_log_probabilities(&mut self, model: &OpenElm, batch: &MicroBatch, arithmetic: &Arithmetic) -> Result<Vec<f64>, TrainError> {
        let host = HostModel::of(&self.cpu, model)?;
        let data = HostBatch::end_to_end(model, &host, batch)?;
        self.forward(&host, &data, arithmetic.precision, None, None)?;
        let counted = Counted::of(batch, &data.places, |_| true);
        let hidden = counted.gather(&self.normed, host.model_dim);
        let (precision, hidden) = (kernel_precision(arithmetic.precision), Values::F32(&hidden));
        let found = head_log_probabilities(&self.cpu, precision, hidden, host.head().values(), host.model_dim, &counted.targets)?;
        Ok(counted.row_sums(&found))
    }

    fn accumulate_weighted(
        &mut self,
        model: &OpenElm,
        batch: &MicroBatch,
        arithmetic: &Arithmetic,
        weigh: &mut dyn FnMut(&[f64]) -> Vec<f64>,
    ) -> Result<Vec<f64>, TrainError> {
        let host = HostModel::of(&self.cpu, model)?;
        let data = HostBatch::end_to_end(model, &host, batch)?;
        let (accumulate, seed) = self.forward_for_gradients(model, &host, &data, arithmetic)?;
        let (precision, width) = (kernel_precision(arithmetic.precision), host.model_dim);
        // The logits of targets that do not count are never computed.
        let counted = Counted::of(batch, &data.places, |_| true);
        let hidden = counted.gather(&self.normed, width);
        let found = head_log_probabilities(&self.cpu, precision, Values::F32(&hidden), host.head().values(), width, &counted.targets)?;
        let sums = counted.row_sums(&found);
        let weights = row_weights(&sums, weigh)?;
        let weighed = Counted::of(batch, &data.places, |row| weights[row] != 0.0);
        if weighed.targets.is_empty() {
            if !accumulate {
                self.gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
            }
            return Ok(sums);
        }
        let hidden = if weighed.targets.len() == counted.targets.len() { hidden } else { weighed.gather(&self.normed, width) };
        let mut d_hidden = vec![0.0; hidden.len()];
        let Self { cpu, gradients, lower, .. } = self;
        let d_table = table_gradient(gradients, &host, accumulate)?;
        let head = HeadGradients { d_hidden: &mut d_hidden, d_table, accumulate };
        let (table, weights) = (host.head().values(), weighed.weights(&weights));
        head_log_probabilities_backward(cpu, precision, Values::F32(&hidden), table, width, &weighed.targets, &weights, head)?;
        weighed.scatter(&d_hidden, width, lower);
        self.backward(&host, &data, precision, (accumulate, seed))?;
        Ok(sums)
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
        let infos = model.trained_infos().to_vec();
        for (index, (info, mut parameter)) in infos.iter().zip(model.trained_mut()).enumerate() {
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

    fn begin(&mut self, step: u64) {
        self.discard();
        self.passes = Passes::begin(step);
    }
}

fn damaged() -> TrainError {
    TrainError::Batch { reason: "the model has another number of parameters than its blocks say".into() }
}

/// The gradient that the head adds to: the classifier's, else the embedding's; none where an adapter is trained. An embedding of its
/// own begins at 0, since the look-up only adds.
fn table_gradient<'a>(gradients: &'a mut [Vec<f32>], host: &HostModel, accumulate: bool) -> Result<Option<&'a mut [f32]>, TrainError> {
    let Some(place) = host.places.head() else { return Ok(None) };
    if place > 0
        && let Some(by_table) = gradients.first_mut().filter(|_| !accumulate)
    {
        by_table.fill(0.0);
    }
    gradients.get_mut(place).map(|gradient| Some(gradient.as_mut_slice())).ok_or_else(damaged)
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
