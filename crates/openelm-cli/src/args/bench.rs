//! Arguments of `openelm bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ComputeDtype, ConfigArguments, DecoderArguments};

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Time training steps on random tokens.
    Train(BenchTrainArguments),
    /// Time prefill and decoding.
    Infer(BenchInferArguments),
    /// Time preference steps on random pairs.
    Preference(BenchPreferenceArguments),
    /// Time every CPU kernel against this machine's measured limits.
    Kernels(BenchKernelsArguments),
    /// Time the way from shards to sequences.
    Data(BenchDataArguments),
}

#[derive(Debug, Args)]
pub struct BenchInferArguments {
    /// Run folder, checkpoint, Hugging Face or MLX folder, GGUF or CoreNet .pt file.
    pub weights: PathBuf,
    /// Tokens of the prompt.
    #[arg(short, long, default_value_t = 512)]
    pub prompt: usize,
    /// Tokens that are decoded behind it.
    #[arg(short, long, default_value_t = 64)]
    pub new: usize,
    /// Runs that count, after one that does not; the median is told.
    #[arg(long, default_value_t = 3)]
    pub repeat: usize,
    #[command(flatten)]
    pub decoder: DecoderArguments,
    /// One JSON line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BenchPreferenceArguments {
    /// Size: 270M, 450M, 1_1B, 3B, 25M, 5M or tiny.
    #[arg(long, default_value = "270M")]
    pub model: String,
    /// Pairs of a step.
    #[arg(long, default_value_t = 1)]
    pub pairs: usize,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 256)]
    pub prompt: usize,
    /// Tokens of the chosen answer.
    #[arg(long, default_value_t = 256)]
    pub chosen: usize,
    /// Tokens of the rejected answer.
    #[arg(long, default_value_t = 256)]
    pub rejected: usize,
    /// Rows of the embedding.
    #[arg(long, default_value_t = 32128)]
    pub vocab: usize,
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: ComputeDtype,
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Recompute activations in the backward pass.
    #[arg(long)]
    pub recompute: bool,
    /// Steps that count, after two that do not.
    #[arg(long, default_value_t = 6)]
    pub steps: usize,
    /// One JSON line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BenchKernelsArguments {
    /// Tokens that an operation works on.
    #[arg(long, default_value_t = 512)]
    pub tokens: usize,
    /// Only operations whose name holds this.
    #[arg(long, default_value = "")]
    pub filter: String,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BenchDataArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Background threads; 0: one for each core.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Seconds that the whole pipeline is measured.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Measure the whole pipeline alone.
    #[arg(long)]
    pub no_stages: bool,
    /// One JSON line.
    #[arg(long)]
    pub json: bool,
}

/// Types of frozen weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FrozenDtype {
    F32,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
}

#[derive(Debug, Args)]
pub struct BenchTrainArguments {
    /// Size: 270M, 450M, 1_1B, 3B, 25M, 5M or tiny.
    #[arg(long, default_value = "270M")]
    pub model: String,
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    #[arg(long, default_value_t = 512)]
    pub seq: usize,
    /// Rows of the embedding.
    #[arg(long, default_value_t = 32128)]
    pub vocab: usize,
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: ComputeDtype,
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Recompute activations in the backward pass.
    #[arg(long)]
    pub recompute: bool,
    /// Train a LoRA of this rank on every matrix of the blocks and on the embedding, and leave the weights as they are.
    #[arg(long, value_name = "RANK")]
    pub lora: Option<usize>,
    /// With --lora: DoRA, without the embedding.
    #[arg(long, requires = "lora")]
    pub dora: bool,
    /// With --lora: share of the inputs that is dropped.
    #[arg(long, requires = "lora", default_value_t = 0.0)]
    pub dropout: f64,
    /// With --lora: how the weights lie in memory.
    #[arg(long, requires = "lora", value_enum, default_value = "f32")]
    pub base_dtype: FrozenDtype,
    /// Steps that count, after two that do not.
    #[arg(long, default_value_t = 6)]
    pub steps: usize,
    /// One JSON line.
    #[arg(long)]
    pub json: bool,
}
