//! The tied head and the loss in one: logits for some tokens and some of the vocabulary at a time, cross entropy and
//! z-loss, or each target's log-probability, and the gradients of hidden states and table.
//!
//! What must stay true: logits of at most `TOKENS` tokens live at a time; sums over the vocabulary are made within
//! strips, then over the strips in order, in f64.

use crate::error::check;
use crate::matmul::micro::{Micro, Side};
use crate::matmul::packed::{pack_whole, words};
use crate::matmul::product::{Right, Strip, Target, product, product_packed};
use crate::simd::{Sink, Source, exp, simd_fn, sweep};
use crate::threads::Parts;
use crate::values::Activations;
use crate::{Cpu, Isa, KernelError, Matrix, Precision, Values};

/// Tokens whose logits live at a time: in bf16, with a vocabulary of 32 000, 32 MB.
const TOKENS: usize = 512;
/// Rows of the table that one product takes; a multiple of every strip.
const VOCABULARY: usize = 4096;
/// Columns of one partial sum over the vocabulary.
const STRIP: usize = 64;

/// What the loss is made of.
#[derive(Clone, Copy, Debug)]
pub struct LossSettings {
    /// Tokens with this target count nothing.
    pub ignored: Option<u32>,
    /// Weight of the mean squared log-sum of exponentials.
    pub z_weight: f32,
    /// What the gradients are multiplied by: 1 / micro-batches of a step.
    pub scale: f32,
}

/// The loss over the tokens that count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HeadLoss {
    /// Mean cross entropy, in nats.
    pub cross_entropy: f64,
    /// z_weight · mean squared log-sum.
    pub z_loss: f64,
    /// How many tokens count.
    pub count: usize,
}

/// Where the gradients go.
#[derive(Debug)]
pub struct HeadGradients<'a> {
    /// [tokens, dim], overwritten.
    pub d_hidden: &'a mut [f32],
    /// [vocabulary, dim], added to when `accumulate`; absent when the table is frozen.
    pub d_table: Option<&'a mut [f32]>,
    pub accumulate: bool,
}

/// The loss of `hidden` [tokens, dim] (normed) under `table` [vocabulary, dim] against `targets` `[tokens]`, and its
/// gradients if asked for. Without a token that counts, everything is 0.
///
/// # Errors
/// When a length does not fit, or a target that counts lies outside the vocabulary.
#[allow(clippy::too_many_arguments)]
pub fn head_loss<'t>(
    cpu: &Cpu,
    precision: Precision,
    hidden: Values<'_>,
    table: impl Into<Values<'t>>,
    dim: usize,
    targets: &[u32],
    settings: LossSettings,
    mut gradients: Option<HeadGradients<'_>>,
) -> Result<HeadLoss, KernelError> {
    let counts = |target: &u32| Some(*target) != settings.ignored;
    let table = checked(hidden, table.into(), dim, targets, counts, gradients.as_ref())?;
    let vocabulary = table.rows();
    let count = targets.iter().filter(|target| counts(target)).count();
    let mut loss = HeadLoss { count, ..HeadLoss::default() };
    let chunk = chunk(precision);
    for first in (0..targets.len()).step_by(chunk) {
        let rows = chunk.min(targets.len() - first);
        let targets = &targets[first..first + rows];
        let hidden = Matrix::new(hidden.part(first * dim, rows * dim), rows, dim)?;
        let keep = gradients.is_some();
        let mut logits = Activations::take(&cpu.arena, precision, if keep { rows * vocabulary } else { 0 });
        let sums = forward(cpu, precision, hidden, table, targets, keep.then_some(&mut logits));
        let mut log_sums = vec![0.0; rows];
        for (row, (log_sum, target)) in log_sums.iter_mut().zip(targets).enumerate() {
            *log_sum = sums.log_sum(row);
            if counts(target) {
                loss.cross_entropy += *log_sum - f64::from(sums.targets[row]);
                loss.z_loss += *log_sum * *log_sum;
            }
        }
        if let Some(gradients) = &mut gradients {
            let weight = if count == 0 { 0.0 } else { settings.scale / count as f32 };
            let weights: Vec<f32> = targets.iter().map(|target| if counts(target) { weight } else { 0.0 }).collect();
            let rows_of = RowGradients { weights: &weights, z: 2.0 * settings.z_weight, sums: &sums, log_sums: &log_sums, targets };
            let d_hidden = &mut gradients.d_hidden[first * dim..][..rows * dim];
            let accumulate = gradients.accumulate || first > 0;
            backward(cpu, precision, hidden, table, &mut logits, &rows_of, d_hidden, gradients.d_table.as_deref_mut(), accumulate)?;
        }
    }
    if let Some(gradients) = gradients.filter(|gradients| targets.is_empty() && !gradients.accumulate)
        && let Some(d_table) = gradients.d_table
    {
        d_table.fill(0.0);
    }
    if count > 0 {
        loss.cross_entropy /= count as f64;
        loss.z_loss *= f64::from(settings.z_weight) / count as f64;
    }
    Ok(loss)
}

/// ln p of each of `targets` `[tokens]` of `hidden` [tokens, dim] (normed) under `table` [vocabulary, dim], in nats.
///
/// # Errors
/// When a length does not fit, or a target lies outside the vocabulary.
pub fn head_log_probabilities<'t>(
    cpu: &Cpu,
    precision: Precision,
    hidden: Values<'_>,
    table: impl Into<Values<'t>>,
    dim: usize,
    targets: &[u32],
) -> Result<Vec<f64>, KernelError> {
    let table = checked(hidden, table.into(), dim, targets, |_| true, None)?;
    let mut found = Vec::with_capacity(targets.len());
    let chunk = chunk(precision);
    for first in (0..targets.len()).step_by(chunk) {
        let rows = chunk.min(targets.len() - first);
        let hidden = Matrix::new(hidden.part(first * dim, rows * dim), rows, dim)?;
        let sums = forward(cpu, precision, hidden, table, &targets[first..first + rows], None);
        found.extend((0..rows).map(|row| f64::from(sums.targets[row]) - sums.log_sum(row)));
    }
    Ok(found)
}

/// The gradients of Σ weights · ln p over `targets`, in the terms of [`head_log_probabilities`]; `weights` `[tokens]`.
///
/// # Errors
/// As [`head_log_probabilities`].
#[allow(clippy::too_many_arguments)]
pub fn head_log_probabilities_backward<'t>(
    cpu: &Cpu,
    precision: Precision,
    hidden: Values<'_>,
    table: impl Into<Values<'t>>,
    dim: usize,
    targets: &[u32],
    weights: &[f32],
    gradients: HeadGradients<'_>,
) -> Result<(), KernelError> {
    let table = checked(hidden, table.into(), dim, targets, |_| true, Some(&gradients))?;
    check(OPERATION, "weights", targets.len(), weights.len())?;
    let HeadGradients { d_hidden, mut d_table, accumulate } = gradients;
    if let Some(d_table) = d_table.as_deref_mut().filter(|_| targets.is_empty() && !accumulate) {
        d_table.fill(0.0);
    }
    // ln p is minus the cross entropy.
    let weights: Vec<f32> = weights.iter().map(|weight| -weight).collect();
    let chunk = chunk(precision);
    for first in (0..targets.len()).step_by(chunk) {
        let rows = chunk.min(targets.len() - first);
        let (targets, weights) = (&targets[first..first + rows], &weights[first..first + rows]);
        let hidden = Matrix::new(hidden.part(first * dim, rows * dim), rows, dim)?;
        let mut logits = Activations::take(&cpu.arena, precision, rows * table.rows());
        let sums = forward(cpu, precision, hidden, table, targets, Some(&mut logits));
        let log_sums: Vec<f64> = (0..rows).map(|row| sums.log_sum(row)).collect();
        let rows_of = RowGradients { weights, z: 0.0, sums: &sums, log_sums: &log_sums, targets };
        let d_hidden = &mut d_hidden[first * dim..][..rows * dim];
        backward(cpu, precision, hidden, table, &mut logits, &rows_of, d_hidden, d_table.as_deref_mut(), accumulate || first > 0)?;
    }
    Ok(())
}

/// What messages call these operations.
const OPERATION: &str = "head and loss";

/// Tokens at a time: f32 logits are twice as large, so half as many.
fn chunk(precision: Precision) -> usize {
    if precision == Precision::F32 { TOKENS / 2 } else { TOKENS }
}

/// The table as a matrix, after every length and every target that counts was found to fit.
fn checked<'a>(
    hidden: Values<'_>,
    table: Values<'a>,
    dim: usize,
    targets: &[u32],
    counts: impl Fn(&u32) -> bool,
    gradients: Option<&HeadGradients<'_>>,
) -> Result<Matrix<'a>, KernelError> {
    let operation = OPERATION;
    let vocabulary = table.len() / dim.max(1);
    let table = Matrix::new(table, vocabulary, dim)?;
    check(operation, "hidden states", targets.len() * dim, hidden.len())?;
    if let Some(bad) = targets.iter().find(|target| counts(target) && **target as usize >= vocabulary) {
        let (what, reason) = ("a target", "outside the vocabulary");
        let hint = "check that the tokenizer belongs to the model, and which id is ignored";
        return Err(KernelError::Dimension { operation, what, value: *bad as usize, reason, hint });
    }
    if let Some(gradients) = gradients {
        check(operation, "d_hidden", hidden.len(), gradients.d_hidden.len())?;
        if let Some(d_table) = &gradients.d_table {
            check(operation, "d_table", vocabulary * dim, d_table.len())?;
        }
    }
    Ok(table)
}

/// Maxima and sums of exponentials of every strip and token, and the targets' logits.
struct Sums {
    /// [strip][token][maximum, sum of e^(logit − maximum)]
    strips: Vec<f32>,
    targets: Vec<f32>,
}

impl Sums {
    /// A token's strips.
    fn of_row(&self, row: usize) -> impl Iterator<Item = &[f32]> {
        self.strips.chunks_exact(2).skip(row).step_by(self.targets.len())
    }

    fn largest(&self, row: usize) -> f32 {
        self.of_row(row).map(|strip| strip[0]).fold(f32::NEG_INFINITY, f32::max)
    }

    fn log_sum(&self, row: usize) -> f64 {
        let maximum = self.largest(row);
        let total: f64 = self.of_row(row).map(|strip| f64::from(strip[1]) * f64::from(strip[0] - maximum).exp()).sum();
        f64::from(maximum) + total.ln()
    }
}

/// The largest of some logits, and ln Σ e^logit.
pub(crate) fn log_sum(isa: Isa, logits: &[f32]) -> (f32, f64) {
    // SAFETY: the instruction set of a `Cpu` is available; nothing is kept.
    let strips: Vec<f32> = logits.chunks(STRIP).flat_map(|strip| <[f32; 2]>::from(unsafe { soften(isa, strip, None) })).collect();
    let sums = Sums { strips, targets: vec![0.0] };
    (sums.largest(0), sums.log_sum(0))
}

/// Sums over the logits of some tokens; their exponentials are kept if asked for, [block of the vocabulary][token][block].
fn forward(
    cpu: &Cpu,
    precision: Precision,
    hidden: Matrix<'_>,
    table: Matrix<'_>,
    targets: &[u32],
    mut logits: Option<&mut Activations<'_>>,
) -> Sums {
    let (rows, vocabulary) = (hidden.rows(), table.rows());
    let mut sums = Sums { strips: vec![0.0; vocabulary.div_ceil(STRIP) * rows * 2], targets: vec![0.0; rows] };
    let micro = Micro::new(cpu.isa, precision);
    let left = hidden.by_rows();
    let mut packed = cpu.arena.take(words(&left, &micro, Side::Left));
    pack_whole(cpu, &left, &micro, Side::Left, packed.words_mut());
    let kept = logits.as_mut().map(|logits| logits.values_mut().sink());
    let (strips, target_logits) = (Parts::new(&mut sums.strips), Parts::new(&mut sums.targets));
    for first in (0..vocabulary).step_by(VOCABULARY) {
        let width = VOCABULARY.min(vocabulary - first);
        let visit = |strip: Strip<'_>| {
            for row in 0..strip.rows {
                let token = strip.first_row + row;
                let values = &strip.sums[row * strip.stride..][..strip.columns];
                let column = first + strip.first_column;
                // SAFETY: every strip and token has its own sums and logits, and one strip holds a token's target.
                unsafe {
                    let to = kept.map(|kept| kept.add(first * rows + token * width + strip.first_column));
                    let (maximum, total) = soften(cpu.isa, values, to);
                    strips.part((column / STRIP * rows + token) * 2, 2).copy_from_slice(&[maximum, total]);
                    if let Some(value) = (targets[token] as usize).checked_sub(column).and_then(|at| values.get(at)) {
                        target_logits.part(token, 1)[0] = *value;
                    }
                }
            }
        };
        let right = Right::Plain(table.row_range(first, width).by_rows());
        product_packed(cpu, precision, packed.words(), rows, hidden.columns(), right, Target::Strips(&visit));
    }
    sums
}

/// What the gradient of a token's logits depends on.
struct RowGradients<'a> {
    /// `[tokens]`; 0 where a token does not count.
    weights: &'a [f32],
    z: f32,
    sums: &'a Sums,
    log_sums: &'a [f64],
    targets: &'a [u32],
}

/// Turns what was kept of the logits into their gradients, weight · (softmax · (1 + z · log-sum) − 1 at the target), and multiplies on.
#[allow(clippy::too_many_arguments)]
fn backward(
    cpu: &Cpu,
    precision: Precision,
    hidden: Matrix<'_>,
    table: Matrix<'_>,
    logits: &mut Activations<'_>,
    gradients: &RowGradients<'_>,
    d_hidden: &mut [f32],
    mut d_table: Option<&mut [f32]>,
    accumulate: bool,
) -> Result<(), KernelError> {
    let (rows, dim, vocabulary) = (hidden.rows(), hidden.columns(), table.rows());
    let sums = gradients.sums;
    for first in (0..vocabulary).step_by(VOCABULARY) {
        let width = VOCABULARY.min(vocabulary - first);
        let block = logits.values_mut().sink();
        cpu.threads.for_runs(rows, 8, |start, count| {
            for token in start..start + count {
                let (target, log_sum, weight) = (gradients.targets[token], gradients.log_sums[token], gradients.weights[token]);
                let factor = f64::from(weight) * (1.0 + f64::from(gradients.z) * log_sum);
                for at in (0..width).step_by(STRIP) {
                    let strip_width = STRIP.min(width - at);
                    let maximum = sums.strips[((first + at) / STRIP * rows + token) * 2];
                    let factor = factor as f32 * ((f64::from(maximum) - log_sum) as f32).exp();
                    let target = (target as usize).checked_sub(first + at).filter(|at| *at < strip_width);
                    // SAFETY: tokens do not overlap; the block holds rows · width values from rows · first.
                    unsafe { harden(cpu.isa, block.add(first * rows + token * width + at), strip_width, factor, weight, target) };
                }
            }
        });
        let d_logits = Matrix::new(logits.values().part(first * rows, rows * width), rows, width)?;
        let table_rows = Right::Plain(table.row_range(first, width).by_columns());
        let target = if first == 0 { Target::Store(&mut *d_hidden) } else { Target::Accumulate(&mut *d_hidden) };
        product(cpu, precision, d_logits.by_rows(), table_rows, target);
        if let Some(d_table) = d_table.as_deref_mut() {
            let part = &mut d_table[first * dim..(first + width) * dim];
            let target = if accumulate { Target::Accumulate(part) } else { Target::Store(part) };
            product(cpu, precision, d_logits.by_columns(), Right::Plain(hidden.by_columns()), target);
        }
    }
    Ok(())
}

simd_fn! {
    /// The maximum of some logits and the sum of their exponentials less it; e^(logit − maximum) is kept in `to` if given.
    /// Kept so, rounding to bf16 costs a relative error of 2^-9 whatever the logit, and no exponential is needed again.
    fn soften<S>(values: &[f32], to: Option<Sink>) -> (f32, f32) {
        let from = Source::F32(values.as_ptr());
        let whole = values.len() / 16 * 16;
        let mut maxima = S::splat(values[0]);
        sweep!(whole, |at, lanes| {
            maxima = S::max(maxima, from.load::<S>(at, lanes));
        });
        let maximum = values[whole..].iter().fold(S::maximum(maxima), |maximum, value| maximum.max(*value));
        let shift = S::splat(maximum);
        let mut totals = S::splat(0.0);
        sweep!(whole, |at, lanes| {
            let v = exp::<S>(S::sub(from.load::<S>(at, lanes), shift));
            totals = S::add(totals, v);
            if let Some(to) = to {
                to.store::<S>(at, v, lanes);
            }
        });
        let mut total = S::sum(totals);
        for (at, value) in values.iter().enumerate().skip(whole) {
            let v = (*value - maximum).exp();
            total += v;
            if let Some(to) = to {
                to.put(at, v);
            }
        }
        (maximum, total)
    }
}

simd_fn! {
    /// Some kept exponentials to gradients in place: times `factor`, less `weight` at the target.
    fn harden<S>(values: Sink, width: usize, factor: f32, weight: f32, target: Option<usize>) {
        let from = values.as_source();
        let kept = target.map(|at| from.get(at));
        let factors = S::splat(factor);
        sweep!(width, |at, lanes| {
            values.store::<S>(at, S::mul(from.load::<S>(at, lanes), factors), lanes);
        });
        if let (Some(at), Some(kept)) = (target, kept) {
            values.put(at, factor * kept - weight);
        }
    }
}
