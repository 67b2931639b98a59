//! Scores of one model as the harness writes them: `results`, by task, with the keys `acc,none` and `acc_norm,none`.
//!
//! What must stay true: what is written reads back for comparison; tasks named `mmlu_*` also give the mean `mmlu`, weighted by their
//! numbers of documents.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::EvalError;
use crate::evaluate::TaskResult;
use crate::rolling::Perplexity;

/// The task whose variants are also given as one number.
const GROUP: &str = "mmlu";

/// One task's row in a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub task: String,
    pub metric: String,
    pub value: f64,
    pub stderr: Option<f64>,
    /// Examples before each question, and documents, where they are known.
    pub shots: Option<u64>,
    pub documents: Option<u64>,
}

/// Scores of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub model: String,
    pub rows: Vec<Row>,
}

impl Report {
    /// Scores as rows; a group's mean follows its parts.
    pub fn new(model: &str, results: &[TaskResult]) -> Self {
        let mut rows = Vec::new();
        for result in results {
            rows.extend(result.metrics.iter().map(|metric| Row {
                task: result.task.clone(),
                metric: metric.name.to_owned(),
                value: metric.value,
                stderr: metric.stderr,
                shots: Some(result.shots as u64),
                documents: Some(result.samples.len() as u64),
            }));
        }
        let part = |row: &&Row| row.task.starts_with(&format!("{GROUP}_"));
        let documents: u64 = rows.iter().filter(part).filter_map(|row| row.documents).sum();
        if rows.iter().filter(part).count() > 1 {
            let sum: f64 = rows.iter().filter(part).map(|row| row.value * row.documents.unwrap_or(0) as f64).sum();
            let shots = rows.iter().find(part).and_then(|row| row.shots);
            let value = sum / documents as f64;
            rows.push(Row { task: GROUP.into(), metric: "acc".into(), value, stderr: None, shots, documents: Some(documents) });
        }
        Self { model: model.to_owned(), rows }
    }

    /// Adds what whole texts gave.
    pub fn add_perplexity(&mut self, name: &str, perplexity: &Perplexity) {
        let values = [
            ("loss", perplexity.loss()),
            ("token_perplexity", perplexity.token_perplexity()),
            ("word_perplexity", perplexity.word_perplexity()),
            ("byte_perplexity", perplexity.byte_perplexity()),
            ("bits_per_byte", perplexity.bits_per_byte()),
        ];
        self.rows.extend(values.into_iter().map(|(metric, value)| Row {
            task: name.to_owned(),
            metric: metric.to_owned(),
            value,
            stderr: None,
            shots: None,
            documents: Some(perplexity.documents as u64),
        }));
    }

    /// The harness's JSON.
    pub fn json(&self, results: &[TaskResult]) -> Value {
        let (mut by_task, mut shots, mut documents) = (Map::new(), Map::new(), Map::new());
        for row in &self.rows {
            let entry = by_task.entry(&row.task).or_insert_with(|| json!({"alias": row.task}));
            if let Some(fields) = entry.as_object_mut() {
                fields.insert(format!("{},none", row.metric), json!(row.value));
                if row.shots.is_some() {
                    fields.insert(format!("{}_stderr,none", row.metric), row.stderr.map_or(json!("N/A"), |stderr| json!(stderr)));
                }
            }
            if let Some(count) = row.shots {
                shots.insert(row.task.clone(), json!(count));
            }
            if let Some(count) = row.documents {
                documents.insert(row.task.clone(), json!({"effective": count}));
            }
        }
        let versions: Map<String, Value> =
            results.iter().filter_map(|result| Some((result.task.clone(), json!(result.version.as_ref()?)))).collect();
        json!({
            "results": by_task,
            "n-shot": shots,
            "n-samples": documents,
            "versions": versions,
            "config": {"model": "openelm", "model_args": self.model},
        })
    }

    /// Reads a file that [`json`](Self::json) or the harness wrote.
    ///
    /// # Errors
    /// When it holds no results.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = std::fs::read_to_string(path).map_err(|source| EvalError::Io {
            path: path.to_owned(),
            action: "reading results",
            source,
            hint: "give a results.json of an earlier evaluation".into(),
        })?;
        let fault = |reason: String| EvalError::task(path, "results", reason, "give a results.json of this program or of the harness");
        let value: Value = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        let tasks = value.get("results").and_then(Value::as_object).ok_or_else(|| fault("are missing".into()))?;
        let count = |key: &str, task: &str| value.get(key)?.get(task)?.as_u64();
        let mut rows = Vec::new();
        for (task, fields) in tasks {
            for (key, found) in fields.as_object().into_iter().flatten() {
                let Some((metric, _)) = key.split_once(',').filter(|(metric, _)| !metric.ends_with("_stderr")) else { continue };
                let Some(found) = found.as_f64() else { continue };
                let stderr = fields.get(format!("{metric}_stderr,none")).and_then(Value::as_f64);
                let documents = value.get("n-samples").and_then(|all| all.get(task)?.get("effective")?.as_u64());
                let (task, metric, shots) = (task.clone(), metric.to_owned(), count("n-shot", task));
                rows.push(Row { task, metric, value: found, stderr, shots, documents });
            }
        }
        let named = value.pointer("/config/model_args").and_then(Value::as_str);
        Ok(Self { model: named.map_or_else(|| path.display().to_string(), str::to_owned), rows })
    }

    /// A table for a terminal.
    pub fn table(&self) -> String {
        let mut lines = vec![["task", "shots", "documents", "metric", "value", "stderr"].map(str::to_owned)];
        let number = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        lines.extend(self.rows.iter().map(|row| {
            let stderr = row.stderr.map_or_else(|| "-".to_owned(), |stderr| format!("{stderr:.4}"));
            [row.task.clone(), number(row.shots), number(row.documents), row.metric.clone(), format!("{:.4}", row.value), stderr]
        }));
        let widths: Vec<usize> = (0..6).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for line in lines {
            // Names stand on the left, numbers on the right.
            let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 | 3 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{MetricResult, Sample};

    #[test]
    fn results_are_written_read_and_grouped() {
        let result = |task: &str, value, count| TaskResult {
            task: task.into(),
            shots: 5,
            version: Some("1.0".into()),
            metrics: vec![MetricResult { name: "acc", value, stderr: Some(0.25) }],
            samples: vec![Sample { log_likelihoods: vec![], gold: 0, values: vec![] }; count],
        };
        let results = [result("mmlu_a", 0.5, 30), result("mmlu_b", 1.0, 10), result("piqa", 0.75, 4)];
        let report = Report::new("runs/x", &results);
        let json = report.json(&results);
        assert_eq!(json["results"]["piqa"]["acc,none"], 0.75);
        assert_eq!(json["results"]["mmlu"]["acc,none"], 0.625);
        assert_eq!(json["results"]["mmlu"]["acc_stderr,none"], "N/A");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json.to_string()).unwrap();
        let mut back = Report::read(file.path()).unwrap();
        back.rows.sort_by(|a, b| a.task.cmp(&b.task));
        let mut rows = report.rows.clone();
        rows.sort_by(|a, b| a.task.cmp(&b.task));
        assert_eq!((back.model.as_str(), back.rows), ("runs/x", rows));
        assert!(report.table().contains("mmlu_a      5         30  acc     0.5000  0.2500\n"), "{}", report.table());
    }
}
