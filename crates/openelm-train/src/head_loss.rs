//! The head and the loss together: cross entropy and z-loss of hidden states against the head's table, with the gradients of
//! both written out by hand.
//!
//! What must stay true: never more than `CHUNK_VALUES` logits at once; sums, not means, come out, so that micro-batches of any
//! cut add up to the same. With l = logsumexp(logits) and weight w (1 for a counted target, else 0):
//! ce = Σ w (l - logit[target]), z = Σ w l², and the gradient of scale · (ce + z_weight · z) by the logits is
//! scale · w · (softmax · (1 + 2 z_weight l) - onehot). CoreNet: `loss_fn/language_modeling/cross_entropy.py`.

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use openelm_model::{Precision, plain, product};

/// Logits that exist at a time: 64 MiB of f32.
const CHUNK_VALUES: usize = 16 << 20;

/// Targets with their weights, on the host.
pub(crate) struct Targets {
    /// `[tokens]`
    pub ids: Vec<i32>,
    /// 1 where the target counts, else 0: `[tokens]`
    pub weights: Vec<f32>,
}

/// What the loss adds to the gradients.
pub(crate) struct Backward {
    /// Factor of the gradients.
    pub scale: f32,
    /// Factor of the squared log-partition.
    pub z_weight: f32,
    /// Whether the table learns.
    pub table: bool,
}

/// Sums over the counted targets, and gradients when they were asked for.
pub(crate) struct HeadLoss {
    /// Σ cross entropy: [1]
    pub ce_sum: Tensor<1>,
    /// Σ logsumexp²: [1]
    pub z_sum: Tensor<1>,
    /// Rows of the table.
    pub vocabulary: usize,
    /// By the hidden states and by the table, where it learns: [tokens, model_dim], [vocabulary, model_dim]
    pub gradients: Option<(Tensor<2>, Option<Tensor<2>>)>,
}

/// The loss of `hidden` [tokens, model_dim], already normed, against `table` [vocabulary, model_dim].
pub(crate) fn head_loss(
    hidden: Tensor<2>,
    table: &Tensor<2>,
    targets: &Targets,
    backward: Option<&Backward>,
    precision: Precision,
) -> HeadLoss {
    let [tokens, model_dim] = hidden.dims();
    let [vocabulary, _] = table.dims();
    let (device, table) = (hidden.device(), plain(table));
    let rows = (CHUNK_VALUES / vocabulary).clamp(1, tokens.max(1));
    let mut ce_sum = Tensor::<1>::zeros([1], &device);
    let mut z_sum = Tensor::<1>::zeros([1], &device);
    let mut hidden_gradients = Vec::new();
    let mut table_gradient: Option<Tensor<2>> = None;
    for start in (0..tokens).step_by(rows) {
        let length = rows.min(tokens - start);
        let part = hidden.clone().narrow(0, start, length); // [length, model_dim]
        let range = start..start + length;
        let ids = Tensor::<1, Int>::from_data(TensorData::new(targets.ids[range.clone()].to_vec(), [length]), &device);
        let weights = column(&targets.weights[range], &device);
        let logits = product(part.clone(), table.clone().transpose(), precision); // [length, vocabulary]
        let target_logit = logits.clone().gather(1, ids.clone().reshape([length, 1])); // [length, 1]
        let largest = logits.clone().max_dim(1);
        let exponentials = (logits - largest.clone()).exp();
        let sum = exponentials.clone().sum_dim(1);
        let lse = largest + sum.clone().log(); // [length, 1]
        ce_sum = ce_sum + ((lse.clone() - target_logit) * weights.clone()).sum();
        z_sum = z_sum + (lse.clone().square() * weights.clone()).sum();
        let Some(Backward { scale, z_weight, table: learns }) = backward else { continue };
        let weights = weights.mul_scalar(*scale);
        let slope = lse.mul_scalar(2.0 * z_weight).add_scalar(1.0);
        let by_logits = exponentials * (slope * weights.clone() / sum); // [length, vocabulary], the target's own -1 apart
        let targets = table.clone().select(0, ids.clone());
        hidden_gradients.push(product(by_logits.clone(), table.clone(), precision) - targets * weights.clone());
        if !learns {
            continue;
        }
        let by_table = product(by_logits.transpose(), part.clone(), precision);
        let by_table = by_table.select_assign(0, ids, (part * weights).neg(), IndexingUpdateOp::Add);
        table_gradient = Some(match table_gradient {
            None => by_table,
            Some(sum) => sum + by_table,
        });
    }
    let gradients = backward.filter(|_| tokens > 0).map(|_| {
        let hidden = match hidden_gradients.len() {
            1 => hidden_gradients.remove(0),
            0 => Tensor::zeros([0, model_dim], &device),
            _ => Tensor::cat(hidden_gradients, 0),
        };
        (hidden, table_gradient)
    });
    HeadLoss { ce_sum, z_sum, vocabulary, gradients }
}

/// ln p of each of `ids` `[tokens]` of `hidden` [tokens, model_dim], already normed, under `table` [vocabulary, model_dim]: `[tokens]`
pub(crate) fn log_probabilities(hidden: Tensor<2>, table: &Tensor<2>, ids: &[i32], precision: Precision) -> Tensor<1> {
    let [tokens, _] = hidden.dims();
    let [vocabulary, _] = table.dims();
    let (device, table) = (hidden.device(), plain(table));
    let rows = (CHUNK_VALUES / vocabulary).clamp(1, tokens.max(1));
    let mut parts = Vec::new();
    for start in (0..tokens).step_by(rows) {
        let length = rows.min(tokens - start);
        let part_ids = Tensor::<2, Int>::from_data(TensorData::new(ids[start..start + length].to_vec(), [length, 1]), &device);
        let logits = product(hidden.clone().narrow(0, start, length), table.clone().transpose(), precision); // [length, vocabulary]
        let largest = logits.clone().max_dim(1);
        let lse = largest.clone() + (logits.clone() - largest).exp().sum_dim(1).log(); // [length, 1]
        parts.push((logits.gather(1, part_ids) - lse).reshape([length]));
    }
    if parts.is_empty() { Tensor::zeros([0], &device) } else { Tensor::cat(parts, 0) }
}

/// Host values as [length, 1].
fn column(values: &[f32], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len(), 1]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    /// The objective in f64, for differences.
    fn objective(hidden: &[f64], table: &[f64], targets: &Targets, width: usize, scale: f64, z_weight: f64) -> f64 {
        let mut total = 0.0;
        for (row, (id, weight)) in hidden.chunks(width).zip(targets.ids.iter().zip(&targets.weights)) {
            let logits: Vec<f64> = table.chunks(width).map(|t| t.iter().zip(row).map(|(a, b)| a * b).sum()).collect();
            let lse = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
            total += f64::from(*weight) * scale * (lse - logits[*id as usize] + z_weight * lse * lse);
        }
        total
    }

    #[test]
    fn gradients_are_the_objectives_differences() {
        let (tokens, width, vocabulary) = (5, 3, 7);
        let (hidden, table) = (values(tokens * width, 1), values(vocabulary * width, 2));
        let targets = Targets { ids: vec![0, 6, 3, 0, 6], weights: vec![1.0, 1.0, 0.0, 1.0, 1.0] };
        let device = openelm_model::open_device(&std::env::var("OPENELM_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).unwrap();
        let tensor = |values: &[f32], rows: usize| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [rows, width]), &device);
        let backward = Backward { scale: 0.25, z_weight: 0.1, table: true };
        let loss = head_loss(tensor(&hidden, tokens), &tensor(&table, vocabulary), &targets, Some(&backward), Precision::F32);
        let (by_hidden, by_table) = loss.gradients.unwrap();
        let by_table = by_table.unwrap();
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (hidden, table) = (wide(&hidden), wide(&table));
        let evaluate = |h: &[f64], t: &[f64]| objective(h, t, &targets, width, 0.25, 0.1);
        let total = f64::from(loss.ce_sum.into_scalar::<f32>()) + 0.1 * f64::from(loss.z_sum.into_scalar::<f32>());
        assert!((0.25 * total - evaluate(&hidden, &table)).abs() < 1e-5);
        for (which, gradient) in [(0, by_hidden), (1, by_table)] {
            for (index, found) in gradient.into_data().try_to_vec::<f32>().unwrap().into_iter().enumerate() {
                let shifted = |by: f64| {
                    let (mut h, mut t) = (hidden.clone(), table.clone());
                    *if which == 0 { &mut h[index] } else { &mut t[index] } += by;
                    evaluate(&h, &t)
                };
                let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert!((f64::from(found) - expected).abs() < 1e-5, "{which} {index}: {found} {expected}");
            }
        }
    }
}
