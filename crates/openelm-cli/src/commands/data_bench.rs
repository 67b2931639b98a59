//! `openelm bench data`: how fast text becomes sequences, stage by stage and as a whole.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use openelm_data::{Loader, stage_rates};
use serde_json::json;

use super::{load_config, peak_rss_mib, tokenizer};
use crate::args::BenchDataArguments;
use crate::convert::data_config;

/// Text that the stages are measured on.
const STAGE_BYTES: usize = 32 << 20;

/// Runs `openelm bench data`.
pub(super) fn run(arguments: &BenchDataArguments) -> Result<()> {
    let config = load_config(&arguments.config)?.config;
    let tokenizer = tokenizer::of_config(&config)?;
    let mut data = data_config(&config)?;
    data.threads = arguments.threads;
    let length = data.sequence_length;
    let begin = Instant::now();
    let mut loader = Loader::open(&data, &tokenizer, 0, 1)?;
    loader.next_sequence()?;
    let first = begin.elapsed().as_secs_f64();
    let (begin, bytes) = (Instant::now(), loader.text_bytes());
    let budget = Duration::from_secs_f64(arguments.seconds.clamp(0.1, 1e6));
    let (mut sequences, mut padding) = (0usize, 0usize);
    while begin.elapsed() < budget {
        padding += loader.next_sequence()?.padding;
        sequences += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let mb_per_second = (loader.text_bytes() - bytes) as f64 / 1e6 / seconds;
    // What goes on from here: the state alone, in a loader that has read nothing yet.
    let state = loader.state();
    let expected = loader.next_sequence()?;
    drop(loader);
    let begin = Instant::now();
    let found = Loader::resume(&data, &tokenizer, 0, 1, &state)?.next_sequence()?;
    let resume = begin.elapsed().as_secs_f64();
    ensure!(found.tokens == expected.tokens, "a resumed loader gave another sequence\nhint: the shards changed while they were measured");
    let peak = peak_rss_mib();
    let stages = if arguments.no_stages { None } else { Some(stage_rates(&data, &tokenizer, STAGE_BYTES)?) };
    let tokens_per_second = (sequences * length - padding) as f64 / seconds;
    let mut out = std::io::stdout().lock();
    if !arguments.json {
        writeln!(
            out,
            "whole pipeline  {mb_per_second:8.1} MB/s, {tokens_per_second:.0} tokens/s, first sequence after {first:.2} s, after a resume {resume:.2} s"
        )?;
        if let Some(stages) = &stages {
            writeln!(out, "read            {:8.1} MB/s", stages.read_mb_per_second)?;
            writeln!(out, "filter          {:8.1} MB/s", stages.filter_mb_per_second)?;
            if let Some(rate) = stages.normalize_mb_per_second {
                writeln!(out, "normalize       {rate:8.1} MB/s")?;
            }
            writeln!(out, "tokenize        {:8.1} MB/s", stages.tokenize_mb_per_second)?;
            writeln!(out, "pack            {:8.1} MB/s", stages.pack_mb_per_second)?;
        }
        return Ok(());
    }
    let mut line = json!({
        "mb_per_second": mb_per_second,
        "tokens_per_second": tokens_per_second,
        "threads": if data.threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { data.threads },
        "sequence_length": length,
        "sequences": sequences,
        "padding": padding,
        "first_sequence_seconds": first,
        "resume_seconds": resume,
        "peak_rss_mib": peak,
        "cache": data.cache.is_some(),
    });
    if let (Some(line), Some(serde_json::Value::Object(stages))) = (line.as_object_mut(), stages.map(serde_json::to_value).transpose()?) {
        line.extend(stages);
    }
    writeln!(out, "{line}")?;
    Ok(())
}
