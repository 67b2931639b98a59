//! Weights in one safetensors file, or spread over the shards of a Hugging Face folder.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::file::SafetensorsFile;
use super::{INDEX_FILE, SINGLE_FILE};
use crate::dtype::TensorInfo;
use crate::error::FormatError;
use crate::source::{TensorBytes, TensorSource};

/// Mapped safetensors weights.
pub struct Safetensors {
    path: PathBuf,
    files: Vec<SafetensorsFile>,
    infos: Vec<TensorInfo>,
    /// Name to position in `infos` and in `files`.
    places: HashMap<String, (usize, usize)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Safetensors {
    /// Opens a file; or a folder that holds model.safetensors, or else model.safetensors.index.json and the shards it names. Every
    /// header is checked whole, so that later reading can only fail for a name that is not there.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        if !path.is_dir() {
            return Self::from_shards(path, &[path.to_owned()]);
        }
        let (single, index) = (path.join(SINGLE_FILE), path.join(INDEX_FILE));
        if single.is_file() {
            return Self::from_shards(path, &[single]);
        }
        if !index.is_file() {
            let reason = format!("the folder holds neither {SINGLE_FILE} nor {INDEX_FILE}");
            return Err(FormatError::Missing {
                path: path.to_owned(),
                reason,
                hint: "give a Hugging Face folder, or the weight file itself",
            });
        }
        Self::from_index(path, &index)
    }

    fn from_shards(path: &Path, shards: &[PathBuf]) -> Result<Self, FormatError> {
        let mut weights =
            Self { path: path.to_owned(), files: Vec::new(), infos: Vec::new(), places: HashMap::new(), metadata: BTreeMap::new() };
        for (number, shard) in shards.iter().enumerate() {
            let (mut file, infos) = SafetensorsFile::open(shard)?;
            weights.metadata.append(&mut file.metadata);
            for info in infos {
                if weights.places.insert(info.name.clone(), (weights.infos.len(), number)).is_some() {
                    return Err(FormatError::damaged(shard, format!("tensor {:?}", info.name), "an earlier shard holds it too"));
                }
                weights.infos.push(info);
            }
            weights.files.push(file);
        }
        Ok(weights)
    }

    fn from_index(folder: &Path, index: &Path) -> Result<Self, FormatError> {
        let text = fs::read(index).map_err(|source| FormatError::io(index, "reading", source))?;
        let Index { weight_map } =
            serde_json::from_slice(&text).map_err(|error| FormatError::damaged(index, "the index", error.to_string()))?;
        let names: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
        let mut shards = Vec::with_capacity(names.len());
        for name in &names {
            // A file name with a folder in it could reach any file of the machine.
            if Path::new(name).file_name() != Some(name.as_ref()) {
                return Err(FormatError::damaged(index, "weight_map", format!("{name:?} is not the plain name of a file")));
            }
            let shard = folder.join(name);
            if !shard.is_file() {
                let reason = format!("the shard is missing that {} names", index.display());
                return Err(FormatError::Missing { path: shard, reason, hint: "fetch all shards into the folder" });
            }
            shards.push(shard);
        }
        let weights = Self::from_shards(folder, &shards)?;
        let shard_names: Vec<_> = names.into_iter().collect();
        for (name, shard) in &weight_map {
            let found = weights.places.get(name).and_then(|(_, number)| shard_names.get(*number));
            if found.is_none_or(|found| found != shard) {
                let reason = format!("tensor {name:?} should lie in {shard}, which does not hold it");
                return Err(FormatError::damaged(index, "weight_map", reason));
            }
        }
        if let Some(info) = weights.infos.iter().find(|info| !weight_map.contains_key(&info.name)) {
            return Err(FormatError::damaged(index, "weight_map", format!("tensor {:?} of a shard is not listed", info.name)));
        }
        Ok(weights)
    }

    /// The files' own notes (`__metadata__`), those of all shards together.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

impl TensorSource for Safetensors {
    fn path(&self) -> &Path {
        &self.path
    }

    fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, FormatError> {
        let file = self.places.get(name).and_then(|(_, file)| self.files.get(*file));
        Ok(Cow::Borrowed(file.ok_or_else(|| FormatError::no_tensor(&self.path, name))?.bytes(name)?))
    }

    fn parts(&self, name: &str) -> Result<Vec<(TensorInfo, TensorBytes)>, FormatError> {
        let place = self.places.get(name);
        let found = place.and_then(|(info, file)| self.infos.get(*info).zip(self.files.get(*file)));
        let (info, file) = found.ok_or_else(|| FormatError::no_tensor(&self.path, name))?;
        Ok(vec![(info.clone(), file.kept(name)?)])
    }

    fn release(&self, name: &str) {
        if let Some(file) = self.places.get(name).and_then(|(_, file)| self.files.get(*file)) {
            file.release(name);
        }
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.places.get(name).and_then(|(position, _)| self.infos.get(*position))
    }
}
