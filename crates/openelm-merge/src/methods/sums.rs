//! Weighted sums over whole tensors, on all cores, and norms in f64.

use rayon::prelude::*;

/// Elements that one thread works on at a time: what fits into its cache beside the inputs.
const CHUNK: usize = 1 << 14;

/// base + Σ weight · tensor, element by element; the sum is in f64, so that the order of the models does not show.
pub(super) fn weighted_sum(base: Option<&[f32]>, terms: &[(f64, &[f32])], len: usize) -> Vec<f32> {
    let mut out = vec![0.0_f32; len];
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(number, out)| {
        let start = number * CHUNK;
        let mut sums = vec![0.0_f64; out.len()];
        if let Some(base) = base {
            sums.iter_mut().zip(base.iter().skip(start)).for_each(|(sum, value)| *sum = f64::from(*value));
        }
        for (weight, tensor) in terms {
            sums.iter_mut().zip(tensor.iter().skip(start)).for_each(|(sum, value)| *sum += weight * f64::from(*value));
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
    });
    out
}

/// Σ a · b. Chunks of fixed size are added in order, so the number of threads does not show.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let parts: Vec<f64> = a
        .par_chunks(CHUNK)
        .zip(b.par_chunks(CHUNK))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
        .collect();
    parts.iter().sum()
}

/// What a sum of weights divides by: itself, or 1 where it is next to nothing.
pub(super) fn divisor(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    if sum.abs() < 1e-8 { 1.0 } else { sum }
}
