//! `openelm export`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use openelm_checkpoint::{Checkpoint, WeightKind, Weights};
use openelm_export::{
    CardFacts, CoreNetTraining, ExportDtype, ExportSettings, GgufType, MlxSettings, export_corenet, export_corenet_training, export_gguf,
    export_hugging_face, export_mlx,
};
use openelm_tokenizer::Tokenizer;

use super::adapter::open_weights;
use super::tokenizer_of;
use crate::args::{ExportArguments, Format, Quantize, StoredDtype};
use crate::config::RunConfig;
use crate::convert::train_settings;

/// Runs `openelm export`.
pub(super) fn export(arguments: &ExportArguments) -> Result<()> {
    check(arguments)?;
    let weights = open_weights(&arguments.weights, None)?;
    let tokenizer = tokenizer_of(&weights, arguments.tokenizer.as_deref())?;
    if tokenizer.is_none() && matches!(arguments.format, Format::Hf | Format::Mlx) {
        eprintln!("note: no tokenizer lies beside the weights, so none is written; name one with --tokenizer");
    }
    let out = &arguments.out;
    let dtype = arguments.dtype.map(export_dtype);
    let max_shard_bytes = arguments.max_shard_mb.saturating_mul(1_000_000);
    let name_of = |path: &Path| path.file_name().map_or_else(|| "OpenELM".into(), |name| name.to_string_lossy().into_owned());
    let named = || arguments.name.clone();
    match arguments.format {
        Format::Hf => {
            let settings = ExportSettings { dtype, max_shard_bytes };
            let name = named().unwrap_or_else(|| name_of(out));
            hugging_face(&weights, tokenizer.as_ref(), &name, Vec::new(), &settings, out)?;
        }
        Format::Mlx => {
            let bits = arguments.quantize.and_then(Quantize::bits);
            let facts = facts_of(&weights, named().unwrap_or_else(|| name_of(out)), Vec::new())?;
            export_mlx(&weights, tokenizer.as_ref(), &facts, &MlxSettings { dtype, bits, max_shard_bytes }, out)
                .with_context(context(&weights))?;
        }
        Format::Gguf => {
            let name = named().unwrap_or_else(|| model_name(&arguments.weights));
            let kind = gguf_type(arguments, &weights);
            export_gguf(&weights, tokenizer.as_ref(), &name, kind, out).with_context(context(&weights))?;
        }
        Format::Corenet if arguments.training => {
            if weights.kind() != WeightKind::Checkpoint {
                bail!(
                    "{}: only a run's checkpoint has the state of a training\nhint: give a run folder, or leave --training away",
                    weights.path().display()
                );
            }
            let checkpoint = Checkpoint::open(weights.path())?;
            let training = training_of(&checkpoint)?;
            export_corenet_training(&weights, &checkpoint, &training, out).with_context(context(&weights))?;
        }
        Format::Corenet => export_corenet(&weights, dtype, out).with_context(context(&weights))?,
    }
    println!("{}", out.display());
    Ok(())
}

/// Refuses options that the format does not have, before anything is read.
fn check(arguments: &ExportArguments) -> Result<()> {
    if let Some(quantize) = arguments.quantize {
        let mlxs = quantize.bits().is_some();
        if mlxs && arguments.format != Format::Mlx {
            let hint = "use --format mlx, or one of llama.cpp's types such as q4_k_m with --format gguf";
            bail!("--quantize 2bit to 6bit and 8bit are MLX's\nhint: {hint}");
        }
        if !mlxs && arguments.format != Format::Gguf {
            bail!("this --quantize is llama.cpp's\nhint: use --format gguf, or 2bit to 6bit or 8bit with --format mlx");
        }
        if !mlxs && arguments.dtype.is_some() {
            bail!("--quantize already says the type\nhint: leave --dtype away");
        }
    }
    if arguments.training && arguments.format != Format::Corenet {
        bail!("--training belongs to --format corenet\nhint: leave it away, or change the format");
    }
    if arguments.training && arguments.dtype.is_some_and(|dtype| dtype != StoredDtype::F32) {
        bail!("a training checkpoint is f32\nhint: leave --dtype away");
    }
    Ok(())
}

pub(super) fn export_dtype(dtype: StoredDtype) -> ExportDtype {
    match dtype {
        StoredDtype::F32 => ExportDtype::F32,
        StoredDtype::F16 => ExportDtype::F16,
        StoredDtype::Bf16 => ExportDtype::Bf16,
    }
}

fn gguf_type(arguments: &ExportArguments, weights: &Weights) -> GgufType {
    match (arguments.quantize, arguments.dtype) {
        (Some(Quantize::Q8_0), _) => GgufType::Q8_0,
        (Some(Quantize::Q4_0), _) => GgufType::Q4_0,
        (Some(Quantize::Q4_1), _) => GgufType::Q4_1,
        (Some(Quantize::Q5_0), _) => GgufType::Q5_0,
        (Some(Quantize::Q4KS), _) => GgufType::Q4KS,
        (Some(Quantize::Q4KM), _) => GgufType::Q4KM,
        (Some(Quantize::Q5KS), _) => GgufType::Q5KS,
        (Some(Quantize::Q5KM), _) => GgufType::Q5KM,
        (Some(Quantize::Q6K), _) => GgufType::Q6K,
        (_, Some(StoredDtype::F32)) => GgufType::F32,
        (_, Some(StoredDtype::F16)) => GgufType::F16,
        (_, Some(StoredDtype::Bf16)) => GgufType::Bf16,
        (_, None) => GgufType::plain_for(weights),
    }
}

/// What llama.cpp's converter would call the model: the folder of the weights, the run of a checkpoint, the file without its ending.
pub(super) fn model_name(weights: &Path) -> String {
    let absolute = weights.canonicalize().unwrap_or_else(|_| weights.to_owned());
    let step = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
    let place = match absolute.parent().and_then(Path::parent) {
        Some(run) if step(&absolute) && absolute.join("manifest.json").is_file() => run,
        _ => &absolute,
    };
    let name = if place.is_file() { place.file_stem() } else { place.file_name() };
    name.map_or_else(|| "OpenELM".into(), |name| name.to_string_lossy().into_owned())
}

/// How the run of a checkpoint trains, in CoreNet's terms.
fn training_of(checkpoint: &Checkpoint) -> Result<CoreNetTraining> {
    let manifest = checkpoint.manifest();
    let config: RunConfig = serde_json::from_value(manifest.config.clone()).with_context(|| {
        let hint = "leave --training away: what fine-tuning has made is exported as weights";
        format!("{}: its manifest holds no configuration of a pretraining run\nhint: {hint}", checkpoint.path().display())
    })?;
    let settings = train_settings(&config)?;
    Ok(CoreNetTraining {
        weight_decay: settings.optimizer.weight_decay,
        no_decay_1d: settings.optimizer.no_decay_1d,
        betas: (settings.optimizer.beta1, settings.optimizer.beta2),
        eps: settings.optimizer.eps,
        learning_rate: settings.schedule.rate(manifest.step.saturating_sub(1)),
    })
}

fn context(weights: &Weights) -> impl Fn() -> String {
    let path = weights.path().to_owned();
    move || format!("exporting {}", path.display())
}

/// What a checkpoint knows of its run.
fn facts_of(weights: &Weights, name: String, corpora: Vec<(String, f64)>) -> Result<CardFacts> {
    let mut facts = CardFacts { name, step: None, tokens: None, corpora };
    if weights.kind() == WeightKind::Checkpoint {
        let checkpoint = Checkpoint::open(weights.path())?;
        facts.step = Some(checkpoint.manifest().step);
        facts.tokens = Some(checkpoint.manifest().tokens);
    }
    Ok(facts)
}

/// Writes a Hugging Face folder, with what a checkpoint knows of its run on the card.
pub(super) fn hugging_face(
    weights: &Weights,
    tokenizer: Option<&Tokenizer>,
    name: &str,
    corpora: Vec<(String, f64)>,
    settings: &ExportSettings,
    out: &Path,
) -> Result<()> {
    let facts = facts_of(weights, name.to_owned(), corpora)?;
    export_hugging_face(weights, tokenizer, &facts, settings, out).with_context(context(weights))?;
    Ok(())
}
