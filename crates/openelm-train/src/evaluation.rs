//! Evaluation of the model while it is trained, by whoever can: this crate knows no tasks and no engine for them.
//!
//! What must stay true: an evaluation sees the model as it stands and changes nothing, neither of it nor of the run's state.

use openelm_model::OpenElm;
use serde::{Serialize, Serializer};

use crate::error::TrainError;

/// Why a model could not be evaluated.
pub type EvaluationError = Box<dyn std::error::Error + Send + Sync>;

/// What the trainer calls every so many updates.
pub trait Evaluation: Send {
    /// Scores of `model` by name, such as `arc_easy/acc`, in the order in which they are logged.
    ///
    /// # Errors
    /// What ends the run.
    fn evaluate(&mut self, model: &OpenElm) -> Result<Scores, EvaluationError>;
}

/// Named scores; in a log each name begins with `eval/`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores(pub Vec<(String, f64)>);

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (format!("eval/{name}"), value)))
    }
}

/// What an evaluation gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvaluationRecord {
    /// Updates done.
    pub step: u64,
    #[serde(flatten)]
    pub scores: Scores,
}

/// An evaluation, and when it is due.
pub(crate) struct Scheduled {
    /// Updates between two; 0: at the end alone.
    pub every: u64,
    pub evaluation: Box<dyn Evaluation>,
}

impl Scheduled {
    /// Evaluates `model`, which has seen `step` updates.
    pub fn run(&mut self, step: u64, model: &OpenElm) -> Result<EvaluationRecord, TrainError> {
        let scores = self.evaluation.evaluate(model).map_err(|source| TrainError::Evaluation { step, source })?;
        Ok(EvaluationRecord { step, scores })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_flat_line() {
        let scores = Scores(vec![("arc_easy/acc".into(), 0.25), ("text/loss".into(), 3.5)]);
        let line = serde_json::to_string(&EvaluationRecord { step: 7, scores }).unwrap();
        assert_eq!(line, r#"{"step":7,"eval/arc_easy/acc":0.25,"eval/text/loss":3.5}"#);
    }
}
