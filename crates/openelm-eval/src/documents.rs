//! The rows of a task: JSON lines, read whole and checked.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::EvalError;

/// A row, and the line that it stands in.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub line: usize,
    pub fields: Map<String, Value>,
}

/// The rows of the file at `path`, at most `limit`. Blank lines are no rows.
///
/// # Errors
/// When the file cannot be read, a line is no JSON object, or there is no row.
pub fn read_documents(path: &Path, limit: Option<usize>) -> Result<Vec<Document>, EvalError> {
    let text = std::fs::read_to_string(path).map_err(|source| EvalError::Io {
        path: path.to_owned(),
        action: "reading the task's documents",
        source,
        hint: "put the file into the folder of --data; docs/evaluation.md says how to make it".into(),
    })?;
    let row = |line: usize, reason: String, hint: &str| EvalError::Row { path: path.to_owned(), line, reason, hint: hint.into() };
    let mut documents = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if documents.len() == limit.unwrap_or(usize::MAX) {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => documents.push(Document { line: number + 1, fields }),
            Ok(_) => return Err(row(number + 1, "not a JSON object".into(), "each line must hold one JSON object")),
            Err(error) => return Err(row(number + 1, format!("not JSON: {error}"), "each line must hold one JSON object")),
        }
    }
    if documents.is_empty() {
        return Err(row(0, "there is no row".into(), "give a file with documents, and a limit of at least 1"));
    }
    Ok(documents)
}
