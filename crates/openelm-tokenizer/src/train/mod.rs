//! Training a byte-pair tokenizer of LLaMA's kind from texts.
//!
//! The result has LLaMA's layout: `<unk>`, `<s>`, `</s>`, the 256 bytes, the merged pieces in the order in which they were found,
//! then the single characters, the frequent ones first. It is a SentencePiece model like any other, and depends on nothing but
//! the settings and the texts: not on their order, nor on threads.
//!
//! Texts are counted as units, in which merges stay: see `units`. So memory grows with the number of different words, and is
//! bounded by `max_units`.

mod learner;
mod units;

use std::path::Path;

use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::error::TokenizerError;
use crate::model_file::{Algorithm, ModelFile, NormalizerSpec, Piece, PieceKind, TrainerSpec};
use crate::symbols::SPACE;
use crate::tokenizer::Tokenizer;
use crate::train::learner::learn;
use crate::train::units::UnitCounts;
use crate::vocabulary::byte_piece;

/// Settings of a new tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub struct BpeTraining {
    /// Tokens in all, the special ones, the bytes and the characters included.
    pub vocab_size: usize,
    /// Characters that have no token become the tokens of their bytes; otherwise they become `<unk>`.
    pub byte_fallback: bool,
    /// Every digit is a token of its own.
    pub split_digits: bool,
    /// Share of the texts' characters, the frequent ones first, that get tokens of their own: above 0, at most 1.
    pub character_coverage: f64,
    /// Characters of the longest token.
    pub max_piece_length: usize,
    /// How many different words are counted at once. Beyond that, the rarest are forgotten.
    pub max_units: usize,
}

impl BpeTraining {
    /// LLaMA's settings.
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, byte_fallback: true, split_digits: true, character_coverage: 0.9995, max_piece_length: 16, max_units: 4_000_000 }
    }

    /// Tokens that no text influences.
    fn fixed(&self) -> usize {
        if self.byte_fallback { 3 + 256 } else { 3 }
    }

    fn check(&self) -> Result<(), TokenizerError> {
        let refuse = |reason: String, hint: &str| Err(TokenizerError::Training { reason, hint: hint.to_owned() });
        if self.vocab_size <= self.fixed() + 1 || self.vocab_size > i32::MAX as usize {
            return refuse(
                format!("vocab_size {} has no room for the {} fixed tokens and any text", self.vocab_size, self.fixed()),
                "raise vocab_size; 32000 is LLaMA's",
            );
        }
        if !(self.character_coverage > 0.0 && self.character_coverage <= 1.0) {
            return refuse(format!("character_coverage {} is not between 0 and 1", self.character_coverage), "0.9995 is the usual value");
        }
        if !(1..=512).contains(&self.max_piece_length) || self.max_units == 0 {
            return refuse(
                "max_piece_length must lie between 1 and 512 and max_units above 0".to_owned(),
                "16 and 4000000 are the usual values",
            );
        }
        Ok(())
    }
}

/// Why no tokenizer came out. `E` is the error of the texts' reader.
#[derive(Debug, Error)]
pub enum TrainError<E> {
    /// A text could not be read.
    #[error(transparent)]
    Text(E),
    /// The settings do not work, alone or with these texts.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Trains a tokenizer on all texts, or stops at the first that cannot be read.
pub fn train<E>(settings: &BpeTraining, texts: impl Iterator<Item = Result<String, E>>) -> Result<Tokenizer, TrainError<E>> {
    settings.check()?;
    let mut counts = UnitCounts::new(settings);
    for text in texts {
        counts.add(&text.map_err(TrainError::Text)?);
    }
    let units = counts.finish();
    let characters = characters(settings, &units)?;
    let room = settings.vocab_size - settings.fixed() - characters.len();
    let merged = learn(&units, &characters, room, settings.max_piece_length);
    if merged.len() < room {
        let possible = settings.vocab_size - (room - merged.len());
        let reason = format!("the texts hold pieces for {possible} tokens, vocab_size is {}", settings.vocab_size);
        return Err(
            TokenizerError::Training { reason, hint: format!("set vocab_size to {possible} or less, or train on more text") }.into()
        );
    }
    let bytes = model(settings, &merged, &characters).to_bytes(|writer| {
        writer.float(10, settings.character_coverage as f32);
        writer.number(20, settings.max_piece_length as i64);
        writer.number(25, settings.split_digits.into());
        writer.number(26, 1);
        for (field, id) in [(40, 0), (41, 1), (42, 2), (43, -1)] {
            writer.number(field, id);
        }
    });
    Ok(Tokenizer::from_model_bytes(&bytes, Path::new("trained tokenizer"))?)
}

/// The characters that get tokens, the frequent ones first, equals by their code.
fn characters(settings: &BpeTraining, units: &[(String, u64)]) -> Result<Vec<char>, TokenizerError> {
    let mut counts: FxHashMap<char, u64> = FxHashMap::default();
    for (unit, count) in units {
        for char in unit.chars() {
            *counts.entry(char).or_default() += count;
        }
    }
    let all: u64 = counts.values().sum();
    if all == 0 {
        let hint = "give texts with words in them, and check the corpora's text keys and filters".to_owned();
        return Err(TokenizerError::Training { reason: "the texts hold no characters".to_owned(), hint });
    }
    let mut sorted: Vec<(char, u64)> = counts.into_iter().collect();
    sorted.sort_by_key(|(char, count)| (std::cmp::Reverse(*count), *char));
    let mut covered = 0;
    let wanted = |covered: u64| (covered as f64 / all as f64) < settings.character_coverage;
    let mut chosen: Vec<char> = Vec::new();
    for (char, count) in sorted {
        // Every text begins with a space of ours, so that must be a token.
        if wanted(covered) || char == SPACE {
            chosen.push(char);
        }
        covered += count;
    }
    let room = settings.vocab_size - settings.fixed();
    if chosen.len() > room {
        let reason = format!("vocab_size {} has room for {room} characters, the texts have {}", settings.vocab_size, chosen.len());
        let hint = format!("set vocab_size to more than {}, or lower character_coverage", settings.fixed() + chosen.len());
        return Err(TokenizerError::Training { reason, hint });
    }
    Ok(chosen)
}

fn model(settings: &BpeTraining, merged: &[String], characters: &[char]) -> ModelFile {
    let piece = |text: String, kind| Piece { text, score: 0.0, kind };
    let mut pieces = vec![
        piece("<unk>".to_owned(), PieceKind::Unknown),
        piece("<s>".to_owned(), PieceKind::Control),
        piece("</s>".to_owned(), PieceKind::Control),
    ];
    if settings.byte_fallback {
        pieces.extend((0..=255).map(|byte| piece(byte_piece(byte), PieceKind::Byte)));
    }
    let texts = merged.iter().cloned().chain(characters.iter().map(char::to_string));
    pieces.extend(texts.zip(0u32..).map(|(text, place)| Piece { text, score: -(place as f32), kind: PieceKind::Normal }));
    ModelFile {
        pieces,
        trainer: TrainerSpec { algorithm: Algorithm::Bpe, byte_fallback: settings.byte_fallback, ..TrainerSpec::default() },
        normalizer: NormalizerSpec { name: "identity".to_owned(), remove_extra_whitespaces: false, ..NormalizerSpec::default() },
        denormalizer: None,
    }
}
