//! A merge recipe: mergekit's YAML, read strictly.
//!
//! What must stay true: a recipe that was read and written again says the same; paths of models are those of the file, relative to
//! its folder, and absolute once read.

use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::MergeError;
use crate::setting::Settings;

/// What to merge and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the method; see [`METHODS`](crate::METHODS).
    pub merge_method: String,
    /// Whole models; or else `slices`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Source>,
    /// Runs of layers, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub parameters: Settings,
    /// Type of the written weights: float32, float16 or bfloat16. Default: that of the first model. Sums are in f32 in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<StoredType>,
    /// Wins over `dtype`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_dtype: Option<StoredType>,
    /// Seed of the methods that drop weights at random.
    #[serde(default)]
    pub seed: u64,
    /// Which tokenizer goes with the merge where the models' differ: `base`, or the path of one of the models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_source: Option<String>,
    /// The file, for messages.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A model, or a run of its layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub model: PathBuf,
    /// First layer and one past the last; in slices alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_range: Option<[usize; 2]>,
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub parameters: Settings,
}

/// Layers that are merged one by one into the next layers of the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    pub sources: Vec<Source>,
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub parameters: Settings,
}

/// Element types that weights are written in, under PyTorch's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredType {
    Float32,
    Float16,
    Bfloat16,
}

impl Recipe {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or is no recipe; the message names the key.
    pub fn read(path: &Path) -> Result<Self, MergeError> {
        let mut recipe: Self = read_yaml(path)?;
        recipe.path = path.to_owned();
        let folder = path.parent().unwrap_or(Path::new(""));
        for model in recipe.paths_mut() {
            *model = absolute(model, folder);
        }
        if let Some(source) = recipe.tokenizer_source.as_mut().filter(|source| *source != "base" && *source != "union") {
            *source = absolute(Path::new(source), folder).to_string_lossy().into_owned();
        }
        Ok(recipe)
    }

    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let sources = self.slices.iter_mut().flat_map(|slice| &mut slice.sources);
        self.models.iter_mut().chain(sources).map(|source| &mut source.model).chain(&mut self.base_model)
    }
}

/// Reads one strict YAML file.
pub(crate) fn read_yaml<T: DeserializeOwned>(path: &Path) -> Result<T, MergeError> {
    let text = std::fs::read_to_string(path).map_err(|source| MergeError::io(path, "reading it", source))?;
    let read = serde_path_to_error::deserialize(serde_yaml_ng::Deserializer::from_str(&text));
    read.map_err(|error| {
        let key = error.path().to_string();
        let reason = error.into_inner().to_string();
        MergeError::recipe(path, key, reason, "docs/merging.md lists the keys of recipes and searches")
    })
}

/// `path` below `folder`, without dots.
pub(crate) fn absolute(path: &Path, folder: &Path) -> PathBuf {
    let joined = std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path));
    let mut result = PathBuf::new();
    for component in joined.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                result.pop();
            }
            other => result.push(other),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_strict() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Recipe::read(&path)
        };
        let recipe =
            read("merge_method: linear\nmodels:\n- model: ./a\n  parameters: {weight: 1}\n- model: ../b\ndtype: bfloat16\n").unwrap();
        assert_eq!(recipe.models[0].model, folder.path().join("a"));
        assert_eq!(recipe.models[1].model, folder.path().parent().unwrap().join("b"));
        for (text, reason) in [
            ("merge_method: linear\nmodel: []\n", "unknown field `model`"),
            ("merge_method: linear\ndtype: int8\n", "unknown variant `int8`"),
            ("merge_method: linear\nmodels: [{model: a, weight: 2}]\n", "unknown field `weight`"),
            ("models: []\n", "missing field `merge_method`"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(reason) && message.contains("r.yaml") && message.contains("\nhint: "), "{message}");
        }
    }
}
