//! `openelm adapter`, and adapters in other commands: weights with an adapter fused as they are read, and a model to train one on.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use openelm_checkpoint::{ADAPTER_FILE, Checkpoint, Weights, adapter_folder};
use openelm_export::ExportSettings;
use openelm_finetune::adapter::{AdapterConfig, Targets, attach_new, attach_saved, fused};
use openelm_formats::{Safetensors, TensorSource};
use openelm_model::{OpenElm, Storage};
use openelm_tokenizer::Tokenizer;

use super::{export, tokenizer_of};
use crate::args::{AdapterCommand, FuseArguments};
use crate::config::{AdapterSection, BaseDtype, TargetModules};
use crate::convert::size;

/// Runs `openelm adapter`.
pub(super) fn run(command: AdapterCommand) -> Result<()> {
    match command {
        AdapterCommand::Fuse(arguments) => fuse(&arguments),
        AdapterCommand::Show { adapter } => show(&adapter),
    }
}

fn fuse(arguments: &FuseArguments) -> Result<()> {
    let weights = open_weights(&arguments.weights, Some(&arguments.adapter))?;
    let tokenizer: Option<Tokenizer> = tokenizer_of(&weights, arguments.tokenizer.as_deref())?;
    if tokenizer.is_none() {
        eprintln!("note: no tokenizer lies beside the weights, so none is written; name one with --tokenizer");
    }
    let settings = ExportSettings {
        dtype: arguments.dtype.map(export::export_dtype),
        max_shard_bytes: arguments.max_shard_mb.saturating_mul(1_000_000),
    };
    let folder = arguments.out.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = arguments.name.clone().or(folder).unwrap_or_else(|| "OpenELM".into());
    export::hugging_face(&weights, tokenizer.as_ref(), &name, Vec::new(), &settings, &arguments.out)?;
    println!("{}", arguments.out.display());
    Ok(())
}

fn show(path: &Path) -> Result<()> {
    let config = AdapterConfig::load(path)?;
    let folder = adapter_folder(path)?.unwrap_or_else(|| path.to_owned());
    let file = Safetensors::open(&folder.join(ADAPTER_FILE))?;
    let parameters: usize = file.infos().iter().map(|info| info.count()).sum();
    let kind = match (config.use_dora, config.use_rslora) {
        (true, true) => "DoRA, scaled as rsLoRA",
        (true, false) => "DoRA",
        (false, true) => "rsLoRA",
        (false, false) => "LoRA",
    };
    let targets = match &config.target_modules {
        Targets::Names(names) => names.join(", "),
        Targets::Pattern(pattern) => pattern.clone(),
    };
    println!("kind        {kind}, rank {}, alpha {}, dropout {}", config.r, config.lora_alpha, config.lora_dropout);
    println!("modules     {targets}");
    for (pattern, rank) in &config.rank_pattern {
        println!("rank        {rank} for {pattern}");
    }
    for (pattern, alpha) in &config.alpha_pattern {
        println!("alpha       {alpha} for {pattern}");
    }
    println!("parameters  {parameters} in {} tensors", file.infos().len());
    println!("base        {}", config.base.as_deref().unwrap_or("(not named)"));
    for info in file.infos() {
        println!("  {} {:?}", info.name, info.shape);
    }
    Ok(())
}

/// Weights of any kind, with the adapter at `adapter` fused as they are read; without one named, a run that trains an adapter is its
/// base with the newest adapter. The tokenizer of such a run goes before the base's.
pub(super) fn open_weights(path: &Path, adapter: Option<&Path>) -> Result<Weights> {
    match adapter {
        Some(adapter) => Ok(fused(open_chain(path, 0)?, adapter)?.with_tokenizer_of(adapter)?),
        None => open_chain(path, 0),
    }
}

/// Adapters on each other's fused models, at most: more are a base that names itself.
const DEPTH: usize = 16;

/// The weights at `path`; the `depth`-th of a chain of adapters of which each names its base.
fn open_chain(path: &Path, depth: usize) -> Result<Weights> {
    let Some(folder) = adapter_folder(path)? else { return Ok(Weights::open(path)?) };
    ensure!(
        depth < DEPTH,
        "{}: {DEPTH} adapters name each other as their base\nhint: give the base's weights, and this path with --adapter",
        folder.display()
    );
    let Some(base) = AdapterConfig::load(path)?.base else {
        bail!("{}: the adapter does not name its base\nhint: give the base's weights, and this path with --adapter", folder.display());
    };
    let weights = open_chain(Path::new(&base), depth + 1).with_context(|| {
        format!("{}: its base {base} cannot be opened\nhint: give the base's weights, and this path with --adapter", folder.display())
    })?;
    Ok(fused(weights, path)?.with_tokenizer_of(path)?)
}

/// The section in PEFT's terms; `base` is where the frozen weights lie.
pub(super) fn adapter_config(section: &AdapterSection, base: &Path) -> Result<AdapterConfig> {
    let ranks = section.rank_pattern.iter().map(|(pattern, rank)| Ok((pattern.clone(), size(*rank)?)));
    Ok(AdapterConfig {
        r: size(section.r)?,
        lora_alpha: section.lora_alpha.unwrap_or(section.r as f64),
        lora_dropout: section.lora_dropout,
        target_modules: match &section.target_modules {
            TargetModules::Names(names) => Targets::Names(names.clone()),
            TargetModules::Pattern(pattern) => Targets::Pattern(pattern.clone()),
        },
        rank_pattern: ranks.collect::<Result<_>>()?,
        alpha_pattern: section.alpha_pattern.iter().map(|(pattern, alpha)| (pattern.clone(), *alpha)).collect(),
        use_rslora: section.use_rslora,
        use_dora: section.use_dora,
        base: Some(base.display().to_string()),
    })
}

/// How the base lies in memory.
pub(super) fn storage(dtype: BaseDtype) -> Storage {
    match dtype {
        BaseDtype::F32 => Storage::F32,
        BaseDtype::Bf16 => Storage::Bf16,
        BaseDtype::Q8_0 => Storage::Q8_0,
    }
}

/// Puts an adapter onto `model`: that of the checkpoint, which must be the configured one, else a new one. `place` is what errors call
/// the configuration.
pub(super) fn attach(place: &str, config: &AdapterConfig, checkpoint: Option<&Checkpoint>, seed: u64, model: &mut OpenElm) -> Result<()> {
    config.check(place)?;
    let Some(checkpoint) = checkpoint else { return Ok(attach_new(place, config, seed, model)?) };
    let saved = attach_saved(checkpoint.path(), seed, model)?;
    ensure!(
        AdapterConfig { base: config.base.clone(), ..saved } == *config,
        "{}: its adapter is another one than the configuration's\nhint: resume with the configuration in the run folder, or begin a new run",
        checkpoint.path().display()
    );
    Ok(())
}
