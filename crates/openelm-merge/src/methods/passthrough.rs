//! A layer as it is, or times `scale`.

use super::{Fault, Inputs};

pub(super) fn merge(inputs: &Inputs<'_>) -> Result<Vec<f32>, Fault> {
    let scale = inputs.of_each("scale").first().copied().unwrap_or(1.0);
    let tensor = inputs.tensors.first().copied().unwrap_or_default();
    Ok(if scale == 1.0 { tensor.to_vec() } else { tensor.iter().map(|value| (scale * f64::from(*value)) as f32).collect() })
}
