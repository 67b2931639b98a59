//! What the methods with a base share: differences from the base, some of them dropped, added up by weight.
//!
//! Follows mergekit's GeneralizedTaskArithmeticMerge: drop, rescale, weigh, elect a sign, divide by the weights that count, times
//! lambda, onto the base.

use rayon::prelude::*;

use super::Inputs;
use super::sums::{divisor, weighted_sum};

/// Whether models must agree on a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consensus {
    None,
    /// Only values with the sign of the weighted sum count.
    Sign,
}

/// What stands in for the values that were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rescale {
    None,
    /// Each value that stays is divided by the probability that it stayed: the expected value is the old one (DARE's own rule).
    Density,
    /// The sum of absolute values is what it was (mergekit's rule).
    L1,
    /// The root of the sum of squares is what it was.
    L2,
}

impl Rescale {
    pub fn of(inputs: &Inputs<'_>) -> Self {
        match (inputs.whole.is_set("rescale"), inputs.whole.get("rescale_norm") as usize) {
            (false, _) => Self::None,
            (true, 1) => Self::L1,
            (true, 2) => Self::L2,
            (true, _) => Self::Density,
        }
    }

    /// Multiplies what stayed of `delta`. `norms` were taken before.
    fn apply(self, delta: &mut [f32], before: Norms, density: f64) {
        let after = Norms::of(delta);
        let ratio = |before: f64, after: f64| if after > 0.0 { before / after } else { 1.0 };
        let factor = match self {
            Self::None => return,
            Self::Density => 1.0 / density,
            Self::L1 => ratio(before.l1, after.l1),
            Self::L2 => ratio(before.l2, after.l2),
        };
        delta.iter_mut().for_each(|value| *value = (factor * f64::from(*value)) as f32);
    }
}

#[derive(Clone, Copy)]
struct Norms {
    l1: f64,
    l2: f64,
}

impl Norms {
    fn of(delta: &[f32]) -> Self {
        let l1 = delta.iter().map(|value| f64::from(value.abs())).sum();
        let l2 = delta.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        Self { l1, l2 }
    }
}

/// Each model's difference from the base.
pub(super) struct TaskVectors(Vec<Vec<f32>>);

impl TaskVectors {
    pub fn of(inputs: &Inputs<'_>) -> Self {
        let minus_base = |tensor: &&[f32]| tensor.iter().zip(inputs.base).map(|(value, base)| value - base).collect();
        Self(inputs.tensors.par_iter().map(minus_base).collect())
    }

    /// Lets `drop` set values of each model's difference to 0, and rescales the rest. `drop` gets the model's number and its
    /// difference, and gives the share that it keeps on average; 1 and more means that nothing was dropped.
    pub fn thinned(mut self, rescale: Rescale, drop: impl Fn(usize, &mut [f32]) -> f64 + Sync) -> Self {
        self.0.par_iter_mut().enumerate().for_each(|(model, delta)| {
            let before = Norms::of(delta);
            let density = drop(model, delta);
            if density < 1.0 {
                rescale.apply(delta, before, density);
            }
        });
        self
    }

    /// The differences, model by model.
    pub fn into_inner(self) -> Vec<Vec<f32>> {
        self.0
    }

    /// The merged tensor.
    pub fn merged(self, inputs: &Inputs<'_>, consensus: Consensus) -> Vec<f32> {
        let weights = inputs.of_each("weight");
        let (lambda, normalize) = (inputs.whole.get("lambda"), inputs.whole.is_set("normalize"));
        if consensus == Consensus::None {
            let scale = if normalize { lambda / divisor(&weights) } else { lambda };
            let terms: Vec<_> = weights.iter().map(|weight| weight * scale).zip(self.0.iter().map(Vec::as_slice)).collect();
            return weighted_sum(Some(inputs.base), &terms, inputs.base.len());
        }
        let merged = |(element, base): (usize, &f32)| {
            // In f32, as in mergekit: a sum that is 0 there must be 0 here, or the sign would be another.
            let weighted = |model: usize, weight: f64| self.0[model][element] * weight as f32;
            let sum: f32 = weights.iter().enumerate().map(|(model, weight)| weighted(model, *weight)).sum();
            let majority = if sum >= 0.0 { 1.0 } else { -1.0 };
            let (mut total, mut counted) = (0.0_f64, 0.0_f64);
            for (model, weight) in weights.iter().enumerate() {
                let value = weighted(model, *weight);
                if value * majority > 0.0 {
                    total += f64::from(value);
                    counted += weight;
                }
            }
            if normalize && counted != 0.0 {
                total /= counted;
            }
            (f64::from(*base) + lambda * total) as f32
        };
        inputs.base.par_iter().enumerate().with_min_len(1 << 12).map(merged).collect()
    }
}

/// Sets all but the `keep` values of largest magnitude to 0; of equal ones the first stay.
pub(super) fn keep_largest(delta: &mut [f32], keep: usize) {
    if keep >= delta.len() {
        return;
    }
    if keep == 0 {
        delta.fill(0.0);
        return;
    }
    let mut magnitudes: Vec<f32> = delta.iter().map(|value| value.abs()).collect();
    let (_, threshold, _) = magnitudes.select_nth_unstable_by(keep - 1, |a, b| b.total_cmp(a));
    let threshold = *threshold;
    let mut equal = keep - delta.iter().filter(|value| value.abs() > threshold).count();
    for value in delta {
        let magnitude = value.abs();
        if magnitude < threshold || (magnitude == threshold && equal == 0) {
            *value = 0.0;
        } else if magnitude == threshold {
            equal -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn the_largest_stay() {
        let kept = |keep| {
            let mut delta = vec![1.0, -3.0, 2.0, -2.0, 0.0];
            keep_largest(&mut delta, keep);
            delta
        };
        assert_eq!(kept(0), [0.0; 5]);
        assert_eq!(kept(2), [0.0, -3.0, 2.0, 0.0, 0.0]);
        assert_eq!(kept(3), [0.0, -3.0, 2.0, -2.0, 0.0]);
        assert_eq!(kept(9), [1.0, -3.0, 2.0, -2.0, 0.0]);
    }

    #[test]
    fn both_rescale_rules_keep_what_they_say() {
        let base = vec![0.0; 4000];
        let model: Vec<f32> = (0..4000).map(|i| (i % 7) as f32 - 2.5).collect();
        let l1 = |values: &[f32]| values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
        let with = |rescale, norm| run("dare_linear", &base, &[&model], &[("density", 0.25), ("rescale", rescale), ("rescale_norm", norm)]);
        let (plain, density, norm) = (with(0.0, 0.0), with(1.0, 0.0), with(1.0, 1.0));
        assert!(plain.iter().zip(&density).all(|(plain, density)| plain * 4.0 == *density));
        assert!((l1(&norm) / l1(&model) - 1.0).abs() < 1e-5);
        let kept = plain.iter().filter(|value| **value != 0.0).count() as f64 / 4000.0;
        assert!((kept - 0.25).abs() < 0.03, "{kept}");
        assert_eq!(with(1.0, 0.0), density);
    }
}
