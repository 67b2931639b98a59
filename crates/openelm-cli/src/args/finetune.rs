//! Arguments of `openelm finetune`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct FinetuneArguments {
    /// Configuration file of a fine-tuning run.
    pub config: PathBuf,
    /// Change a key, for example training.steps=100; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Weights to begin from: a run, a checkpoint, a Hugging Face or MLX folder, a GGUF or a CoreNet .pt file; wins over the
    /// configuration's `init`.
    #[arg(long)]
    pub init: Option<PathBuf>,
    /// Tokenizer. Default: the one that lies with the weights.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// Folder of the run. Default: runs/NAME, after the configuration's name.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Continue from the newest checkpoint in the run folder.
    #[arg(long)]
    pub resume: bool,
    /// Device: flex (the CPU), wgpu, vulkan, metal, cuda, tch; wins over training.device.
    #[arg(long)]
    pub device: Option<String>,
}
