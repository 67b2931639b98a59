//! The gradients of one update on a burn device: one flat tensor a parameter, in the model's order, added up over micro-batches.
//!
//! What must stay true: a parameter that no micro-batch has given a gradient has none, not zeros.

use burn::tensor::Tensor;
use openelm_model::{ModelError, ParameterInfo};

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

    /// Drops them all.
    pub fn clear(&mut self) {
        self.tensors.fill(None);
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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn norm_is_over_all_parameters() {
        let device = Device::flex();
        let mut gradients = Gradients::new(3);
        gradients.add(0, Tensor::<1>::from_floats([3.0, 0.0], &device));
        gradients.add(2, Tensor::<2>::from_floats([[1.0, 1.0]], &device));
        gradients.add(2, Tensor::<2>::from_floats([[-1.0, 3.0]], &device));
        let info = |name: &str| ParameterInfo { name: name.into(), shape: vec![2] };
        let norm = gradients.norm(&[info("a"), info("b"), info("c")]).unwrap();
        assert_eq!(norm, 5.0);
    }
}
