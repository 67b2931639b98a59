//! Numbers that Apple published, to compare with.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::EvalError;

const FILE: &str = include_str!("../../../configs/eval/published.yaml");

/// A table of published scores in percent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    pub source: String,
    pub tasks: Vec<String>,
    /// One value a task.
    pub models: BTreeMap<String, Vec<f64>>,
}

/// The table that comes with the program.
///
/// # Errors
/// When the program was built with a broken table.
pub fn published() -> Result<Published, EvalError> {
    let path = Path::new("configs/eval/published.yaml");
    let fault = |reason: String| EvalError::task(path, "models", reason, "build the program again");
    let table: Published = serde_yaml_ng::from_str(FILE).map_err(|error| fault(error.to_string()))?;
    match table.models.iter().find(|(_, values)| values.len() != table.tasks.len()) {
        Some((model, values)) => Err(fault(format!("{model} has {} values for {} tasks", values.len(), table.tasks.len()))),
        None => Ok(table),
    }
}
