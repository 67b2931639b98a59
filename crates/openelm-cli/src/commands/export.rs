//! `openelm export`.

use std::path::Path;

use anyhow::{Context, Result};
use openelm_checkpoint::{Checkpoint, WeightKind, Weights};
use openelm_export::{CardFacts, ExportDtype, ExportSettings, export_hugging_face};
use openelm_tokenizer::Tokenizer;

use super::tokenizer_of;
use crate::args::{ExportArguments, Format, StoredDtype};

/// Runs `openelm export`.
pub(super) fn export(arguments: &ExportArguments) -> Result<()> {
    let weights = Weights::open(&arguments.weights)?;
    let tokenizer = tokenizer_of(&weights, arguments.tokenizer.as_deref())?;
    if tokenizer.is_none() {
        eprintln!("note: no tokenizer lies beside the weights, so none is written; name one with --tokenizer");
    }
    let settings = ExportSettings {
        dtype: match arguments.dtype {
            StoredDtype::F32 => ExportDtype::F32,
            StoredDtype::F16 => ExportDtype::F16,
            StoredDtype::Bf16 => ExportDtype::Bf16,
        },
        max_shard_bytes: arguments.max_shard_mb.saturating_mul(1_000_000),
    };
    let name = arguments.out.file_name().map_or_else(|| "OpenELM".into(), |name| name.to_string_lossy().into_owned());
    match arguments.format {
        Format::Hf => hugging_face(&weights, tokenizer.as_ref(), &name, Vec::new(), &settings, &arguments.out)?,
    }
    println!("{}", arguments.out.display());
    Ok(())
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
    let mut facts = CardFacts { name: name.to_owned(), step: None, tokens: None, corpora };
    if weights.kind() == WeightKind::Checkpoint {
        let checkpoint = Checkpoint::open(weights.path())?;
        facts.step = Some(checkpoint.manifest().step);
        facts.tokens = Some(checkpoint.manifest().tokens);
    }
    export_hugging_face(weights, tokenizer, &facts, settings, out).with_context(|| format!("exporting {}", weights.path().display()))?;
    Ok(())
}
