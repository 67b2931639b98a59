//! The rows of a task: JSON lines, or one JSON list, read whole and checked.

use std::path::Path;

use openelm_data::PythonRandom;
use serde_json::{Map, Value};

use crate::error::EvalError;

/// A row, and the line that it stands in; in a file that is one list, the row's number.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub line: usize,
    pub fields: Map<String, Value>,
}

/// The rows of the file at `path`, at most `limit`; shuffled first as Python's `Random(seed)` does, if a seed is given. Blank lines are
/// no rows.
///
/// # Errors
/// When the file cannot be read, a row is no JSON object, or there is no row.
pub fn read_documents(path: &Path, limit: Option<usize>, shuffle: Option<u64>) -> Result<Vec<Document>, EvalError> {
    let text = std::fs::read_to_string(path).map_err(|source| EvalError::Io {
        path: path.to_owned(),
        action: "reading the task's documents",
        source,
        hint: "put the file into the folder of --data; docs/evaluation.md says how to make it".into(),
    })?;
    let row = |line: usize, reason: String, hint: &str| EvalError::Row { path: path.to_owned(), line, reason, hint: hint.into() };
    let limit = limit.unwrap_or(usize::MAX);
    let read = if shuffle.is_some() { usize::MAX } else { limit };
    let mut documents = if text.trim_start().starts_with('[') {
        let hint = "the file must be one list of JSON objects, or hold one JSON object in each line";
        let rows: Vec<Map<String, Value>> =
            serde_json::from_str(&text).map_err(|error| row(error.line(), format!("no list of objects: {error}"), hint))?;
        rows.into_iter().take(read).enumerate().map(|(number, fields)| Document { line: number + 1, fields }).collect()
    } else {
        let hint = "each line must hold one JSON object";
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parsed = lines.take(read).map(|(number, line)| match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => Ok(Document { line: number + 1, fields }),
            Ok(_) => Err(row(number + 1, "not a JSON object".into(), hint)),
            Err(error) => Err(row(number + 1, format!("not JSON: {error}"), hint)),
        });
        parsed.collect::<Result<Vec<_>, _>>()?
    };
    if let Some(seed) = shuffle {
        PythonRandom::new(seed).shuffle(&mut documents);
        documents.truncate(limit);
    }
    if documents.is_empty() {
        return Err(row(0, "there is no row".into(), "give a file with documents, and a limit of at least 1"));
    }
    Ok(documents)
}
