//! RUN_DIR/metrics.jsonl: one JSON object a line: of a step, a validation or an evaluation, told apart by their keys.
//!
//! What must stay true: after a resume the file holds each step once. Lines past the checkpoint, and a last line that a crash
//! has cut, are dropped when the log is opened.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::error::TrainError;

/// Named numbers of an objective, in the order in which they are logged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<(&'static str, Number)>);

/// A number of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Number {
    Real(f64),
    Count(u64),
}

impl Metrics {
    /// Adds a measured value.
    pub fn real(&mut self, name: &'static str, value: f64) {
        self.0.push((name, Number::Real(value)));
    }

    /// Adds a number of things, which the TensorBoard log leaves out.
    pub fn count(&mut self, name: &'static str, value: u64) {
        self.0.push((name, Number::Count(value)));
    }

    /// The measured values.
    pub fn reals(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.0.iter().filter_map(|(name, number)| match number {
            Number::Real(value) => Some((*name, *value)),
            Number::Count(_) => None,
        })
    }

    /// The measured value of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.reals().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, number)| (name, number)))
    }
}

/// What one update was like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRecord {
    /// Updates done, this one included.
    pub step: u64,
    /// What the update made smaller.
    pub loss: f64,
    /// What the objective says of it: for pretraining `ce_loss` and `z_loss`, whose sum is the loss.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Targets seen since the run began, padding not counted.
    pub tokens: u64,
    pub tokens_per_second: f64,
    /// Seconds that this update waited for data.
    pub data_wait_seconds: f64,
}

/// The loss on held-out examples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValidationRecord {
    /// Updates done.
    pub step: u64,
    /// For text the mean cross entropy in nats a token.
    pub validation_loss: f64,
    /// What the objective says of it: for text `perplexity` and `validation_tokens`, the targets that the loss is a mean of.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// The log of a run, open for writing.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the log in `folder`, keeping the lines up to `step` updates.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds a line (not the last) that is no record.
    pub fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let path = folder.join("metrics.jsonl");
        let fault = |action| {
            let path = path.clone();
            move |source| TrainError::Log { path, action, source }
        };
        let kept = match File::open(&path) {
            Ok(file) => kept_lines(&path, file, step)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(fault("opening it")(error)),
        };
        let aside = folder.join("metrics.jsonl.new");
        std::fs::write(&aside, kept).map_err(fault("writing it"))?;
        std::fs::rename(&aside, &path).map_err(fault("replacing it"))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(fault("opening it"))?;
        Ok(Self { path, file })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&mut self, record: &impl Serialize) -> Result<(), TrainError> {
        let fault = |source| TrainError::Log { path: self.path.clone(), action: "writing it", source };
        let mut line = serde_json::to_vec(record).map_err(|error| fault(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(fault)
    }
}

fn kept_lines(path: &Path, file: File, step: u64) -> Result<Vec<u8>, TrainError> {
    #[derive(Deserialize)]
    struct Step {
        step: u64,
    }
    let mut input = BufReader::new(file);
    let mut kept = Vec::new();
    let mut number = 0;
    loop {
        let mut line = Vec::new();
        number += 1;
        let read = input.read_until(b'\n', &mut line);
        read.map_err(|source| TrainError::Log { path: path.to_owned(), action: "reading it", source })?;
        if line.last() != Some(&b'\n') {
            return Ok(kept);
        }
        match serde_json::from_slice::<Step>(&line) {
            Ok(record) if record.step <= step => kept.extend_from_slice(&line),
            Ok(_) => {}
            Err(error) => return Err(TrainError::BadLog { path: path.to_owned(), line: number, reason: error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_checkpoint_and_a_cut_line_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let record = |step| {
            let mut metrics = Metrics::default();
            metrics.real("perplexity", 4.5);
            metrics.count("validation_tokens", 8);
            ValidationRecord { step, validation_loss: 1.5, metrics }
        };
        let mut log = MetricsLog::open(folder.path(), 0).unwrap();
        (1..=4).for_each(|step| log.write(&record(step)).unwrap());
        log.file.write_all(b"{\"step\": 2, \"los").unwrap();
        let mut log = MetricsLog::open(folder.path(), 2).unwrap();
        log.write(&record(3)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let line = |step| format!("{{\"step\":{step},\"validation_loss\":1.5,\"perplexity\":4.5,\"validation_tokens\":8}}\n");
        assert_eq!(text, (1..=3).map(line).collect::<String>());
        assert_eq!((record(1).metrics.get("perplexity"), record(1).metrics.get("validation_tokens")), (Some(4.5), None));
        std::fs::write(&path, "{\"step\": 1}\nnonsense\n").unwrap();
        let error = MetricsLog::open(folder.path(), 9).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl, line 2"), "{error}");
    }
}
