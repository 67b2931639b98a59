//! One checkpoint, verified: every file has the length and the digest that the manifest states.

use std::path::{Path, PathBuf};

use openelm_formats::{DType, Safetensors, TensorSource, encode_f32};

use crate::error::CheckpointError;
use crate::manifest::{FileRecord, Manifest};
use crate::{OPTIMIZER_FILE, WEIGHTS_FILE};

/// A whole checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    /// Opens the checkpoint in `path` and reads every file of it through.
    ///
    /// # Errors
    /// When a file is missing, has another length or another content than the manifest says.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let manifest = Manifest::read(path)?;
        for record in &manifest.files {
            let found = FileRecord::of(path, &record.name)?;
            if found.bytes != record.bytes {
                let reason = format!("{} has {} bytes, its manifest says {}", record.name, found.bytes, record.bytes);
                return Err(CheckpointError::damaged(path, reason));
            }
            if found.sha256 != record.sha256 {
                return Err(CheckpointError::damaged(path, format!("{} has changed since it was written", record.name)));
            }
        }
        Ok(Self { path: path.to_owned(), manifest })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The weights, under Hugging Face's names.
    ///
    /// # Errors
    /// When the file is none of safetensors.
    pub(crate) fn weights(&self) -> Result<Safetensors, CheckpointError> {
        Ok(Safetensors::open(&self.path.join(WEIGHTS_FILE))?)
    }

    /// The optimizer state.
    ///
    /// # Errors
    /// When the file is none of safetensors.
    pub fn optimizer(&self) -> Result<OptimizerState, CheckpointError> {
        Ok(OptimizerState(Safetensors::open(&self.path.join(OPTIMIZER_FILE))?))
    }
}

/// The optimizer's tensors in a checkpoint.
pub struct OptimizerState(Safetensors);

impl OptimizerState {
    /// The values of the tensor `name`.
    ///
    /// # Errors
    /// When there is no such tensor, or the file breaks.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let values = self.0.f32(name)?;
        self.0.release(name);
        Ok(values)
    }

    /// The bytes of the tensor `name`: f32, row by row, little endian.
    ///
    /// # Errors
    /// As for `values`.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        Ok(encode_f32(&self.values(name)?, DType::F32)?)
    }
}
