//! Relative paths in a configuration: which keys hold paths, and what the paths are relative to.

use std::path::{Component, Path, PathBuf};

use serde_yaml_ng::Value;

use super::RunConfig;
use super::parse::Segment;

/// Keys whose strings are paths, in our form and in CoreNet's.
const PATH_KEYS: [&str; 9] = ["path", "files", "cache", "model_path", "file_name", "init", "template", "data", "perplexity"];

/// `path` below `folder`, without `.` and with `..` taken out of it. A glob or a pattern keeps its wildcards.
pub(super) fn absolute(path: &Path, folder: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in folder.join(path).components() {
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

/// Whether this names something on another machine. Such a name is left as it is: validation refuses it, or an object store has it.
pub(super) fn is_remote(path: &str) -> bool {
    path.contains("://")
}

/// The same for a text; what is empty or remote is left as it is.
pub(super) fn absolute_text(path: &str, folder: &Path) -> String {
    if path.is_empty() || is_remote(path) {
        return path.to_owned();
    }
    absolute(Path::new(path), folder).to_string_lossy().into_owned()
}

/// Whether an element of `eval.tasks` is the path of a task file, not the name of a task or a suite.
pub(super) fn is_task_file(task: &str) -> bool {
    task.ends_with(".yaml") || task.ends_with(".yml")
}

/// Makes every path of the configuration absolute.
pub(super) fn resolve(config: &mut RunConfig, folder: &Path) {
    if let Some(path) = &mut config.tokenizer.path
        && !path.as_os_str().is_empty()
        && !is_remote(&path.to_string_lossy())
    {
        *path = absolute(path, folder);
    }
    let objects = config.data.object_store.iter_mut().filter_map(|section| section.cache.as_mut());
    for cache in config.data.cache.iter_mut().chain(objects) {
        if !cache.as_os_str().is_empty() && !is_remote(&cache.to_string_lossy()) {
            *cache = absolute(cache, folder);
        }
    }
    let validation = config.validation.iter_mut().flat_map(|validation| &mut validation.corpora);
    for corpus in config.data.corpora.iter_mut().chain(validation) {
        for file in &mut corpus.files {
            *file = absolute_text(file, folder);
        }
    }
    if let Some(eval) = &mut config.eval {
        eval.resolve(folder);
    }
}

/// Makes the paths of one override absolute; `at` is the key that it sets.
pub(super) fn resolve_value(value: &mut Value, at: &[Segment], folder: &Path) {
    let key = at.iter().rev().find_map(|segment| match segment {
        Segment::Key(key) => Some(key.as_str()),
        Segment::Index(_) => None,
    });
    resolve_below(value, key.unwrap_or_default(), folder);
}

fn resolve_below(value: &mut Value, key: &str, folder: &Path) {
    match value {
        Value::String(text) if PATH_KEYS.contains(&key) => *text = absolute_text(text, folder),
        Value::String(text) if key == "tasks" && is_task_file(text) => *text = absolute_text(text, folder),
        Value::Sequence(list) => list.iter_mut().for_each(|element| resolve_below(element, key, folder)),
        Value::Mapping(mapping) => {
            for (name, element) in mapping.iter_mut() {
                let name = name.as_str().unwrap_or_default().to_owned();
                resolve_below(element, &name, folder);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute() {
        let folder = Path::new("/runs/configs");
        assert_eq!(absolute_text("../data/*.jsonl", folder), "/runs/data/*.jsonl");
        assert_eq!(absolute_text("./a/{file_id:05d}.gz", folder), "/runs/configs/a/{file_id:05d}.gz");
        assert_eq!(absolute_text("/x/y", folder), "/x/y");
        assert_eq!(absolute_text("../../../../x", folder), "/x");
        assert_eq!(absolute_text("s3://bucket/x", folder), "s3://bucket/x");
        assert_eq!(absolute_text("", folder), "");
    }

    #[test]
    fn only_path_keys_of_overrides_change() {
        let mut value: Value = serde_yaml_ng::from_str("{name: a, files: [b, /c], text_key: d, tasks: [piqa, e.yaml], data: f}").unwrap();
        resolve_value(&mut value, &[Segment::Key("corpora".into()), Segment::Index(0)], Path::new("/w"));
        let expected: Value =
            serde_yaml_ng::from_str("{name: a, files: [/w/b, /c], text_key: d, tasks: [piqa, /w/e.yaml], data: /w/f}").unwrap();
        assert_eq!(value, expected);
    }
}
