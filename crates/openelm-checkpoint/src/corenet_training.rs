//! The optimizer state in a training checkpoint of CoreNet's.
//!
//! What must stay true: PyTorch numbers the parameters, those with weight decay first; the numbers are given to names by CoreNet's
//! module order, and every shape is compared, so that a moment never meets another parameter.

use std::collections::BTreeMap;
use std::path::Path;

use openelm_formats::{PickleValue, StoredTensor, TorchFile};
use openelm_model::{ModelConfig, OpenElm, ParameterInfo};

use crate::error::CheckpointError;
use crate::names::corenet_module_order;

/// PyTorch's names of the two moments.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// An opened `training_checkpoint_*.pt`.
pub struct CoreNetTrainingFile {
    file: TorchFile,
    iterations: u64,
    /// First and second moment by CoreNet's name of the parameter.
    moments: BTreeMap<String, [StoredTensor; 2]>,
}

impl CoreNetTrainingFile {
    /// Opens the file of a model of `config`. `no_decay_1d`: vectors have no weight decay (`optim.no_decay_bn_filter_bias`).
    ///
    /// # Errors
    /// When the file is no such checkpoint, or one of another model or another optimizer.
    pub fn open(path: &Path, config: &ModelConfig, no_decay_1d: bool) -> Result<Self, CheckpointError> {
        let file = TorchFile::open(path)?;
        let fault = |reason: String| CheckpointError::NoWeights {
            path: path.to_owned(),
            reason,
            hint: "give CoreNet's training_checkpoint_*.pt of a run with AdamW, and that run's configuration".into(),
        };
        let infos = OpenElm::infos_of(config).map_err(|source| CheckpointError::Model { path: path.to_owned(), source })?;
        let root = file.root();
        let iterations = root.get("iterations").and_then(PickleValue::as_int).and_then(|number| u64::try_from(number).ok());
        let iterations = iterations.ok_or_else(|| fault("it holds no number of iterations, so it is no training checkpoint".into()))?;
        let optimizer = root.get("optim_state_dict").ok_or_else(|| fault("it holds no optimizer state".into()))?;
        let groups = optimizer.get("param_groups").and_then(PickleValue::items).unwrap_or_default();
        let mut ids = Vec::new();
        for group in groups {
            let group = group.get("params").and_then(PickleValue::items).unwrap_or_default();
            ids.extend(group.iter().filter_map(PickleValue::as_int));
        }
        let (decaying, others): (Vec<&ParameterInfo>, Vec<_>) =
            corenet_module_order(&infos).into_iter().partition(|info| info.decays() || !no_decay_1d);
        if ids.len() != infos.len() || groups.len() != [decaying.len(), others.len()].iter().filter(|count| **count > 0).count() {
            let reason = format!("its optimizer has {} parameters in {} groups, the model {}", ids.len(), groups.len(), infos.len());
            return Err(fault(reason));
        }
        let mut moments = BTreeMap::new();
        for (info, id) in decaying.into_iter().chain(others).zip(ids) {
            let state = optimizer.get("state").and_then(|state| state.get_int(id));
            let state = state.ok_or_else(|| fault(format!("its optimizer has no state for {}, number {id}", info.name)))?;
            let tensor = |kind: &str| {
                let tensor = state.get(kind).and_then(PickleValue::as_tensor);
                let tensor = tensor.ok_or_else(|| fault(format!("its optimizer has no {kind} for {}", info.name)))?;
                match tensor.shape == info.shape {
                    true => Ok(tensor.clone()),
                    false => Err(fault(format!("{kind} of {} has the shape {:?}, not {:?}", info.name, tensor.shape, info.shape))),
                }
            };
            let [first, second] = MOMENTS;
            moments.insert(info.name.clone(), [tensor(first)?, tensor(second)?]);
        }
        Ok(Self { file, iterations, moments })
    }

    /// Updates done.
    pub fn iterations(&self) -> u64 {
        self.iterations
    }

    /// The values of a moment, `exp_avg` or `exp_avg_sq`, of a parameter.
    ///
    /// # Errors
    /// When the file breaks.
    pub fn moment(&self, info: &ParameterInfo, kind: &str) -> Result<Vec<f32>, CheckpointError> {
        let place = MOMENTS.iter().position(|known| *known == kind);
        let tensor = self.moments.get(&info.name).zip(place).and_then(|(both, place)| both.get(place));
        let missing = || openelm_model::ModelError::Missing { name: format!("{kind} of {}", info.name) };
        let tensor = tensor.ok_or_else(|| CheckpointError::Model { path: self.file.path().to_owned(), source: missing() })?;
        let values = self.file.tensor_f32(tensor)?;
        self.file.release(tensor);
        Ok(values)
    }
}
