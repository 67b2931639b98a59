//! Our form into CoreNet's.
//!
//! What must stay true: what the file says trains the same weights in CoreNet, or there is no file; reading it back gives the
//! same run. What changes no weight (logs, what is printed or kept) may be lost, with a note. Numbers and words are written so
//! that YAML 1.1, which CoreNet's reader speaks, takes them for what they are.

use std::fmt::Write as _;

use super::keys::DATA_INFO;
use crate::config::{CheckpointSection, ConfigError, CorpusSection, DataSection, Dtype, ModelSection, Order, Preset, RunConfig};

/// The file, and a line for everything that CoreNet does not know and that changes no weight.
///
/// # Errors
/// [`ConfigError::NotInCoreNet`] for the first thing that CoreNet cannot say and that would change the run.
pub fn to_yaml(config: &RunConfig) -> Result<(String, Vec<String>), ConfigError> {
    check_data(&config.data)?;
    check_model(&config.model)?;
    check_run(config)?;
    let mut notes = Vec::new();
    let corpora = corpora(&config.data, &mut notes)?;
    note_what_is_lost(config, &mut notes);
    let text = text(config, &corpora).map_err(|source| ConfigError::Write { reason: source.to_string() })?;
    Ok((text, notes))
}

fn check_data(data: &DataSection) -> Result<(), ConfigError> {
    if data.order != Order::Corenet {
        return Err(lost("data.order", "mixed sequences are made of weighted corpora", "train with --set data.order=corenet"));
    }
    Ok(())
}

fn check_model(model: &ModelSection) -> Result<(), ConfigError> {
    let shape = [
        ("num_transformer_layers", model.num_transformer_layers.is_some()),
        ("model_dim", model.model_dim.is_some()),
        ("head_dim", model.head_dim.is_some()),
        ("num_gqa_groups", model.num_gqa_groups.is_some()),
        ("qkv_multipliers", model.qkv_multipliers.is_some()),
        ("ffn_multipliers", model.ffn_multipliers.is_some()),
        ("ffn_dim_divisor", model.ffn_dim_divisor.is_some()),
        ("rope_freq_constant", model.rope_freq_constant.is_some_and(|value| value != 10000.0)),
        ("normalize_qk_projections", model.normalize_qk_projections == Some(false)),
        ("share_input_output_layers", model.share_input_output_layers == Some(false)),
        ("ffn_with_glu", model.ffn_with_glu == Some(false)),
    ];
    let hint = "take a named size (model.preset) as it is; other shapes are a table in CoreNet's general_gpt.py";
    match shape.iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(lost(&format!("model.{key}"), "its files choose among named shapes", hint)),
        None if model.preset.is_none() => Err(lost("model.preset", "its files choose among named shapes", hint)),
        None => Ok(()),
    }
}

fn check_run(config: &RunConfig) -> Result<(), ConfigError> {
    let Some(tokenizer) = &config.tokenizer.path else {
        let hint = "train the tokenizer first, and name its tokenizer.model as tokenizer.path";
        return Err(lost("tokenizer.train", "it trains no tokenizer", hint));
    };
    if tokenizer.extension().is_some_and(|extension| extension == "json") {
        return Err(lost("tokenizer.path", "it reads SentencePiece files alone", "name a tokenizer.model"));
    }
    if config.accumulation_steps() > 1 && config.training.accumulation != crate::config::Accumulation::Sum {
        let hint = "train with --set training.accumulation=sum, or with micro_batch as large as global_batch";
        return Err(lost("training.accumulation", "it sums the gradients of micro-batches", hint));
    }
    let (steps, last) = (config.training.steps, config.max_iterations());
    if last.checked_add(1) != Some(steps) {
        let before = steps.saturating_sub(1);
        return Err(lost(
            "schedule.max_iterations",
            format!("it makes one update more than max_iterations ({last}), and there are {steps} here"),
            format!("train with --set schedule.max_iterations={before}, or with another number of steps"),
        ));
    }
    Ok(())
}

/// One element of `train_data_info` for each pattern.
fn corpora(data: &DataSection, notes: &mut Vec<String>) -> Result<Vec<String>, ConfigError> {
    let mut lines = Vec::new();
    for (index, corpus) in data.corpora.iter().enumerate() {
        if corpus.files.len() > 1 {
            notes.push(format!("data.corpora[{index}]: each of its {} patterns is a corpus of its own in CoreNet", corpus.files.len()));
        }
        if corpus.min_tokens_per_text.is_some() || corpus.min_characters_per_text.is_some() {
            return Err(lost(
                &format!("data.corpora[{index}]"),
                "CoreNet has one filter for all corpora",
                "set data.min_tokens_per_text and data.min_characters_per_text alone",
            ));
        }
        if corpus.weight != 1.0 {
            notes.push(format!("data.corpora[{index}].weight: CoreNet has no weights, and the corenet order does not use them"));
        }
        for (number, file) in corpus.files.iter().enumerate() {
            lines.push(data_info(corpus, file).map_err(|error| error.about(format!("data.corpora[{index}].files[{number}]")))?);
        }
    }
    Ok(lines)
}

fn data_info(corpus: &CorpusSection, file: &str) -> Result<String, ConfigError> {
    let (file, [first, end]) = match corpus.file_id_range {
        Some(range) => (file.to_owned(), range),
        None if file.contains(['*', '?', '[']) => {
            let hint = "number the files and write {file_id:05d} with a file_id_range";
            return Err(lost("", "it has no patterns with stars or brackets", hint));
        }
        // CoreNet formats every name, so braces that are part of it are doubled.
        None => (file.replace('{', "{{").replace('}', "}}"), [0, 1]),
    };
    Ok(format!("{{\"file_name\": {}, \"text_key\": {}, \"file_id_range\": [{first}, {end}]}}", text_of(&file), text_of(&corpus.text_key)))
}

/// Notes for what is not at its default and that CoreNet has no key for.
fn note_what_is_lost(config: &RunConfig, notes: &mut Vec<String>) {
    let (data, checkpoint) = (&config.data, &config.checkpoint);
    let default = DataSection::with(Vec::new());
    let lost = [
        ("validation", config.validation.is_some(), "CoreNet's file does not validate"),
        ("eval", config.eval.is_some(), "CoreNet asks no tasks while it trains"),
        ("sample", config.sample.is_some(), "CoreNet writes no text at the end"),
        ("export", config.export.is_some(), "CoreNet exports nothing at the end"),
        ("data.on_bad_record", data.on_bad_record != default.on_bad_record, "CoreNet stops at any bad record"),
        ("data.document_mask", data.document_mask, "each piece has a sequence of its own in this order"),
        ("data.lanes", data.lanes != default.lanes, "of the mixed order alone"),
        ("data.shuffle_buffer", data.shuffle_buffer != default.shuffle_buffer, "of the mixed order alone"),
        ("data.prefetch", data.prefetch != default.prefetch, "CoreNet reads ahead in its own way"),
        ("data.threads", data.threads != default.threads, "CoreNet reads ahead in its own way"),
        ("checkpoint.keep_last", checkpoint.keep_last != CheckpointSection::default().keep_last, "CoreNet keeps all"),
        ("checkpoint.keep_every", checkpoint.keep_every != checkpoint.every, "CoreNet keeps all"),
        ("model.rope_max_length", config.model.rope_max_length.is_some(), "CoreNet's table grows as needed"),
        ("training.device", config.training.device != crate::config::training::default_device(), "CoreNet takes the GPUs it finds"),
    ];
    notes.extend(lost.iter().filter(|(_, given, _)| *given).map(|(key, _, why)| format!("{key} is left out: {why}")));
    if let Some(preset @ (Preset::OpenElm25M | Preset::OpenElm5M | Preset::OpenElmTiny)) = config.model.preset {
        notes.push(format!("model.preset: CoreNet's general_gpt.py has no `{}`; add it to gpt_configs there", preset.name()));
    }
    notes.push(format!("the names of corpora are left out: CoreNet has none in {DATA_INFO}"));
}

fn text(config: &RunConfig, corpora: &[String]) -> Result<String, std::fmt::Error> {
    let (data, model, training) = (&config.data, &config.model, &config.training);
    let (optimizer, schedule) = (&config.optimizer, &config.schedule);
    let mut out = String::new();
    writeln!(out, "# Written by openelm: a configuration for CoreNet's corenet-train.")?;
    writeln!(out, "taskname: {}", text_of(&format!("+ [{}]", config.name)))?;
    writeln!(out, "common:\n  run_label: \"train\"\n  seed: {}\n  log_freq: {}", config.seed, config.log.every)?;
    writeln!(out, "  tensorboard_logging: {}", config.log.tensorboard)?;
    // CoreNet clips to nothing with 0; no limit is an absent key there.
    if training.grad_clip > 0.0 {
        writeln!(out, "  grad_clip: {}", number(training.grad_clip))?;
    }
    writeln!(out, "  accum_freq: {}\n  save_interval_freq: {}", config.accumulation_steps(), config.checkpoint.every)?;
    match training.dtype {
        Dtype::F32 => writeln!(out, "  mixed_precision: false")?,
        Dtype::Bf16 => writeln!(out, "  mixed_precision: true\n  mixed_precision_dtype: \"bfloat16\"")?,
    }
    writeln!(out, "dataset:\n  disable_val: true\n  train_batch_size0: {}\n  workers: {}", training.micro_batch, data.workers)?;
    writeln!(out, "  category: \"language_modeling\"\n  name: \"general_lm\"\n  language_modeling:")?;
    writeln!(out, "    sequence_length: {}", data.sequence_length)?;
    writeln!(out, "    min_tokens_per_text: {}", data.min_tokens_per_text)?;
    writeln!(out, "    min_characters_per_text: {}", data.min_characters_per_text)?;
    writeln!(out, "    shuffle_data: {}\n    random_seed: {}", data.shuffle, config.data_seed())?;
    writeln!(out, "    general_lm:\n      document_split_size: {}\n      train_data_info: [", data.document_split_words)?;
    for corpus in corpora {
        writeln!(out, "        {corpus},")?;
    }
    writeln!(out, "      ]\ntext_tokenizer:\n  name: \"sentence_piece\"\n  sentence_piece:")?;
    if let Some(path) = &config.tokenizer.path {
        writeln!(out, "    model_path: {}", text_of(&path.to_string_lossy()))?;
    }
    writeln!(out, "    enable_nfc_normalization: {}", data.normalize)?;
    writeln!(out, "    append_sot_token: {}\n    append_eot_token: {}", data.add_bos, data.add_eos)?;
    writeln!(out, "loss:\n  category: \"language_modeling\"\n  language_modeling:\n    name: \"cross_entropy\"\n    cross_entropy:")?;
    if let Some(index) = model.padding_index {
        writeln!(out, "      ignore_index: {index}")?;
    }
    writeln!(out, "      use_z_loss: {}", training.z_loss > 0.0)?;
    if training.z_loss > 0.0 {
        writeln!(out, "      z_loss_eps: {}", number(training.z_loss))?;
    }
    writeln!(out, "optim:\n  name: \"adamw\"\n  weight_decay: {}", number(optimizer.weight_decay))?;
    writeln!(out, "  no_decay_bn_filter_bias: {}\n  adamw:", optimizer.no_decay_1d)?;
    for (key, value) in [("beta1", optimizer.beta1), ("beta2", optimizer.beta2), ("eps", optimizer.eps)] {
        writeln!(out, "    {key}: {}", number(value))?;
    }
    writeln!(out, "scheduler:\n  name: \"cosine\"\n  is_iteration_based: true\n  max_iterations: {}", config.max_iterations())?;
    writeln!(out, "  warmup_iterations: {}", schedule.warmup_steps)?;
    writeln!(out, "  warmup_init_lr: {}\n  cosine:", number(schedule.warmup_init_lr))?;
    writeln!(out, "    max_lr: {}\n    min_lr: {}", number(schedule.max_lr), number(schedule.min_lr))?;
    writeln!(out, "model:\n  activation_checkpointing: {}", training.activation_checkpointing)?;
    writeln!(out, "  language_modeling:\n    name: \"general_gpt\"\n    general_gpt:")?;
    if let Some(preset) = model.preset {
        writeln!(out, "      model_name: {}", text_of(preset.name()))?;
    }
    for (key, value) in [("vocab_size", model.vocabulary()), ("max_context_length", model.context_length())] {
        if let Some(value) = value {
            writeln!(out, "      {key}: {value}")?;
        }
    }
    if let Some(index) = model.padding_index {
        writeln!(out, "      padding_index: {index}")?;
    }
    writeln!(out, "stats:\n  val: [\"loss\"]\n  train: [\"loss\"]")?;
    writeln!(out, "  checkpoint_metric: \"loss.total_loss\"\n  checkpoint_metric_max: false")?;
    Ok(out)
}

/// A number that YAML 1.1 takes for a float: with a point in it, and a sign before its exponent.
fn number(value: f64) -> String {
    let shortest = format!("{value:?}");
    let (mantissa, exponent) = match shortest.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (shortest.as_str(), None),
    };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    match exponent {
        Some(exponent) if exponent.starts_with('-') => format!("{mantissa}{point}e{exponent}"),
        Some(exponent) => format!("{mantissa}{point}e+{exponent}"),
        None => format!("{mantissa}{point}"),
    }
}

/// A quoted string; JSON's quotes are YAML's.
fn text_of(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn lost(key: &str, reason: impl Into<String>, hint: impl Into<String>) -> ConfigError {
    ConfigError::NotInCoreNet { key: key.to_owned(), reason: reason.into(), hint: hint.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_floats_in_yaml_1_1() {
        let pairs = [(1e-8, "1.0e-8"), (0.0053, "0.0053"), (2.5e-7, "2.5e-7"), (1.0, "1.0"), (1e300, "1.0e+300"), (0.0, "0.0")];
        for (value, written) in pairs {
            assert_eq!(number(value), written);
            assert_eq!(written.parse::<f64>().unwrap(), value);
        }
    }
}
