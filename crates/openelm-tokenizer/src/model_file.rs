//! The SentencePiece model file (`tokenizer.model`): its fields, read from bytes and written to bytes.
//!
//! What stands here is what the file says. Whether the pieces make a usable vocabulary is the vocabulary's business.

use std::path::Path;

use crate::error::TokenizerError;
use crate::wire::{Fields, Value, WireError, Writer};

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// A stretch of text.
    Normal,
    /// Stands for text that no other piece covers.
    Unknown,
    /// Has an id, but no text: beginning, end, padding.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// May arise while merging, but is never given out.
    Unused,
    /// One byte of a character that is not in the vocabulary.
    Byte,
}

impl PieceKind {
    fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// SentencePiece's number of it.
    pub fn number(self) -> i64 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }
}

/// One entry of the vocabulary; its place is its id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub text: String,
    pub score: f32,
    pub kind: PieceKind,
}

/// How a model cuts text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Unigram,
    Bpe,
    Word,
    Char,
}

/// The trainer's settings that the encoder or another program needs to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrainerSpec {
    pub algorithm: Algorithm,
    pub byte_fallback: bool,
    pub treat_whitespace_as_suffix: bool,
    pub unk_piece: String,
    pub bos_piece: String,
    pub eos_piece: String,
    pub pad_piece: String,
    pub unk_surface: String,
}

/// What is done to a text before it is cut.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NormalizerSpec {
    pub name: String,
    pub charsmap: Vec<u8>,
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
    pub escape_whitespaces: bool,
}

impl Default for TrainerSpec {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            treat_whitespace_as_suffix: false,
            unk_piece: "<unk>".to_owned(),
            bos_piece: "<s>".to_owned(),
            eos_piece: "</s>".to_owned(),
            pad_piece: "<pad>".to_owned(),
            unk_surface: " \u{2047} ".to_owned(),
        }
    }
}

impl Default for NormalizerSpec {
    fn default() -> Self {
        Self { name: String::new(), charsmap: Vec::new(), add_dummy_prefix: true, remove_extra_whitespaces: true, escape_whitespaces: true }
    }
}

/// A whole model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ModelFile {
    pub pieces: Vec<Piece>,
    pub trainer: TrainerSpec,
    pub normalizer: NormalizerSpec,
    pub denormalizer: Option<NormalizerSpec>,
}

impl ModelFile {
    /// Reads a model. `path` is only for messages.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let broken = |error: WireError| TokenizerError::BrokenModel { path: path.to_owned(), offset: error.offset, reason: error.reason };
        Self::parse_fields(bytes).map_err(broken)
    }

    fn parse_fields(bytes: &[u8]) -> Result<Self, WireError> {
        let mut model = Self::default();
        let (mut trained, mut normalized) = (false, false);
        let mut fields = Fields::new(bytes, 0);
        while let Some((field, value, start)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(bytes)) => model.pieces.push(piece(bytes, start)?),
                (2, Value::Bytes(bytes)) => {
                    trainer(bytes, start, &mut model.trainer)?;
                    trained = true;
                }
                (3, Value::Bytes(bytes)) => {
                    normalizer(bytes, start, &mut model.normalizer)?;
                    normalized = true;
                }
                (5, Value::Bytes(bytes)) => normalizer(bytes, start, model.denormalizer.get_or_insert_default())?,
                (1 | 2 | 3 | 5, _) => return Err(wrong_type("the model", field, start)),
                _ => {}
            }
        }
        // Every writer writes all three; a file that was cut between two of them would otherwise load with other settings.
        let missing = [("pieces", model.pieces.is_empty()), ("trainer's settings", !trained), ("normaliser's settings", !normalized)];
        match missing.iter().find(|(_, missing)| *missing) {
            Some((part, _)) => Err(WireError { offset: fields.offset(), reason: format!("the file ends without the {part}") }),
            None => Ok(model),
        }
    }

    /// The file's bytes. `extra` are further fields of the trainer's settings: what only its readers use.
    pub fn to_bytes(&self, extra: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut file = Writer::default();
        for piece in &self.pieces {
            let mut writer = Writer::default();
            writer.bytes(1, piece.text.as_bytes());
            writer.float(2, piece.score);
            if piece.kind != PieceKind::Normal {
                writer.number(3, piece.kind.number());
            }
            file.bytes(1, &writer.bytes);
        }
        let mut writer = Writer::default();
        let algorithm = match self.trainer.algorithm {
            Algorithm::Unigram => 1,
            Algorithm::Bpe => 2,
            Algorithm::Word => 3,
            Algorithm::Char => 4,
        };
        writer.number(3, algorithm);
        writer.number(4, self.pieces.len() as i64);
        writer.number(24, self.trainer.treat_whitespace_as_suffix.into());
        writer.number(35, self.trainer.byte_fallback.into());
        for (field, text) in [
            (45, &self.trainer.unk_piece),
            (46, &self.trainer.bos_piece),
            (47, &self.trainer.eos_piece),
            (48, &self.trainer.pad_piece),
            (44, &self.trainer.unk_surface),
        ] {
            writer.bytes(field, text.as_bytes());
        }
        extra(&mut writer);
        file.bytes(2, &writer.bytes);
        file.bytes(3, &self.normalizer.to_bytes());
        if let Some(denormalizer) = &self.denormalizer {
            file.bytes(5, &denormalizer.to_bytes());
        }
        file.bytes
    }
}

impl NormalizerSpec {
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(1, self.name.as_bytes());
        writer.bytes(2, &self.charsmap);
        writer.number(3, self.add_dummy_prefix.into());
        writer.number(4, self.remove_extra_whitespaces.into());
        writer.number(5, self.escape_whitespaces.into());
        writer.bytes
    }
}

fn piece(bytes: &[u8], base: usize) -> Result<Piece, WireError> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    let mut fields = Fields::new(bytes, base);
    while let Some((field, value, start)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(bytes)) => piece.text = text(bytes, start)?,
            (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Value::Varint(number)) => {
                piece.kind = PieceKind::from_number(number)
                    .ok_or_else(|| WireError { offset: start, reason: format!("a piece has type {number}, which does not exist") })?;
            }
            (1..=3, _) => return Err(wrong_type("a piece", field, start)),
            _ => {}
        }
    }
    Ok(piece)
}

fn trainer(bytes: &[u8], base: usize, spec: &mut TrainerSpec) -> Result<(), WireError> {
    let mut fields = Fields::new(bytes, base);
    while let Some((field, value, start)) = fields.next()? {
        match (field, value) {
            (3, Value::Varint(number)) => {
                spec.algorithm = match number {
                    1 => Algorithm::Unigram,
                    2 => Algorithm::Bpe,
                    3 => Algorithm::Word,
                    4 => Algorithm::Char,
                    _ => return Err(WireError { offset: start, reason: format!("model type {number} does not exist") }),
                };
            }
            (24, Value::Varint(flag)) => spec.treat_whitespace_as_suffix = flag != 0,
            (35, Value::Varint(flag)) => spec.byte_fallback = flag != 0,
            (44, Value::Bytes(bytes)) => spec.unk_surface = text(bytes, start)?,
            (45, Value::Bytes(bytes)) => name(bytes, start, &mut spec.unk_piece)?,
            (46, Value::Bytes(bytes)) => name(bytes, start, &mut spec.bos_piece)?,
            (47, Value::Bytes(bytes)) => name(bytes, start, &mut spec.eos_piece)?,
            (48, Value::Bytes(bytes)) => name(bytes, start, &mut spec.pad_piece)?,
            (3 | 24 | 35 | 44..=48, _) => return Err(wrong_type("the trainer's settings", field, start)),
            _ => {}
        }
    }
    Ok(())
}

/// An empty name means the default one.
fn name(bytes: &[u8], start: usize, into: &mut String) -> Result<(), WireError> {
    let name = text(bytes, start)?;
    if !name.is_empty() {
        *into = name;
    }
    Ok(())
}

fn normalizer(bytes: &[u8], base: usize, spec: &mut NormalizerSpec) -> Result<(), WireError> {
    let mut fields = Fields::new(bytes, base);
    while let Some((field, value, start)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(bytes)) => spec.name = text(bytes, start)?,
            (2, Value::Bytes(bytes)) => spec.charsmap = bytes.to_vec(),
            (3, Value::Varint(flag)) => spec.add_dummy_prefix = flag != 0,
            (4, Value::Varint(flag)) => spec.remove_extra_whitespaces = flag != 0,
            (5, Value::Varint(flag)) => spec.escape_whitespaces = flag != 0,
            (1..=5, _) => return Err(wrong_type("the normalizer's settings", field, start)),
            _ => {}
        }
    }
    Ok(())
}

fn text(bytes: &[u8], start: usize) -> Result<String, WireError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(WireError { offset: start + error.valid_up_to(), reason: "a text is not UTF-8".to_owned() }),
    }
}

fn wrong_type(message: &str, field: u64, start: usize) -> WireError {
    WireError { offset: start, reason: format!("field {field} of {message} has the wrong type") }
}
