//! How good a candidate is: texts and tasks, read once, asked of models that exist in memory alone.

use openelm_checkpoint::{Device, ModelConfig, OpenElm, ParameterInfo, Precision};
use openelm_eval::{
    DecoderScorer, Encoding, HostDecoder, ModelScorer, Task, TaskOptions, TokenScorer, Tokenizer, evaluate, find_tasks, read_texts, rolling,
};

use crate::error::MergeError;
use crate::models::Models;
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::search_file::Measure;

/// Tokens that go through a candidate at a time.
const BATCH_TOKENS: usize = 2048;

/// Data to measure with.
pub(crate) struct Ruler<'a> {
    tokenizer: &'a Tokenizer,
    texts: Vec<String>,
    /// Tasks with their weights.
    tasks: Vec<(Task, f64)>,
    max_length: Option<usize>,
}

impl<'a> Ruler<'a> {
    /// Reads what `measure` names.
    ///
    /// # Errors
    /// When a shard or a task cannot be read, or nothing is left of the texts.
    pub fn new(measure: &Measure, tokenizer: &'a Tokenizer) -> Result<Self, MergeError> {
        let mut texts = read_texts(&measure.files, &measure.text_key, measure.skip, measure.documents)?;
        if let Some(characters) = measure.characters {
            texts.iter_mut().for_each(|text| *text = text.chars().take(characters).collect());
        }
        let mut tasks = Vec::new();
        for (name, weight) in &measure.tasks {
            for asked in find_tasks(name)? {
                let options = TaskOptions { shots: asked.shots, limit: measure.limit };
                let data = measure.data.as_deref().unwrap_or(std::path::Path::new(""));
                tasks.extend(Task::load(&asked.file, data, options)?.into_iter().map(|task| (task, *weight)));
            }
        }
        Ok(Self { tokenizer, texts, tasks, max_length: measure.max_length })
    }

    /// The value of a recipe; the smaller, the better.
    ///
    /// # Errors
    /// When the recipe cannot be carried out, or the model gives no numbers.
    pub fn value(&self, recipe: &Recipe, models: &Models, device: &Device) -> Result<f64, MergeError> {
        let plan = Plan::new(recipe, models)?;
        let mut planned = plan.tensors().iter();
        let mut values = |info: &ParameterInfo| -> Result<Vec<f32>, MergeError> {
            let tensor = planned.next().ok_or_else(|| openelm_checkpoint::ModelError::Missing { name: info.name.clone() })?;
            plan.merge(models, tensor)
        };
        // On the CPU our own kernels read the candidate; on other devices burn's operations do.
        if HostDecoder::serves(device) {
            let decoder = HostDecoder::build(plan.config(), values)?;
            return self.score(&DecoderScorer::new(&decoder, BATCH_TOKENS), plan.config());
        }
        let model = OpenElm::build(plan.config(), device, &mut values)?;
        self.score(&ModelScorer::new(&model, Precision::F32, BATCH_TOKENS), plan.config())
    }

    fn score(&self, scorer: &dyn TokenScorer, config: &ModelConfig) -> Result<f64, MergeError> {
        let max_length = self.max_length.unwrap_or(config.max_context_length).min(config.rope_max_length);
        let encoding = Encoding { tokenizer: self.tokenizer, add_bos: true, max_length };
        let mut value = 0.0;
        if !self.texts.is_empty() {
            value += rolling(&self.texts, &encoding, scorer)?.1.loss();
        }
        for (task, weight) in &self.tasks {
            let result = evaluate(task, &encoding, scorer, |_, _| ())?;
            value -= weight * result.metric("acc_norm").or(result.metric("acc")).unwrap_or(0.0);
        }
        Ok(value)
    }
}
