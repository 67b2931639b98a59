//! A model's weights from whatever lies at a path, read tensor by tensor.
//!
//! What must stay true: every tensor of the model is found in the file and every tensor of the file has a place in the model,
//! except a `lm_head.weight` beside a tied table, which some writers repeat.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use openelm_formats::{DType, Safetensors, TensorBytes, TensorInfo, TensorSource, TorchFile, encode_f32};
use openelm_model::{ModelConfig, ModelError, OpenElm, ParameterInfo, Storage};

use crate::adapter::ADAPTER_FILE;
use crate::chat_template::chat_template_of;
use crate::checkpoint::Checkpoint;
use crate::error::CheckpointError;
use crate::folder::{is_run, newest_path, tokenizer_of};
use crate::gguf_tokenizer::sentencepiece_of;
use crate::gguf_weights::GgufWeights;
use crate::hf_config::from_hf_config;
use crate::manifest::MANIFEST_FILE;
use crate::mlx_weights::{MlxWeights, quantisation_of};
use crate::names::corenet_name;
use crate::shapes::config_of_shapes;

/// What lay at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKind {
    /// A checkpoint of a run of ours.
    Checkpoint,
    /// A folder in Hugging Face's layout, which is also mlx-lm's for plain weights.
    HuggingFace,
    /// A folder of mlx-lm's with quantised weights.
    Mlx,
    /// A GGUF file of llama.cpp's.
    Gguf,
    /// A `.pt` file of CoreNet's: weights, or a training checkpoint.
    Torch,
}

/// Weights with their configuration.
pub struct Weights {
    path: PathBuf,
    kind: WeightKind,
    config: ModelConfig,
    source: Box<dyn TensorSource>,
    /// CoreNet's name to the file's.
    names: BTreeMap<String, String>,
    tokenizer: Option<PathBuf>,
    tokenizer_model: Option<Vec<u8>>,
    chat_template: Option<String>,
    /// In the order in which they are applied.
    changes: Vec<Box<dyn ChangeValues>>,
}

/// What changes values on their way from the file, such as an adapter that is fused.
pub trait ChangeValues: Send + Sync {
    /// The changed values of a parameter.
    ///
    /// # Errors
    /// When what they are changed with cannot be read.
    fn change(&self, info: &ParameterInfo, values: Vec<f32>) -> Result<Vec<f32>, CheckpointError>;
}

impl Weights {
    /// Opens a run folder (its newest checkpoint), a checkpoint, a Hugging Face or MLX folder, a GGUF or a `.pt` file.
    ///
    /// # Errors
    /// When none of these lies at `path`, or it is damaged.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let no_weights =
            |reason: &str, hint: &str| CheckpointError::NoWeights { path: path.to_owned(), reason: reason.into(), hint: hint.into() };
        if !path.exists() {
            return Err(no_weights("there is nothing at this path", "check the path"));
        }
        if is_run(path) {
            let Some(newest) = newest_path(path)? else {
                return Err(no_weights(
                    "the run has written no checkpoint yet",
                    "wait for its first checkpoint, or set checkpoint.every lower",
                ));
            };
            return Self::of_checkpoint(&newest);
        }
        if path.join(MANIFEST_FILE).is_file() {
            return Self::of_checkpoint(path);
        }
        if path.is_dir() {
            let config = path.join("config.json");
            if !config.is_file() {
                let hint = "give a run folder, a checkpoint, a Hugging Face or MLX folder (with config.json), a GGUF or a CoreNet .pt file";
                return Err(no_weights("the folder holds no weights that this program knows", hint));
            }
            let (config, quantisation) = (from_hf_config(&config)?, quantisation_of(&config, &json_of(&config)?)?);
            let tokenizer = ["tokenizer.model", "tokenizer.json"].iter().any(|name| path.join(name).is_file()).then(|| path.to_owned());
            let source = Safetensors::open(path)?;
            let (kind, source): (_, Box<dyn TensorSource>) = match quantisation {
                Some(quantisation) => (WeightKind::Mlx, Box::new(MlxWeights::new(source, quantisation)?)),
                None => (WeightKind::HuggingFace, Box::new(source)),
            };
            let weights = Self::new(path, kind, Some(config), source, tokenizer)?;
            return Ok(Self { chat_template: chat_template_of(path)?, ..weights });
        }
        if path.extension().is_some_and(|extension| extension == "gguf") {
            return Self::of_gguf(path);
        }
        if path.extension().is_some_and(|extension| extension == "pt" || extension == "pth" || extension == "bin") {
            return Self::new(path, WeightKind::Torch, None, Box::new(TorchFile::open(path)?.state_dict()?), None);
        }
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            return Self::new(path, WeightKind::HuggingFace, None, Box::new(Safetensors::open(path)?), None);
        }
        Err(no_weights("the file is of no kind that this program knows", "give a folder, a .gguf, a .safetensors or a CoreNet .pt file"))
    }

    fn of_gguf(path: &Path) -> Result<Self, CheckpointError> {
        let source = GgufWeights::open(path)?;
        let config = source.config()?;
        let tokenizer_model = sentencepiece_of(source.file());
        let template = source.file().get("tokenizer.chat_template").and_then(|value| value.as_str().map(str::to_owned));
        let weights = Self::new(path, WeightKind::Gguf, Some(config), Box::new(source), None)?;
        Ok(Self { tokenizer_model, chat_template: template, ..weights })
    }

    fn of_checkpoint(path: &Path) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::open(path)?;
        if !path.join(crate::WEIGHTS_FILE).is_file() && path.join(ADAPTER_FILE).is_file() {
            return Err(CheckpointError::NoWeights {
                path: path.to_owned(),
                reason: "the checkpoint holds an adapter, and no weights".into(),
                hint: "give the base model that the adapter is for, and this path with --adapter".into(),
            });
        }
        let run = path.parent().and_then(Path::parent);
        let tokenizer = run.map(tokenizer_of).filter(|folder| folder.is_dir());
        let config = checkpoint.manifest().model.clone();
        let template = tokenizer.as_deref().map(chat_template_of).transpose()?.flatten();
        let weights = Self::new(path, WeightKind::Checkpoint, Some(config), Box::new(checkpoint.weights()?), tokenizer)?;
        Ok(Self { chat_template: template, ..weights })
    }

    fn new(
        path: &Path,
        kind: WeightKind,
        config: Option<ModelConfig>,
        source: Box<dyn TensorSource>,
        tokenizer: Option<PathBuf>,
    ) -> Result<Self, CheckpointError> {
        let config = match config {
            Some(config) => config,
            None => config_of_shapes(path, source.infos())?,
        };
        let mut names: BTreeMap<String, String> =
            source.infos().iter().map(|info| (corenet_name(&info.name).to_owned(), info.name.clone())).collect();
        if config.share_input_output_layers {
            names.remove("classifier.weight");
        }
        let weights = Self {
            path: path.to_owned(),
            kind,
            config,
            source,
            names,
            tokenizer,
            tokenizer_model: None,
            chat_template: None,
            changes: Vec::new(),
        };
        weights.check(&weights.config)?;
        Ok(weights)
    }

    /// Fails unless the tensors are exactly those of `config`.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape, or without a place.
    pub fn check(&self, config: &ModelConfig) -> Result<(), CheckpointError> {
        let fault = |source| CheckpointError::Model { path: self.path.clone(), source };
        let infos = OpenElm::infos_of(config).map_err(fault)?;
        for info in &infos {
            let found = self.names.get(&info.name).and_then(|name| self.source.info(name));
            let found = found.ok_or_else(|| fault(ModelError::Missing { name: info.name.clone() }))?;
            if found.shape != info.shape {
                let (found, needed) = (found.shape.clone(), info.shape.clone());
                return Err(fault(ModelError::Shape { name: info.name.clone(), found, needed }));
            }
        }
        match self.names.keys().find(|name| !infos.iter().any(|info| info.name == **name)) {
            Some(name) => Err(fault(ModelError::Unexpected { name: name.clone() })),
            None => Ok(()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn kind(&self) -> WeightKind {
        self.kind
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the tokenizer that belongs to the weights lies, if it lies beside them.
    pub fn tokenizer(&self) -> Option<&Path> {
        self.tokenizer.as_deref()
    }

    /// The SentencePiece model that a GGUF file holds, as the bytes of a `tokenizer.model`.
    pub fn tokenizer_model(&self) -> Option<&[u8]> {
        self.tokenizer_model.as_deref()
    }

    /// The chat template that belongs to the weights, if there is one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The same weights with every value changed by `change` as it is read, after earlier changes. With `untie`, a tied head becomes a matrix of its own
    /// that reads the embedding's values.
    pub fn changed(mut self, untie: bool, change: Box<dyn ChangeValues>) -> Self {
        if untie
            && self.config.share_input_output_layers
            && let Some(table) = self.names.get("token_embeddings.weight").cloned()
        {
            self.config.share_input_output_layers = false;
            self.names.insert("classifier.weight".into(), table);
        }
        self.changes.push(change);
        self
    }

    /// The same weights with the tokenizer and the chat template of the run at `path` (or of the run of the checkpoint there), if it
    /// has them: what was trained on these weights may speak otherwise than they do.
    ///
    /// # Errors
    /// When the template cannot be read.
    pub fn with_tokenizer_of(mut self, path: &Path) -> Result<Self, CheckpointError> {
        let run = if is_run(path) { Some(path) } else { path.parent().and_then(Path::parent).filter(|run| is_run(run)) };
        if let Some(folder) = run.map(tokenizer_of).filter(|folder| folder.is_dir()) {
            self.chat_template = chat_template_of(&folder)?.or(self.chat_template);
            self.tokenizer_model = None;
            self.tokenizer = Some(folder);
        }
        Ok(self)
    }

    /// The values of a parameter.
    ///
    /// # Errors
    /// When the file has no such tensor or breaks.
    pub fn values(&self, info: &ParameterInfo) -> Result<Vec<f32>, CheckpointError> {
        let name = self.file_name(info)?;
        let values = self.source.f32(name)?;
        // Read once for each use of a model: the pages need not stay.
        self.source.release(name);
        self.changes.iter().try_fold(values, |values, change| change.change(info, values))
    }

    /// The stored bytes of a parameter as `dtype`: as they are where the file has this type, else rounded from its values.
    ///
    /// # Errors
    /// When the file has no such tensor or breaks, or its rows fill no whole blocks of `dtype`.
    pub fn bytes(&self, info: &ParameterInfo, dtype: DType) -> Result<Vec<u8>, CheckpointError> {
        let name = self.file_name(info)?;
        if !self.changes.is_empty() || self.source.info(name).is_none_or(|stored| stored.dtype != dtype) {
            return Ok(encode_f32(&self.values(info)?, dtype)?);
        }
        let bytes = self.source.bytes(name)?.into_owned();
        self.source.release(name);
        Ok(bytes)
    }

    /// A parameter as the file stores it, to be kept beyond these weights: one part, or several whose rows follow each other. Values that
    /// are changed on their way are f32.
    ///
    /// # Errors
    /// When the file has no such tensor or breaks.
    pub fn parts(&self, info: &ParameterInfo) -> Result<Vec<(TensorInfo, TensorBytes)>, CheckpointError> {
        if !self.changes.is_empty() {
            let bytes = encode_f32(&self.values(info)?, DType::F32)?;
            return Ok(vec![(TensorInfo::new(info.name.clone(), DType::F32, info.shape.clone()), bytes.into())]);
        }
        Ok(self.source.parts(self.file_name(info)?)?)
    }

    fn file_name(&self, info: &ParameterInfo) -> Result<&str, CheckpointError> {
        let missing = || CheckpointError::Model { path: self.path.clone(), source: ModelError::Missing { name: info.name.clone() } };
        Ok(self.names.get(&info.name).ok_or_else(missing)?)
    }

    /// How the file stores a parameter; `None` where its values are changed on their way.
    pub fn stored(&self, info: &ParameterInfo) -> Option<DType> {
        if !self.changes.is_empty() {
            return None;
        }
        self.names.get(&info.name).and_then(|name| self.source.info(name)).map(|found| found.dtype)
    }

    /// Says that a parameter is not read again soon, so that its pages may leave the process's memory.
    pub fn release(&self, info: &ParameterInfo) {
        if let Some(name) = self.names.get(&info.name) {
            self.source.release(name);
        }
    }

    /// The model with these weights.
    ///
    /// # Errors
    /// When the file breaks.
    pub fn model(&self, device: &Device) -> Result<OpenElm, CheckpointError> {
        OpenElm::build(&self.config, device, |info| self.values(info))
    }

    /// The model with these weights, its matrices kept as `storage` says: what an adapter is trained on.
    ///
    /// # Errors
    /// When the file breaks, or the matrices cannot be kept so.
    pub fn frozen_model(&self, device: &Device, storage: Storage) -> Result<OpenElm, CheckpointError> {
        OpenElm::build_stored(&self.config, device, storage, |info| self.values(info))
    }

    /// A model of `config` with these weights: what begins a run from them.
    ///
    /// # Errors
    /// When the weights are of another shape, or the file breaks.
    pub fn model_of(&self, config: &ModelConfig, device: &Device) -> Result<OpenElm, CheckpointError> {
        self.check(config)?;
        OpenElm::build(config, device, |info| self.values(info))
    }
}

/// A JSON file that a strict reader has read already.
fn json_of(path: &Path) -> Result<serde_json::Value, CheckpointError> {
    let text = std::fs::read(path).map_err(|source| CheckpointError::io(path, "reading it", source))?;
    serde_json::from_slice(&text).map_err(|error| CheckpointError::Config {
        path: path.to_owned(),
        reason: error.to_string(),
        hint: "the file must be JSON; fetch it again".into(),
    })
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").field("path", &self.path).field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_without_weights_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let reason = |path: &Path| Weights::open(path).unwrap_err().to_string();
        assert!(reason(&folder.path().join("none")).contains("nothing at this path"));
        assert!(reason(folder.path()).contains("no weights that this program knows"));
        let file = folder.path().join("x.txt");
        std::fs::write(&file, "x").unwrap();
        assert!(reason(&file).contains("no kind that this program knows"));
    }
}
