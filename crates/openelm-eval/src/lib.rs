//! What a model is worth: multiple-choice tasks and perplexity, with the numbers of EleutherAI's lm-evaluation-harness 0.4.2.
//!
//! - [`find_tasks`] finds task files, shipped ones (`configs/eval`) and a user's own; [`Task::load`] renders every row of the data.
//! - [`evaluate`] asks a task of any [`TokenScorer`]; [`rolling`] scores whole texts.
//! - [`Report`]: table, the harness's JSON, and with [`html`] a page that compares models.
//!
//! What must stay true: texts, few-shot examples and metrics are the harness's; everything that can be wrong with files and rows is
//! found before the model runs; no tensor is seen here.

mod documents;
mod error;
mod evaluate;
mod expression;
mod few_shot;
mod html;
mod library;
mod published;
mod requests;
mod results;
mod rolling;
mod task;
mod task_file;
mod template;
mod texts;

pub use documents::{Document, read_documents};
pub use error::EvalError;
pub use evaluate::{MetricResult, Sample, TaskResult, evaluate};
pub use html::html;
pub use library::{Asked, find_tasks, task_names};
pub use published::{Published, published};
pub use requests::Encoding;
pub use results::{Report, Row};
pub use rolling::{Perplexity, rolling, windows};
pub use task::{Question, Task, TaskOptions};
pub use task_file::{Aggregation, Entry, FewShotConfig, Metric, MetricEntry, OutputType, SamplerKind, TaskFile};
pub use texts::read_texts;

// What this crate's interface is made of, for those who build on it alone.
pub use openelm_infer::{DecoderScorer, HostDecoder, InferError, ModelScorer, TokenScorer};
pub use openelm_tokenizer::{Tokenizer, TokenizerError};
