//! Writing a checkpoint so that it appears whole or not at all.
//!
//! Everything goes into a folder beside the others whose name no reader looks at; files, then the folder, are synced; the
//! folder is renamed; the parent is synced; then `latest` is replaced in the same way. A crash at any moment leaves either the
//! old state or the new one, and at worst a draft that the next run removes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use openelm_formats::{DType, SafetensorsWriter, TensorInfo, encode_f32};
use openelm_model::OpenElm;

use crate::adapter::write_adapter;
use crate::error::CheckpointError;
use crate::manifest::{FileRecord, MANIFEST_FILE, Manifest};
use crate::names::hf_name;
use crate::{OPTIMIZER_FILE, WEIGHTS_FILE};

/// A checkpoint that is being written. Dropped without `publish`, it is removed.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    files: Vec<FileRecord>,
    published: bool,
}

impl Draft {
    pub(crate) fn create(path: PathBuf) -> Result<Self, CheckpointError> {
        remove_folder(&path)?;
        std::fs::create_dir(&path).map_err(|source| CheckpointError::io(&path, "making the folder", source))?;
        Ok(Self { path, files: Vec::new(), published: false })
    }

    /// Writes the weights of `model`, f32, under Hugging Face's names, one tensor in memory at a time.
    ///
    /// # Errors
    /// When the device or the disk fails.
    pub fn weights(&mut self, model: &mut OpenElm) -> Result<(), CheckpointError> {
        let info = |info: &openelm_model::ParameterInfo| TensorInfo::new(hf_name(&info.name), DType::F32, info.shape.clone());
        let infos: Vec<_> = model.infos().iter().map(info).collect();
        self.tensors(WEIGHTS_FILE, &infos, |write| model.read_parameters(|info, values| write(&hf_name(&info.name), &values)))
    }

    /// Writes the adapter of `model` in PEFT's layout, with its configuration, one tensor in memory at a time.
    ///
    /// # Errors
    /// When the device or the disk fails.
    pub fn adapter(&mut self, model: &mut OpenElm, config: &serde_json::Value) -> Result<(), CheckpointError> {
        let infos = model.trained_infos().to_vec();
        let files = write_adapter(&self.path, config, &infos, |write| model.read_trained(|info, values| write(info, &values)))?;
        for name in files {
            self.files.push(FileRecord::of(&self.path, name)?);
        }
        Ok(())
    }

    /// Writes optimizer state, f32: `values` gives each of the `tensors` (names and shapes) in turn to the function it is called with.
    ///
    /// # Errors
    /// When `values` or the disk fails.
    pub fn optimizer<E: From<CheckpointError>>(
        &mut self,
        tensors: &[(String, Vec<usize>)],
        values: impl FnOnce(&mut dyn FnMut(&str, &[f32]) -> Result<(), CheckpointError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let infos: Vec<_> = tensors.iter().map(|(name, shape)| TensorInfo::new(name.clone(), DType::F32, shape.clone())).collect();
        self.tensors(OPTIMIZER_FILE, &infos, values)
    }

    fn tensors<E: From<CheckpointError>>(
        &mut self,
        name: &str,
        infos: &[TensorInfo],
        values: impl FnOnce(&mut dyn FnMut(&str, &[f32]) -> Result<(), CheckpointError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let metadata = std::iter::once(("format".to_owned(), "pt".to_owned())).collect();
        let mut writer = SafetensorsWriter::create(&self.path.join(name), infos, &metadata).map_err(CheckpointError::from)?;
        values(&mut |name, values| Ok(writer.write(name, &encode_f32(values, DType::F32)?)?))?;
        writer.finish().map_err(CheckpointError::from)?;
        self.files.push(FileRecord::of(&self.path, name)?);
        Ok(())
    }

    /// Makes the draft the checkpoint `path`: the moment from which it exists.
    pub(crate) fn publish(mut self, mut manifest: Manifest, path: &Path) -> Result<(), CheckpointError> {
        manifest.files = std::mem::take(&mut self.files);
        let mut text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| CheckpointError::io(&self.path.join(MANIFEST_FILE), "writing it", error.into()))?;
        text.push(b'\n');
        write_synced(&self.path.join(MANIFEST_FILE), &text)?;
        sync_folder(&self.path)?;
        // A checkpoint of this step can be there already: the same run wrote it before it was resumed from an older one.
        remove_folder(path)?;
        std::fs::rename(&self.path, path).map_err(|source| CheckpointError::io(path, "renaming the draft", source))?;
        self.published = true;
        path.parent().map_or(Ok(()), sync_folder)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Without the removal the next run would do it; the error that led here is the one to report.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Replaces the small file `path` in one step.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<(), CheckpointError> {
    let aside = path.with_added_extension("new");
    write_synced(&aside, content)?;
    std::fs::rename(&aside, path).map_err(|source| CheckpointError::io(path, "replacing it", source))?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn write_synced(path: &Path, content: &[u8]) -> Result<(), CheckpointError> {
    let fault = |source| CheckpointError::io(path, "writing it", source);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(fault)?;
    file.write_all(content).map_err(fault)?;
    file.sync_all().map_err(fault)
}

fn sync_folder(path: &Path) -> Result<(), CheckpointError> {
    let fault = |source| CheckpointError::io(path, "syncing the folder", source);
    File::open(path).map_err(fault)?.sync_all().map_err(fault)
}

/// Removes a folder, manifest first, so that a half-removed checkpoint is none.
pub(crate) fn remove_folder(path: &Path) -> Result<(), CheckpointError> {
    let ignore_missing = |result: std::io::Result<()>, path: &Path| match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CheckpointError::io(path, "removing it", error)),
        _ => Ok(()),
    };
    let manifest = path.join(MANIFEST_FILE);
    ignore_missing(std::fs::remove_file(&manifest), &manifest)?;
    ignore_missing(std::fs::remove_dir_all(path), path)
}
