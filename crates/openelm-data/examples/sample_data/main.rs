//! Writes the samples in data/sample, or says how probable a text is in their language.
//!
//!     cargo run --release -p openelm-data --example sample_data                       # data/sample, as it is in the repository
//!     cargo run --release -p openelm-data --example sample_data -- --seed 7 --out DIR
//!     cargo run --release -p openelm-data --example sample_data -- --score FILE.jsonl [--seed N]

mod generator;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use generator::document::Language;
use generator::error::SampleError;
use generator::{SEED, plan, samples};
use thiserror::Error;

const USAGE: &str = "sample_data [--seed N] [--out DIR], or sample_data --score FILE.jsonl [--seed N]";

#[derive(Debug, Error)]
enum Problem {
    #[error("{reason}\nhint: {USAGE}")]
    Usage { reason: String },
    #[error("{path}: {action} failed: {source}\nhint: check the path, its permissions and the free space", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error("{path}, line {line}: {reason}\nhint: each line must be a JSON object with a string under \"text\"", path = path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error(transparent)]
    Sample(#[from] SampleError),
}

struct Arguments {
    seed: u64,
    out: PathBuf,
    score: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = arguments().and_then(|arguments| match &arguments.score {
        Some(path) => score(path, arguments.seed),
        None => write(&arguments.out, arguments.seed),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, Problem> {
    let usage = |reason: String| Problem::Usage { reason };
    let default_out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/sample");
    let mut arguments = Arguments { seed: SEED, out: default_out, score: None };
    let mut out_given = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| usage(format!("{word} needs a value")));
        match word.as_str() {
            "--seed" => {
                let text = value()?;
                arguments.seed = text.parse().map_err(|_| usage(format!("--seed {text:?} is not a whole number from 0 to 2^64 - 1")))?;
            }
            "--out" => {
                arguments.out = value()?.into();
                out_given = true;
            }
            "--score" => arguments.score = Some(value()?.into()),
            _ => return Err(usage(format!("unknown argument {word:?}"))),
        }
    }
    if out_given && arguments.score.is_some() {
        return Err(usage("--score writes nothing, so --out does not go with it".into()));
    }
    if !out_given && arguments.score.is_none() && arguments.seed != SEED {
        return Err(usage("the samples of another seed need a folder of their own: add --out DIR".into()));
    }
    Ok(arguments)
}

fn write(out: &Path, seed: u64) -> Result<(), Problem> {
    let mut total = 0;
    for file in samples(seed)? {
        let path = out.join(&file.path);
        let io = |action| {
            let path = path.clone();
            move |source| Problem::Io { path, action, source }
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io("making its folder"))?;
        }
        fs::write(&path, &file.bytes).map_err(io("writing it"))?;
        println!("{:>9} bytes  {}", file.bytes.len(), file.path);
        total += file.bytes.len();
    }
    println!("{total:>9} bytes in all, below {}", out.display());
    Ok(())
}

/// One line for each text: its bits, or where it leaves the language.
fn score(path: &Path, seed: u64) -> Result<(), Problem> {
    let language = Language::new(seed).map_err(SampleError::from)?;
    let lines = fs::read_to_string(path).map_err(|source| Problem::Io { path: path.into(), action: "reading it", source })?;
    for (number, line) in lines.lines().enumerate() {
        let fault = |reason: String| Problem::Line { path: path.into(), line: number + 1, reason };
        let row: serde_json::Value = serde_json::from_str(line).map_err(|error| fault(error.to_string()))?;
        let text = row.get("text").and_then(serde_json::Value::as_str).ok_or_else(|| fault("no text".into()))?;
        let (ways, reached) = language.derivations(text, plan::ALL_GENRES).map_err(SampleError::from)?;
        let probability: f64 = ways.iter().map(|bits| (-bits).exp2()).sum();
        match ways.as_slice() {
            [] => println!("line {}: not of this language; no derivation gets beyond byte {reached} of {}", number + 1, text.len()),
            [bits] => println!("line {}: {bits:.3} bits, {:.4} a byte", number + 1, bits / text.len() as f64),
            several => println!("line {}: {:.3} bits in {} ways", number + 1, -probability.log2(), several.len()),
        }
    }
    Ok(())
}
