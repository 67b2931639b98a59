//! The bytes that a token stands for wherever it stands.

use tokenizers::DecoderWrapper;

use crate::library::LibraryTokenizer;
use crate::model_file::PieceKind;
use crate::symbols::SPACE;
use crate::tokenizer::{Decoding, Tokenizer};
use crate::vocabulary::byte_of;

impl Tokenizer {
    /// The bytes that a token adds to a text: `None` for control and unknown tokens and ids outside the vocabulary. The space that a
    /// first token loses when a text is decoded counts. A `tokenizer.json` that is not LLaMA-like has such bytes where its decoder is
    /// the byte-level one.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let (piece, kind) = self.token(id).zip(self.kind(id))?;
        match (self.decoding(), kind) {
            (_, PieceKind::Control | PieceKind::Unknown) => None,
            (Decoding::Library(library), kind) => library_bytes(library, piece, kind),
            (Decoding::Pieces(_), PieceKind::Byte) => byte_of(piece).map(|byte| vec![byte]),
            (Decoding::Pieces(_), _) => Some(piece.replace(SPACE, " ").into_bytes()),
        }
    }
}

fn library_bytes(library: &LibraryTokenizer, piece: &str, kind: PieceKind) -> Option<Vec<u8>> {
    match (library.implementation().get_decoder(), kind) {
        // Added tokens stand for their own text.
        (Some(DecoderWrapper::ByteLevel(_)), PieceKind::UserDefined) => Some(piece.as_bytes().to_vec()),
        (Some(DecoderWrapper::ByteLevel(_)), _) => piece.chars().map(byte_of_char).collect(),
        _ => None,
    }
}

/// The byte that a character stands for in GPT-2's alphabet: printable Latin-1 characters for themselves, the other bytes, in their order, for
/// the characters from U+0100 on.
fn byte_of_char(char: char) -> Option<u8> {
    let prints = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(char) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(prints),
        code => (0..=255).filter(|byte| !prints(byte)).nth((code - 0x100) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_every_byte_once() {
        let mut found: Vec<u8> = ('!'..='\u{143}').filter_map(byte_of_char).collect();
        found.sort_unstable();
        assert_eq!(found, (0..=255).collect::<Vec<u8>>());
        assert_eq!((byte_of_char('\u{120}'), byte_of_char('\u{10a}')), (Some(b' '), Some(b'\n')));
        assert_eq!((byte_of_char('\u{144}'), byte_of_char(' ')), (None, None));
    }
}
