//! `openelm tokenizer`, and the tokenizer that a configuration names or asks to be trained.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use openelm_data::documents;
use openelm_tokenizer::{BpeTraining, Tokenizer};

use super::load_config;
use crate::args::ConfigArguments;
use crate::config::{RunConfig, TokenizerTraining};
use crate::convert::data_config;

/// The tokenizer of a run that has none yet.
pub(super) fn of_config(config: &RunConfig) -> Result<Tokenizer> {
    match (&config.tokenizer.path, &config.tokenizer.train) {
        (Some(path), _) => Ok(Tokenizer::load(path)?),
        (None, Some(training)) => train_on(config, training),
        (None, None) => anyhow::bail!("the configuration names no tokenizer\nhint: set tokenizer.path or tokenizer.train"),
    }
}

/// Trains on the training corpora, normalised as the run normalises them.
fn train_on(config: &RunConfig, training: &TokenizerTraining) -> Result<Tokenizer> {
    let data = data_config(config)?;
    let settings = BpeTraining {
        byte_fallback: training.byte_fallback,
        split_digits: training.split_digits,
        ..BpeTraining::new(usize::try_from(training.vocab_size)?)
    };
    eprintln!("training a tokenizer of {} tokens", settings.vocab_size);
    let texts = documents(&data.corpora, &data.object_store).map(|document| {
        let text = document?.text;
        Ok::<_, openelm_data::DataError>(if data.normalize { openelm_data::fix_text(&text).into_owned() } else { text })
    });
    Ok(openelm_tokenizer::train(&settings, texts)?)
}

/// Runs `openelm tokenizer train`.
pub(super) fn train(arguments: &ConfigArguments, out: &Path) -> Result<()> {
    let config = load_config(arguments)?.config;
    let tokenizer = of_config(&config)?;
    std::fs::create_dir_all(out).with_context(|| {
        format!("{}: making the folder failed\nhint: name another folder with --out, and check its permissions", out.display())
    })?;
    tokenizer.save(out)?;
    println!("{}: {} tokens", out.display(), tokenizer.vocab_size());
    Ok(())
}

/// Runs `openelm tokenizer encode`.
pub(super) fn encode(tokenizer: &Path, text: Option<String>, pieces: bool) -> Result<()> {
    let tokenizer = Tokenizer::load(tokenizer)?;
    let text = match text {
        Some(text) => text,
        None => from_stdin()?,
    };
    let show = |id: u32| if pieces { format!("{id}:{}", tokenizer.token(id).unwrap_or_default()) } else { id.to_string() };
    let ids: Vec<String> = tokenizer.encode(&text).into_iter().map(show).collect();
    writeln!(std::io::stdout(), "{}", ids.join(" "))?;
    Ok(())
}

/// Runs `openelm tokenizer decode`.
pub(super) fn decode(tokenizer: &Path, ids: &[u32]) -> Result<()> {
    let tokenizer = Tokenizer::load(tokenizer)?;
    let read =
        |word: &str| word.parse().with_context(|| format!("{word:?} is no token id\nhint: give whole numbers, with spaces between them"));
    let ids = if ids.is_empty() { from_stdin()?.split_whitespace().map(read).collect::<Result<_>>()? } else { ids.to_vec() };
    if let Some(id) = ids.iter().find(|id| **id as usize >= tokenizer.vocab_size()) {
        anyhow::bail!("token id {id} is outside the vocabulary of {}\nhint: use the tokenizer that made the ids", tokenizer.vocab_size());
    }
    writeln!(std::io::stdout(), "{}", tokenizer.decode(&ids))?;
    Ok(())
}

fn from_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("reading the standard input failed\nhint: it must be UTF-8 text")?;
    Ok(text)
}
