//! Arguments of `openelm adapter`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::StoredDtype;

#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// Add an adapter to its base model: a new Hugging Face folder.
    Fuse(FuseArguments),
    /// Say what an adapter changes.
    Show {
        /// Folder of PEFT's, a checkpoint, or a run that trains an adapter.
        adapter: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct FuseArguments {
    /// The base: run folder, checkpoint, Hugging Face or MLX folder, GGUF or CoreNet .pt file.
    pub weights: PathBuf,
    /// Folder of PEFT's, a checkpoint, or a run that trains an adapter.
    pub adapter: PathBuf,
    /// New Hugging Face folder.
    #[arg(long)]
    pub out: PathBuf,
    /// Type of the written weights. Default: f32; bf16 for a model as large as OpenELM-3B.
    #[arg(long, value_enum)]
    pub dtype: Option<StoredDtype>,
    /// Name of the model on the card. Default: that of the folder.
    #[arg(long)]
    pub name: Option<String>,
    /// Tokenizer to write beside the weights. Default: the one that lies with the adapter's run, else with the base.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// Largest file in MB before the weights are split.
    #[arg(long, default_value_t = 5000)]
    pub max_shard_mb: u64,
}
