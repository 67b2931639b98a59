//! The command line.

mod adapter;
mod bench;
mod data;
mod finetune;
mod serve;
mod weights;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use adapter::*;
pub use bench::*;
pub use data::*;
pub use finetune::*;
pub use serve::*;
pub use weights::*;

/// OpenELM: pretraining, export and generation in one program.
#[derive(Debug, Parser)]
#[command(name = "openelm", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model from a configuration file.
    Train(TrainArguments),
    /// Tune weights on conversations or preferences, from a configuration file.
    Finetune(FinetuneArguments),
    /// Fuse and inspect adapters.
    #[command(subcommand)]
    Adapter(AdapterCommand),
    /// Show the layer-wise allocation of a configuration and what a run costs.
    Params(ParamsArguments),
    /// Look at training data.
    #[command(subcommand)]
    Data(DataCommand),
    /// Train, try and inspect tokenizers.
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
    /// Check and convert configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write weights in another format.
    Export(ExportArguments),
    /// Make a run of a CoreNet training checkpoint, to be continued with `openelm train --resume`.
    Import(ImportArguments),
    /// Continue a text.
    Generate(GenerateArguments),
    /// Talk with a model in the terminal.
    Chat(ChatArguments),
    /// Serve a model over HTTP: OpenAI's interface and a chat page.
    Serve(ServeArguments),
    /// Score tasks and texts.
    Eval(EvalArguments),
    /// Combine models into one.
    Merge(MergeArguments),
    /// Measure speed.
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// A configuration file with changes.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// Configuration file, in our form or CoreNet's.
    pub config: PathBuf,
    /// Change a key, for example training.steps=100; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct TrainArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Folder of the run. Default: runs/NAME, after the configuration's name.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Begin from these weights: a checkpoint, a Hugging Face or MLX folder, a GGUF or a CoreNet .pt file.
    #[arg(long, conflicts_with = "resume")]
    pub init: Option<PathBuf>,
    /// Continue from the newest checkpoint in the run folder.
    #[arg(long)]
    pub resume: bool,
    /// Device: flex (the CPU), wgpu, vulkan, metal, cuda, tch; wins over training.device.
    #[arg(long)]
    pub device: Option<String>,
}

#[derive(Debug, Args)]
pub struct ParamsArguments {
    /// Configuration file, or the name of a size such as OpenELM-270M.
    pub config: PathBuf,
    /// Change a key, for example model.vocab_size=32128; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Devices that a run would use.
    #[arg(long, default_value_t = 1.0)]
    pub devices: f64,
    /// Peak speed of one device in 10^12 operations a second.
    #[arg(long, default_value_t = 989.0)]
    pub peak_tflops: f64,
    /// Share of the peak that is reached.
    #[arg(long, default_value_t = 0.4)]
    pub utilisation: f64,
    /// One JSON object instead of tables.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a configuration in the other form: CoreNet's as ours, ours as CoreNet's.
    Convert {
        #[command(flatten)]
        config: ConfigArguments,
        /// File to write instead of the standard output.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Print the complete configuration, every default filled in.
    Show {
        #[command(flatten)]
        config: ConfigArguments,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ComputeDtype {
    F32,
    Bf16,
}

/// Weights while a model answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DecodeDtype {
    /// As the file has them.
    #[default]
    Auto,
    F32,
    F16,
    Bf16,
}

/// Keys and values that a model keeps while it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KvDtype {
    #[default]
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
}

/// How tokens are drawn, but for what commands have defaults of their own for.
#[derive(Debug, clap::Args)]
pub struct SamplingArguments {
    /// Likeliest tokens that are drawn from; 0: all.
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Tokens below this share of the likeliest one's probability are left out.
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// Above 1: tokens that came before become unlikelier.
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f32,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// How a model is run that answers.
#[derive(Debug, clap::Args)]
pub struct DecoderArguments {
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Type of the weights; auto: as the file has them, quantised ones included.
    #[arg(long, value_enum, default_value = "auto")]
    pub dtype: DecodeDtype,
    /// Type of the kept keys and values (on the CPU).
    #[arg(long, value_enum, default_value = "f32")]
    pub kv: KvDtype,
    /// Copy the weights into memory, in huge pages, instead of reading them in the mapped file (on the CPU): quicker, for as much memory again.
    #[arg(long)]
    pub in_memory: bool,
}
