//! The models that a recipe names: opened once, compared with each other, read tensor by tensor.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use openelm_checkpoint::Weights;
use openelm_checkpoint::{ModelConfig, OpenElm, ParameterInfo};
use openelm_eval::Tokenizer;

use crate::error::{Difference, MergeError};

/// Open models, each path once.
#[derive(Debug)]
pub struct Models {
    open: Vec<(PathBuf, Weights)>,
    /// Every tensor of every model by name, once they were loaded.
    loaded: Vec<HashMap<String, Vec<f32>>>,
}

impl Models {
    /// Opens the models at `paths`; a path may come more than once.
    ///
    /// # Errors
    /// When one of them cannot be opened, or computes in another way than the first.
    pub fn open<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<Self, MergeError> {
        let mut open: Vec<(PathBuf, Weights)> = Vec::new();
        for path in paths {
            if open.iter().all(|(known, _)| known != path) {
                open.push((path.clone(), Weights::open(path)?));
            }
        }
        let models = Self { open, loaded: Vec::new() };
        if let Some((first, rest)) = models.open.split_first() {
            rest.iter().try_for_each(|other| same_arithmetic(first, other))?;
        }
        Ok(models)
    }

    /// Reads every tensor into memory, for merging many times.
    ///
    /// # Errors
    /// When reading fails or a weight is no number.
    pub fn load(&mut self) -> Result<(), MergeError> {
        let mut loaded = Vec::with_capacity(self.open.len());
        for (model, (_, weights)) in self.open.iter().enumerate() {
            let infos = OpenElm::infos_of(weights.config())?;
            let values = infos.iter().map(|info| Ok((info.name.clone(), self.read(model, info)?)));
            loaded.push(values.collect::<Result<_, MergeError>>()?);
        }
        self.loaded = loaded;
        Ok(())
    }

    /// The number of the model at `path`.
    pub(crate) fn number(&self, path: &Path) -> Option<usize> {
        self.open.iter().position(|(known, _)| known == path)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The model's weights.
    pub(crate) fn weights(&self, model: usize) -> &Weights {
        &self.open[model].1
    }

    /// The model's configuration.
    pub fn config(&self, model: usize) -> &ModelConfig {
        self.weights(model).config()
    }

    pub(crate) fn path(&self, model: usize) -> &Path {
        &self.open[model].0
    }

    /// The values of a tensor: those in memory, else read from the file.
    ///
    /// # Errors
    /// When reading fails or a weight is no number.
    pub(crate) fn values(&self, model: usize, info: &ParameterInfo) -> Result<Cow<'_, [f32]>, MergeError> {
        match self.loaded.get(model).and_then(|tensors| tensors.get(&info.name)) {
            Some(values) => Ok(Cow::Borrowed(values)),
            None => Ok(Cow::Owned(self.read(model, info)?)),
        }
    }

    fn read(&self, model: usize, info: &ParameterInfo) -> Result<Vec<f32>, MergeError> {
        let weights = self.weights(model);
        let values = weights.values(info)?;
        weights.release(info);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(self.not_finite(model, info, index, values[index])),
        }
    }

    /// The error of a weight that is no number.
    pub(crate) fn not_finite(&self, model: usize, info: &ParameterInfo, index: usize, value: f32) -> MergeError {
        MergeError::NotFinite { path: self.path(model).to_owned(), name: info.name.clone(), index, value }
    }

    /// The folder of the tokenizer that goes with a merge of all models: the one that `source` names, else the one that they share.
    ///
    /// # Errors
    /// When tokenizers differ and `source` names none, or it names a model that is not part of the merge.
    pub(crate) fn tokenizer(&self, source: Option<&Path>) -> Result<Option<PathBuf>, MergeError> {
        if let Some(source) = source {
            let model = self.number(source).ok_or_else(|| {
                MergeError::recipe(
                    source,
                    "tokenizer_source",
                    "is none of the recipe's models",
                    "write `base`, or the path of one of the models",
                )
            })?;
            return Ok(self.weights(model).tokenizer().map(Path::to_owned));
        }
        let mut first: Option<(&Path, Tokenizer, PathBuf)> = None;
        for (path, weights) in &self.open {
            let Some(folder) = weights.tokenizer() else { continue };
            let tokenizer = Tokenizer::load(folder)?;
            match &first {
                None => first = Some((path, tokenizer, folder.to_owned())),
                Some((known, same, _)) if same.fingerprint() != tokenizer.fingerprint() => {
                    return Err(MergeError::differs(Difference {
                        first: known.to_path_buf(),
                        second: path.clone(),
                        what: "their tokenizers".into(),
                        left: format!("{} tokens ({:.12})", same.vocab_size(), same.fingerprint()),
                        right: format!("{} tokens ({:.12})", tokenizer.vocab_size(), tokenizer.fingerprint()),
                        hint: "an id means another piece of text in each; if that is meant, say which to keep with tokenizer_source: base, or a model's path",
                    }));
                }
                Some(_) => {}
            }
        }
        Ok(first.map(|(_, _, folder)| folder))
    }
}

/// Fails unless both models compute the same with the same weights. Numbers of layers and heads may differ: slices decide.
fn same_arithmetic((first, a): &(PathBuf, Weights), (second, b): &(PathBuf, Weights)) -> Result<(), MergeError> {
    let (a, b) = (a.config(), b.config());
    let pairs = [
        ("model_dim", a.model_dim.to_string(), b.model_dim.to_string()),
        ("head_dim", a.head_dim.to_string(), b.head_dim.to_string()),
        ("num_gqa_groups", a.num_gqa_groups.to_string(), b.num_gqa_groups.to_string()),
        ("ffn_with_glu", a.ffn_with_glu.to_string(), b.ffn_with_glu.to_string()),
        ("normalize_qk_projections", a.normalize_qk_projections.to_string(), b.normalize_qk_projections.to_string()),
        ("share_input_output_layers", a.share_input_output_layers.to_string(), b.share_input_output_layers.to_string()),
        ("rope_freq_constant", a.rope_freq_constant.to_string(), b.rope_freq_constant.to_string()),
        ("vocab_size", a.vocab_size.to_string(), b.vocab_size.to_string()),
    ];
    match pairs.into_iter().find(|(_, left, right)| left != right) {
        None => Ok(()),
        Some((what, left, right)) => Err(MergeError::differs(Difference {
            first: first.clone(),
            second: second.clone(),
            what: what.into(),
            left,
            right,
            hint: "only models of one architecture can be merged; export both with the same tokenizer when the vocabulary alone differs",
        })),
    }
}
