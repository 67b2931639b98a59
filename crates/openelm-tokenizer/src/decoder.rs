//! Ids back to text, all at once or one by one.
//!
//! SentencePiece's rules: control tokens are silent, U+2581 is a space, the space that was put in front of the text goes away, and
//! a run of byte tokens is read as UTF-8, each byte that fits nowhere becoming U+FFFD. Ids outside the vocabulary, such as a
//! padding id one past its end, are silent too.

use crate::library::LibraryDecoder;
use crate::model_file::PieceKind;
use crate::symbols::SPACE;
use crate::tokenizer::{Decoding, Tokenizer};
use crate::vocabulary::byte_of;

/// How SentencePiece's decoder treats the beginning and the unknown token.
#[derive(Clone, Debug)]
pub(crate) struct DecodeRules {
    /// A space at the beginning was put there.
    pub strip_first_space: bool,
    /// All spaces at the beginning were.
    pub strip_all_first_spaces: bool,
    pub unk_surface: String,
}

/// Turns ids into text as they come. What `push` and `finish` give, joined, is what `Tokenizer::decode` gives for all ids.
#[derive(Clone, Debug)]
pub struct Decoder {
    tokenizer: Tokenizer,
    state: DecodeState,
}

impl Decoder {
    pub(crate) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, state: DecodeState::default() }
    }

    /// Takes the next id; gives the text that is now certain, if there is any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let mut text = String::new();
        self.state.push(&self.tokenizer, id, &mut text);
        (!text.is_empty()).then_some(text)
    }

    /// The rest of the text.
    pub fn finish(mut self) -> String {
        let mut text = String::new();
        self.state.finish(&self.tokenizer, &mut text);
        text
    }
}

/// Where a text stands between two ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct DecodeState {
    /// Bytes that may become a character: never more than three after a push.
    pending: Vec<u8>,
    any_text: bool,
    /// No first space can come any more.
    begun: bool,
    first_space_seen: bool,
    library: LibraryDecoder,
}

impl DecodeState {
    pub fn finish(&mut self, tokenizer: &Tokenizer, text: &mut String) {
        match tokenizer.decoding() {
            Decoding::Pieces(_) => self.end_bytes(text),
            Decoding::Library(library) => self.library.finish(library, text),
        }
    }

    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32, text: &mut String) {
        let rules = match tokenizer.decoding() {
            Decoding::Pieces(rules) => rules,
            Decoding::Library(library) => return self.library.push(library, id, text),
        };
        let Some((mut piece, kind)) = tokenizer.token(id).zip(tokenizer.kind(id)) else { return };
        if let (PieceKind::Byte, Some(byte)) = (kind, byte_of(piece)) {
            self.push_byte(byte, text);
            return;
        }
        self.end_bytes(text);
        self.begun |= self.first_space_seen || self.any_text;
        self.first_space_seen = false;
        let before = text.len();
        match kind {
            PieceKind::Control => {}
            PieceKind::Unknown => text.push_str(&rules.unk_surface),
            _ => {
                if !self.begun
                    && rules.strip_first_space
                    && let Some(rest) = piece.strip_prefix(SPACE)
                {
                    piece = rest;
                    self.first_space_seen = !rules.strip_all_first_spaces;
                }
                text.extend(piece.chars().map(|char| if char == SPACE { ' ' } else { char }));
            }
        }
        self.any_text |= text.len() > before;
    }

    /// Gives out the characters that are whole and the bytes that cannot become one.
    fn push_byte(&mut self, byte: u8, text: &mut String) {
        self.pending.push(byte);
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(whole) => {
                    self.any_text |= !whole.is_empty();
                    text.push_str(whole);
                    self.pending.clear();
                    return;
                }
                // The first byte and what follows may still become a character.
                Err(error) if error.error_len().is_none() && error.valid_up_to() == 0 => return,
                Err(error) if error.valid_up_to() == 0 => self.drop_byte(text),
                Err(error) => {
                    let whole: Vec<u8> = self.pending.drain(..error.valid_up_to()).collect();
                    text.push_str(&String::from_utf8_lossy(&whole));
                    self.any_text = true;
                }
            }
        }
    }

    fn end_bytes(&mut self, text: &mut String) {
        while !self.pending.is_empty() {
            self.drop_byte(text);
            // What follows the bad byte may be whole characters.
            if let Some(last) = self.pending.pop() {
                self.push_byte(last, text);
            }
        }
    }

    fn drop_byte(&mut self, text: &mut String) {
        self.pending.remove(0);
        text.push('\u{fffd}');
        self.any_text = true;
    }
}
