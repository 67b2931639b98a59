//! Between the mean of the models and the base, as far as the angle between their differences says (Jang et al., Model stock):
//! with N models whose differences from the base have the mean cosine c, the mean weighs t = N c / (1 + (N - 1) c).

use super::sums::{dot, weighted_sum};
use super::task_vectors::TaskVectors;
use super::{Fault, Inputs};

pub(super) fn merge(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    let deltas = TaskVectors::of(inputs).into_inner();
    let count = deltas.len() as f64;
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (i, a) in deltas.iter().enumerate() {
        for b in deltas.iter().skip(i + 1) {
            let norms = (dot(a, a) * dot(b, b)).sqrt();
            // A model that is the base agrees with any other.
            sum += if norms > 0.0 { dot(a, b) / norms } else { 1.0 };
            pairs += 1.0;
        }
    }
    let cosine: f64 = sum / pairs;
    let t = count * cosine / (1.0 + (count - 1.0) * cosine);
    if !t.is_finite() {
        return Err((format!("the differences' mean cosine is {cosine}, which leaves no ratio"), "use linear for this model"));
    }
    let terms: Vec<_> = inputs.tensors.iter().map(|tensor| (t / count, *tensor)).chain([(1.0 - t, inputs.base)]).collect();
    Ok(weighted_sum(None, &terms, inputs.base.len()))
}
