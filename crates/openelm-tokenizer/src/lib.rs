//! Text to token ids and back: SentencePiece and Hugging Face tokenizers, and training one.
//!
//! [`Tokenizer::load`] reads `tokenizer.model` and `tokenizer.json`. SentencePiece models and LLaMA-like `tokenizer.json` files run through
//! an encoder of this crate's own, which gives exactly SentencePiece's ids; any other `tokenizer.json` through the `tokenizers`
//! crate. [`BpeTraining`] makes a new model of LLaMA's kind. [`ChatTemplate`] makes a text of a conversation.

mod boundaries;
mod bpe;
mod charsmap;
mod chat_template;
mod decoder;
mod error;
mod fingerprint;
mod json_reader;
mod json_writer;
mod library;
mod long_text;
mod matcher;
mod merge;
mod model_file;
mod normalizer;
mod sentencepiece;
mod symbols;
mod token_bytes;
mod tokenizer;
mod train;
mod unigram;
mod vocabulary;
mod wire;
mod word_cache;

pub use crate::chat_template::{ChatMessage, ChatTemplate, ChatTemplateError, OPENELM_INSTRUCT};
pub use crate::decoder::Decoder;
pub use crate::error::TokenizerError;
pub use crate::model_file::PieceKind;
pub use crate::tokenizer::{PieceRules, Tokenizer};
pub use crate::train::{BpeTraining, TrainError, train};
