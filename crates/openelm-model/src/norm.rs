//! Root-mean-square norm as OpenELM has it (CoreNet `layers/normalization/rms_norm.py`): x · rsqrt(mean(x²) + 1e-6) in
//! f32, cast back to x's type, then times the weight.

use burn::tensor::{DType, Tensor};

const EPSILON: f32 = 1e-6;

/// The norm over the last dimension, with its weight.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[width]`
    pub weight: Tensor<1>,
}

impl RmsNorm {
    /// The same norm with a weight that autodiff tracks.
    pub fn tracked(&self) -> Self {
        Self { weight: self.weight.clone().autodiff().require_grad() }
    }

    /// Norms `x` [.., width] over its last dimension.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        let x = if dtype == DType::F32 { x } else { x.cast(DType::F32) };
        let scale = x.clone().square().mean_dim(D - 1).add_scalar(EPSILON).sqrt().recip();
        let normed = x * scale;
        let normed = if dtype == DType::F32 { normed } else { normed.cast(dtype) };
        normed * self.weight.clone().unsqueeze::<D>()
    }
}
