//! The evaluation of a run while it goes on: what the section `eval` asks, of the model as it stands.
//!
//! What must stay true: tasks and texts are read, rendered and tokenized before the run begins; scores are those of `openelm eval` on
//! the weights of the same step; the model that is trained is only read.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use openelm_eval::{Encoding, EvalError, Report, Task, TaskOptions, evaluate, read_texts, rolling};
use openelm_infer::{DecoderScorer, HostDecoder, InferError, ModelScorer, TokenScorer};
use openelm_model::{ModelConfig, ModelError, OpenElm, Precision};
use openelm_tokenizer::Tokenizer;
use openelm_train::{Evaluation, EvaluationError, Scores, Trainer};

use super::evaluate::load_tasks;
use crate::config::EvalSection;
use crate::convert::size;

/// What whole texts are called in the log.
const TEXT: &str = "text";
/// Tokens that go through the model at a time.
const BATCH_TOKENS: usize = 2048;

/// Tasks and texts, ready to be asked.
pub(super) struct RunEvaluation {
    every: u64,
    tasks: Vec<Task>,
    texts: Vec<String>,
    tokenizer: Tokenizer,
    max_length: usize,
}

impl RunEvaluation {
    /// Reads what `section` asks for and tokenizes it for a model of `config`.
    ///
    /// # Errors
    /// When a task is unknown, data are missing or do not fit, or two results would have one name.
    pub fn prepare(section: Option<&EvalSection>, tokenizer: &Tokenizer, config: &ModelConfig) -> Result<Option<Self>> {
        let Some(section) = section else { return Ok(None) };
        let limit = section.limit.map(size).transpose()?;
        let options = TaskOptions { shots: section.shots.map(size).transpose()?, limit };
        let tasks = load_tasks(&section.tasks, section.data.as_deref(), options)?;
        let texts = read_texts(&section.perplexity, &section.text_key, 0, limit)?;
        let max_length = section.max_length.map_or(Ok(config.max_context_length), size)?;
        let positions = config.rope_max_length;
        ensure!(
            max_length <= positions,
            "eval.max_length is {max_length}\nhint: give a number from 1 to {positions}, the positions that the model knows"
        );
        let mut names: BTreeSet<&str> = (!texts.is_empty()).then_some(TEXT).into_iter().collect();
        for task in &tasks {
            if !names.insert(&task.name) {
                bail!("eval.tasks: two results would be called {}\nhint: name each task once; a suite names several", task.name);
            }
        }
        let found = Self { every: section.every, tasks, texts, tokenizer: tokenizer.clone(), max_length };
        found.tasks.iter().try_for_each(|task| found.encoding().check(task))?;
        found.encoding().prefix()?;
        Ok(Some(found))
    }

    fn encoding(&self) -> Encoding<'_> {
        Encoding { tokenizer: &self.tokenizer, add_bos: true, max_length: self.max_length }
    }

    fn scores(&self, scorer: &dyn TokenScorer) -> Result<Scores, EvalError> {
        let encoding = self.encoding();
        let results = self.tasks.iter().map(|task| evaluate(task, &encoding, scorer, |_, _| ())).collect::<Result<Vec<_>, _>>()?;
        let mut report = Report::new("", &results);
        if !self.texts.is_empty() {
            report.add_perplexity(TEXT, &rolling(&self.texts, &encoding, scorer)?.1);
        }
        Ok(Scores(report.rows.into_iter().map(|row| (format!("{}/{}", row.task, row.metric), row.value)).collect()))
    }
}

impl Evaluation for RunEvaluation {
    fn evaluate(&mut self, model: &OpenElm) -> Result<Scores, EvaluationError> {
        // The CPU's kernels know no adapter beside the weights.
        if !HostDecoder::serves(model.device()) || model.is_adapted() {
            return Ok(self.scores(&ModelScorer::new(model, Precision::F32, BATCH_TOKENS))?);
        }
        let mut model = model.clone();
        let config = model.config().clone();
        let mut parameters = model.parameters_mut().into_iter();
        let decoder = HostDecoder::build::<InferError>(&config, |info| {
            let parameter = parameters.next().ok_or_else(|| ModelError::Missing { name: info.name.clone() })?;
            Ok(parameter.read(info)?)
        })?;
        Ok(self.scores(&DecoderScorer::new(&decoder, BATCH_TOKENS))?)
    }
}

/// The trainer with the evaluation, if there is one.
pub(super) fn evaluating(trainer: Trainer, evaluation: Option<RunEvaluation>) -> Trainer {
    match evaluation {
        Some(evaluation) => trainer.evaluating(evaluation.every, Box::new(evaluation)),
        None => trainer,
    }
}
