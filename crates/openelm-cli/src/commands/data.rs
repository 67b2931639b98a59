//! `openelm data show`: the next sequences, in training order.

use std::io::Write;

use anyhow::{Result, bail};
use openelm_data::{Loader, Order, Partition, Sequence, corenet_sequences};
use openelm_tokenizer::Tokenizer;
use serde_json::json;

use super::{load_config, tokenizer};
use crate::args::DataShowArguments;
use crate::convert::data_config;

/// Characters of a sequence's text that are shown.
const SHOWN_CHARACTERS: usize = 240;

/// Runs `openelm data show`.
pub(super) fn show(arguments: &DataShowArguments) -> Result<()> {
    let config = load_config(&arguments.config)?.config;
    let tokenizer = tokenizer::of_config(&config)?;
    let data = data_config(&config)?;
    let &DataShowArguments { samples, rank, world, worker, .. } = arguments;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if data.order == Order::Corenet {
        let workers = arguments.workers.unwrap_or(data.workers);
        for sequence in corenet_sequences(&data, &tokenizer, Partition { rank, world, worker, workers })?.take(samples) {
            print(&mut out, &sequence?, &tokenizer, arguments.json)?;
        }
    } else {
        if worker != 0 || arguments.workers.is_some() {
            bail!("--worker and --workers belong to the corenet order\nhint: the mixed order does not depend on workers; leave them away");
        }
        let mut loader = Loader::open(&data, &tokenizer, rank, world)?;
        for _ in 0..samples {
            print(&mut out, &loader.next_sequence()?, &tokenizer, arguments.json)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn print(out: &mut impl Write, sequence: &Sequence, tokenizer: &Tokenizer, json: bool) -> Result<()> {
    if json {
        writeln!(out, "{}", json!({"source": &*sequence.source, "tokens": sequence.tokens}))?;
        return Ok(());
    }
    let filled = sequence.tokens.len() - sequence.padding;
    let text = tokenizer.decode(sequence.tokens.get(..filled).unwrap_or_default());
    let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    let more = if shown.len() < text.len() { " ..." } else { "" };
    writeln!(out, "{}  {filled} tokens, {} padding, documents start at {:?}", sequence.source, sequence.padding, sequence.boundaries)?;
    writeln!(out, "    {}{more}", shown.escape_debug())?;
    Ok(())
}
