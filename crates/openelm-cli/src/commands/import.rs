//! `openelm import`: a CoreNet training checkpoint becomes a run that `openelm train --resume` continues.
//!
//! What must stay true: weights, both moments, and the number of updates are CoreNet's; the data goes on after the sequences that these
//! updates have read, where the configuration asks for CoreNet's order.

use anyhow::{Context, Result};
use openelm_checkpoint::{CheckpointError, CoreNetTrainingFile, Draft, Manifest, RunFolder, Weights, moment_name};
use openelm_data::Loader;
use openelm_model::open_device;

use super::run::save_tokenizer;
use super::train::check_vocabulary;
use super::{load_config, tokenizer};
use crate::args::ImportArguments;
use crate::convert::{data_config, model_config, train_settings};

/// PyTorch's names of the two moments.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// Runs `openelm import`.
pub(super) fn import(arguments: &ImportArguments) -> Result<()> {
    let config = load_config(&arguments.config)?.config;
    let settings = train_settings(&config)?;
    let model_config = model_config(&config.model)?;
    let state = CoreNetTrainingFile::open(&arguments.checkpoint, &model_config, settings.optimizer.no_decay_1d)?;
    if state.iterations() >= settings.steps {
        eprintln!("note: all {} updates of the configuration are done", settings.steps);
    }
    let tokenizer = tokenizer::of_config(&config)?;
    let place = arguments.config.config.display().to_string();
    check_vocabulary(&tokenizer, "the tokenizer", &model_config).with_context(|| place)?;
    let mut loader = Loader::open(&data_config(&config)?, &tokenizer, 0, 1)?;
    let batch = settings.rank_batch(1)?;
    let mut tokens = 0_u64;
    if !arguments.restart_data {
        for _ in 0..state.iterations() {
            let batch = loader.next_batch(batch)?;
            // The first token of each row is no target.
            let rows = batch.tokens.chunks(batch.sequence_length + 1);
            tokens += rows.flat_map(|row| row.iter().skip(1)).filter(|id| **id != batch.padding_id).count() as u64;
        }
    }
    let mut model = Weights::open(&arguments.checkpoint)?.model_of(&model_config, &open_device("flex")?)?;
    let folder = RunFolder::create(&arguments.out, &config.to_yaml()?)?;
    save_tokenizer(&tokenizer, None, &folder)?;
    let manifest = Manifest {
        version: Manifest::VERSION,
        program: format!("openelm {}", env!("CARGO_PKG_VERSION")),
        step: state.iterations(),
        tokens,
        seed: config.seed,
        tokenizer: tokenizer.fingerprint().to_owned(),
        model: model_config,
        data: serde_json::to_value(loader.state())?,
        config: serde_json::to_value(&config)?,
        files: Vec::new(),
    };
    let infos = model.infos().to_vec();
    let moments: Vec<_> = infos.iter().flat_map(|info| MOMENTS.map(|kind| (info, kind))).collect();
    let tensors: Vec<_> = moments.iter().map(|(info, kind)| (moment_name(kind, &info.name), info.shape.clone())).collect();
    let saved = folder.save(manifest, |draft: &mut Draft| -> Result<(), CheckpointError> {
        draft.weights(&mut model)?;
        draft.optimizer(&tensors, |write| {
            moments.iter().try_for_each(|(info, kind)| write(&moment_name(kind, &info.name), &state.moment(info, kind)?))
        })
    })?;
    println!("{}", saved.display());
    let config = arguments.out.join("config.yaml");
    eprintln!("continue with: openelm train {} --out {} --resume", config.display(), arguments.out.display());
    Ok(())
}
