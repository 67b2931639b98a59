//! `openelm data verify` and `openelm data tokenize`: every shard read before a run needs it.

use std::io::Write;

use anyhow::{Result, bail};
use openelm_data::{SkipLog, TokenizedShard, tokenize, verify};

use super::data_plan::short;
use super::{load_config, tokenizer};
use crate::args::{DataTokenizeArguments, DataVerifyArguments};
use crate::convert::data_config;

/// Bad records of a shard that are printed.
const SHOWN: usize = 10;

/// Runs `openelm data verify`; an error when a shard is not sound.
pub(super) fn run_verify(arguments: &DataVerifyArguments) -> Result<()> {
    let config = load_config(&arguments.config)?.config;
    let reports = verify(&data_config(&config)?)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&reports)?)?;
    } else {
        for report in reports.iter().filter(|report| !report.is_sound()) {
            writeln!(out, "{} ({}): {} sound documents", report.file, report.corpus, report.documents)?;
            for record in report.bad.iter().take(SHOWN) {
                writeln!(out, "    {}: {}", record.place, record.reason)?;
            }
            if report.bad.len() > SHOWN {
                writeln!(out, "    and {} more", report.bad.len() - SHOWN)?;
            }
            if let Some(reason) = &report.unfinished {
                writeln!(out, "    not read to its end: {}", reason.replace('\n', "\n    "))?;
            }
        }
    }
    out.flush()?;
    let damaged = reports.iter().filter(|report| !report.is_sound()).count();
    let documents: u64 = reports.iter().map(|report| report.documents).sum();
    if damaged > 0 {
        bail!(
            "{damaged} of {} shards are damaged\nhint: fetch them again, or set data.on_bad_record to skip to train on what is sound",
            reports.len()
        );
    }
    eprintln!("{} shards are sound: {documents} documents", reports.len());
    Ok(())
}

/// Runs `openelm data tokenize`.
pub(super) fn run_tokenize(arguments: &DataTokenizeArguments) -> Result<()> {
    let config = load_config(&arguments.config)?.config;
    let tokenizer = tokenizer::of_config(&config)?;
    let skipped = SkipLog::new();
    let (mut shards, mut bad) = (0, 0);
    let mut done = |shard: &TokenizedShard| {
        shards += 1;
        bad += shard.bad;
        let TokenizedShard { file, files, present, documents, tokens, .. } = shard;
        if present == files {
            println!("{file}: there already");
        } else if shard.bad > 0 {
            println!("{file}: {} bad records; not kept", shard.bad);
        } else {
            println!("{file}: {documents} documents, {} tokens in {} files", short(*tokens), files - present);
        }
    };
    tokenize(&data_config(&config)?, &tokenizer, arguments.part, arguments.parts, &skipped, &mut done)?;
    for record in skipped.records() {
        eprintln!("skipped: {}, {}: {}", record.file, record.place, record.reason);
    }
    eprintln!("{shards} shards done, {bad} bad records");
    Ok(())
}
