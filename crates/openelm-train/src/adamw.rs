//! AdamW with decoupled weight decay, PyTorch's formula: p ← p (1 - lr · decay), then
//! p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps).
//!
//! What must stay true: weights and both moments are f32 and changed in place of the model's tensors; weight decay applies to
//! matrices only (unless asked otherwise); a parameter without a gradient is left alone, as PyTorch does.

use burn::tensor::{Device, Tensor, TensorData};
use openelm_model::{ModelError, OpenElm, ParameterInfo};
use serde::{Deserialize, Serialize};

use crate::engine::Update;
use crate::error::TrainError;
use crate::gradients::Gradients;

/// AdamW's constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Vectors (norm weights) do not decay.
    pub no_decay_1d: bool,
}

impl AdamWConfig {
    /// The weight decay of one parameter.
    pub(crate) fn decay_of(&self, info: &ParameterInfo) -> f64 {
        if info.decays() || !self.no_decay_1d { self.weight_decay } else { 0.0 }
    }
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { weight_decay: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, no_decay_1d: true }
    }
}

/// The two moments of each parameter, one flat tensor each.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    moments: Vec<(Tensor<1>, Tensor<1>)>,
}

impl AdamW {
    /// Moments of zero for every parameter of `model` that is trained.
    pub fn new(config: AdamWConfig, model: &OpenElm) -> Self {
        let zeros = |info: &ParameterInfo| Tensor::zeros([info.count()], model.device());
        Self { config, moments: model.trained_infos().iter().map(|info| (zeros(info), zeros(info))).collect() }
    }

    /// Saved moments; `read` is asked for `exp_avg` and `exp_avg_sq` of each parameter in turn.
    ///
    /// # Errors
    /// When `read` fails or gives another number of values than the parameter has.
    pub fn restore<E: From<TrainError>>(
        config: AdamWConfig,
        model: &OpenElm,
        mut read: impl FnMut(&ParameterInfo, &'static str) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let mut moments = Vec::with_capacity(model.trained_infos().len());
        for info in model.trained_infos() {
            let mut moment = |kind: &'static str| -> Result<Tensor<1>, E> {
                let values = read(info, kind)?;
                if values.len() != info.count() {
                    let reason = format!("{kind} of {} has {} values, the parameter {}", info.name, values.len(), info.count());
                    return Err(TrainError::Optimizer { reason }.into());
                }
                Ok(from_host(values, model.device()))
            };
            moments.push((moment(MOMENTS[0])?, moment(MOMENTS[1])?));
        }
        Ok(Self { config, moments })
    }

    /// Copies the moments to the host, one at a time, in the order of `infos` (those of the model that are trained).
    ///
    /// # Errors
    /// When the device fails, or `keep` does.
    pub fn read<E: From<ModelError>>(
        &self,
        infos: &[ParameterInfo],
        mut keep: impl FnMut(&ParameterInfo, &'static str, Vec<f32>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (info, (first, second)) in infos.iter().zip(&self.moments) {
            for (kind, tensor) in MOMENTS.into_iter().zip([first, second]) {
                let values = tensor
                    .try_to_vec_as::<f32>()
                    .map_err(|error| ModelError::Read { name: format!("{kind} of {}", info.name), reason: format!("{error:?}") })?;
                keep(info, kind, values)?;
            }
        }
        Ok(())
    }

    /// The constants.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// Both moments of parameter number `index`.
    pub(crate) fn moments_mut(&mut self, index: usize) -> Option<&mut (Tensor<1>, Tensor<1>)> {
        self.moments.get_mut(index)
    }

    /// One update with burn's operations.
    pub(crate) fn update(&mut self, model: &mut OpenElm, mut gradients: Gradients, update: &Update) {
        let &Update { step, learning_rate: rate, factor } = update;
        let AdamWConfig { beta1, beta2, eps, .. } = self.config;
        let exponent = step.min(i32::MAX as u64) as i32;
        let (correction1, correction2) = (1.0 - beta1.powi(exponent), 1.0 - beta2.powi(exponent));
        let infos = model.trained_infos().to_vec();
        for (index, (info, mut parameter)) in infos.iter().zip(model.trained_mut()).enumerate() {
            let (Some(gradient), Some(slot)) = (gradients.take(index), self.moments.get_mut(index)) else { continue };
            // Taken out, the old moments and values have one owner, so the device can change them in place.
            let empty = || Tensor::empty([0], &gradient.device());
            let (first, second) = std::mem::replace(slot, (empty(), empty()));
            let gradient = if factor == 1.0 { gradient } else { gradient.mul_scalar(factor) };
            let first = first.mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
            let second = second.mul_scalar(beta2) + gradient.square().mul_scalar(1.0 - beta2);
            let decay = self.config.decay_of(info);
            let values = parameter.take();
            let values = if decay == 0.0 { values } else { values.mul_scalar(1.0 - rate * decay) };
            let scale = second.clone().sqrt().div_scalar(correction2.sqrt()).add_scalar(eps);
            let values = values - (first.clone() / scale).mul_scalar(rate / correction1);
            parameter.put(values, &info.shape);
            *slot = (first, second);
        }
    }
}

/// PyTorch's names of the two moments.
pub const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

fn from_host(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

#[cfg(test)]
mod tests {
    use openelm_model::preset;

    use super::*;

    /// The textbook update in f64.
    fn reference(p: f64, gradients: &[f64], rate: f64, decay: f64, config: &AdamWConfig) -> f64 {
        let (mut p, mut m, mut v) = (p, 0.0, 0.0);
        for (t, g) in (1..).zip(gradients) {
            p *= 1.0 - rate * decay;
            m = config.beta1 * m + (1.0 - config.beta1) * g;
            v = config.beta2 * v + (1.0 - config.beta2) * g * g;
            let (m_hat, v_hat) = (m / (1.0 - config.beta1.powi(t)), v / (1.0 - config.beta2.powi(t)));
            p -= rate * m_hat / (v_hat.sqrt() + config.eps);
        }
        p
    }

    #[test]
    fn follows_the_formula_and_spares_norms_from_decay() {
        let mut config = preset("gpt-test").unwrap();
        config.vocab_size = 5;
        let device = Device::flex();
        let mut model = OpenElm::init(&config, 3, &device).unwrap();
        let settings = AdamWConfig::default();
        let mut optimizer = AdamW::new(settings, &model);
        let mut before = Vec::new();
        model
            .read_parameters::<ModelError>(|_, values| {
                before.push(values);
                Ok(())
            })
            .unwrap();
        let steps = [0.5, -2.0, 0.125];
        for (step, value) in (1..).zip(steps) {
            let mut gradients = Gradients::new(before.len());
            for (index, values) in before.iter().enumerate().skip(1) {
                gradients.add(index, Tensor::<1>::full([values.len()], value * 2.0, &device));
            }
            optimizer.update(&mut model, gradients, &Update { step, learning_rate: 0.01, factor: 0.5 });
        }
        let infos = model.infos().to_vec();
        let mut index = 0;
        model
            .read_parameters::<ModelError>(|info, values| {
                for (new, old) in values.iter().zip(&before[index]) {
                    let decay = if info.decays() { 0.1 } else { 0.0 };
                    let expected = if index == 0 { f64::from(*old) } else { reference(f64::from(*old), &steps, 0.01, decay, &settings) };
                    assert!((f64::from(*new) - expected).abs() < 1e-6, "{}: {new} {expected}", info.name);
                }
                index += 1;
                Ok(())
            })
            .unwrap();
        let mut kept = 0;
        optimizer
            .read::<ModelError>(&infos, |info, _, values| {
                kept += values.len() / info.count();
                Ok(())
            })
            .unwrap();
        assert_eq!(kept, 2 * infos.len());
    }
}
