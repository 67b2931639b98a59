//! One task as a file: where its documents lie, and templates for text, choices and target. The keys are those of EleutherAI's
//! lm-evaluation-harness (multiple choice, without Python code), with `data`, `fewshot_data`, `labels` and `variants` beside them.
//!
//! What must stay true: an unknown key, a Python function and an output of another type are refused with the key's name.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::error::EvalError;

/// A task file as it stands.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFile {
    pub task: String,
    /// File of the documents (JSON lines), relative to the data folder. Default: TASK.jsonl.
    #[serde(default)]
    pub data: Option<String>,
    /// File of the few-shot examples. Default: the documents themselves, each left out of its own examples; where a training or
    /// few-shot split is named, TASK_SPLIT.jsonl.
    #[serde(default)]
    pub fewshot_data: Option<String>,
    /// Seed of Python's `Random`, with which the documents are shuffled before a limit takes the first of them.
    #[serde(default)]
    pub shuffle: Option<u64>,
    /// Each value makes a task of its own, with `{}` in `task` and the file names replaced by it, and as a field `variant`.
    #[serde(default)]
    pub variants: Vec<String>,
    pub output_type: OutputType,
    pub doc_to_text: Entry,
    pub doc_to_choice: Entry,
    #[serde(default)]
    pub doc_to_target: Entry,
    /// Which choices are right (1) and wrong (0), for the metric mc2.
    #[serde(default)]
    pub labels: Option<Entry>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default = "one_space")]
    pub target_delimiter: String,
    #[serde(default = "two_lines")]
    pub fewshot_delimiter: String,
    #[serde(default)]
    pub fewshot_config: FewShotConfig,
    #[serde(default)]
    pub num_fewshot: Option<usize>,
    pub metric_list: Vec<MetricEntry>,
    #[serde(default)]
    pub training_split: Option<String>,
    #[serde(default)]
    pub fewshot_split: Option<String>,
    #[serde(default)]
    pub metadata: Option<Value>,
    // What the harness needs to fetch, group or decontaminate; it changes no score here.
    #[serde(default)]
    pub group: Option<Value>,
    #[serde(default)]
    pub tag: Option<Value>,
    #[serde(default)]
    pub task_alias: Option<Value>,
    #[serde(default)]
    pub group_alias: Option<Value>,
    #[serde(default)]
    pub dataset_path: Option<Value>,
    #[serde(default)]
    pub dataset_name: Option<Value>,
    #[serde(default)]
    pub dataset_kwargs: Option<Value>,
    #[serde(default)]
    pub validation_split: Option<Value>,
    #[serde(default)]
    pub test_split: Option<Value>,
    #[serde(default)]
    pub should_decontaminate: Option<Value>,
    #[serde(default)]
    pub doc_to_decontamination_query: Option<Value>,
    /// The file, for messages.
    #[serde(skip)]
    pub path: PathBuf,
}

/// Kinds of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputType {
    MultipleChoice,
}

/// A template, a number, or a list of templates.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    #[default]
    Empty,
    Number(i64),
    Text(String),
    List(Vec<String>),
}

/// How few-shot examples are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShotConfig {
    #[serde(default)]
    pub sampler: SamplerKind,
}

/// The harness's two ways to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Python's `Random(1234).sample`.
    #[default]
    Default,
    FirstN,
}

/// A metric of the list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricEntry {
    pub metric: Metric,
    #[serde(default)]
    pub aggregation: Option<Aggregation>,
    #[serde(default)]
    pub higher_is_better: Option<bool>,
}

/// What is measured of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Whether the likeliest choice is right.
    Acc,
    /// The same by log-likelihood for each character.
    AccNorm,
    /// Share of the probability that the right choices get.
    Mc2,
    /// Whether the first choice is likelier than the second.
    PctStereotype,
}

impl Metric {
    /// The harness's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            // The harness calls the metric acc, in a task of its own.
            Self::Mc2 => "acc",
            Self::PctStereotype => "pct_stereotype",
        }
    }
}

/// How documents become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    Mean,
}

fn one_space() -> String {
    " ".into()
}

fn two_lines() -> String {
    "\n\n".into()
}

impl TaskFile {
    /// Reads the text of a task file.
    ///
    /// # Errors
    /// When it is no task that can be evaluated here; the message names the key.
    pub fn parse(text: &str, path: &Path) -> Result<Self, EvalError> {
        let fault = |key: String, reason: String| EvalError::task(path, key, reason, "docs/evaluation.md lists the keys of task files");
        let value: Value = serde_yaml_ng::from_str(text).map_err(|error| fault("yaml".into(), error.to_string()))?;
        if let Value::Mapping(fields) = &value {
            for (key, field) in fields {
                let key = key.as_str().unwrap_or("?");
                if key == "include" {
                    return Err(EvalError::task(path, key, "files are not included", "copy the keys of the included file into this one"));
                }
                if holds_tag(field) {
                    let hint = "write it as a template, and prepare the data so that a template is enough";
                    return Err(EvalError::task(path, key, "needs Python code (!function), which is not run", hint));
                }
            }
        }
        let file: Result<Self, _> = serde_path_to_error::deserialize(value);
        let mut file = file.map_err(|error| fault(error.path().to_string(), error.into_inner().to_string()))?;
        file.path = path.to_owned();
        if file.metric_list.is_empty() {
            return Err(fault("metric_list".into(), "is empty".into()));
        }
        if file.variants.is_empty() == file.task.contains("{}") {
            return Err(fault("task".into(), "`{}` and `variants` belong together".into()));
        }
        Ok(file)
    }

    /// The tasks of the file: one, or one a variant.
    pub fn expand(&self) -> Vec<(Self, Option<String>)> {
        if self.variants.is_empty() {
            return vec![(self.clone(), None)];
        }
        let of = |variant: &String| {
            let put = |text: &Option<String>| text.as_ref().map(|text| text.replace("{}", variant));
            let task = self.task.replace("{}", variant);
            let (data, fewshot_data) = (put(&self.data), put(&self.fewshot_data));
            (Self { task, data, fewshot_data, variants: Vec::new(), ..self.clone() }, Some(variant.clone()))
        };
        self.variants.iter().map(of).collect()
    }
}

fn holds_tag(value: &Value) -> bool {
    match value {
        Value::Tagged(_) => true,
        Value::Sequence(items) => items.iter().any(holds_tag),
        Value::Mapping(fields) => fields.values().any(holds_tag),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "task: t\noutput_type: multiple_choice\ndoc_to_text: 'Q: {{q}}'\ndoc_to_choice: [no, yes]\ndoc_to_target: label\nmetric_list:\n- metric: acc\n";

    #[test]
    fn files_are_strict() {
        let parse = |text: &str| TaskFile::parse(text, Path::new("t.yaml")).map_err(|error| error.to_string());
        let task = parse(TASK).unwrap();
        assert_eq!(task.doc_to_choice, Entry::List(vec!["no".into(), "yes".into()]));
        assert_eq!((task.target_delimiter.as_str(), task.fewshot_delimiter.as_str()), (" ", "\n\n"));
        for (text, reason) in [
            (TASK.replace("'Q: {{q}}'", "!function utils.text"), "doc_to_text: needs Python code"),
            (format!("{TASK}generation: 1\n"), "unknown field `generation`"),
            (TASK.replace("multiple_choice", "generate_until"), "unknown variant `generate_until`"),
            (TASK.replace("acc", "exact_match"), "unknown variant `exact_match`"),
            (format!("{TASK}include: base.yaml\n"), "files are not included"),
            (format!("{TASK}variants: [a]\n"), "belong together"),
        ] {
            let message = parse(&text).unwrap_err();
            assert!(message.contains(reason) && message.contains("t.yaml"), "{message}");
        }
        let both = parse(&format!("{}variants: [a, b]\ndata: 'x_{{}}.jsonl'\n", TASK.replace("task: t", "task: t_{}"))).unwrap().expand();
        assert_eq!((both.len(), both[1].0.task.as_str(), both[1].0.data.as_deref()), (2, "t_b", Some("x_b.jsonl")));
    }
}
