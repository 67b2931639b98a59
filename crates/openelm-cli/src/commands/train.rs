//! `openelm train`: a configuration into a run, from its beginning or its newest checkpoint, then export and a sample.
//!
//! What must stay true: everything that can be wrong with the input is found before the run folder is made, except damaged text,
//! which shows when it is read; a new run that got no further leaves no folder. A resume that is refused changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use openelm_checkpoint::{Checkpoint, RunFolder, Weights};
use openelm_data::{Loader, OnBadRecord, SkipLog, validation_sequences};
use openelm_model::{ModelConfig, OpenElm, open_device};
use openelm_tokenizer::Tokenizer;
use openelm_train::{Ended, MicroBatch, Pretraining, RunFacts, TrainError, Trainer, loader_state};

use super::{export, generate, load_config, tokenizer};
use crate::args::TrainArguments;
use crate::config::{ExportFormat, RunConfig};
use crate::convert::{data_config, model_config, train_settings, validation_config};
use crate::progress::Progress;

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
    let (done, steps) = (run.trainer.step(), config.training.steps);
    eprintln!("run {} on {}: {} parameters, {done} of {steps} steps done", config.name, config.training.device, run.parameters);
    let mut progress = Progress::new(steps, done);
    let ended = match run.trainer.run(&mut progress, &stop) {
        Ok(ended) => ended,
        Err(error) => {
            if matches!(error, TrainError::Data(_)) && run.trainer.step() == 0 && !arguments.resume {
                drop(run);
                forget(&out, existed);
            }
            return Err(error.into());
        }
    };
    let step = run.trainer.step();
    if ended == Ended::Stopped {
        // The folder's own configuration has every --set and the device in it.
        let resolved = out.join("config.yaml");
        eprintln!("stopped after step {step}; continue with: openelm train {} --out {} --resume", resolved.display(), out.display());
        return Ok(());
    }
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("finished: {step} steps, {} tokens, {seconds:.0} s", run.trainer.tokens());
    finish(&config, run, &out)
}

/// A run that is ready to go.
struct Run {
    trainer: Trainer,
    tokenizer: Tokenizer,
    parameters: usize,
}

/// Removes the folder of a run that could not begin. It was made new or stood empty, so nothing in it is anybody else's.
fn forget(out: &Path, existed: bool) {
    // What cannot be removed stays; the error that led here is the one to report.
    let _ = std::fs::remove_dir_all(out);
    if existed {
        let _ = std::fs::create_dir(out);
    }
}

fn prepare(config: &RunConfig, arguments: &TrainArguments, out: &Path, existed: bool) -> Result<Run> {
    let settings = train_settings(config)?;
    settings.rank_batch(1)?;
    let file = || arguments.config.config.display().to_string();
    let model_config = model_config(&config.model).with_context(file)?;
    let parameters = OpenElm::infos_of(&model_config)?.iter().map(|info| info.count()).sum();
    let device = open_device(&config.training.device)?;
    let mut folder = None;
    let mut checkpoint = None;
    if arguments.resume {
        let opened = RunFolder::open(out)?;
        checkpoint = opened.newest()?;
        if checkpoint.is_none() {
            eprintln!("note: the run has no checkpoint yet; it begins anew");
        }
        folder = Some(opened);
    }
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
        check_same_run(checkpoint, config, &tokenizer, &model_config)?;
    }

    let data = data_config(config)?;
    let state = checkpoint.as_ref().map(loader_state).transpose()?;
    let skipped = SkipLog::new();
    let loader = Loader::with_log(&data, &tokenizer, 0, 1, state.as_ref(), &skipped)?;
    let validation = validation_batches(config, &tokenizer, &model_config)?;
    let model = match (&checkpoint, &arguments.init) {
        (Some(checkpoint), _) => Weights::open(checkpoint.path())?.model_of(&model_config, &device)?,
        (None, Some(init)) => Weights::open(init)?.model_of(&model_config, &device)?,
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
        save_tokenizer(&tokenizer, &folder)?;
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
    Ok(Run { trainer, tokenizer, parameters })
}

/// Puts the tokenizer into the run folder in one step, so that a crash leaves none or a whole one.
pub(super) fn save_tokenizer(tokenizer: &Tokenizer, folder: &RunFolder) -> Result<()> {
    let place = folder.tokenizer();
    let aside = folder.path().join(".tokenizer");
    if aside.exists() {
        std::fs::remove_dir_all(&aside).with_context(|| refused(&aside, "removing it"))?;
    }
    std::fs::create_dir_all(&aside).with_context(|| refused(&aside, "making the folder"))?;
    tokenizer.save(&aside)?;
    std::fs::rename(&aside, &place).with_context(|| refused(&place, "renaming it"))
}

fn refused(path: &Path, action: &str) -> String {
    format!("{}: {action} failed\nhint: check the free space and the permissions of the run folder", path.display())
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

/// A resumed run must be the saved one: what would change its weights or its data is refused, the rest is said.
fn check_same_run(checkpoint: &Checkpoint, config: &RunConfig, tokenizer: &Tokenizer, model: &ModelConfig) -> Result<()> {
    let manifest = checkpoint.manifest();
    let place = checkpoint.path().display();
    if manifest.model != *model {
        bail!(
            "{place}: its model is another one than the configuration's\nhint: resume with the configuration in the run folder, or begin a new run with --init"
        );
    }
    if manifest.tokenizer != tokenizer.fingerprint() {
        bail!("{place}: it was trained with another tokenizer\nhint: put the run's own tokenizer folder back");
    }
    let now = serde_json::to_value(config)?;
    for section in ["training", "optimizer", "schedule", "seed"] {
        if manifest.config.get(section) != now.get(section) {
            eprintln!("note: `{section}` differs from the saved run's; the new values hold from here on");
        }
    }
    Ok(())
}

fn validation_batches(config: &RunConfig, tokenizer: &Tokenizer, model: &ModelConfig) -> Result<Vec<MicroBatch>> {
    let (Some(data), Some(section)) = (validation_config(config)?, &config.validation) else { return Ok(Vec::new()) };
    let limit = (section.max_sequences > 0).then(|| usize::try_from(section.max_sequences).unwrap_or(usize::MAX));
    let sequences = validation_sequences(&data, tokenizer, limit)?;
    let size = usize::try_from(config.training.micro_batch)?;
    Ok(MicroBatch::of_sequences(&sequences, size, tokenizer.padding_id(), model.vocab_size, data.document_mask)?)
}

/// The first Ctrl-C (or SIGTERM) asks for a stop between two steps, the second ends the program at once.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step, then a checkpoint; interrupt again to stop at once and lose the steps since the last one");
    })
    .context("the interrupt handler cannot be set")?;
    Ok(stop)
}

fn finish(config: &RunConfig, run: Run, out: &Path) -> Result<()> {
    let Run { trainer, tokenizer, .. } = run;
    let folder = trainer.folder().path().to_owned();
    let model = trainer.into_model();
    let exported = match &config.export {
        Some(section) => match section.format {
            ExportFormat::Hf => Some(export_run(config, &folder, &tokenizer)?),
        },
        None => None,
    };
    if let Some(sample) = &config.sample {
        let precision = train_settings(config)?.precision;
        let text = generate::sample(&model, &tokenizer, sample, precision)?;
        println!("--- what the model writes after {:?}:\n{text}\n---", sample.prompt);
    }
    println!("run folder   {}", out.display());
    println!("checkpoints  {}", out.join("checkpoints").display());
    println!("metrics      {}", out.join("metrics.jsonl").display());
    if let Some(exported) = exported {
        println!("exported     {}", exported.display());
    }
    println!("next         openelm generate {} --prompt \"...\"", out.display());
    Ok(())
}

/// Exports the newest checkpoint into the run folder; an export of an earlier end of the same run makes way.
fn export_run(config: &RunConfig, folder: &Path, tokenizer: &Tokenizer) -> Result<PathBuf> {
    let place = folder.join("export").join("hf");
    if place.exists() {
        std::fs::remove_dir_all(&place).with_context(|| refused(&place, "removing the old export"))?;
    }
    let weights = Weights::open(folder)?;
    let corpora = config.data.corpora.iter().map(|corpus| (corpus.name.clone(), corpus.weight)).collect();
    export::hugging_face(&weights, Some(tokenizer), &config.name, corpora, &Default::default(), &place)?;
    Ok(place)
}
