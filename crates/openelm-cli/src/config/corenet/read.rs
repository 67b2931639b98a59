//! What a CoreNet file means, in the words of our own form.
//!
//! What must stay true: a value that would train something else than CoreNet trains is an error, never passed over; where a key
//! is absent, CoreNet's default holds. Errors name CoreNet's keys and stand nowhere yet; the caller knows the file.

use super::file::{DataInfo, File, Sections};
use super::keys::{DATA_INFO, MODEL_PATH, no_effect};
use super::names::Names;
use crate::config::error::Place;
use crate::config::model::ROPE_MAX_LENGTH;
use crate::config::training::default_device;
use crate::config::{
    Accumulation, CheckpointSection, ConfigError, CorpusSection, DataSection, Dtype, LogSection, ModelSection, OptimizerSection, Order,
    RunConfig, ScheduleSection, TokenizerSection, TrainingSection,
};

/// The trainer that splits weights over GPUs; its arithmetic is set in the section `fsdp`.
const FSDP_PIPELINE: &str = "fsdp_train_eval_pipeline";

/// What overrides in our own form will set after the file was read, so that the file may lack it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Supplied {
    pub tokenizer: bool,
    pub corpora: bool,
}

/// The run of a file, not yet validated; lines for the user are added to `notes`.
pub(super) fn run_config(file: &File, supplied: Supplied, notes: &mut Vec<String>) -> Result<RunConfig, ConfigError> {
    let file = &file.0;
    check_fixed(file)?;
    check_files(file, supplied)?;
    let common = &file.common;
    let model = model(file)?;
    let name = match file.taskname.as_deref().map(task_name) {
        None | Some("") => model.preset.map_or("corenet", |preset| preset.name()).to_owned(),
        Some(name) => name.to_owned(),
    };
    let every = common.save_interval_freq.unwrap_or(0);
    let sentence_piece = &file.text_tokenizer.sentence_piece;
    Ok(RunConfig {
        name,
        seed: common.seed.unwrap_or(0),
        data: data(file, notes)?,
        tokenizer: TokenizerSection { path: sentence_piece.model_path.as_ref().map(Into::into), train: None },
        validation: None,
        eval: None,
        training: training(file, notes)?,
        optimizer: optimizer(file),
        schedule: schedule(file)?,
        // CoreNet removes none of the checkpoints that it writes every so many updates.
        checkpoint: CheckpointSection { every, keep_every: every, ..CheckpointSection::default() },
        log: LogSection {
            every: common.log_freq.unwrap_or(100),
            tensorboard: common.tensorboard_logging.unwrap_or(LogSection::default().tensorboard),
        },
        sample: None,
        export: None,
        model,
    })
}

/// `OpenELM-270M` for CoreNet's `+ [OpenELM-270M]`.
fn task_name(taskname: &str) -> &str {
    let trimmed = taskname.trim();
    let inner = trimmed.strip_prefix("+ [").and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(trimmed)
}

/// Keys of which only one value is possible here.
fn check_fixed(file: &Sections) -> Result<(), ConfigError> {
    let gpt = &file.model.language_modeling;
    let loss = &file.loss.language_modeling;
    let names = [
        ("dataset.category", &file.dataset.category, "language_modeling"),
        ("dataset.name", &file.dataset.name, "general_lm"),
        ("text_tokenizer.name", &file.text_tokenizer.name, "sentence_piece"),
        ("loss.category", &file.loss.category, "language_modeling"),
        ("loss.language_modeling.name", &loss.name, "cross_entropy"),
        ("optim.name", &file.optim.name, "adamw"),
        ("model.language_modeling.name", &gpt.name, "general_gpt"),
    ];
    for (key, value, wanted) in names {
        match value.as_deref() {
            Some(value) if value == wanted => {}
            Some(value) => return Err(bad(key, format!("is `{value}`"), format!("only `{wanted}` can be run here"))),
            None => return Err(missing(key, format!("add `{wanted}`, which is all that can be run here"))),
        }
    }
    if let Some(name) = file.scheduler.name.as_deref().filter(|name| *name != "cosine") {
        return Err(bad("scheduler.name", format!("is `{name}`"), "only `cosine` can be run here"));
    }
    if !file.scheduler.is_iteration_based.unwrap_or(false) {
        return Err(bad("scheduler.is_iteration_based", "is not true", "set it to true: runs are counted in updates here"));
    }
    if file.common.accum_after_epoch.unwrap_or(0) != 0 {
        return Err(bad("common.accum_after_epoch", "is not 0", "leave it out: there are no epochs here to begin after"));
    }
    if file.common.grad_clip == Some(0.0) {
        return Err(bad(
            "common.grad_clip",
            "is 0, with which CoreNet would shrink every gradient to nothing",
            "leave it out for no limit",
        ));
    }
    if loss.cross_entropy.label_smoothing.unwrap_or(0.0) != 0.0 {
        return Err(bad("loss.language_modeling.cross_entropy.label_smoothing", "is not 0", "labels are not smoothed here: leave it out"));
    }
    if file.optim.adamw.amsgrad.unwrap_or(false) {
        return Err(bad("optim.adamw.amsgrad", "is true", "AdamW has no such variant here: leave it out"));
    }
    let weights = [
        ("common.resume", &file.common.resume, "leave it out, and continue a run of this program with --resume"),
        ("common.finetune", &file.common.finetune, "leave it out, and give the weights with --init"),
        ("model.language_modeling.pretrained", &gpt.pretrained, "leave it out, and give the weights with --init"),
    ];
    for (key, value, hint) in weights {
        if value.as_deref().is_some_and(|path| !path.is_empty()) {
            return Err(bad(key, "names weights", hint));
        }
    }
    if file.dataset.language_modeling.general_lm.data_state.is_some() {
        let key = "dataset.language_modeling.general_lm.data_state";
        return Err(bad(key, "names CoreNet's state files", "leave it out: --resume continues inside the data"));
    }
    Ok(())
}

/// The files that the user has to name. All that are missing are listed at once.
fn check_files(file: &Sections, supplied: Supplied) -> Result<(), ConfigError> {
    let mut lacking = Vec::new();
    match &file.dataset.language_modeling.general_lm.train_data_info {
        _ if supplied.corpora => {}
        None => lacking.push((DATA_INFO.to_owned(), "[{file_name: PATTERN, text_key: text, file_id_range: [0, 1]}]")),
        Some(list) => {
            let absent = list.iter().enumerate().filter(|(_, info)| info.file_name.is_none());
            lacking.extend(absent.map(|(index, _)| (format!("{DATA_INFO}[{index}].file_name"), "PATTERN")));
        }
    }
    if file.text_tokenizer.sentence_piece.model_path.is_none() && !supplied.tokenizer {
        lacking.push((MODEL_PATH.to_owned(), "FILE"));
    }
    let Some((first, _)) = lacking.first() else { return Ok(()) };
    let sets: Vec<String> = lacking.iter().take(4).map(|(key, value)| format!("--set '{key}={value}'")).collect();
    let more = lacking.len().saturating_sub(4);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Err(missing(first, format!("the file leaves paths to you: write them there, or give {}{more}", sets.join(" "))))
}

fn model(file: &Sections) -> Result<ModelSection, ConfigError> {
    let gpt = &file.model.language_modeling.general_gpt;
    let at = |name: &str| format!("model.language_modeling.general_gpt.{name}");
    let preset = gpt.model_name.ok_or_else(|| missing(at("model_name"), "name a size, for example OpenELM-270M"))?;
    let rows = gpt.vocab_size.ok_or_else(|| missing(at("vocab_size"), "OpenELM has 32128"))?;
    let context = gpt.max_context_length.ok_or_else(|| missing(at("max_context_length"), "OpenELM has 2048"))?;
    let ignored = file.loss.language_modeling.cross_entropy.ignore_index.unwrap_or(-1);
    let padding = gpt.padding_index.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX));
    if ignored != padding {
        let padding = gpt.padding_index.map_or("absent".into(), |index| index.to_string());
        return Err(bad(
            "loss.language_modeling.cross_entropy.ignore_index",
            format!("is {ignored}, but the model's padding_index is {padding}"),
            "give both the same id: padding is no target",
        ));
    }
    Ok(ModelSection {
        preset: Some(preset),
        vocab_size: Some(rows),
        max_context_length: Some(context),
        padding_index: gpt.padding_index,
        // CoreNet's rotary table grows when a sequence is longer; the angles are the same.
        rope_max_length: (context > ROPE_MAX_LENGTH).then_some(context),
        ..ModelSection::default()
    })
}

fn data(file: &Sections, notes: &mut Vec<String>) -> Result<DataSection, ConfigError> {
    let data = &file.dataset.language_modeling;
    let sentence_piece = &file.text_tokenizer.sentence_piece;
    let workers = match file.dataset.workers {
        Some(workers) => u64::try_from(workers).map_err(|_| {
            let reason = format!("is {workers}: CoreNet then takes one worker a CPU, and the order depends on their number");
            bad("dataset.workers", reason, "give the number of workers that CoreNet had")
        })?,
        None => {
            notes.push("dataset.workers is absent: 0 is taken, where CoreNet takes one worker a CPU, which changes the order".into());
            0
        }
    };
    let mut names = Names::default();
    let list = data.general_lm.train_data_info.iter().flatten().enumerate();
    Ok(DataSection {
        order: Order::Corenet,
        sequence_length: data.sequence_length.unwrap_or(2048),
        min_tokens_per_text: data.min_tokens_per_text.unwrap_or(0),
        min_characters_per_text: data.min_characters_per_text.unwrap_or(0),
        normalize: sentence_piece.enable_nfc_normalization.unwrap_or(false),
        add_bos: sentence_piece.append_sot_token.unwrap_or(false),
        add_eos: sentence_piece.append_eot_token.unwrap_or(false),
        shuffle: data.shuffle_data.unwrap_or(false),
        seed: Some(data.random_seed.unwrap_or(0)),
        document_split_words: data.general_lm.document_split_size.unwrap_or(2048),
        workers,
        ..DataSection::with(list.map(|(index, info)| corpus(index, info, &mut names)).collect::<Result<_, _>>()?)
    })
}

fn corpus(index: usize, info: &DataInfo, names: &mut Names) -> Result<CorpusSection, ConfigError> {
    let at = |name: &str| format!("{DATA_INFO}[{index}].{name}");
    let text_key = info.text_key.clone().ok_or_else(|| missing(at("text_key"), "add the key of the text, for example `text`"))?;
    let range = info.file_id_range.ok_or_else(|| missing(at("file_id_range"), "add the first id and one past the last: [0, 1]"))?;
    Ok(CorpusSection {
        name: names.name(info.file_name.as_deref()),
        files: info.file_name.iter().cloned().collect(),
        file_id_range: Some(range),
        text_key,
        weight: 1.0,
        max_epochs: None,
        min_tokens_per_text: None,
        min_characters_per_text: None,
    })
}

fn training(file: &Sections, notes: &mut Vec<String>) -> Result<TrainingSection, ConfigError> {
    let (common, loss) = (&file.common, &file.loss.language_modeling.cross_entropy);
    let micro_batch = file.dataset.train_batch_size0.unwrap_or(128);
    let accumulated = common.accum_freq.unwrap_or(1);
    let global_batch = micro_batch
        .checked_mul(accumulated)
        .ok_or_else(|| bad("common.accum_freq", "makes an update of too many sequences", "give a smaller number"))?;
    notes.push(format!(
        "dataset.train_batch_size0: an update has {micro_batch} x {accumulated} sequences, as in CoreNet on one GPU; for the batch of \
         N GPUs give --set training.accumulation=mean --set training.global_batch=N*{global_batch}"
    ));
    let max_iterations = max_iterations(file)?;
    Ok(TrainingSection {
        // CoreNet stops once its count is above max_iterations, and it counts from 0.
        steps: max_iterations
            .checked_add(1)
            .ok_or_else(|| bad("scheduler.max_iterations", "is too large", "give the number of updates"))?,
        global_batch,
        micro_batch,
        dtype: dtype(file, notes)?,
        activation_checkpointing: file.model.activation_checkpointing.unwrap_or(false),
        grad_clip: common.grad_clip.unwrap_or(0.0),
        z_loss: if loss.use_z_loss.unwrap_or(false) { loss.z_loss_eps.unwrap_or(1e-4) } else { 0.0 },
        accumulation: Accumulation::Sum,
        device: default_device(),
    })
}

/// The arithmetic: of `common` with the ordinary trainer, of `fsdp` with the sharded one.
fn dtype(file: &Sections, notes: &mut Vec<String>) -> Result<Dtype, ConfigError> {
    let common = &file.common;
    let sharded = match file.train_eval_pipeline.name.as_deref() {
        None | Some("default") => false,
        Some(FSDP_PIPELINE) => true,
        Some(name) => {
            let reason = format!("`{name}` is none of the accepted values");
            return Err(bad("train_eval_pipeline.name", reason, format!("accepted: default, {FSDP_PIPELINE}")));
        }
    };
    if sharded {
        for (key, given) in [
            ("common.mixed_precision", common.mixed_precision.is_some()),
            ("common.mixed_precision_dtype", common.mixed_precision_dtype.is_some()),
        ] {
            if given {
                notes.push(no_effect(key, "fsdp.parameter_datatype is what counts, in CoreNet too"));
            }
        }
        return number_type("fsdp.parameter_datatype", file.fsdp.parameter_datatype.as_deref().unwrap_or("bfloat16"));
    }
    if file.fsdp.parameter_datatype.is_some() {
        notes.push(no_effect("fsdp.parameter_datatype", "common.mixed_precision is what counts without FSDP, in CoreNet too"));
    }
    if !common.mixed_precision.unwrap_or(false) {
        return Ok(Dtype::F32);
    }
    number_type("common.mixed_precision_dtype", common.mixed_precision_dtype.as_deref().unwrap_or("float16"))
}

fn number_type(key: &str, name: &str) -> Result<Dtype, ConfigError> {
    match name {
        "bfloat16" => Ok(Dtype::Bf16),
        "float32" => Ok(Dtype::F32),
        _ => Err(bad(key, format!("is `{name}`"), "bfloat16 is the only smaller number type here: write `bfloat16`")),
    }
}

fn optimizer(file: &Sections) -> OptimizerSection {
    let (optim, adamw) = (&file.optim, &file.optim.adamw);
    OptimizerSection {
        weight_decay: optim.weight_decay.unwrap_or(4e-5),
        beta1: adamw.beta1.unwrap_or(0.9),
        beta2: adamw.beta2.unwrap_or(0.98),
        eps: adamw.eps.unwrap_or(1e-8),
        no_decay_1d: optim.no_decay_bn_filter_bias.unwrap_or(false),
    }
}

fn schedule(file: &Sections) -> Result<ScheduleSection, ConfigError> {
    let scheduler = &file.scheduler;
    Ok(ScheduleSection {
        // A negative number of warm-up updates is none, as in CoreNet.
        warmup_steps: u64::try_from(scheduler.warmup_iterations.unwrap_or(0)).unwrap_or(0),
        warmup_init_lr: scheduler.warmup_init_lr.unwrap_or(1e-7),
        max_lr: scheduler.cosine.max_lr.unwrap_or(0.1),
        min_lr: scheduler.cosine.min_lr.unwrap_or(1e-5),
        max_iterations: Some(max_iterations(file)?),
    })
}

fn max_iterations(file: &Sections) -> Result<u64, ConfigError> {
    let hint = "add the number of updates; OpenELM has 350000";
    file.scheduler.max_iterations.ok_or_else(|| missing("scheduler.max_iterations", hint))
}

fn bad(key: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> ConfigError {
    ConfigError::BadValue { place: Place::Memory, key: key.into(), reason: reason.into(), hint: hint.into() }
}

fn missing(key: impl Into<String>, hint: impl Into<String>) -> ConfigError {
    ConfigError::MissingKey { place: Place::Memory, key: key.into(), hint: hint.into() }
}
