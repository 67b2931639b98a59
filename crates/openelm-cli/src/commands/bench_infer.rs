//! `openelm bench infer`: prefill and decoding, as medians after a warm-up. The quickest single token is told as well: on a machine
//! with other work it says more about the program than a median does.

use std::io::Write;
use std::time::Instant;

use anyhow::{Result, ensure};
use openelm_infer::{Run, Wanted};
use openelm_kernels::{Cpu, peak};
use serde_json::json;

use super::{adapter::open_weights, bench::median, decoder::open_decoder, peak_rss_mib};
use crate::args::BenchInferArguments;

/// f32 values that the bandwidth is measured on: far more than any cache holds.
const BANDWIDTH_VALUES: usize = 1 << 26;

/// Runs `openelm bench infer`.
pub(super) fn infer(arguments: &BenchInferArguments) -> Result<()> {
    let &BenchInferArguments { prompt, new, repeat, .. } = arguments;
    ensure!(prompt > 0 && new > 0 && repeat > 0, "-p, -n and --repeat must be at least 1\nhint: give positive numbers");
    let begin = Instant::now();
    let weights = open_weights(&arguments.weights, None)?;
    let decoder = open_decoder(&weights, &arguments.decoder)?;
    let load = begin.elapsed().as_secs_f64();
    let config = decoder.config();
    ensure!(
        prompt + new <= config.rope_max_length,
        "{prompt} + {new} tokens, but the model knows {} positions\nhint: ask for fewer",
        config.rope_max_length
    );
    let vocabulary = config.vocab_size as u64;
    let id = |i: usize, factor: u64| ((i as u64 * factor + 13) % vocabulary) as u32;
    let ids: Vec<u32> = (0..prompt).map(|i| id(i, 7919)).collect();
    let (mut prefill, mut decode, mut first) = (Vec::new(), Vec::new(), None);
    let mut quickest = f64::INFINITY;
    for round in 0..=repeat {
        let mut cache = decoder.cache(prompt + new);
        let start = Instant::now();
        decoder.read(&mut [Run { ids: &ids, cache: &mut cache, logits: Wanted::Last }])?;
        let seconds = start.elapsed().as_secs_f64();
        first.get_or_insert_with(|| begin.elapsed().as_secs_f64());
        let start = Instant::now();
        for i in 0..new {
            let begin = Instant::now();
            decoder.read(&mut [Run { ids: &[id(i, 31)], cache: &mut cache, logits: Wanted::Last }])?;
            quickest = quickest.min(begin.elapsed().as_secs_f64());
        }
        if round > 0 {
            prefill.push(prompt as f64 / seconds);
            decode.push(new as f64 / start.elapsed().as_secs_f64());
        }
    }
    let rss = peak_rss_mib();
    let (prefill, decode) = (median(&mut prefill), median(&mut decode));
    let bytes = decoder.bytes_per_token();
    drop(decoder);
    let read_rate = decode * bytes as f64;
    let bandwidth = match bytes {
        0 => None,
        _ => Some(peak::read_bandwidth(&Cpu::from_env()?, BANDWIDTH_VALUES, 3)),
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let line = json!({
            "prefill_tokens_per_second": prefill,
            "decode_tokens_per_second": decode,
            "quickest_token_seconds": quickest,
            "load_seconds": load,
            "first_token_seconds": first,
            "peak_rss_mib": rss,
            "weights_gb_per_second": bandwidth.map(|_| read_rate / 1e9),
            "share_of_read_bandwidth": bandwidth.map(|limit| read_rate / limit),
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(out, "prefill {prefill:.1} tokens/s over {prompt} tokens, decode {decode:.1} tokens/s over {new}")?;
    writeln!(out, "load {load:.3} s, {} MiB resident at most", rss.map_or_else(|| "?".into(), |rss| rss.to_string()))?;
    if let Some(limit) = bandwidth {
        let (rate, limit) = (read_rate / 1e9, limit / 1e9);
        writeln!(
            out,
            "decoding reads weights at {rate:.1} GB/s, {:.0} % of the {limit:.1} GB/s that plain reading reaches",
            100.0 * rate / limit
        )?;
    }
    Ok(())
}
