//! The pieces of a tokenizer by id and by text.
//!
//! Two maps, as in SentencePiece: text is only ever cut into pieces of `pieces_by_text` (normal, user defined, unused); control,
//! unknown and byte pieces stand in `reserved`, so that the text `<s>` is not the token `<s>`. The two may hold the same text.

use std::path::Path;

use rustc_hash::FxHashMap;

use crate::error::TokenizerError;
use crate::model_file::{Algorithm, ModelFile, Piece, PieceKind};

/// SentencePiece's own limit.
const LONGEST_PIECE: usize = 8000;

/// All pieces, with the ids that have a meaning of their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vocabulary {
    /// By id. A piece without text is a hole in the ids.
    pub pieces: Vec<Piece>,
    pub pieces_by_text: FxHashMap<String, u32>,
    pub reserved: FxHashMap<String, u32>,
    pub unk: Option<u32>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
    /// The ids of the 256 bytes, when characters outside the vocabulary become bytes.
    pub bytes: Option<Box<[u32; 256]>>,
}

impl Vocabulary {
    /// The vocabulary of a SentencePiece model, checked as SentencePiece checks it.
    pub fn of_model(model: &ModelFile, path: &Path) -> Result<Self, TokenizerError> {
        let byte_fallback = model.trainer.byte_fallback;
        let mut vocabulary = Self::default();
        let mut bytes = [None; 256];
        for (id, piece) in model.pieces.iter().enumerate() {
            let bad = |reason: &str| TokenizerError::bad_model(path, format!("piece {id}"), reason);
            let id = u32::try_from(id).map_err(|_| bad("there are more pieces than ids"))?;
            if piece.text.is_empty() {
                return Err(bad("it has no text"));
            }
            if piece.text.contains('\0') {
                return Err(bad("it contains a null character"));
            }
            if piece.text.len() >= LONGEST_PIECE {
                return Err(bad("it is longer than 8000 bytes"));
            }
            if piece.score.is_nan() {
                return Err(bad("its score is not a number"));
            }
            if vocabulary.map_of(piece.kind).insert(piece.text.clone(), id).is_some() {
                return Err(bad("an earlier piece has the same text"));
            }
            match piece.kind {
                PieceKind::Unknown if vocabulary.unk.is_some() => return Err(bad("it is a second unknown piece")),
                PieceKind::Unknown => vocabulary.unk = Some(id),
                PieceKind::Byte if !byte_fallback => return Err(bad("it stands for a byte, but byte_fallback is off")),
                PieceKind::Byte => {
                    let byte = byte_of(&piece.text).ok_or_else(|| bad("it stands for a byte, but is not written as <0xNN>"))?;
                    bytes[usize::from(byte)] = Some(id);
                }
                _ => {}
            }
        }
        if vocabulary.unk.is_none() {
            return Err(TokenizerError::bad_model(path, "pieces", "there is no unknown piece"));
        }
        if byte_fallback {
            let missing = || TokenizerError::bad_model(path, "pieces", "byte_fallback is on, but not every byte has a piece");
            vocabulary.bytes = Some(all_bytes(&bytes).ok_or_else(missing)?);
        }
        let control = |text: &str| vocabulary.reserved.get(text).copied().filter(|id| kind(&model.pieces, *id) == Some(PieceKind::Control));
        (vocabulary.bos, vocabulary.eos) = (control(&model.trainer.bos_piece), control(&model.trainer.eos_piece));
        vocabulary.pad = control(&model.trainer.pad_piece);
        vocabulary.pieces = model.pieces.clone();
        Ok(vocabulary)
    }

    fn map_of(&mut self, kind: PieceKind) -> &mut FxHashMap<String, u32> {
        match kind {
            PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused => &mut self.pieces_by_text,
            PieceKind::Unknown | PieceKind::Control | PieceKind::Byte => &mut self.reserved,
        }
    }

    pub fn kind(&self, id: u32) -> Option<PieceKind> {
        kind(&self.pieces, id)
    }

    /// The id of a token's text, control and byte tokens included.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.reserved.get(text).or_else(|| self.pieces_by_text.get(text)).copied()
    }

    /// The texts of all pieces of one kind with their ids.
    pub fn of_kind(&self, wanted: PieceKind) -> impl Iterator<Item = (&str, u32)> {
        self.pieces.iter().zip(0..).filter(move |(piece, _)| piece.kind == wanted).map(|(piece, id)| (piece.text.as_str(), id))
    }
}

fn kind(pieces: &[Piece], id: u32) -> Option<PieceKind> {
    pieces.get(id as usize).map(|piece| piece.kind)
}

/// All 256 ids, or nothing.
pub(crate) fn all_bytes(bytes: &[Option<u32>; 256]) -> Option<Box<[u32; 256]>> {
    let mut ids = Box::new([0; 256]);
    for (to, from) in ids.iter_mut().zip(bytes) {
        *to = (*from)?;
    }
    Some(ids)
}

/// The byte that a piece such as `<0x0A>` stands for.
pub(crate) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let upper = |digit: u8| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit);
    (digits.len() == 2 && digits.bytes().all(upper)).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The piece of a byte: `<0x0A>`.
pub(crate) fn byte_piece(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// Refuses what is read, but not encoded.
pub(crate) fn check_algorithm(model: &ModelFile, path: &Path) -> Result<(), TokenizerError> {
    let what = match model.trainer.algorithm {
        Algorithm::Bpe | Algorithm::Unigram => return Ok(()),
        Algorithm::Word => "the SentencePiece model type WORD",
        Algorithm::Char => "the SentencePiece model type CHAR",
    };
    Err(TokenizerError::Unsupported { path: path.to_owned(), what: what.to_owned(), hint: "use a model of type BPE or UNIGRAM" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(pieces: &[(&str, PieceKind)]) -> ModelFile {
        let pieces = pieces.iter().map(|(text, kind)| Piece { text: (*text).to_owned(), score: 0.0, kind: *kind }).collect();
        ModelFile { pieces, ..ModelFile::default() }
    }

    #[test]
    fn contradictions_are_refused() {
        use PieceKind::{Byte, Control, Normal, Unknown};
        let reason = |pieces: &[(&str, PieceKind)]| Vocabulary::of_model(&model(pieces), Path::new("m")).unwrap_err().to_string();
        assert!(reason(&[("a", Normal)]).contains("no unknown piece"));
        assert!(reason(&[("<unk>", Unknown), ("a", Normal), ("a", Normal)]).contains("piece 2: an earlier piece"));
        assert!(reason(&[("<unk>", Unknown), ("u", Unknown)]).contains("second unknown"));
        assert!(reason(&[("<unk>", Unknown), ("<0x00>", Byte)]).contains("byte_fallback is off"));
        assert!(reason(&[("<unk>", Unknown), ("", Normal)]).contains("no text"));
        let twice = [("<unk>", Unknown), ("<s>", Control), ("<s>", Normal)];
        let vocabulary = Vocabulary::of_model(&model(&twice), Path::new("m")).unwrap();
        assert_eq!((vocabulary.id_of("<s>"), vocabulary.pieces_by_text["<s>"]), (Some(1), 2));
    }

    #[test]
    fn byte_pieces_both_ways() {
        assert!((0..=255).all(|byte| byte_of(&byte_piece(byte)) == Some(byte)));
        assert!(["<0x0a>", "<0xA>", "<0x+A>", "<0x00A>", "0x0A"].iter().all(|text| byte_of(text).is_none()));
    }
}
