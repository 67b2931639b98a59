//! `openelm finetune`: weights and conversations into a run, from its beginning or its newest checkpoint.
//!
//! What must stay true: everything that can be wrong with the input is found before the run folder is made; a resume that is
//! refused changes nothing. The run folder has the layout of any run, with the chat template beside the tokenizer.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use openelm_checkpoint::{Checkpoint, RunFolder, Weights};
use openelm_finetune::{
    Examples, Learnt, PairTokens, PreferenceObjective, Reference, ReferenceKey, SupervisedObjective, reference_digest_of, weights_digest,
};
use openelm_model::{ModelConfig, OpenElm, open_device};
use openelm_tokenizer::{ChatMessage, ChatTemplate, Tokenizer};
use openelm_train::{Ended, Objective, RunFacts, TrainSettings, Trainer, engine_for};
use serde_json::Value;

use super::adapter::{adapter_config, attach, open_weights, storage};
use super::chat_model::template_of;
use super::run::{Run, RunNames, check_same_run, export_run, forget, open_run, print_places, save_tokenizer, stop_on_interrupt};
use super::run_evaluation::{RunEvaluation, evaluating};
use super::{generate, needed_tokenizer};
use crate::args::FinetuneArguments;
use crate::config::{FinetuneConfig, ObjectiveKind, ReferenceName};
use crate::convert_finetune::{conversations, packed_length, preference_settings, preferences, tuning_settings};

/// Runs `openelm finetune`.
pub(super) fn finetune(arguments: &FinetuneArguments) -> Result<()> {
    let begin = Instant::now();
    let config = load(arguments)?;
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(&config.name));
    let stop = stop_on_interrupt()?;
    let existed = out.exists();
    let Prepared { mut run, steps, template } = prepare(&config, arguments, &out, existed)?;
    let names = RunNames { command: "finetune", name: &config.name, device: &config.training.device, out: &out };
    if run.complete(&names, steps, &stop)? == Ended::Stopped {
        return Ok(());
    }
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("finished: {} steps, {} tokens, {seconds:.0} s", run.trainer.step(), run.trainer.tokens());
    finish(&config, run, &template, &out)
}

/// The configuration with what the command line says beside it.
fn load(arguments: &FinetuneArguments) -> Result<FinetuneConfig> {
    let mut config = FinetuneConfig::load(&arguments.config, &arguments.set)?;
    if let Some(device) = &arguments.device {
        config.training.device.clone_from(device);
    }
    if let Some(init) = &arguments.init {
        let absolute = std::path::absolute(init);
        config.init = Some(absolute.with_context(|| format!("{}: cannot be made absolute\nhint: give an absolute path", init.display()))?);
    }
    Ok(config)
}

/// A run that is ready to go, with what is needed at its end.
struct Prepared {
    run: Run,
    steps: u64,
    template: ChatTemplate,
}

/// What is learnt: pairs, training and held-out, whose reference is asked once the folder is there, or a finished objective.
enum Material {
    Pairs(Vec<PairTokens>, Vec<PairTokens>),
    Supervised(SupervisedObjective),
}

impl Material {
    /// Examples of one pass.
    fn examples(&self) -> usize {
        match self {
            Self::Pairs(training, _) => training.len(),
            Self::Supervised(objective) => objective.rows(),
        }
    }
}

fn prepare(config: &FinetuneConfig, arguments: &FinetuneArguments, out: &Path, existed: bool) -> Result<Prepared> {
    let device = open_device(&config.training.device)?;
    let (folder, checkpoint) = if arguments.resume { open_run(out)? } else { (None, None) };
    // An adapter is trained on weights that no checkpoint holds.
    let weights = match checkpoint.as_ref().filter(|_| config.adapter.is_none()) {
        Some(checkpoint) => Weights::open(checkpoint.path())?,
        None => open_weights(initial(config)?, None)?,
    };
    let model_config = weights.config().clone();
    let parameters = OpenElm::infos_of(&model_config)?.iter().map(|info| info.count()).sum();
    let tokenizer = needed_tokenizer(&weights, arguments.tokenizer.as_deref())?;
    check_model(config, &model_config, &tokenizer).with_context(|| arguments.config.display().to_string())?;
    let template = template_of(&weights, config.template.as_deref(), "`template`")?;
    if let Some(section) = &config.sample {
        let ids = prompt_ids(&template, &tokenizer, &section.prompt)?;
        generate::check_sample_ids(&ids, section, &model_config).with_context(|| arguments.config.display().to_string())?;
    }
    if let Some(checkpoint) = &checkpoint {
        let sections = ["training", "optimizer", "schedule", "seed", "objective", "adapter", "data"];
        check_same_run(checkpoint, config, &sections, &tokenizer, &model_config)?;
    }
    let state = checkpoint.as_ref().map(|checkpoint| checkpoint.manifest().data.clone());
    let evaluation = RunEvaluation::prepare(config.eval.as_ref(), &tokenizer, &model_config);
    let evaluation = evaluation.with_context(|| arguments.config.display().to_string())?;
    let material = read(config, &tokenizer, &template, state.as_ref())?;
    let steps = config.steps(material.examples());
    let settings = tuning_settings(config, steps)?;
    settings.rank_batch(1)?;

    let adapter = config.adapter.as_ref().map(|section| adapter_config(section, initial(config)?)).transpose()?;
    let model = match (&config.adapter, &adapter) {
        (Some(section), Some(adapter)) => {
            let mut model = weights.frozen_model(&device, storage(section.base_dtype))?;
            let place = format!("{}: adapter", arguments.config.display());
            attach(&place, adapter, checkpoint.as_ref(), config.seed, &mut model)?;
            let trained: usize = model.trained_infos().iter().map(|info| info.count()).sum();
            eprintln!("adapter: {trained} parameters are trained, the weights stay as they are");
            model
        }
        _ => weights.model_of(&model_config, &device)?,
    };
    let yaml = config.to_yaml()?;
    let new = folder.is_none();
    let folder = match folder {
        Some(folder) => folder,
        None => RunFolder::create(out, &yaml)?,
    };
    let made = (|| {
        if !folder.tokenizer().is_dir() {
            save_tokenizer(&tokenizer, Some(template.source()), &folder)?;
        }
        let objective: Box<dyn Objective> = match material {
            Material::Supervised(objective) => Box::new(objective),
            Material::Pairs(training, validation) => {
                let base = model.without_adapter();
                let setting = Setting { config, settings: &settings, folder: &folder, model: &base, checkpoint: checkpoint.as_ref() };
                let reference = setting.reference(&training, &validation)?;
                let pairs = (training, validation);
                Box::new(PreferenceObjective::new(preference_settings(config), pairs, reference, config.seed, state.as_ref())?)
            }
        };
        let facts = RunFacts {
            seed: config.seed,
            tokenizer: tokenizer.fingerprint().to_owned(),
            config: serde_json::to_value(config)?,
            program: format!("openelm {}", env!("CARGO_PKG_VERSION")),
        };
        let trainer = Trainer::new(settings, facts, folder, model, objective, checkpoint.as_ref(), config.log.tensorboard)?;
        Ok::<_, anyhow::Error>(match &adapter {
            Some(adapter) => trainer.saving_adapter(adapter.to_json()),
            None => trainer,
        })
    })();
    let trainer = made.inspect_err(|_| {
        if new {
            forget(out, existed);
        }
    })?;
    if arguments.resume {
        trainer.folder().write_config(&yaml)?;
    }
    Ok(Prepared { run: Run { trainer: evaluating(trainer, evaluation), tokenizer, parameters }, steps, template })
}

fn initial(config: &FinetuneConfig) -> Result<&PathBuf> {
    config.init.as_ref().context("no weights to begin from\nhint: name them with --init, for example a run folder or a Hugging Face folder")
}

fn check_model(config: &FinetuneConfig, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<()> {
    let (length, context, table) = (config.data.max_length, model.max_context_length as u64, model.rope_max_length as u64);
    ensure!(
        length <= table,
        "data.max_length: {length} is above the {table} positions of the model's rotary table\nhint: lower it to at most {context}, the model's context"
    );
    if length > context {
        eprintln!("note: data.max_length ({length}) is above the context of {context} that the model was made for");
    }
    let (tokens, rows) = (tokenizer.vocab_size(), model.vocab_size);
    ensure!(
        tokens <= rows,
        "the tokenizer has {tokens} tokens, the model {rows} rows\nhint: use the tokenizer that the model was trained with"
    );
    Ok(())
}

fn prompt_ids(template: &ChatTemplate, tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>> {
    Ok(template.encode(&[ChatMessage::new("user", prompt)], tokenizer, true)?)
}

/// Reads every file, and says what came of its rows. A `state` of other examples is refused.
fn read(config: &FinetuneConfig, tokenizer: &Tokenizer, template: &ChatTemplate, state: Option<&Value>) -> Result<Material> {
    match config.objective.kind {
        ObjectiveKind::Preference => {
            let (training, validation) = both(config, |files| preferences(config, files, tokenizer, template))?;
            if let Some(state) = state {
                PreferenceObjective::check_state(state, &training)?;
            }
            Ok(Material::Pairs(training, validation))
        }
        ObjectiveKind::Supervised => {
            let examples: (Vec<Learnt>, _) = both(config, |files| conversations(config, files, tokenizer, template))?;
            Ok(Material::Supervised(SupervisedObjective::new(examples, packed_length(config)?, config.seed, state)?))
        }
    }
}

/// Training and held-out examples.
fn both<T>(config: &FinetuneConfig, examples: impl Fn(&[String]) -> Result<Examples<T>>) -> Result<(Vec<T>, Vec<T>)> {
    let found = examples(&config.data.files)?;
    eprintln!("data: {}", found.survey);
    let mut held_out = Vec::new();
    if let Some(section) = &config.validation {
        let found = examples(&section.files)?;
        eprintln!("validation: {}", found.survey);
        held_out = found.examples;
        if section.max_examples > 0 {
            held_out.truncate(usize::try_from(section.max_examples).unwrap_or(usize::MAX));
        }
    }
    Ok((found.examples, held_out))
}

/// What the reference depends on.
struct Setting<'a> {
    config: &'a FinetuneConfig,
    settings: &'a TrainSettings,
    folder: &'a RunFolder,
    /// The policy as it stands, an adapter left out; the reference itself where there is no checkpoint, or an adapter is trained.
    model: &'a OpenElm,
    checkpoint: Option<&'a Checkpoint>,
}

impl Setting<'_> {
    /// The reference of these pairs, and the digest of its weights.
    fn reference(&self, training: &[PairTokens], validation: &[PairTokens]) -> Result<(Reference, String)> {
        let saved = self.checkpoint.map(|checkpoint| reference_digest_of(&checkpoint.manifest().data)).transpose()?;
        if self.config.objective.reference == Some(ReferenceName::Frozen) {
            let mut frozen = self.initial_model()?;
            let digest = weights_digest(&mut frozen)?;
            return Ok((Reference::Frozen(Box::new(frozen)), digest));
        }
        let arithmetic = self.settings.arithmetic();
        let known = match saved {
            Some(digest) => digest,
            None => weights_digest(&mut self.model.clone())?,
        };
        let key = ReferenceKey::new(training, validation, known.clone(), &arithmetic);
        let why = match Reference::load(self.folder.path(), &key, training.len(), validation.len())? {
            Ok(kept) => return Ok((kept, known)),
            Err(why) => why,
        };
        let again;
        let reference = match self.checkpoint {
            None => self.model,
            Some(_) => {
                eprintln!("note: the reference's log-probabilities are computed again: {why}");
                let mut model = self.initial_model()?;
                if weights_digest(&mut model)? != known {
                    bail!(
                        "the reference's log-probabilities are needed again, but these are not the weights that the run was begun from\nhint: name those with --init"
                    );
                }
                again = model;
                &again
            }
        };
        let total = training.len() + validation.len();
        eprintln!("asking the reference about {total} pairs");
        let mut engine = engine_for(reference)?;
        let begin = Instant::now();
        let micro_batch = self.settings.micro_batch;
        let kept = Reference::compute(&mut *engine, reference, (training, validation), micro_batch, &arithmetic, |_| {})?;
        eprintln!("the reference has answered: {:.0} s", begin.elapsed().as_secs_f64());
        kept.save(self.folder.path(), &key)?;
        Ok((kept, known))
    }

    fn initial_model(&self) -> Result<OpenElm> {
        if self.config.adapter.is_some() {
            return Ok(self.model.clone());
        }
        Ok(open_weights(initial(self.config)?, None)?.model_of(self.model.config(), self.model.device())?)
    }
}

fn finish(config: &FinetuneConfig, run: Run, template: &ChatTemplate, out: &Path) -> Result<()> {
    let Run { trainer, tokenizer, .. } = run;
    let folder = trainer.folder().path().to_owned();
    let model = trainer.into_model();
    let exported = export_run(config.export.as_ref(), &config.name, Vec::new(), &folder, &tokenizer)?;
    if let Some(sample) = &config.sample {
        let ids = prompt_ids(template, &tokenizer, &sample.prompt)?;
        let precision = tuning_settings(config, 1)?.precision;
        let text = generate::continuation(&model, &tokenizer, &ids, sample, precision)?;
        println!("--- what the model answers to {:?}:\n{}\n---", sample.prompt, text.trim());
    }
    print_places(out, exported.as_deref());
    println!("next         openelm chat {}", out.display());
    Ok(())
}
