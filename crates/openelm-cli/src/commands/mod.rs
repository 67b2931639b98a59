//! The commands, one file each.

mod adapter;
mod bench;
mod bench_infer;
mod bench_kernels;
mod bench_preference;
mod chat;
mod chat_model;
mod configs;
mod data;
mod data_bench;
mod data_check;
mod data_plan;
mod data_stats;
mod decoder;
mod evaluate;
mod export;
mod finetune;
mod generate;
mod import;
mod merge;
mod params;
mod run;
mod run_evaluation;
mod serve;
mod tokenizer;
mod train;

use std::path::Path;

use anyhow::{Context, Result};
use openelm_checkpoint::Weights;
use openelm_infer::process_memory;
use openelm_model::Precision;
use openelm_tokenizer::Tokenizer;

use crate::args::{Arguments, BenchCommand, Command, ComputeDtype, ConfigArguments, ConfigCommand, DataCommand, TokenizerCommand};
use crate::config::{Loaded, RunConfig};

/// Does what the command line asks for.
///
/// # Errors
/// What stopped the command, with a hint.
pub fn run(arguments: Arguments) -> Result<()> {
    dispatch(arguments).map_err(in_one_message)
}

fn dispatch(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Train(arguments) => train::train(&arguments),
        Command::Finetune(arguments) => finetune::finetune(&arguments),
        Command::Adapter(command) => adapter::run(command),
        Command::Params(arguments) => params::params(&arguments),
        Command::Data(DataCommand::Show(arguments)) => data::show(&arguments),
        Command::Data(DataCommand::Plan(arguments)) => data_plan::run(&arguments),
        Command::Data(DataCommand::Verify(arguments)) => data_check::run_verify(&arguments),
        Command::Data(DataCommand::Stats(arguments)) => data_stats::run(&arguments),
        Command::Data(DataCommand::Tokenize(arguments)) => data_check::run_tokenize(&arguments),
        Command::Tokenizer(TokenizerCommand::Train { config, out }) => tokenizer::train(&config, &out),
        Command::Tokenizer(TokenizerCommand::Encode { tokenizer, text, pieces }) => tokenizer::encode(&tokenizer, text, pieces),
        Command::Tokenizer(TokenizerCommand::Decode { tokenizer, ids }) => tokenizer::decode(&tokenizer, &ids),
        Command::Config(ConfigCommand::Convert { config, out }) => configs::convert(&config, out.as_deref()),
        Command::Config(ConfigCommand::Show { config }) => configs::show(&config),
        Command::Export(arguments) => export::export(&arguments),
        Command::Import(arguments) => import::import(&arguments),
        Command::Generate(arguments) => generate::generate(&arguments),
        Command::Chat(arguments) => chat::chat(&arguments),
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::Eval(arguments) => evaluate::eval(&arguments),
        Command::Merge(arguments) => merge::merge(&arguments),
        Command::Bench(BenchCommand::Train(arguments)) => bench::train(&arguments),
        Command::Bench(BenchCommand::Infer(arguments)) => bench_infer::infer(&arguments),
        Command::Bench(BenchCommand::Preference(arguments)) => bench_preference::run(&arguments),
        Command::Bench(BenchCommand::Kernels(arguments)) => bench_kernels::kernels(&arguments),
        Command::Bench(BenchCommand::Data(arguments)) => data_bench::run(&arguments),
    }
}

/// The chain of causes as one message that says nothing twice and ends with the outermost hint: many messages hold their cause's
/// already. An error of a closed pipe stays what it is, so that the caller can tell it.
fn in_one_message(error: anyhow::Error) -> anyhow::Error {
    let is_pipe = |io: &std::io::Error| io.kind() == std::io::ErrorKind::BrokenPipe;
    if error.chain().filter_map(|cause| cause.downcast_ref()).any(is_pipe) {
        return error;
    }
    let mut message = String::new();
    let mut hint = None;
    for cause in error.chain() {
        let text = cause.to_string();
        let (reason, remedy) =
            text.split_once("\nhint: ").map_or((text.as_str(), None), |(reason, remedy)| (reason, Some(remedy.to_owned())));
        if !message.contains(reason) {
            message += if message.is_empty() { "" } else { ": " };
            message += reason;
        }
        hint = hint.or(remedy);
    }
    if let Some(hint) = hint {
        message += "\nhint: ";
        message += &hint;
    }
    anyhow::Error::msg(message)
}

/// Reads a configuration and says what in it has no effect.
fn load_config(arguments: &ConfigArguments) -> Result<Loaded> {
    let loaded = RunConfig::load(&arguments.config, &arguments.set)?;
    for note in &loaded.notes {
        eprintln!("note: {note}");
    }
    Ok(loaded)
}

fn precision(dtype: ComputeDtype) -> Precision {
    match dtype {
        ComputeDtype::F32 => Precision::F32,
        ComputeDtype::Bf16 => Precision::Bf16,
    }
}

/// The tokenizer that was named, else the one in the weights' file or beside it, if there is one.
fn tokenizer_of(weights: &Weights, named: Option<&Path>) -> Result<Option<Tokenizer>> {
    if let (None, Some(model)) = (named, weights.tokenizer_model()) {
        return Ok(Some(Tokenizer::from_model_bytes(model, weights.path())?));
    }
    Ok(named.or(weights.tokenizer()).map(Tokenizer::load).transpose()?)
}

/// The tokenizer that [`tokenizer_of`] finds; without one the command cannot go on.
fn needed_tokenizer(weights: &Weights, named: Option<&Path>) -> Result<Tokenizer> {
    let found = tokenizer_of(weights, named)?;
    found.with_context(|| format!("{}: no tokenizer lies beside the weights\nhint: name one with --tokenizer", weights.path().display()))
}

/// Largest resident set of this process so far in MiB, where the system tells it.
fn peak_rss_mib() -> Option<u64> {
    process_memory("VmHWM").map(|bytes| bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_come_once_and_the_hint_last() {
        let message = |error: anyhow::Error| in_one_message(error).to_string();
        let inner = || anyhow::anyhow!("no such file");
        assert_eq!(message(inner().context("a: no such file\nhint: look").context("reading b")), "reading b: a: no such file\nhint: look");
        assert_eq!(message(inner().context("a cannot be made\nhint: look")), "a cannot be made: no such file\nhint: look");
        assert_eq!(message(inner()), "no such file");
    }
}
