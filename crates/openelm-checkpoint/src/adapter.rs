//! An adapter on disk, in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`. What the configuration means is not
//! this crate's matter.
//!
//! What must stay true: tensors have PEFT's names on disk (`base_model.model.` and Hugging Face's name of the module) and CoreNet's in
//! memory; the tensors of a file are exactly those that were asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use openelm_formats::{DType, Safetensors, SafetensorsWriter, TensorInfo, TensorSource, encode_f32};
use openelm_model::ParameterInfo;

use crate::error::CheckpointError;
use crate::folder::{is_run, newest_path};
use crate::names::{corenet_name, hf_name};

/// The tensors of an adapter.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// What the adapter changes, and how.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

const PREFIX: &str = "base_model.model.";

/// PEFT's name of an adapter's tensor.
pub fn peft_name(corenet: &str) -> String {
    format!("{PREFIX}{}", hf_name(corenet))
}

/// The folder that holds the adapter at `path`: the path itself, or the newest checkpoint of the run there; `None` where there is no
/// adapter.
///
/// # Errors
/// When a run's folder cannot be listed.
pub fn adapter_folder(path: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let folder = if is_run(path) { newest_path(path)? } else { Some(path.to_owned()) };
    Ok(folder.filter(|folder| folder.join(ADAPTER_CONFIG).is_file()))
}

/// The tensors of an adapter, mapped.
pub struct AdapterTensors {
    path: PathBuf,
    source: Safetensors,
    /// CoreNet's name to the file's.
    names: BTreeMap<String, String>,
}

impl AdapterTensors {
    /// Opens the tensors in `folder` and checks that they are exactly `infos`.
    ///
    /// # Errors
    /// When the file is missing or damaged, or a tensor is missing, of another shape, or without a place.
    pub fn open(folder: &Path, infos: &[ParameterInfo]) -> Result<Self, CheckpointError> {
        let path = folder.join(ADAPTER_FILE);
        let fault = |reason: String, hint: &str| CheckpointError::NoWeights { path: path.clone(), reason, hint: hint.into() };
        if !path.is_file() {
            let hint = "give the folder that PEFT's save_pretrained wrote (with safetensors), or a run that trains an adapter";
            return Err(fault("the adapter's tensors are missing".into(), hint));
        }
        let source = Safetensors::open(&path)?;
        let mut names = BTreeMap::new();
        for info in source.infos() {
            let Some(rest) = info.name.strip_prefix(PREFIX) else {
                return Err(fault(format!("tensor {} does not begin with {PREFIX}", info.name), "the file must be one of PEFT's"));
            };
            names.insert(corenet_name(rest).to_owned(), info.name.clone());
        }
        for info in infos {
            let found = names.get(&info.name).and_then(|name| source.info(name));
            let Some(found) = found else {
                let reason = format!("tensor {} is missing", peft_name(&info.name));
                return Err(fault(reason, "the adapter must be for this model and whole, as its adapter_config.json says"));
            };
            if found.shape != info.shape {
                let reason = format!("tensor {} has shape {:?}, the model and r need {:?}", found.name, found.shape, info.shape);
                return Err(fault(
                    reason,
                    "use the base model that the adapter was trained on, and leave r in adapter_config.json as it was",
                ));
            }
        }
        if let Some((_, name)) = names.iter().find(|(name, _)| !infos.iter().any(|info| info.name == **name)) {
            let reason = format!("tensor {name} has no place: target_modules does not name its module");
            return Err(fault(reason, "leave target_modules in adapter_config.json as it was"));
        }
        Ok(Self { path, source, names })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The values of a tensor.
    ///
    /// # Errors
    /// When there is no such tensor, or it holds no floats.
    pub fn values(&self, info: &ParameterInfo) -> Result<Vec<f32>, CheckpointError> {
        let name = peft_name(&info.name);
        Ok(self.source.f32(self.names.get(&info.name).unwrap_or(&name))?)
    }
}

/// Writes an adapter's tensors, f32, and its configuration into `folder`: `values` gives each of `infos` in turn to the function it
/// is called with. Gives the names of the files.
///
/// # Errors
/// When `values` or the disk fails.
pub fn write_adapter<E: From<CheckpointError>>(
    folder: &Path,
    config: &serde_json::Value,
    infos: &[ParameterInfo],
    values: impl FnOnce(&mut dyn FnMut(&ParameterInfo, &[f32]) -> Result<(), CheckpointError>) -> Result<(), E>,
) -> Result<[&'static str; 2], E> {
    let tensors: Vec<_> = infos.iter().map(|info| TensorInfo::new(peft_name(&info.name), DType::F32, info.shape.clone())).collect();
    let metadata = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
    let mut writer = SafetensorsWriter::create(&folder.join(ADAPTER_FILE), &tensors, &metadata).map_err(CheckpointError::from)?;
    values(&mut |info, values| {
        let bytes = encode_f32(values, DType::F32)?;
        Ok(writer.write(&peft_name(&info.name), &bytes)?)
    })?;
    writer.finish().map_err(CheckpointError::from)?;
    let path = folder.join(ADAPTER_CONFIG);
    std::fs::write(&path, format!("{config:#}\n")).map_err(|source| CheckpointError::io(&path, "writing it", source))?;
    Ok([ADAPTER_FILE, ADAPTER_CONFIG])
}
