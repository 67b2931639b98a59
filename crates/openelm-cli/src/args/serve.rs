//! Arguments of `serve` and `chat`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::{DecoderArguments, GuessArguments, SamplingArguments};

#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Run folder, checkpoint, Hugging Face or MLX folder, GGUF or CoreNet .pt file.
    pub weights: PathBuf,
    /// Port to listen at; 0: any free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Address to listen at. Only this machine reaches the default.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// File with the key that clients must show.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Answers that are made at once.
    #[arg(long, default_value_t = 4)]
    pub slots: usize,
    /// Tokens of a prompt with its answer. Default: what the model was trained with.
    #[arg(long)]
    pub context: Option<usize>,
    /// Requests that may wait for a slot; one more is refused.
    #[arg(long, default_value_t = 64)]
    pub queue: usize,
    /// Clients that may be connected at once.
    #[arg(long, default_value_t = 512)]
    pub connections: usize,
    /// Seconds for an answer, waiting included.
    #[arg(long, default_value_t = 600.0)]
    pub timeout: f64,
    /// Seconds that running answers have when the server is told to end.
    #[arg(long, default_value_t = 30.0)]
    pub drain: f64,
    /// Finished sequences that are remembered for prompts that begin like them. Default: as many as slots.
    #[arg(long)]
    pub keep: Option<usize>,
    /// Prompt tokens that are read at a time.
    #[arg(long, default_value_t = 256)]
    pub prefill_chunk: usize,
    /// Longest request in KiB.
    #[arg(long, default_value_t = 4096)]
    pub body_limit_kib: usize,
    /// The model's name for clients. Default: that of the folder or file that holds the weights.
    #[arg(long)]
    pub model_name: Option<String>,
    #[command(flatten)]
    pub guesses: GuessArguments,
    #[command(flatten)]
    pub model: ChatModelArguments,
}

#[derive(Debug, Args)]
pub struct ChatArguments {
    /// Run folder, checkpoint, Hugging Face or MLX folder, GGUF or CoreNet .pt file.
    pub weights: PathBuf,
    /// System message.
    #[arg(long)]
    pub system: Option<String>,
    /// Tokens of an answer at most.
    #[arg(long, default_value_t = 512)]
    pub max_new_tokens: usize,
    /// 0 takes the likeliest token each time.
    #[arg(long, default_value_t = 0.7)]
    pub temperature: f32,
    /// Smallest set with this probability that is drawn from.
    #[arg(long, default_value_t = 0.95)]
    pub top_p: f32,
    #[command(flatten)]
    pub sampling: SamplingArguments,
    /// Tokens of the conversation at most. Default: what the model was trained with.
    #[arg(long)]
    pub context: Option<usize>,
    #[command(flatten)]
    pub guesses: GuessArguments,
    #[command(flatten)]
    pub model: ChatModelArguments,
}

/// The text side of a model, and where it runs.
#[derive(Debug, Args)]
pub struct ChatModelArguments {
    /// An adapter to add to the weights: a folder of PEFT's, a checkpoint, or a run that trains one.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Tokenizer. Default: the one that lies with the weights.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// File with a chat template in Jinja. Default: the weights' own, else OpenELM-instruct's.
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    #[command(flatten)]
    pub decoder: DecoderArguments,
}
