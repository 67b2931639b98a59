//! A fine-tuning file's sections as the settings of the crates that do the work, and its files as examples.
//!
//! What must stay true: a number is converted exactly or refused; nothing is defaulted here that the file's form does not state.

use anyhow::Result;
use openelm_finetune::{Examples, Layout, Learnt, OnBadRow, PairLimits, PairTokens, PreferenceLoss, PreferenceSettings, Reader, TrainOn};
use openelm_tokenizer::{ChatTemplate, Tokenizer};
use openelm_train::{Accumulation, AdamWConfig, Schedule, TrainSettings};

use crate::config::{FinetuneConfig, LayoutName, OnBadRecord, PreferenceLossName, TrainOnName};
use crate::convert::{precision, size};

fn reader<'a>(config: &FinetuneConfig, tokenizer: &'a Tokenizer, template: &'a ChatTemplate) -> Reader<'a> {
    let on_bad_row = match config.data.on_bad_row {
        OnBadRecord::Stop => OnBadRow::Stop,
        OnBadRecord::Skip => OnBadRow::Skip,
    };
    Reader { tokenizer, template, on_bad_row }
}

/// The pairs in `files`.
pub(crate) fn preferences(
    config: &FinetuneConfig,
    files: &[String],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
) -> Result<Examples<PairTokens>> {
    let limits = PairLimits { max_length: size(config.data.max_length)?, max_prompt_length: size(config.max_prompt_length())? };
    Ok(reader(config, tokenizer, template).pairs(files, limits)?)
}

/// The conversations in `files`.
pub(crate) fn conversations(
    config: &FinetuneConfig,
    files: &[String],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
) -> Result<Examples<Learnt>> {
    let layout = match config.data.layout {
        LayoutName::Auto => Layout::Auto,
        LayoutName::Messages => Layout::Messages,
        LayoutName::Sharegpt => Layout::Sharegpt,
        LayoutName::Alpaca => Layout::Alpaca,
        LayoutName::Commonsense => Layout::Commonsense,
    };
    let train_on = match config.objective.train_on {
        None | Some(TrainOnName::Answers) => TrainOn::Answers,
        Some(TrainOnName::Everything) => TrainOn::Everything,
    };
    Ok(reader(config, tokenizer, template).dialogues(files, layout, train_on, size(config.data.max_length)?)?)
}

/// Tokens of a packed sequence, if conversations are packed.
pub(crate) fn packed_length(config: &FinetuneConfig) -> Result<Option<usize>> {
    config.objective.packing.unwrap_or(false).then(|| size(config.data.max_length)).transpose()
}

/// The loss of a preference objective.
pub(crate) fn preference_settings(config: &FinetuneConfig) -> PreferenceSettings {
    let objective = &config.objective;
    PreferenceSettings {
        loss: match objective.loss {
            None | Some(PreferenceLossName::Sigmoid) => PreferenceLoss::Sigmoid,
            Some(PreferenceLossName::Hinge) => PreferenceLoss::Hinge,
            Some(PreferenceLossName::Ipo) => PreferenceLoss::Ipo,
        },
        beta: objective.beta.unwrap_or(0.1),
        label_smoothing: objective.label_smoothing.unwrap_or(0.0),
        average: objective.average.unwrap_or(false),
    }
}

/// How a run of `steps` updates trains.
pub(crate) fn tuning_settings(config: &FinetuneConfig, steps: u64) -> Result<TrainSettings> {
    let (training, optimizer, schedule) = (&config.training, &config.optimizer, &config.schedule);
    preference_settings(config).check()?;
    Ok(TrainSettings {
        steps,
        global_batch: size(training.global_batch)?,
        micro_batch: size(training.micro_batch)?,
        precision: precision(training.dtype),
        recompute: training.activation_checkpointing,
        accumulation: Accumulation::Mean,
        grad_clip: training.grad_clip,
        z_loss: training.z_loss,
        corenet_z_loss: false,
        optimizer: AdamWConfig {
            weight_decay: optimizer.weight_decay,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            eps: optimizer.eps,
            no_decay_1d: true,
        },
        // transformers' cosine: 0 at the first update, the peak after the warm-up, the minimum one update after the last.
        schedule: Schedule {
            warmup_init_lr: 0.0,
            warmup_steps: (schedule.warmup_ratio * steps as f64).ceil() as u64,
            max_lr: schedule.max_lr,
            min_lr: schedule.min_lr,
            max_iterations: steps.saturating_sub(1),
            decimals: None,
        },
        validate_every: config.validation.as_ref().map_or(0, |validation| validation.every),
        checkpoint_every: config.checkpoint.every,
        keep_last: config.checkpoint.keep_last,
        keep_every: config.checkpoint.keep_every,
        log_every: config.log.every,
    })
}
