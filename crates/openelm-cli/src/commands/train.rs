//! `openelm train`: a configuration into a run, from its beginning or its newest checkpoint, then export and a sample.
//!
//! What must stay true: everything that can be wrong with the input is found before the run folder is made, except damaged text,
//! which shows when it is read; a new run that got no further leaves no folder. A resume that is refused changes nothing.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use openelm_checkpoint::{RunFolder, Weights};
use openelm_data::{Loader, OnBadRecord, SkipLog, validation_sequences};
use openelm_model::{ModelConfig, OpenElm, open_device};
use openelm_tokenizer::Tokenizer;
use openelm_train::{Ended, MicroBatch, Pretraining, RunFacts, TrainError, Trainer, loader_state};

use super::adapter::open_weights;
use super::run::{Run, RunNames, check_same_run, export_run, forget, open_run, print_places, save_tokenizer, stop_on_interrupt};
use super::run_evaluation::{RunEvaluation, evaluating};
use super::{generate, load_config, tokenizer};
use crate::args::TrainArguments;
use crate::config::RunConfig;
use crate::convert::{data_config, model_config, train_settings, validation_config};

/// Runs `openelm train`.
pub(super) fn train(arguments: &TrainArguments) -> Result<()> {
    let begin = Instant::now();
    let mut config = load_config(&arguments.config)?.config;
    if let Some(device) = &arguments.device {
        config.training.device.clone_from(device);
    }
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(&config.name));
    let stop = stop_on_interrupt()?;
    let existed = out.exists();
    let mut run = prepare(&config, arguments, &out, existed)?;
    let names = RunNames { command: "train", name: &config.name, device: &config.training.device, out: &out };
    match run.complete(&names, config.training.steps, &stop) {
        Ok(Ended::Stopped) => return Ok(()),
        Ok(Ended::Finished) => {}
        Err(error) => {
            if matches!(error, TrainError::Data(_)) && run.trainer.step() == 0 && !arguments.resume {
                drop(run);
                forget(&out, existed);
            }
            return Err(error.into());
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("finished: {} steps, {} tokens, {seconds:.0} s", run.trainer.step(), run.trainer.tokens());
    finish(&config, run, &out)
}

fn prepare(config: &RunConfig, arguments: &TrainArguments, out: &Path, existed: bool) -> Result<Run> {
    let settings = train_settings(config)?;
    settings.rank_batch(1)?;
    let file = || arguments.config.config.display().to_string();
    let model_config = model_config(&config.model).with_context(file)?;
    let parameters = OpenElm::infos_of(&model_config)?.iter().map(|info| info.count()).sum();
    let device = open_device(&config.training.device)?;
    let (folder, checkpoint) = if arguments.resume { open_run(out)? } else { (None, None) };
    let own = folder.as_ref().map(RunFolder::tokenizer).filter(|place| place.is_dir());
    let tokenizer = match &own {
        Some(place) => Tokenizer::load(place)?,
        None => tokenizer::of_config(config)?,
    };
    let tokenizer_name = match own.as_ref().or(config.tokenizer.path.as_ref()) {
        Some(place) => format!("the tokenizer {}", place.display()),
        None => "the trained tokenizer".into(),
    };
    check_vocabulary(&tokenizer, &tokenizer_name, &model_config).with_context(file)?;
    if let Some(section) = &config.sample {
        generate::check_sample(&tokenizer, section, &model_config).with_context(file)?;
    }
    if let Some(checkpoint) = &checkpoint {
        check_same_run(checkpoint, config, &["training", "optimizer", "schedule", "seed"], &tokenizer, &model_config)?;
    }

    let data = data_config(config)?;
    let state = checkpoint.as_ref().map(loader_state).transpose()?;
    let skipped = SkipLog::new();
    let loader = Loader::with_log(&data, &tokenizer, 0, 1, state.as_ref(), &skipped)?;
    let validation = validation_batches(config, &tokenizer, &model_config)?;
    let evaluation = RunEvaluation::prepare(config.eval.as_ref(), &tokenizer, &model_config).with_context(file)?;
    let model = match (&checkpoint, &arguments.init) {
        (Some(checkpoint), _) => Weights::open(checkpoint.path())?.model_of(&model_config, &device)?,
        (None, Some(init)) => open_weights(init, None)?.model_of(&model_config, &device)?,
        (None, None) => OpenElm::init(&model_config, config.seed, &device)?,
    };
    let yaml = config.to_yaml()?;
    let folder = match folder {
        Some(folder) => folder,
        None => RunFolder::create(out, &yaml)?,
    };
    if data.on_bad_record == OnBadRecord::Skip {
        skipped.attach(&folder.path().join("skipped.jsonl"))?;
    }
    if !folder.tokenizer().is_dir() {
        save_tokenizer(&tokenizer, None, &folder)?;
    }
    let facts = RunFacts {
        seed: config.seed,
        tokenizer: tokenizer.fingerprint().to_owned(),
        config: serde_json::to_value(config)?,
        program: format!("openelm {}", env!("CARGO_PKG_VERSION")),
    };
    let objective = Box::new(Pretraining::new(loader, validation));
    let trainer = Trainer::new(settings, facts, folder, model, objective, checkpoint.as_ref(), config.log.tensorboard);
    let trainer = trainer.inspect_err(|_| {
        if !arguments.resume {
            forget(out, existed);
        }
    })?;
    if arguments.resume {
        trainer.folder().write_config(&yaml)?;
    }
    Ok(Run { trainer: evaluating(trainer, evaluation), tokenizer, parameters })
}

pub(super) fn check_vocabulary(tokenizer: &Tokenizer, name: &str, model: &ModelConfig) -> Result<()> {
    let (tokens, rows) = (tokenizer.vocab_size(), model.vocab_size);
    if tokens > rows {
        bail!(
            "model.vocab_size is {rows}, but {name} has {tokens} tokens\nhint: raise model.vocab_size to at least {tokens}, or use a smaller tokenizer"
        );
    }
    let padding_id = tokenizer.padding_id();
    match model.padding_index {
        Some(index) if index != padding_id as usize => {
            bail!(
                "model.padding_index is {index}, but the padding id of {name} is {padding_id}\nhint: set model.padding_index to {padding_id}"
            )
        }
        _ => Ok(()),
    }
}

fn validation_batches(config: &RunConfig, tokenizer: &Tokenizer, model: &ModelConfig) -> Result<Vec<MicroBatch>> {
    let (Some(data), Some(section)) = (validation_config(config)?, &config.validation) else { return Ok(Vec::new()) };
    let limit = (section.max_sequences > 0).then(|| usize::try_from(section.max_sequences).unwrap_or(usize::MAX));
    let sequences = validation_sequences(&data, tokenizer, limit)?;
    let size = usize::try_from(config.training.micro_batch)?;
    Ok(MicroBatch::of_sequences(&sequences, size, tokenizer.padding_id(), model.vocab_size, data.document_mask)?)
}

fn finish(config: &RunConfig, run: Run, out: &Path) -> Result<()> {
    let Run { trainer, tokenizer, .. } = run;
    let folder = trainer.folder().path().to_owned();
    let model = trainer.into_model();
    let corpora = config.data.corpora.iter().map(|corpus| (corpus.name.clone(), corpus.weight)).collect();
    let exported = export_run(config.export.as_ref(), &config.name, corpora, &folder, &tokenizer)?;
    if let Some(sample) = &config.sample {
        let precision = train_settings(config)?.precision;
        let text = generate::sample(&model, &tokenizer, sample, precision)?;
        println!("--- what the model writes after {:?}:\n{text}\n---", sample.prompt);
    }
    print_places(out, exported.as_deref());
    println!("next         openelm generate {} --prompt \"...\"", out.display());
    Ok(())
}
