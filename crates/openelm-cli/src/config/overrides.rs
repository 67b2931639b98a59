//! `dotted.key=value` from the command line, laid over a YAML value before it is read strictly.
//!
//! What must stay true: an override never creates a key silently wrong: the strict reading afterwards refuses unknown keys.
//! Relative paths inside an override are relative to the current directory, since that is where it was typed.

use std::path::Path;

use serde_yaml_ng::{Mapping, Value};

use super::error::ConfigError;
use super::parse::Segment;
use super::paths;

/// One `key=value`, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Override {
    pub text: String,
    pub path: Vec<Segment>,
    pub value: Value,
}

impl Override {
    /// `a.b.0.c=value` or `a.b[0].c=value`; the value is YAML.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |reason: String| ConfigError::Override {
            text: text.to_owned(),
            reason,
            hint: "write dotted.key=value, for example training.steps=100 or data.corpora.0.weight=2".into(),
        };
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("has no `=`".into()))?;
        let mut path = Vec::new();
        for part in key.trim().replace('[', ".").replace(']', "").split('.') {
            match part.parse::<usize>() {
                _ if part.is_empty() => return Err(wrong("has an empty part in its key".into())),
                Ok(index) => path.push(Segment::Index(index)),
                Err(_) => path.push(Segment::Key(part.to_owned())),
            }
        }
        let value = serde_yaml_ng::from_str(value).map_err(|source| wrong(format!("its value is no YAML: {source}")))?;
        Ok(Self { text: text.to_owned(), path, value })
    }

    /// The section that the override is about.
    pub fn section(&self) -> &str {
        match self.path.first() {
            Some(Segment::Key(key)) => key,
            _ => "",
        }
    }

    /// Whether a problem at `path` lies in what this override set, or around it.
    pub fn touches(&self, path: &[Segment]) -> bool {
        let shared = self.path.len().min(path.len());
        shared > 0 && self.path[..shared] == path[..shared]
    }

    /// Puts the value in; sections that are absent are made, a list grows by one element at most.
    pub fn apply(&self, root: &mut Value) -> Result<(), ConfigError> {
        let wrong = |reason: String, hint: &str| ConfigError::Override { text: self.text.clone(), reason, hint: hint.into() };
        let mut value = self.value.clone();
        let folder = std::env::current_dir()
            .map_err(|source| wrong(format!("the current directory is unknown: {source}"), "change to a folder that exists"))?;
        paths::resolve_value(&mut value, &self.path, &folder);
        put(root, &self.path, value).map_err(|reason| wrong(reason, "name a key of the configuration; lists are counted from 0"))
    }
}

fn put(node: &mut Value, path: &[Segment], value: Value) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *node = value;
        return Ok(());
    };
    match (first, node) {
        (Segment::Key(key), node @ Value::Null) => {
            let mut mapping = Mapping::new();
            put(mapping.entry(Value::from(key.as_str())).or_insert(Value::Null), rest, value)?;
            *node = Value::Mapping(mapping);
            Ok(())
        }
        (Segment::Key(key), Value::Mapping(mapping)) => put(mapping.entry(Value::from(key.as_str())).or_insert(Value::Null), rest, value),
        (Segment::Index(index), node @ Value::Null) if *index == 0 => {
            let mut element = Value::Null;
            put(&mut element, rest, value)?;
            *node = Value::Sequence(vec![element]);
            Ok(())
        }
        (Segment::Index(index), Value::Sequence(list)) => {
            let length = list.len();
            if *index == length {
                list.push(Value::Null);
            }
            match list.get_mut(*index) {
                Some(element) => put(element, rest, value),
                None => Err(format!("there is no element {index}: the list has {length}")),
            }
        }
        (Segment::Key(key), Value::Sequence(list)) => Err(format!("`{key}` is no index of a list with {} elements", list.len())),
        (Segment::Index(index), _) => Err(format!("element {index} of something that is no list")),
        (Segment::Key(key), _) => Err(format!("`{key}` would lie inside a plain value")),
    }
}

/// Reads all overrides.
pub(super) fn parse_all(texts: &[String]) -> Result<Vec<Override>, ConfigError> {
    texts.iter().map(|text| Override::parse(text)).collect()
}

/// The folder of a configuration file, absolute, for the relative paths in it.
pub(super) fn folder_of(path: &Path) -> Result<std::path::PathBuf, ConfigError> {
    let absolute = std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(absolute.parent().map(Path::to_owned).unwrap_or(absolute))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(yaml: &str, text: &str) -> Result<Value, ConfigError> {
        let mut value: Value = serde_yaml_ng::from_str(yaml).unwrap();
        Override::parse(text)?.apply(&mut value)?;
        Ok(value)
    }

    #[test]
    fn values_are_put_in() {
        let yaml = "a: {b: 1}\nl: [{w: 1}, {w: 2}]\n";
        assert_eq!(applied(yaml, "a.b=2.5").unwrap()["a"]["b"], Value::from(2.5));
        assert_eq!(applied(yaml, "new.key=true").unwrap()["new"]["key"], Value::from(true));
        assert_eq!(applied(yaml, "l.1.w=7").unwrap()["l"][1]["w"], Value::from(7));
        assert_eq!(applied(yaml, "l[0].w=7").unwrap()["l"][0]["w"], Value::from(7));
        assert_eq!(applied(yaml, "l.2={w: 3}").unwrap()["l"][2]["w"], Value::from(3));
        assert_eq!(applied(yaml, "a.b=x=y").unwrap()["a"]["b"], Value::from("x=y"));
    }

    #[test]
    fn what_cannot_be_put_in_is_refused() {
        let yaml = "a: {b: 1}\nl: [1]\n";
        let reason = |text: &str| applied(yaml, text).unwrap_err().to_string();
        assert!(reason("a.b").contains("--set a.b: has no `=`\nhint: write dotted.key=value"));
        assert!(reason("a..b=1").contains("empty part"));
        assert!(reason("l.5=1").contains("no element 5: the list has 1"));
        assert!(reason("l.x=1").contains("`x` is no index of a list with 1 elements"));
        assert!(reason("a.b.c=1").contains("would lie inside a plain value"));
        assert!(reason("a.0=1").contains("is no list"));
        assert!(reason("a.b=[1").contains("no YAML"));
    }
}
