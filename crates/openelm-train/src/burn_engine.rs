//! Losses and gradients on any burn device, with burn's operations.
//!
//! The blocks are walked in segments. Forward, each segment's input is kept; backward, a segment is tracked by autodiff, run,
//! and differentiated from the gradient of its output. One segment for the whole model keeps all activations; one for each block
//! (`recompute`) keeps one [tokens, model_dim] a block and pays a second forward pass.
//!
//! What must stay true: gradients do not depend on `recompute`; the tied table receives the sum of the head's gradient and the
//! look-up's; the padding row receives none from the look-up.

use std::ops::Range;

use burn::tensor::{IndexingUpdateOp, Tensor, TensorData};
use openelm_kernels::Dropout;
use openelm_model::{Block, CausalMask, LowRank, OpenElm, Precision, RmsNorm, Rotation};

use crate::adamw::AdamW;
use crate::engine::{Arithmetic, Engine, LossSums, Passes, Update, row_weights};
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::head_loss::{Backward, HeadLoss, Targets, head_loss, log_probabilities};
use crate::micro_batch::MicroBatch;
use crate::places::Places;

/// Burn's operations and autodiff.
pub struct BurnEngine {
    gradients: Gradients,
    passes: Passes,
}

impl BurnEngine {
    /// Without gradients yet.
    pub fn new(model: &OpenElm) -> Self {
        Self { gradients: Gradients::new(model.trained_infos().len()), passes: Passes::default() }
    }
}

impl Engine for BurnEngine {
    fn losses(&mut self, model: &OpenElm, batch: &MicroBatch, arithmetic: &Arithmetic) -> Result<LossSums, TrainError> {
        losses(model, batch, arithmetic)
    }

    fn accumulate(&mut self, model: &OpenElm, batch: &MicroBatch, scale: f64, arithmetic: &Arithmetic) -> Result<LossSums, TrainError> {
        let seed = self.passes.seed(model);
        losses_and_gradients(model, batch, scale, arithmetic, seed, &mut self.gradients)
    }

    fn row_log_probabilities(&mut self, model: &OpenElm, batch: &MicroBatch, arithmetic: &Arithmetic) -> Result<Vec<f64>, TrainError> {
        let pass = Pass::new(model, batch, None)?;
        let hidden = model.blocks.iter().fold(pass.embedded.clone(), |x, block| pass.run(block, x, arithmetic.precision));
        pass.row_sums(model, batch, pass.rows(model.norm.forward(hidden)), arithmetic.precision)
    }

    fn accumulate_weighted(
        &mut self,
        model: &OpenElm,
        batch: &MicroBatch,
        arithmetic: &Arithmetic,
        weigh: &mut dyn FnMut(&[f64]) -> Vec<f64>,
    ) -> Result<Vec<f64>, TrainError> {
        let pass = Pass::new(model, batch, self.passes.seed(model))?;
        let forward = Forward::new(model, &pass, arithmetic);
        let hidden = forward.hidden(&pass);
        let sums = pass.row_sums(model, batch, hidden.clone(), arithmetic.precision)?;
        let weights = row_weights(&sums, weigh)?;
        // ln p is minus the cross entropy.
        let of_targets = pass.targets.weights.iter().enumerate();
        let of_targets = of_targets.map(|(at, counts)| -counts * weights[at / batch.sequence().max(1)] as f32).collect();
        let targets = Targets { ids: pass.targets.ids.clone(), weights: of_targets };
        let backward = Backward { scale: 1.0, z_weight: 0.0, table: !model.is_adapted() };
        let loss = head_loss(hidden, model.head(), &targets, Some(&backward), arithmetic.precision);
        if let Some(by_head) = loss.gradients {
            forward.backward(model, batch, &pass, by_head, &mut self.gradients);
        }
        Ok(sums)
    }

    fn norm(&self, model: &OpenElm) -> Result<f64, TrainError> {
        Ok(self.gradients.norm(model.trained_infos())?)
    }

    fn gradient(&self, index: usize) -> Result<Option<Vec<f32>>, TrainError> {
        let read = |tensor: &Tensor<1>| {
            tensor.try_to_vec_as::<f32>().map_err(|error| TrainError::Device { step: 0, what: "a gradient", reason: format!("{error:?}") })
        };
        self.gradients.get(index).map(read).transpose()
    }

    fn update(&mut self, model: &mut OpenElm, optimizer: &mut AdamW, update: &Update) -> Result<(), TrainError> {
        let count = model.trained_infos().len();
        let gradients = std::mem::replace(&mut self.gradients, Gradients::new(count));
        optimizer.update(model, gradients, update);
        Ok(())
    }

    fn discard(&mut self) {
        self.gradients.clear();
    }

    fn begin(&mut self, step: u64) {
        self.discard();
        self.passes = Passes::begin(step);
    }
}

/// The losses of `batch`, without gradients.
///
/// # Errors
/// When the sequence is longer than the rotary table, or the device fails.
fn losses(model: &OpenElm, batch: &MicroBatch, arithmetic: &Arithmetic) -> Result<LossSums, TrainError> {
    let pass = Pass::new(model, batch, None)?;
    let hidden = model.blocks.iter().fold(pass.embedded.clone(), |x, block| pass.run(block, x, arithmetic.precision));
    let hidden = pass.rows(model.norm.forward(hidden));
    let loss = head_loss(hidden, model.head(), &pass.targets, None, arithmetic.precision);
    pass.sums(loss, arithmetic, batch)
}

/// The losses of `batch`; adds `scale` times the gradient of Σ (ce + z_loss · lse²) over its counted targets to `gradients`.
///
/// # Errors
/// When the sequence is longer than the rotary table, or the device fails.
fn losses_and_gradients(
    model: &OpenElm,
    batch: &MicroBatch,
    scale: f64,
    arithmetic: &Arithmetic,
    seed: Option<u64>,
    gradients: &mut Gradients,
) -> Result<LossSums, TrainError> {
    let pass = Pass::new(model, batch, seed)?;
    let forward = Forward::new(model, &pass, arithmetic);
    let backward = Backward { scale: scale as f32, z_weight: arithmetic.z_loss as f32, table: !model.is_adapted() };
    let mut loss = head_loss(forward.hidden(&pass), model.head(), &pass.targets, Some(&backward), arithmetic.precision);
    if let Some(by_head) = loss.gradients.take() {
        forward.backward(model, batch, &pass, by_head, gradients);
    }
    pass.sums(loss, arithmetic, batch)
}

/// A forward pass that can be differentiated: the inputs of all segments but the last, which is tracked.
struct Forward {
    inputs: Vec<Tensor<3>>,
    tracked: Tracked,
    /// Blocks of a segment.
    length: usize,
    /// The first block of the last segment.
    last: usize,
    precision: Precision,
}

impl Forward {
    fn new(model: &OpenElm, pass: &Pass, arithmetic: &Arithmetic) -> Self {
        let (layers, precision) = (model.blocks.len(), arithmetic.precision);
        let length = if arithmetic.recompute { 1 } else { layers };
        let mut inputs = Vec::new();
        let mut x = pass.embedded.clone();
        let last = layers.saturating_sub(1) / length * length;
        for (index, block) in model.blocks[..last].iter().enumerate() {
            if index % length == 0 {
                inputs.push(x.clone());
            }
            x = pass.run(&pass.dropping(index, block), x, precision);
        }
        let tracked = pass.track(model, last..layers, x, Some(&model.norm), precision);
        Self { inputs, tracked, length, last, precision }
    }

    /// The normed output [tokens, model_dim].
    fn hidden(&self, pass: &Pass) -> Tensor<2> {
        pass.rows(self.tracked.output.clone().inner())
    }

    /// From the head's gradients, by the hidden states and by its table, to those of all parameters.
    fn backward(
        self,
        model: &OpenElm,
        batch: &MicroBatch,
        pass: &Pass,
        (by_hidden, by_table): (Tensor<2>, Option<Tensor<2>>),
        gradients: &mut Gradients,
    ) {
        let Self { inputs, tracked, length, last, precision } = self;
        let places = Places::of(model);
        if let (Some(place), Some(by_table)) = (places.head(), by_table) {
            gradients.add(place, by_table);
        }
        let mut by_output = by_hidden.reshape(tracked.output.dims());
        by_output = tracked.backward(by_output, places.first_of(last), places.norm(), gradients);
        for (start, input) in (0..last).step_by(length.max(1)).zip(inputs).collect::<Vec<_>>().into_iter().rev() {
            let tracked = pass.track(model, start..start + length, input, None, precision);
            by_output = tracked.backward(by_output, places.first_of(start), None, gradients);
        }
        match &model.embedding_adapter {
            Some(low) => {
                let [by_a, by_b] = pass.by_look_up(model, low, batch, by_output);
                gradients.add(0, by_a);
                gradients.add(1, by_b);
            }
            None if places.whole => gradients.add(0, pass.by_embedding(model, batch, by_output)),
            None => {}
        }
    }
}

/// What all blocks of one micro-batch share.
struct Pass {
    rotation: Rotation,
    mask: CausalMask,
    embedded: Tensor<3>,
    ids: Tensor<1, burn::tensor::Int>,
    targets: Targets,
    /// What adapters drop is drawn from this; nothing is dropped when absent.
    seed: Option<u64>,
}

impl Pass {
    fn new(model: &OpenElm, batch: &MicroBatch, seed: Option<u64>) -> Result<Self, TrainError> {
        let config = model.config();
        let ids = batch.inputs(config.vocab_size, model.device());
        let (target_ids, weights) = batch.targets();
        let (groups, sequence) = (config.num_gqa_groups, batch.sequence());
        let (rotation, mask) = match batch.documents() {
            None => (model.rotation(0, sequence)?, CausalMask::new(groups, 0, sequence, model.device())),
            Some(starts) => {
                (model.document_rotation(starts, sequence)?, CausalMask::of_documents(groups, starts, sequence, model.device()))
            }
        };
        Ok(Self {
            rotation,
            mask,
            embedded: model.embed(ids.clone()),
            ids: ids.reshape([batch.positions()]),
            targets: Targets { ids: target_ids, weights },
            seed,
        })
    }

    fn run(&self, block: &Block, x: Tensor<3>, precision: Precision) -> Tensor<3> {
        block.forward(x, &self.rotation, &self.mask, precision)
    }

    /// [batch, sequence, model_dim] as [tokens, model_dim].
    fn rows(&self, x: Tensor<3>) -> Tensor<2> {
        let [batch, sequence, width] = x.dims();
        x.reshape([batch * sequence, width])
    }

    /// Block number `layer` with what its adapter drops in this pass: drawn on the host, so that every device drops the same.
    fn dropping(&self, layer: usize, block: &Block) -> Block {
        let mut block = block.clone();
        let Some(seed) = self.seed.map(|seed| Dropout::seed_of(seed, &[layer as u64])) else { return block };
        let [tokens] = self.ids.dims();
        let device = self.ids.device();
        let adapter = &mut block.adapter;
        let parts = [&mut adapter.qkv_proj, &mut adapter.out_proj, &mut adapter.proj_1, &mut adapter.proj_2];
        for (index, part) in parts.into_iter().enumerate() {
            let Some(low) = part.as_mut().filter(|low| low.dropout > 0.0) else { continue };
            let [_, columns] = low.a.dims();
            let mut factors = vec![0.0; tokens * columns];
            let dropout = Dropout { probability: low.dropout as f32, seed: Dropout::seed_of(seed, &[index as u64]) };
            dropout.factors(0, &mut factors);
            low.kept = Some(Tensor::from_data(TensorData::new(factors, [tokens, columns]), &device));
        }
        block
    }

    /// Runs the blocks `layers`, and the last norm where it follows, so that what is trained can be differentiated.
    fn track(&self, model: &OpenElm, layers: Range<usize>, input: Tensor<3>, norm: Option<&RmsNorm>, precision: Precision) -> Tracked {
        let input = input.autodiff().require_grad();
        let (rotation, mask) = (self.rotation.clone().autodiff(), self.mask.clone().autodiff());
        let adapted = model.is_adapted();
        let blocks = model.blocks.iter().enumerate().take(layers.end).skip(layers.start);
        let tracked = |(layer, block): (usize, &Block)| {
            if adapted { self.dropping(layer, block).tracked_adapter() } else { block.tracked() }
        };
        let blocks: Vec<Block> = blocks.map(tracked).collect();
        let norm = norm.map(|norm| if adapted { RmsNorm { weight: norm.weight.clone().autodiff() } } else { norm.tracked() });
        let mut output = blocks.iter().fold(input.clone(), |x, block| block.forward(x, &rotation, &mask, precision));
        if let Some(norm) = &norm {
            output = norm.forward(output);
        }
        Tracked { input, blocks, norm, output, adapted }
    }

    /// The look-up's gradients by A [rank, vocabulary] and B [model_dim, rank] of an adapter; the padding row of A learns nothing.
    fn by_look_up(&self, model: &OpenElm, low: &LowRank, batch: &MicroBatch, by_embedded: Tensor<3>) -> [Tensor<2>; 2] {
        let rows = self.rows(by_embedded).mul_scalar(low.scale);
        let inner = low.a.clone().transpose().select(0, self.ids.clone()); // [tokens, rank]
        let by_b = rows.clone().transpose().matmul(inner);
        let mut back = rows.matmul(low.b.clone());
        if let Some(learns) = batch.learning_inputs(model.config().padding_index) {
            let count = learns.len();
            back = back * Tensor::from_data(TensorData::new(learns, [count, 1]), model.device());
        }
        let [rank, vocabulary] = low.a.dims();
        let by_a = Tensor::zeros([vocabulary, rank], model.device()).select_assign(0, self.ids.clone(), back, IndexingUpdateOp::Add);
        [by_a.transpose(), by_b]
    }

    /// The look-up's gradient by the table [vocabulary, model_dim].
    fn by_embedding(&self, model: &OpenElm, batch: &MicroBatch, by_embedded: Tensor<3>) -> Tensor<2> {
        let mut rows = self.rows(by_embedded);
        if let Some(learns) = batch.learning_inputs(model.config().padding_index) {
            let count = learns.len();
            rows = rows * Tensor::from_data(TensorData::new(learns, [count, 1]), model.device());
        }
        Tensor::zeros(model.token_embeddings.dims(), model.device()).select_assign(0, self.ids.clone(), rows, IndexingUpdateOp::Add)
    }

    /// Σ ln p of each row's counted targets, of `hidden` [tokens, model_dim].
    fn row_sums(&self, model: &OpenElm, batch: &MicroBatch, hidden: Tensor<2>, precision: Precision) -> Result<Vec<f64>, TrainError> {
        let found = log_probabilities(hidden, model.head(), &self.targets.ids, precision).try_into_vec_as::<f32>();
        let what = "the log-probabilities";
        let found = found.map_err(|error| TrainError::Device { step: 0, what, reason: format!("{error:?}") })?;
        let mut sums = vec![0.0; batch.batch()];
        for (at, (value, counts)) in found.iter().zip(&self.targets.weights).enumerate() {
            if *counts > 0.0 {
                sums[at / batch.sequence().max(1)] += f64::from(*value);
            }
        }
        Ok(sums)
    }

    /// The sums on the host.
    fn sums(&self, loss: HeadLoss, arithmetic: &Arithmetic, batch: &MicroBatch) -> Result<LossSums, TrainError> {
        let read = |tensor: Tensor<1>, what| {
            tensor.try_into_scalar::<f32>().map(f64::from).map_err(|error| TrainError::Device {
                step: 0,
                what,
                reason: format!("{error:?}"),
            })
        };
        let (ce, z) = (read(loss.ce_sum, "the loss")?, read(loss.z_sum, "the z-loss")?);
        Ok(LossSums::of(batch, ce, z, arithmetic, loss.vocabulary))
    }
}

/// A segment that was run under autodiff.
struct Tracked {
    input: Tensor<3>,
    blocks: Vec<Block>,
    norm: Option<RmsNorm>,
    output: Tensor<3>,
    /// Whether adapters alone are trained.
    adapted: bool,
}

impl Tracked {
    /// From the gradient by the output to that by the input; parameter gradients are added from `first` on.
    fn backward(mut self, by_output: Tensor<3>, first: usize, norm_index: Option<usize>, gradients: &mut Gradients) -> Tensor<3> {
        let mut found = (self.output * by_output.clone().autodiff()).sum().backward();
        let mut index = first;
        for block in &mut self.blocks {
            let parameters = if self.adapted { block.adapter.parameters_mut() } else { block.parameters_mut() };
            for parameter in parameters {
                if let Some(gradient) = parameter.take_gradient(&mut found) {
                    gradients.add(index, gradient);
                }
                index += 1;
            }
        }
        if let (Some(norm), Some(index)) = (&self.norm, norm_index)
            && let Some(gradient) = norm.weight.grad_remove(&mut found)
        {
            gradients.add(index, gradient);
        }
        self.input.grad_remove(&mut found).unwrap_or_else(|| by_output.zeros_like())
    }
}
