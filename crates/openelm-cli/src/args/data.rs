//! Arguments of `openelm data` and `openelm tokenizer`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ConfigArguments;

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Print the next sequences in training order.
    Show(DataShowArguments),
    /// Estimate from metadata and a sample what a run would read, and warn of what cannot work.
    Plan(DataPlanArguments),
    /// Read every shard and report damaged ones; the exit status says whether there are any.
    Verify(DataVerifyArguments),
    /// Count documents, characters and tokens, and what the filters take out.
    Stats(DataStatsArguments),
    /// Fill the token cache (data.cache) ahead of training.
    Tokenize(DataTokenizeArguments),
}

#[derive(Debug, Args)]
pub struct DataPlanArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Processes of the run.
    #[arg(long, default_value_t = 1)]
    pub world: usize,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DataVerifyArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// One JSON list: a report of each shard, sound ones too.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DataStatsArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// Histograms of lengths as an SVG file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DataTokenizeArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// This process's part of the shards, from 0.
    #[arg(long, default_value_t = 0)]
    pub part: usize,
    /// Processes that share the work.
    #[arg(long, default_value_t = 1)]
    pub parts: usize,
}

#[derive(Debug, Args)]
pub struct DataShowArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Sequences to print.
    #[arg(long, default_value_t = 4)]
    pub samples: usize,
    /// This process's number.
    #[arg(long, default_value_t = 0)]
    pub rank: usize,
    /// Processes of the run.
    #[arg(long, default_value_t = 1)]
    pub world: usize,
    /// Loader worker (corenet order).
    #[arg(long, default_value_t = 0)]
    pub worker: usize,
    /// Loader workers of each process (corenet order). Default: data.workers.
    #[arg(long)]
    pub workers: Option<usize>,
    /// One JSON object a sequence: source and token ids.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Train the tokenizer that a configuration asks for.
    Train {
        #[command(flatten)]
        config: ConfigArguments,
        /// Folder for tokenizer.model and tokenizer.json.
        #[arg(long)]
        out: PathBuf,
    },
    /// Text (argument, or standard input) to ids.
    Encode {
        /// tokenizer.model, tokenizer.json or a folder with one.
        tokenizer: PathBuf,
        text: Option<String>,
        /// Pieces beside the ids.
        #[arg(long)]
        pieces: bool,
    },
    /// Ids (arguments, or standard input) to text.
    Decode {
        /// tokenizer.model, tokenizer.json or a folder with one.
        tokenizer: PathBuf,
        ids: Vec<u32>,
    },
}
