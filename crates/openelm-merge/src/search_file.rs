//! A search for a recipe, as its file says it.
//!
//! What must stay true: paths are relative to the file and absolute once read; everything that can be checked without a model is
//! checked here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::MergeError;
use crate::methods::Method;
use crate::recipe::{StoredType, absolute, read_yaml};
use crate::setting::Settings;

/// What to search for, and by which measure.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchFile {
    pub merge_method: String,
    pub models: Vec<PathBuf>,
    #[serde(default)]
    pub base_model: Option<PathBuf>,
    /// Parameters that stay as they are.
    #[serde(default)]
    pub parameters: Settings,
    /// Parameters that are searched; this or `data_flow`.
    #[serde(default)]
    pub search: BTreeMap<String, Range>,
    /// The order of layers is searched.
    #[serde(default)]
    pub data_flow: Option<DataFlow>,
    /// Values over the depth of the model, with lines between them; 1: one value for all layers.
    #[serde(default = "one")]
    pub layer_groups: usize,
    #[serde(default)]
    pub dtype: Option<StoredType>,
    #[serde(default)]
    pub seed: u64,
    /// Candidates of a generation; 0: as many as CMA-ES suggests for the number of values.
    #[serde(default)]
    pub population: usize,
    pub generations: u64,
    /// The first steps, in shares of each range.
    #[serde(default = "a_fifth")]
    pub sigma: f64,
    /// Candidates that are in memory at a time.
    #[serde(default = "one")]
    pub parallel: usize,
    pub objective: Measure,
    /// Other data, for the final comparison with the parents and their mean.
    #[serde(default)]
    pub report: Option<Measure>,
    /// The file, for messages.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A search for the layers of a passthrough merge.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFlow {
    /// How often all layers of all models stand in the row of candidates.
    #[serde(default = "one")]
    pub repetitions: usize,
    /// Layers of a result at most. Default: all candidates.
    #[serde(default)]
    pub max_layers: Option<usize>,
    /// What the stream into each candidate is multiplied by. Default: nothing is scaled.
    #[serde(default)]
    pub scale: Option<Range>,
}

/// Where a parameter is searched.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    pub from: f64,
    pub to: f64,
    /// Default: the middle.
    #[serde(default)]
    pub start: Option<f64>,
}

/// Data and how much of it: mean loss of a token of the texts, less the weighted scores of the tasks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Shards of text.
    #[serde(default)]
    pub files: Vec<String>,
    #[serde(default = "text")]
    pub text_key: String,
    /// Documents to pass over at the beginning.
    #[serde(default)]
    pub skip: usize,
    /// Documents at most.
    #[serde(default)]
    pub documents: Option<usize>,
    /// Characters of each document at most.
    #[serde(default)]
    pub characters: Option<usize>,
    /// Tasks and suites with the weights of their scores.
    #[serde(default)]
    pub tasks: BTreeMap<String, f64>,
    /// Folder of the tasks' documents.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Documents of each task at most.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Positions of a request at most. Default: the model's context.
    #[serde(default)]
    pub max_length: Option<usize>,
}

fn one() -> usize {
    1
}

fn a_fifth() -> f64 {
    0.2
}

fn text() -> String {
    "text".into()
}

impl SearchFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, is no search, or asks for what cannot be searched.
    pub fn read(path: &Path) -> Result<Self, MergeError> {
        let mut file: Self = read_yaml(path)?;
        file.path = path.to_owned();
        let folder = path.parent().unwrap_or(Path::new(""));
        for model in file.models.iter_mut().chain(&mut file.base_model) {
            *model = absolute(model, folder);
        }
        for measure in std::iter::once(&mut file.objective).chain(&mut file.report) {
            for shard in &mut measure.files {
                *shard = absolute(Path::new(&*shard), folder).to_string_lossy().into_owned();
            }
            if let Some(data) = &mut measure.data {
                *data = absolute(data, folder);
            }
        }
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), MergeError> {
        let fault = |key: &str, reason: String, hint: &str| Err(MergeError::recipe(&self.path, key, reason, hint));
        let Some(method) = Method::named(&self.merge_method) else {
            return fault("merge_method", format!("`{}` is no known method", self.merge_method), "docs/merging.md lists the methods");
        };
        match &self.data_flow {
            Some(flow) => self.check_data_flow(flow, method)?,
            None if self.search.is_empty() => {
                return fault("search", "is missing".into(), "name parameters with their ranges, or search for layers under `data_flow`");
            }
            None => {}
        }
        for (name, range) in &self.search {
            let key = format!("search.{name}");
            if !method.parameters.iter().any(|parameter| parameter.name == name) {
                return fault(&key, format!("is no parameter of {}", method.name), "docs/merging.md lists each method's parameters");
            }
            self.check_range(&key, range)?;
            if self.parameters.contains_key(name) {
                return fault(&key, "is also fixed under `parameters`".into(), "keep one of the two");
            }
        }
        for (key, count) in [("layer_groups", self.layer_groups), ("parallel", self.parallel)] {
            if count == 0 {
                return fault(key, "is 0".into(), "there must be at least one");
            }
        }
        if !(self.sigma > 0.0 && self.sigma <= 1.0) {
            return fault("sigma", format!("is {}", self.sigma), "give a share of the range, such as 0.2");
        }
        for (key, measure) in [("objective", Some(&self.objective)), ("report", self.report.as_ref())] {
            let Some(measure) = measure else { continue };
            if measure.files.is_empty() && measure.tasks.is_empty() {
                return fault(key, "names neither files nor tasks".into(), "name shards of text under `files`, or tasks");
            }
            if !measure.tasks.is_empty() && measure.data.is_none() {
                return fault(key, "has tasks without data".into(), "name the folder of their documents under `data`");
            }
        }
        Ok(())
    }

    fn check_range(&self, key: &str, range: &Range) -> Result<(), MergeError> {
        let fault = |reason: String, hint: &str| Err(MergeError::recipe(&self.path, key, reason, hint));
        let Range { from, to, start } = *range;
        if !(from.is_finite() && to.is_finite() && from < to) {
            return fault(format!("goes from {from} to {to}"), "give two numbers, the smaller one first");
        }
        match start.filter(|start| !(from..=to).contains(start)) {
            Some(start) => fault(format!("starts at {start}, outside its range"), "start inside the range"),
            None => Ok(()),
        }
    }

    fn check_data_flow(&self, flow: &DataFlow, method: &Method) -> Result<(), MergeError> {
        let fault = |key: &str, reason: &str, hint: &str| Err(MergeError::recipe(&self.path, key, reason, hint));
        if method.name != "passthrough" {
            return fault("data_flow", &format!("does not go with {}", method.name), "write merge_method: passthrough");
        }
        let without_meaning = [
            ("search", !self.search.is_empty()),
            ("parameters", !self.parameters.is_empty()),
            ("base_model", self.base_model.is_some()),
            ("layer_groups", self.layer_groups != 1),
        ];
        if let Some((key, _)) = without_meaning.into_iter().find(|(_, given)| *given) {
            return fault(key, "has no meaning beside data_flow", "leave it out");
        }
        if self.models.is_empty() {
            return fault("models", "is empty", "name the models that give the layers");
        }
        for (key, count) in [("repetitions", flow.repetitions), ("max_layers", flow.max_layers.unwrap_or(1))] {
            if count == 0 {
                return fault(&format!("data_flow.{key}"), "is 0", "give a number of at least 1");
            }
        }
        let Some(scale) = &flow.scale else { return Ok(()) };
        self.check_range("data_flow.scale", scale)?;
        match scale.from > 0.0 {
            true => Ok(()),
            false => fault("data_flow.scale", &format!("begins at {}", scale.from), "the stream is multiplied by it: give numbers above 0"),
        }
    }

    /// Why the report may flatter the result.
    pub fn warning(&self) -> Option<&'static str> {
        let Some(report) = &self.report else {
            return Some("there is no `report` data: nothing shows whether the best recipe is good beyond what it was searched on");
        };
        let of = |measure: &Measure| (measure.files.clone(), measure.skip, measure.tasks.keys().cloned().collect::<Vec<_>>());
        (of(report) == of(&self.objective)).then_some("objective and report use the same data: the report will flatter the result")
    }
}
