//! The `eval` section of a run file: tasks and texts that the model is scored on while it is trained, as `openelm eval` does it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::paths::{absolute, absolute_text, is_remote, is_task_file};
use super::validate::{Check, at_least_one, at_most, require};

/// What is evaluated, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the keys of `eval`")]
pub struct EvalSection {
    /// Updates between two evaluations; 0 evaluates at the end alone. Default 1000.
    #[serde(default = "default_every")]
    pub every: u64,
    /// Tasks, suites and paths of task files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Folder of the tasks' documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Examples before each question. Default: the suite's number, else the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shots: Option<u64>,
    /// Shards of text whose documents are scored whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub perplexity: Vec<String>,
    /// The key of the shards' records that holds the text. Default text.
    #[serde(default = "default_text_key")]
    pub text_key: String,
    /// Documents of each task, and of the shards, at most. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Positions of a request at most. Default: the model's context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
}

fn default_every() -> u64 {
    1000
}
fn default_text_key() -> String {
    "text".into()
}

impl EvalSection {
    /// Makes every path absolute.
    pub(super) fn resolve(&mut self, folder: &Path) {
        for task in self.tasks.iter_mut().filter(|task| is_task_file(task)) {
            *task = absolute_text(task, folder);
        }
        for file in &mut self.perplexity {
            *file = absolute_text(file, folder);
        }
        if let Some(data) = self.data.as_mut().filter(|data| !data.as_os_str().is_empty() && !is_remote(&data.to_string_lossy())) {
            *data = absolute(data, folder);
        }
    }

    /// Checks what can be checked without a file.
    pub(super) fn check(&self) -> Check {
        let asked = !self.tasks.is_empty() || !self.perplexity.is_empty();
        require(asked, "eval", "asks for nothing", "name tasks under `tasks`, or shards of text under `perplexity`")?;
        let hint = "name the folder with the tasks' documents; docs/evaluation.md says how to make them";
        require(self.tasks.is_empty() || self.data.is_some(), "eval.data", "is missing, and there are tasks", hint)?;
        require(!self.tasks.is_empty() || self.data.is_none(), "eval.data", "stands without tasks", "name tasks, or leave it out")?;
        require(!self.tasks.is_empty() || self.shots.is_none(), "eval.shots", "stands without tasks", "name tasks, or leave it out")?;
        let data = self.data.as_ref().map(|data| ("eval.data".to_owned(), data.to_string_lossy()));
        let shards = self.perplexity.iter().enumerate().map(|(at, file)| (format!("eval.perplexity[{at}]"), file.as_str().into()));
        let tasks = self.tasks.iter().enumerate().map(|(at, task)| (format!("eval.tasks[{at}]"), task.as_str().into()));
        for (key, path) in data.into_iter().chain(shards).chain(tasks) {
            require(!path.is_empty(), &*key, "is empty", "give a name or a path, or leave it out")?;
            require(!is_remote(&path), &*key, format!("{path} is on another machine"), "copy it here, and name the copy")?;
        }
        at_most("eval.shots", self.shots.unwrap_or(0), 1000)?;
        at_least_one("eval.limit", self.limit.unwrap_or(1))?;
        at_least_one("eval.max_length", self.max_length.unwrap_or(1))
    }
}
