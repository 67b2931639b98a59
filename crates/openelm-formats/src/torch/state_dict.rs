//! The weights inside a `.pt` file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use super::file::TorchFile;
use super::value::{PickleValue, StoredTensor};
use crate::dtype::TensorInfo;
use crate::error::FormatError;
use crate::source::TensorSource;

/// Where CoreNet's training checkpoints keep the model.
const MODEL_KEY: &str = "model_state_dict";

/// A dict of tensors by name, in the order of the dict. Names are as in the file.
pub struct StateDict {
    file: TorchFile,
    infos: Vec<TensorInfo>,
    tensors: Vec<StoredTensor>,
    places: HashMap<String, usize>,
}

impl StateDict {
    pub(super) fn find(file: &TorchFile) -> Result<Self, FormatError> {
        let root = file.root();
        let missing = |found: String| {
            let reason = format!("no state dict: the saved value is {found}");
            let hint = format!("save model.state_dict(), or a dict that holds it under {MODEL_KEY:?}");
            FormatError::unsupported(file.path(), "data.pkl", reason, hint)
        };
        let pairs = root.pairs().ok_or_else(|| missing(format!("of type {}", root.kind())))?;
        if let Some(model) = root.get(MODEL_KEY) {
            let pairs = model.pairs().ok_or_else(|| missing(format!("a dict whose {MODEL_KEY} is of type {}", model.kind())))?;
            return Self::from_pairs(file, pairs);
        }
        if !pairs.iter().any(|(_, value)| value.as_tensor().is_some()) {
            let keys: Vec<_> = pairs.iter().filter_map(|(key, _)| key.as_str()).take(8).collect();
            return Err(missing(format!("a dict without tensors; its first keys: {}", keys.join(", "))));
        }
        Self::from_pairs(file, pairs)
    }

    fn from_pairs(file: &TorchFile, pairs: &[(PickleValue, PickleValue)]) -> Result<Self, FormatError> {
        let mut weights = Self { file: file.clone(), infos: Vec::new(), tensors: Vec::new(), places: HashMap::new() };
        for (key, value) in pairs {
            let damaged = |reason: String| FormatError::damaged(file.path(), "state dict", reason);
            let name = key.as_str().ok_or_else(|| damaged(format!("a key is of type {}, not a string", key.kind())))?;
            let tensor = value.as_tensor().ok_or_else(|| damaged(format!("{name:?} is of type {}, not a tensor", value.kind())))?;
            if weights.places.insert(name.to_owned(), weights.infos.len()).is_some() {
                return Err(damaged(format!("the name {name:?} comes twice")));
            }
            weights.infos.push(TensorInfo::new(name, tensor.dtype, tensor.shape.clone()));
            weights.tensors.push(tensor.clone());
        }
        Ok(weights)
    }
}

impl TensorSource for StateDict {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, FormatError> {
        let tensor = self.places.get(name).and_then(|place| self.tensors.get(*place));
        self.file.tensor_bytes(tensor.ok_or_else(|| FormatError::no_tensor(self.path(), name))?)
    }

    fn release(&self, name: &str) {
        if let Some(tensor) = self.places.get(name).and_then(|place| self.tensors.get(*place)) {
            self.file.release(tensor);
        }
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.places.get(name).and_then(|place| self.infos.get(*place))
    }
}
