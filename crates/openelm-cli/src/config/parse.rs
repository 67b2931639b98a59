//! YAML text or a YAML value into a typed configuration, with errors that name the key, the line and the nearest known key.
//!
//! What must stay true: nothing of the error is guessed; what serde does not say (a line for a value that was overridden) is left out.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path as ErrorPath, Segment as ErrorSegment};
use serde_yaml_ng::{Deserializer, Value};

use super::error::{ConfigError, Place};

/// One step from a YAML node to a node inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

/// `data.corpora[0].weight`.
pub(super) fn dotted(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            Segment::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// What serde found, before anyone knows which file it was.
#[derive(Debug)]
pub(super) struct Fault {
    pub path: Vec<Segment>,
    pub line_column: Option<(usize, usize)>,
    kind: Kind,
    reason: String,
    hint: String,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Syntax,
    UnknownKey,
    MissingKey,
    BadValue,
}

impl Fault {
    /// The error at a place that the caller knows.
    pub fn at(self, place: Place) -> ConfigError {
        let key = dotted(&self.path);
        let (reason, hint) = (self.reason, self.hint);
        match self.kind {
            Kind::Syntax => ConfigError::Syntax { place, reason, hint },
            Kind::UnknownKey => ConfigError::UnknownKey { place, key, hint },
            Kind::MissingKey => ConfigError::MissingKey { place, key, hint },
            Kind::BadValue => ConfigError::BadValue { place, key, reason, hint },
        }
    }
}

/// Text into a type; the error has a line and a column.
pub(super) fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_path_to_error::deserialize(Deserializer::from_str(text)).map_err(|error| fault(error.path(), error.inner()))
}

/// A value into a type; the error has no line.
pub(super) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| fault(error.path(), error.inner()))
}

fn fault(path: &ErrorPath, error: &serde_yaml_ng::Error) -> Fault {
    let mut segments: Vec<Segment> = path
        .iter()
        .filter_map(|segment| match segment {
            ErrorSegment::Seq { index } => Some(Segment::Index(*index)),
            ErrorSegment::Map { key } => Some(Segment::Key(key.clone())),
            ErrorSegment::Enum { .. } | ErrorSegment::Unknown => None,
        })
        .collect();
    let line_column = error.location().map(|location| (location.line(), location.column()));
    let message = bare_message(error);
    let quoted = quoted_words(&message);
    let named = quoted.first().cloned().unwrap_or_default();
    let (kind, hint) = if message.starts_with("unknown field `") {
        push_key(&mut segments, &named);
        (Kind::UnknownKey, nearest_hint(&named, quoted.get(1..).unwrap_or_default()))
    } else if message.starts_with("missing field `") {
        push_key(&mut segments, &named);
        (Kind::MissingKey, format!("add the key `{named}`"))
    } else if message.starts_with("unknown variant `") {
        let accepted = quoted.get(1..).unwrap_or_default();
        let reason = format!("`{named}` is none of the accepted values");
        let hint = match nearest(&named, accepted) {
            Some(near) => format!("did you mean `{near}`? Accepted: {}", accepted.join(", ")),
            None => format!("accepted: {}", accepted.join(", ")),
        };
        return Fault { path: segments, line_column, kind: Kind::BadValue, reason, hint };
    } else if message.starts_with("duplicate field `") {
        push_key(&mut segments, &named);
        (Kind::BadValue, "keep one of the two".to_owned())
    } else if message.starts_with("invalid ") {
        let reason = plain_words(&message);
        let hint = "write a value of the expected type".to_owned();
        return Fault { path: segments, line_column, kind: Kind::BadValue, reason, hint };
    } else if segments.is_empty() || error.location().is_none() {
        (Kind::Syntax, "the file must be one YAML document with sections and keys".to_owned())
    } else {
        (Kind::Syntax, "check the indentation, the brackets and the quotes near this place".to_owned())
    };
    Fault { path: segments, line_column, kind, reason: message, hint }
}

fn push_key(path: &mut Vec<Segment>, key: &str) {
    if path.last() != Some(&Segment::Key(key.to_owned())) {
        path.push(Segment::Key(key.to_owned()));
    }
}

/// The message without the path before it and the location behind it, which have places of their own in our errors.
fn bare_message(error: &serde_yaml_ng::Error) -> String {
    let mut message = error.to_string();
    if let Some(location) = error.location() {
        let suffix = format!(" at line {} column {}", location.line(), location.column());
        if let Some(start) = message.rfind(&suffix) {
            message.replace_range(start..start + suffix.len(), "");
        }
    }
    const STARTS: [&str; 6] =
        ["unknown field `", "missing field `", "unknown variant `", "duplicate field `", "invalid type: ", "invalid value: "];
    let first = STARTS.iter().filter_map(|start| Some((message.find(&format!(": {start}"))?, 2))).min();
    match first {
        // A quoted value could hold the same words, so what stands before must look like a path.
        Some((at, skip)) if !message[..at].contains([' ', '`', '"']) => message.split_off(at + skip),
        _ => message,
    }
}

/// serde's message without the names of Rust's types.
fn plain_words(message: &str) -> String {
    const TYPES: [(&str, &str); 3] = [("u64", "a whole number of at least 0"), ("i64", "a whole number"), ("f64", "a number")];
    let message = message.replacen("invalid type: unit value", "invalid type: no value", 1);
    let named = TYPES.iter().find_map(|(name, words)| Some(format!("{}{words}", message.strip_suffix(name)?)));
    named.unwrap_or(message)
}

/// The words between backticks.
fn quoted_words(message: &str) -> Vec<String> {
    message.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The known name that `name` was most likely meant to be, where one is near.
pub(super) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate.as_str()))
        .filter(|(score, _)| *score >= 0.82)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// A hint for a name that is none of the known ones.
pub(super) fn nearest_hint(name: &str, known: &[String]) -> String {
    match nearest(name, known) {
        _ if name == "<<" => "merge keys are not read; write the keys out".to_owned(),
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "no key is possible here".to_owned(),
        None => format!("known keys here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;

    #[test]
    fn nearest_is_near_or_none() {
        let known: Vec<String> = ["warmup_steps", "max_lr", "min_lr"].map(String::from).to_vec();
        assert_eq!(nearest("warmup_step", &known), Some("warmup_steps"));
        assert_eq!(nearest("Max_LR", &known), Some("max_lr"));
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn syntax_errors_keep_their_line() {
        let fault = from_text::<Value>("name: a\ndata: [1, 2\n").unwrap_err();
        assert_eq!(fault.kind, Kind::Syntax);
        assert!(fault.line_column.is_some(), "{fault:?}");
        assert!(!fault.reason.contains("at line 3"), "{fault:?}");
    }

    #[test]
    fn words_in_a_value_do_not_confuse_the_message() {
        let fault = from_text::<RunConfig>("name: a\nseed: \"x: unknown field `y`\"\n").unwrap_err();
        assert_eq!((fault.kind, dotted(&fault.path).as_str()), (Kind::BadValue, "seed"));
        assert_eq!(fault.line_column, Some((2, 7)));
    }
}
