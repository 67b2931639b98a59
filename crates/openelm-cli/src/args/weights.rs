//! Arguments of the commands that take weights: export, import, generate, eval, merge.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigArguments, DecoderArguments, SamplingArguments};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A Hugging Face folder.
    Hf,
    /// A GGUF file for llama.cpp.
    Gguf,
    /// A folder for mlx-lm.
    Mlx,
    /// CoreNet's .pt file.
    Corenet,
}

/// Quantised types; names as in llama.cpp, and bits for MLX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Quantize {
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_1")]
    Q4_1,
    #[value(name = "q5_0")]
    Q5_0,
    #[value(name = "q4_k_s")]
    Q4KS,
    #[value(name = "q4_k_m", alias = "q4_k")]
    Q4KM,
    #[value(name = "q5_k_s")]
    Q5KS,
    #[value(name = "q5_k_m", alias = "q5_k")]
    Q5KM,
    #[value(name = "q6_k")]
    Q6K,
    #[value(name = "2bit")]
    Bits2,
    #[value(name = "3bit")]
    Bits3,
    #[value(name = "4bit")]
    Bits4,
    #[value(name = "5bit")]
    Bits5,
    #[value(name = "6bit")]
    Bits6,
    #[value(name = "8bit")]
    Bits8,
}

impl Quantize {
    /// Bits of a level in MLX's types; `None` for llama.cpp's.
    pub fn bits(self) -> Option<u32> {
        match self {
            Self::Bits2 => Some(2),
            Self::Bits3 => Some(3),
            Self::Bits4 => Some(4),
            Self::Bits5 => Some(5),
            Self::Bits6 => Some(6),
            Self::Bits8 => Some(8),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoredDtype {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Run folder, checkpoint, Hugging Face or MLX folder, GGUF or CoreNet .pt file.
    pub weights: PathBuf,
    #[arg(long, value_enum)]
    pub format: Format,
    /// New folder (hf, mlx) or file (gguf, corenet) to write.
    #[arg(long)]
    pub out: PathBuf,
    /// Type of the written weights. Default: f32; bf16 for a model as large as OpenELM-3B.
    #[arg(long, value_enum)]
    pub dtype: Option<StoredDtype>,
    /// Quantise: a type of llama.cpp's for gguf, 2bit to 6bit or 8bit for mlx.
    #[arg(long, value_enum)]
    pub quantize: Option<Quantize>,
    /// corenet: write a training checkpoint, with the optimizer state of the run, instead of weights alone.
    #[arg(long)]
    pub training: bool,
    /// Name of the model in the file or on the card. Default: that of the folder that holds the weights.
    #[arg(long)]
    pub name: Option<String>,
    /// Tokenizer to write beside them. Default: the one that lies with the weights.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// Largest file in MB before the weights are split.
    #[arg(long, default_value_t = 5000)]
    pub max_shard_mb: u64,
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// CoreNet's training_checkpoint_*.pt.
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Folder of the new run.
    #[arg(long)]
    pub out: PathBuf,
    /// Begin the data anew instead of passing over what the run has read.
    #[arg(long)]
    pub restart_data: bool,
}

#[derive(Debug, Args)]
pub struct GenerateArguments {
    /// Run folder, checkpoint, Hugging Face or MLX folder, GGUF or CoreNet .pt file.
    pub weights: PathBuf,
    /// An adapter to add to the weights: a folder of PEFT's, a checkpoint, or a run that trains one.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Text to continue; standard input when left out.
    #[arg(long)]
    pub prompt: Option<String>,
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
    /// 0 takes the likeliest token each time.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Smallest set with this probability that is drawn from.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    #[command(flatten)]
    pub sampling: SamplingArguments,
    /// Go on behind an end-of-sequence token.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Tokenizer. Default: the one that lies with the weights.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub decoder: DecoderArguments,
    #[command(flatten)]
    pub guesses: GuessArguments,
    #[command(flatten)]
    pub form: FormArguments,
    /// One JSON object with text, ids and speeds instead of a stream.
    #[arg(long)]
    pub json: bool,
}

/// What the new text must be, as a whole. It is unfinished when the tokens run out before.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct FormArguments {
    /// The new text is a JSON object.
    #[arg(long)]
    pub json_object: bool,
    /// The new text is a JSON value of the schema in this file.
    #[arg(long, value_name = "FILE")]
    pub json_schema: Option<PathBuf>,
    /// The new text is what this regular expression matches from its begin to its end.
    #[arg(long)]
    pub regex: Option<String>,
    /// The new text is one of the grammar in this file (Lark's notation).
    #[arg(long, value_name = "FILE")]
    pub grammar: Option<PathBuf>,
}

/// Where guesses of the next tokens come from.
#[derive(Debug, Args)]
pub struct GuessArguments {
    /// Check up to so many guesses of the next tokens at a time, taken from where the same words stand earlier. The text stays the same.
    #[arg(long, value_name = "TOKENS", conflicts_with = "draft")]
    pub lookup: Option<usize>,
    /// Check the guesses of this smaller model of the same tokenizer. The text stays the same.
    #[arg(long, value_name = "WEIGHTS")]
    pub draft: Option<PathBuf>,
    /// Guesses of the draft model at a time.
    #[arg(long, default_value_t = 5, requires = "draft")]
    pub draft_tokens: usize,
}

#[derive(Debug, Args)]
pub struct EvalArguments {
    /// Run folder, checkpoint, Hugging Face or MLX folder, GGUF or CoreNet .pt file.
    pub weights: PathBuf,
    /// An adapter to add to the weights: a folder of PEFT's, a checkpoint, or a run that trains one.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Tasks, suites (zero_shot, openllm, llm360) or task files, with commas between.
    #[arg(long, value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Folder with the tasks' documents.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Examples before each question. Default: the suite's, else the task's own.
    #[arg(long)]
    pub shots: Option<usize>,
    /// Documents of each task, or of the shards, at most.
    #[arg(long)]
    pub limit: Option<usize>,
    /// Shards of text for perplexity and bits a byte.
    #[arg(long, num_args = 1.., value_name = "SHARDS")]
    pub perplexity: Vec<PathBuf>,
    /// The key or column of the shards that holds the text.
    #[arg(long, default_value = "text")]
    pub text_key: String,
    /// Folder for results.json and report.html.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// results.json of another model, to stand on the same page; may be repeated.
    #[arg(long, value_name = "RESULTS")]
    pub compare: Vec<PathBuf>,
    /// Positions of a request at most; what is longer loses its beginning. Default: the model's context.
    #[arg(long)]
    pub max_length: Option<usize>,
    /// No beginning-of-sequence token before the texts.
    #[arg(long)]
    pub no_bos: bool,
    /// Tokens that go through the model at a time.
    #[arg(long, default_value_t = 2048)]
    pub batch_tokens: usize,
    /// Tokenizer. Default: the one that lies with the weights.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub decoder: DecoderArguments,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct MergeArguments {
    /// Merge recipe, in mergekit's YAML.
    #[arg(required = true)]
    pub recipe: Option<PathBuf>,
    /// New Hugging Face folder.
    #[arg(long, required = true)]
    pub out: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<MergeCommand>,
}

#[derive(Debug, Subcommand)]
pub enum MergeCommand {
    /// The mean of a run's last checkpoints.
    Average {
        /// Run folder.
        run: PathBuf,
        /// Checkpoints, counted from the newest.
        #[arg(long, default_value_t = 5)]
        last: usize,
        /// New Hugging Face folder.
        #[arg(long)]
        out: PathBuf,
    },
    /// Search for the best recipe.
    Evolve {
        /// Search file.
        search: PathBuf,
        /// Folder of the search: its log, its state and the best recipe with its weights.
        #[arg(long)]
        out: PathBuf,
        /// Go on with the search in that folder.
        #[arg(long)]
        resume: bool,
        #[arg(long, default_value = "flex")]
        device: String,
    },
}
