//! The weighted mean (Wortsman et al., Model soups), or with `normalize: false` the weighted sum.

use super::sums::{divisor, weighted_sum};
use super::{Fault, Inputs};

pub(super) fn merge(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    let weights = inputs.of_each("weight");
    let scale = if inputs.whole.is_set("normalize") { 1.0 / divisor(&weights) } else { 1.0 };
    let terms: Vec<_> = weights.iter().map(|weight| weight * scale).zip(inputs.tensors.iter().copied()).collect();
    Ok(weighted_sum(None, &terms, inputs.tensors.first().map_or(0, |tensor| tensor.len())))
}
