//! A task asked of an engine, and what came of it.

use openelm_infer::{TokenScore, TokenScorer};

use crate::error::EvalError;
use crate::requests::{Encoding, Requests};
use crate::task::{Question, Task};
use crate::task_file::Metric;

/// Groups that are given to the engine at a time, between two words of progress.
const GROUPS_AT_A_TIME: usize = 256;

/// One number with its uncertainty.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricResult {
    /// The harness's name: acc, acc_norm, pct_stereotype.
    pub name: &'static str,
    pub value: f64,
    /// Standard error of the mean; none for a single document.
    pub stderr: Option<f64>,
}

/// What an engine made of one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// ln p of each choice.
    pub log_likelihoods: Vec<f64>,
    pub gold: usize,
    /// One value for each metric of the task.
    pub values: Vec<f64>,
}

/// A task's scores.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskResult {
    pub task: String,
    pub shots: usize,
    pub version: Option<String>,
    pub metrics: Vec<MetricResult>,
    pub samples: Vec<Sample>,
}

impl TaskResult {
    /// The value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }
}

/// Asks `task` of `scorer`. `progress` hears how many of how many contexts are done.
///
/// # Errors
/// When a request does not fit, or the engine fails.
pub fn evaluate(
    task: &Task,
    encoding: &Encoding<'_>,
    scorer: &dyn TokenScorer,
    mut progress: impl FnMut(usize, usize),
) -> Result<TaskResult, EvalError> {
    let Requests { groups, places } = encoding.requests(task)?;
    let mut scores: Vec<Vec<TokenScore>> = Vec::with_capacity(groups.len());
    for part in groups.chunks(GROUPS_AT_A_TIME) {
        progress(scores.len(), groups.len());
        scores.extend(scorer.score(part)?);
    }
    progress(groups.len(), groups.len());
    let samples: Vec<Sample> = task
        .questions
        .iter()
        .zip(&places)
        .map(|(question, places)| {
            let log_likelihoods: Vec<f64> = places.iter().map(|(group, place)| scores[*group][*place].log_probability).collect();
            let values = task.metrics.iter().map(|metric| value(*metric, question, &log_likelihoods)).collect();
            Sample { log_likelihoods, gold: question.gold, values }
        })
        .collect();
    let metrics = task.metrics.iter().enumerate().map(|(place, metric)| {
        let values: Vec<f64> = samples.iter().map(|sample| sample.values[place]).collect();
        let (value, stderr) = mean_and_error(&values);
        MetricResult { name: metric.name(), value, stderr }
    });
    Ok(TaskResult { task: task.name.clone(), shots: task.shots, version: task.version.clone(), metrics: metrics.collect(), samples })
}

fn value(metric: Metric, question: &Question, log_likelihoods: &[f64]) -> f64 {
    let hit = |best: Option<usize>| f64::from(u8::from(best == Some(question.gold)));
    match metric {
        Metric::Acc => hit(first_largest(log_likelihoods.iter().copied())),
        Metric::AccNorm => hit(first_largest(log_likelihoods.iter().zip(&question.lengths).map(|(sum, length)| sum / *length as f64))),
        Metric::Mc2 => {
            // From the largest, so that long answers do not all become 0.
            let largest = log_likelihoods.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = log_likelihoods.iter().map(|sum| (sum - largest).exp()).collect();
            let right: f64 = shares.iter().zip(&question.labels).filter(|(_, label)| **label).map(|(share, _)| share).sum();
            right / shares.iter().sum::<f64>()
        }
        Metric::PctStereotype => match log_likelihoods {
            [first, second] => f64::from(u8::from(first > second)),
            _ => 0.0,
        },
    }
}

/// As numpy's argmax: the first of equal ones.
fn first_largest(values: impl Iterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (place, value) in values.enumerate() {
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((place, value));
        }
    }
    best.map(|(place, _)| place)
}

/// Mean, and the standard error from the sample's deviation.
fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_by_hand() {
        let question = Question { requests: Vec::new(), lengths: vec![2, 10], gold: 1, labels: vec![true, false] };
        let sums = [-2.0, -4.0];
        assert_eq!(value(Metric::Acc, &question, &sums), 0.0);
        assert_eq!(value(Metric::AccNorm, &question, &sums), 1.0);
        assert_eq!(value(Metric::PctStereotype, &question, &sums), 1.0);
        let right = 1.0 / (1.0 + (-2.0_f64).exp());
        assert!((value(Metric::Mc2, &question, &sums) - right).abs() < 1e-12);
        assert!((value(Metric::Mc2, &question, &[-1002.0, -1004.0]) - right).abs() < 1e-12);
        assert_eq!(first_largest([1.0, 3.0, 3.0].into_iter()), Some(1));
        assert_eq!(mean_and_error(&[1.0, 0.0, 1.0, 0.0]), (0.5, Some((1.0_f64 / 12.0).sqrt())));
        assert_eq!(mean_and_error(&[1.0]), (1.0, None));
    }
}
