//! The model's parameters as a flat, named list: what optimizers, checkpoints and exporters walk over.
//!
//! What must stay true: names are CoreNet's, the order never changes (optimizer state is kept by position), and a tied
//! embedding appears once.

use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::{LayerShape, ModelConfig, ModelError, storage::plain};

/// Name and shape of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// CoreNet's name, such as `layers.0.attn.qkv_proj.weight`.
    pub name: String,
    pub shape: Vec<usize>,
}

impl ParameterInfo {
    /// Number of values.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether weight decay applies: to matrices, not to norms (CoreNet `no_decay_bn_filter_bias`).
    pub fn decays(&self) -> bool {
        self.shape.len() > 1
    }

    pub(crate) fn check(&self, found: &[usize]) -> Result<(), ModelError> {
        if found == self.shape {
            return Ok(());
        }
        Err(ModelError::Shape { name: self.name.clone(), found: found.to_vec(), needed: self.shape.clone() })
    }
}

/// All parameters of `config`, in their fixed order.
///
/// # Errors
/// When the configuration is impossible.
pub(crate) fn parameter_infos(config: &ModelConfig) -> Result<Vec<ParameterInfo>, ModelError> {
    let model_dim = config.model_dim;
    let mut infos = Vec::new();
    let mut push = |name: String, shape: Vec<usize>| infos.push(ParameterInfo { name, shape });
    push("token_embeddings.weight".into(), vec![config.vocab_size, model_dim]);
    for (index, layer) in config.layers()?.iter().enumerate() {
        let name = |tail: &str| format!("layers.{index}.{tail}.weight");
        push(name("attn_norm"), vec![model_dim]);
        push(name("attn.qkv_proj"), vec![layer.qkv_dim(), model_dim]);
        if config.normalize_qk_projections {
            push(name("attn.q_norm"), vec![config.head_dim]);
            push(name("attn.k_norm"), vec![config.head_dim]);
        }
        push(name("attn.out_proj"), vec![model_dim, layer.query_dim()]);
        push(name("ffn_norm"), vec![model_dim]);
        push(name("ffn.proj_1"), vec![first_ffn_rows(config, layer), model_dim]);
        push(name("ffn.proj_2"), vec![model_dim, layer.ffn_dim]);
    }
    push("norm.weight".into(), vec![model_dim]);
    if !config.share_input_output_layers {
        push("classifier.weight".into(), vec![config.vocab_size, model_dim]);
    }
    Ok(infos)
}

/// Rows of `proj_1`: gate and up together when gated.
pub(crate) fn first_ffn_rows(config: &ModelConfig, layer: &LayerShape) -> usize {
    if config.ffn_with_glu { 2 * layer.ffn_dim } else { layer.ffn_dim }
}

/// A place that holds a parameter, of either rank.
pub enum Parameter<'a> {
    Vector(&'a mut Tensor<1>),
    Matrix(&'a mut Tensor<2>),
}

impl Parameter<'_> {
    /// The values as one row, sharing memory.
    pub fn flat(&self) -> Tensor<1> {
        match self {
            Self::Vector(tensor) => (**tensor).clone(),
            Self::Matrix(tensor) => {
                let [rows, columns] = tensor.dims();
                (**tensor).clone().reshape([rows * columns])
            }
        }
    }

    /// The values on the host, in f32; `info` names them in errors.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(&self, info: &ParameterInfo) -> Result<Vec<f32>, ModelError> {
        let values = match self {
            Self::Vector(tensor) => (**tensor).clone().try_into_vec_as::<f32>(),
            Self::Matrix(tensor) => plain(tensor).try_into_vec_as::<f32>(),
        };
        values.map_err(|error| ModelError::Read { name: info.name.clone(), reason: format!("{error:?}") })
    }

    /// Takes this parameter's gradient, as one row, out of what a backward pass found.
    pub fn take_gradient(&self, found: &mut Gradients) -> Option<Tensor<1>> {
        match self {
            Self::Vector(tensor) => tensor.grad_remove(found),
            Self::Matrix(tensor) => {
                let [rows, columns] = tensor.dims();
                Some(tensor.grad_remove(found)?.reshape([rows * columns]))
            }
        }
    }

    /// Takes the values out as one row, leaving nothing behind, so that they can be changed in place and [`put`](Self::put) back.
    pub fn take(&mut self) -> Tensor<1> {
        let flat = self.flat();
        match self {
            Self::Vector(tensor) => **tensor = Tensor::empty([0], &flat.device()),
            Self::Matrix(tensor) => **tensor = Tensor::empty([0, 0], &flat.device()),
        }
        flat
    }

    /// Stores `flat` in the parameter's `shape`.
    pub fn put(&mut self, flat: Tensor<1>, shape: &[usize]) {
        match (self, shape) {
            (Self::Vector(tensor), _) => **tensor = flat,
            (Self::Matrix(tensor), shape) => **tensor = flat.reshape([shape[0], shape[1]]),
        }
    }
}

/// Puts host values on a device as one row.
pub(crate) fn upload(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
