//! CoreNet's .pt files: weights (`checkpoint_last.pt`), and a checkpoint that its trainer resumes from (`training_checkpoint_last.pt`).
//!
//! What must stay true: tensors come in the order of CoreNet's modules, in which the optimizer numbers them: those with weight decay
//! first, then the others; nothing is left out that `corenet.utils.checkpoint_utils` reads.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use openelm_checkpoint::{Checkpoint, ModelError, OpenElm, ParameterInfo, Weights, corenet_module_order, moment_name, refuse_existing};
use openelm_formats::{DType, PickleValue, StoredTensor, write_torch};

use crate::error::ExportError;
use crate::settings::ExportDtype;

/// What CoreNet's trainer keeps of a run beside its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoreNetTraining {
    pub weight_decay: f64,
    /// Norms do not decay.
    pub no_decay_1d: bool,
    pub betas: (f64, f64),
    pub eps: f64,
    /// Learning rate of the last update.
    pub learning_rate: f64,
}

/// The moments' names in PyTorch.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// Writes the weights alone to the new file `out`.
///
/// # Errors
/// When `out` exists, or reading or writing fails.
pub fn export_corenet(weights: &Weights, dtype: Option<ExportDtype>, out: &Path) -> Result<(), ExportError> {
    refuse_existing(out)?;
    let infos = OpenElm::infos_of(weights.config())?;
    // CoreNet loads into f32 parameters whatever the file has, so nothing is lost unless asked for.
    let dtype = dtype.unwrap_or(ExportDtype::F32).stored();
    let root = state_dict(&infos, dtype);
    let by_name = by_name(&infos);
    write_torch(out, &root, |tensor| -> Result<Vec<u8>, ExportError> { Ok(weights.bytes(found(&by_name, &tensor.storage)?, dtype)?) })
}

/// Writes weights, optimizer state and counters of a checkpoint to the new file `out`, so that CoreNet goes on from there.
///
/// # Errors
/// When `out` exists, the checkpoint has no optimizer state, or reading or writing fails.
pub fn export_corenet_training(
    weights: &Weights,
    checkpoint: &Checkpoint,
    training: &CoreNetTraining,
    out: &Path,
) -> Result<(), ExportError> {
    refuse_existing(out)?;
    let infos = OpenElm::infos_of(weights.config())?;
    let optimizer = checkpoint.optimizer()?;
    let step = checkpoint.manifest().step;
    let iterations = i64::try_from(step).map_err(|_| ExportError::CoreNet {
        reason: format!("its step {step} is no number of CoreNet's"),
        hint: "export the weights alone, without --training",
    })?;
    let (decaying, others): (Vec<&ParameterInfo>, Vec<_>) =
        corenet_module_order(&infos).into_iter().partition(|info| info.decays() || !training.no_decay_1d);
    let state = decaying.iter().chain(&others).zip(0..).map(|(info, id)| (PickleValue::Int(id), parameter_state(info)));
    let first_of_others = decaying.len() as i64;
    let groups = [(training.weight_decay, 0..first_of_others), (0.0, first_of_others..first_of_others + others.len() as i64)];
    let groups = groups.into_iter().filter(|(_, ids)| !ids.is_empty()).map(|(decay, ids)| group(training, decay, ids));
    let root = dict([
        ("iterations", PickleValue::Int(iterations)),
        ("epoch", PickleValue::Int(0)),
        ("model_state_dict", state_dict(&infos, DType::F32)),
        ("optim_state_dict", dict([("state", PickleValue::Dict(state.collect())), ("param_groups", PickleValue::List(groups.collect()))])),
        ("best_metric", PickleValue::Float(0.0)),
        ("is_interval_ckpt", PickleValue::Bool(false)),
        ("gradient_scaler_state_dict", dict([])),
    ]);
    let by_name = by_name(&infos);
    write_torch(out, &root, |tensor| -> Result<Vec<u8>, ExportError> {
        match tensor.storage.split_once(':') {
            None => Ok(weights.bytes(found(&by_name, &tensor.storage)?, DType::F32)?),
            // The number of updates, which PyTorch keeps as a float of its own for each parameter.
            Some(("step", _)) => Ok((step as f32).to_le_bytes().to_vec()),
            Some((kind, name)) => Ok(optimizer.bytes(&moment_name(kind, name))?),
        }
    })
}

fn by_name(infos: &[ParameterInfo]) -> HashMap<&str, &ParameterInfo> {
    infos.iter().map(|info| (&*info.name, info)).collect()
}

fn found<'a>(by_name: &HashMap<&str, &'a ParameterInfo>, name: &str) -> Result<&'a ParameterInfo, ExportError> {
    by_name.get(name).copied().ok_or_else(|| ExportError::Model(ModelError::Missing { name: name.to_owned() }))
}

fn text(text: &str) -> PickleValue {
    PickleValue::Str(text.into())
}

fn dict<const N: usize>(pairs: [(&str, PickleValue); N]) -> PickleValue {
    PickleValue::Dict(pairs.map(|(key, value)| (text(key), value)).into())
}

fn tensor(storage: impl Into<Arc<str>>, dtype: DType, shape: &[usize]) -> PickleValue {
    PickleValue::Tensor(Box::new(StoredTensor::contiguous(storage, dtype, shape)))
}

/// The model's dict; each tensor's storage is called after the parameter.
fn state_dict(infos: &[ParameterInfo], dtype: DType) -> PickleValue {
    let pairs = corenet_module_order(infos).into_iter().map(|info| (text(&info.name), tensor(&*info.name, dtype, &info.shape)));
    PickleValue::OrderedDict(pairs.collect())
}

/// AdamW's state of one parameter; storages are called KIND:PARAMETER.
fn parameter_state(info: &ParameterInfo) -> PickleValue {
    let moments = MOMENTS.map(|kind| (text(kind), tensor(format!("{kind}:{}", info.name), DType::F32, &info.shape)));
    let step = (text("step"), tensor(format!("step:{}", info.name), DType::F32, &[]));
    PickleValue::Dict(std::iter::once(step).chain(moments).collect())
}

/// AdamW's settings for the parameters with these numbers: every key that PyTorch's `AdamW.load_state_dict` restores.
fn group(training: &CoreNetTraining, decay: f64, ids: std::ops::Range<i64>) -> PickleValue {
    let (first, second) = training.betas;
    dict([
        ("weight_decay", PickleValue::Float(decay)),
        ("lr", PickleValue::Float(training.learning_rate)),
        ("betas", PickleValue::Tuple(vec![PickleValue::Float(first), PickleValue::Float(second)])),
        ("eps", PickleValue::Float(training.eps)),
        ("amsgrad", PickleValue::Bool(false)),
        ("maximize", PickleValue::Bool(false)),
        ("foreach", PickleValue::None),
        ("capturable", PickleValue::Bool(false)),
        ("differentiable", PickleValue::Bool(false)),
        ("fused", PickleValue::None),
        ("decoupled_weight_decay", PickleValue::Bool(true)),
        ("params", PickleValue::List(ids.map(PickleValue::Int).collect())),
    ])
}
