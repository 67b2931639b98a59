//! The gradients of one update: one flat tensor a parameter, in the model's order, added up over micro-batches.
//!
//! What must stay true: everything that looks at gradients as a whole (the sum over micro-batches, the norm, clipping) is here,
//! so that gradients of several ranks can be added in this one place.

use burn::tensor::Tensor;
use openelm_model::{ModelError, ParameterInfo};

/// Added to the norm before the division, as in PyTorch's `clip_grad_norm_`.
const CLIP_EPSILON: f64 = 1e-6;

/// One gradient a parameter.
#[derive(Debug)]
pub struct Gradients {
    tensors: Vec<Option<Tensor<1>>>,
}

impl Gradients {
    /// No gradients yet, for so many parameters.
    pub fn new(parameters: usize) -> Self {
        Self { tensors: vec![None; parameters] }
    }

    /// Adds `gradient` (any shape) to that of parameter `index`.
    pub fn add<const D: usize>(&mut self, index: usize, gradient: Tensor<D>) {
        let count = gradient.dims().iter().product::<usize>();
        let gradient = gradient.reshape([count]);
        let Some(slot) = self.tensors.get_mut(index) else { return };
        *slot = Some(match slot.take() {
            None => gradient,
            Some(sum) => sum + gradient,
        });
    }

    /// The gradient of parameter `index`, if it has any.
    pub fn get(&self, index: usize) -> Option<&Tensor<1>> {
        self.tensors.get(index)?.as_ref()
    }

    /// Takes the gradient of parameter `index` out.
    pub fn take(&mut self, index: usize) -> Option<Tensor<1>> {
        self.tensors.get_mut(index)?.take()
    }

    /// The Euclidean norm over all parameters. Each tensor's sum of squares is f32 on the device, their sum f64.
    ///
    /// # Errors
    /// When the device fails.
    pub fn norm(&self, infos: &[ParameterInfo]) -> Result<f64, ModelError> {
        let mut sum = 0.0;
        for (tensor, info) in self.tensors.iter().zip(infos) {
            if let Some(tensor) = tensor {
                let square = tensor.clone().square().sum().try_into_scalar::<f32>();
                let square = square
                    .map_err(|error| ModelError::Read { name: format!("the gradient of {}", info.name), reason: format!("{error:?}") })?;
                sum += f64::from(square);
            }
        }
        Ok(sum.sqrt())
    }
}

/// The factor that brings a gradient of this norm to at most `limit`; 1 when `limit` is 0 (no clipping).
pub fn clip_factor(norm: f64, limit: f64) -> f64 {
    if limit > 0.0 { (limit / (norm + CLIP_EPSILON)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn norm_is_over_all_and_clipping_reaches_the_limit() {
        let device = Device::flex();
        let mut gradients = Gradients::new(3);
        gradients.add(0, Tensor::<1>::from_floats([3.0, 0.0], &device));
        gradients.add(2, Tensor::<2>::from_floats([[1.0, 1.0]], &device));
        gradients.add(2, Tensor::<2>::from_floats([[-1.0, 3.0]], &device));
        let info = |name: &str| ParameterInfo { name: name.into(), shape: vec![2] };
        let norm = gradients.norm(&[info("a"), info("b"), info("c")]).unwrap();
        assert_eq!(norm, 5.0);
        assert!((clip_factor(norm, 1.0) * norm - 1.0).abs() < 1e-6);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert_eq!(clip_factor(norm, 0.0), 1.0);
    }
}
