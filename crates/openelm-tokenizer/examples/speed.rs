//! Times encoding on the corpora that scripts time SentencePiece and Hugging Face tokenizers on.
//!
//! usage: speed CORPORA_DIR TOKENIZER [--threads N] [--repeat N]
//! Prints one JSON object: megabytes of UTF-8 text per second (the best of the repetitions), tokens per second, tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/shards/mod.rs"]
mod shards;

use std::path::{Path, PathBuf};
use std::time::Instant;

use openelm_tokenizer::Tokenizer;
use rayon::prelude::*;

fn files(corpora: &Path, corpus: &str, nested: bool, extension: &str) -> Vec<PathBuf> {
    let list = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let mut files = list(&corpora.join(corpus));
    if nested {
        files = files.iter().flat_map(|folder| list(folder)).collect();
    }
    files.retain(|file| file.to_string_lossy().ends_with(extension));
    files.sort();
    files
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [corpora, tokenizer, ..] = arguments.as_slice() else { panic!("usage: speed CORPORA_DIR TOKENIZER [--threads N] [--repeat N]") };
    let option = |name: &str, default: usize| {
        arguments.iter().position(|word| word == name).map_or(default, |at| arguments[at + 1].parse().expect("a number"))
    };
    let (threads, repeat) = (option("--threads", 2), option("--repeat", 3));
    let corpora = Path::new(corpora);
    let mut texts = Vec::new();
    for (corpus, nested, extension) in
        [("dolma", true, ".json.gz"), ("redpajama", true, ".jsonl"), ("refinedweb", false, ".parquet"), ("pile", false, ".parquet")]
    {
        texts.extend(files(corpora, corpus, nested, extension).iter().flat_map(|file| shards::texts(file)));
    }
    let megabytes = texts.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (mut best, mut tokens) = (f64::MAX, 0);
    for _ in 0..repeat {
        // A fresh tokenizer: nothing is remembered from the last time.
        let tokenizer = Tokenizer::load(Path::new(tokenizer)).expect("the tokenizer");
        let start = Instant::now();
        let ids: Vec<Vec<u32>> = pool.install(|| texts.par_iter().map(|text| tokenizer.encode(text)).collect());
        best = best.min(start.elapsed().as_secs_f64());
        tokens = ids.iter().map(Vec::len).sum();
    }
    let round = |value: f64| (value * 100.0).round() / 100.0;
    let line = serde_json::json!({
        "peer": "openelm-tokenizer", "documents": texts.len(), "megabytes": round(megabytes), "threads": threads,
        "mb_per_second": round(megabytes / best), "tokens_per_second": (tokens as f64 / best).round() as u64, "tokens": tokens,
    });
    println!("{line}");
}
