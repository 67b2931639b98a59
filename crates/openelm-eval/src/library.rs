//! The tasks and suites that come with the program (`configs/eval`), and those of a user's own files.
//!
//! What must stay true: a task is its file alone and one row here.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::EvalError;
use crate::task_file::TaskFile;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../configs/eval/", $name, ".yaml")))),*]
    };
}

/// Names and texts of the shipped task files.
const TASKS: &[(&str, &str)] = shipped![
    "arc_challenge",
    "arc_easy",
    "boolq",
    "commonsense",
    "crows_pairs",
    "hellaswag",
    "mmlu",
    "openbookqa",
    "piqa",
    "race",
    "sciq",
    "truthfulqa_mc2",
    "winogrande",
];
const SUITES: &str = include_str!("../../../configs/eval/suites.yaml");

/// A task file that was asked for, and the examples that a suite wants.
#[derive(Clone, Debug)]
pub struct Asked {
    pub file: TaskFile,
    pub shots: Option<usize>,
}

/// Names of all shipped tasks.
pub fn task_names() -> Vec<&'static str> {
    TASKS.iter().map(|(name, _)| *name).collect()
}

/// The task files that `name` stands for: a suite, a shipped task, one variant of a task (`mmlu_astronomy`), or a file's path.
///
/// # Errors
/// When it is none of these, or the file is no task.
pub fn find_tasks(name: &str) -> Result<Vec<Asked>, EvalError> {
    if name.ends_with(".yaml") || name.ends_with(".yml") {
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(|source| EvalError::Io {
            path: path.to_owned(),
            action: "reading the task file",
            source,
            hint: "check the path".into(),
        })?;
        return Ok(vec![Asked { file: TaskFile::parse(&text, path)?, shots: None }]);
    }
    let suites = suites()?;
    if let Some(tasks) = suites.get(name) {
        let task = |(task, shots): (&String, &usize)| Ok(Asked { file: shipped(task)?, shots: Some(*shots) });
        return tasks.iter().map(task).collect();
    }
    if TASKS.iter().any(|(known, _)| *known == name) {
        return Ok(vec![Asked { file: shipped(name)?, shots: None }]);
    }
    for (known, _) in TASKS.iter().filter(|(known, _)| name.starts_with(known)) {
        let mut file = shipped(known)?;
        file.variants.retain(|variant| file.task.replace("{}", variant) == name);
        if !file.variants.is_empty() {
            return Ok(vec![Asked { file, shots: None }]);
        }
    }
    let suites: Vec<&str> = suites.keys().map(String::as_str).collect();
    let hint = format!("tasks: {}; suites: {}", task_names().join(", "), suites.join(", "));
    Err(EvalError::UnknownTask { name: name.to_owned(), hint })
}

/// Suites by name: tasks with their numbers of examples.
fn suites() -> Result<BTreeMap<String, BTreeMap<String, usize>>, EvalError> {
    let path = Path::new("configs/eval/suites.yaml");
    serde_yaml_ng::from_str(SUITES).map_err(|error| EvalError::task(path, "suites", error.to_string(), "build the program again"))
}

fn shipped(name: &str) -> Result<TaskFile, EvalError> {
    let path = Path::new("configs/eval").join(format!("{name}.yaml"));
    match TASKS.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => TaskFile::parse(text, &path),
        None => Err(EvalError::task(&path, "suites", format!("names the task {name}, which there is not"), "build the program again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_shipped_can_be_read() {
        for name in task_names() {
            assert_eq!(find_tasks(name).unwrap().len(), 1, "{name}");
        }
        for suite in ["zero_shot", "openllm", "llm360"] {
            assert!(find_tasks(suite).unwrap().len() >= 5);
        }
        assert_eq!(find_tasks("mmlu").unwrap()[0].file.expand().len(), 57);
        let one = find_tasks("mmlu_astronomy").unwrap()[0].file.expand();
        assert_eq!((one.len(), one[0].0.data.as_deref()), (1, Some("mmlu_astronomy_test.jsonl")));
        let one = find_tasks("commonsense_ARC-Easy").unwrap()[0].file.expand();
        assert_eq!((one.len(), one[0].0.data.as_deref()), (1, Some("ARC-Easy/test.json")));
        let message = find_tasks("mmlu_astrology").unwrap_err().to_string();
        assert!(message.contains("hellaswag") && message.contains("openllm"), "{message}");
    }
}
