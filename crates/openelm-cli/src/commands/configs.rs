//! `openelm config`: configurations shown and converted.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::load_config;
use crate::args::ConfigArguments;
use crate::config::corenet;

/// Runs `openelm config convert`.
pub(super) fn convert(arguments: &ConfigArguments, out: Option<&Path>) -> Result<()> {
    let loaded = load_config(arguments)?;
    let text = if loaded.corenet {
        loaded.config.to_yaml()?
    } else {
        let (text, notes) = corenet::to_yaml(&loaded.config)?;
        for note in notes {
            eprintln!("note: {note}");
        }
        text
    };
    match out {
        Some(path) => {
            let mut file = std::fs::File::create_new(path)
                .with_context(|| format!("{}: cannot be made\nhint: name a file that does not exist yet", path.display()))?;
            file.write_all(text.as_bytes()).with_context(|| format!("{}: writing it failed\nhint: check the free space", path.display()))
        }
        None => Ok(std::io::stdout().write_all(text.as_bytes())?),
    }
}

/// Runs `openelm config show`.
pub(super) fn show(arguments: &ConfigArguments) -> Result<()> {
    let loaded = load_config(arguments)?;
    Ok(std::io::stdout().write_all(loaded.config.to_yaml()?.as_bytes())?)
}
