//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    #[value(name = "4bit")]
    Bits4,
    #[value(name = "8bit")]
    Bits8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoredDtype {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ComputeDtype {
    F32,
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
    /// Quantise: a type of llama.cpp's for gguf, 4bit or 8bit for mlx.
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
    /// Text to continue; standard input when left out.
    #[arg(long)]
    pub prompt: Option<String>,
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
    /// 0 takes the likeliest token each time.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Likeliest tokens that are drawn from; 0: all.
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Smallest set with this probability that is drawn from.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// Tokens below this share of the likeliest one's probability are left out.
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// Above 1: tokens that came before become unlikelier.
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f32,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Go on behind an end-of-sequence token.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Tokenizer. Default: the one that lies with the weights.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    #[arg(long, default_value = "flex")]
    pub device: String,
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: ComputeDtype,
    /// One JSON object with text, ids and speeds instead of a stream.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct EvalArguments {
    /// Run folder, checkpoint, Hugging Face folder or CoreNet .pt file.
    pub weights: PathBuf,
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
    #[arg(long, default_value = "flex")]
    pub device: String,
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: ComputeDtype,
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

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Time training steps on random tokens.
    Train(BenchTrainArguments),
    /// Time every CPU kernel against this machine's measured limits.
    Kernels(BenchKernelsArguments),
    /// Time the way from shards to sequences.
    Data(BenchDataArguments),
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
    /// Steps that count, after two that do not.
    #[arg(long, default_value_t = 6)]
    pub steps: usize,
    /// One JSON line.
    #[arg(long)]
    pub json: bool,
}
