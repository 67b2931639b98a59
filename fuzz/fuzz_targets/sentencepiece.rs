//! A SentencePiece model: read, put to use, and saved as `tokenizer.json`, which must give the same ids.
#![no_main]

use std::collections::HashSet;
use std::fs;

use libfuzzer_sys::fuzz_target;
use openelm_fuzz::{BASE, file, folder, within};
use openelm_tokenizer::{PieceKind, Tokenizer};

#[path = "../src/tokenizer_use.rs"]
mod tokenizer_use;

fuzz_target!(|bytes: &[u8]| {
    let path = file("a.model", bytes);
    // A piece of 5 bytes stands in several tables.
    let Ok(tokenizer) = within(BASE + 512 * bytes.len(), || Tokenizer::from_model_bytes(bytes, &path)) else { return };
    tokenizer_use::check(&tokenizer, true);
    if keeps_texts(&tokenizer) {
        for text in tokenizer_use::TEXTS {
            // U+2581 and the space are the same character, and a NUL has no piece in some models.
            if !text.contains('\u{2581}') {
                assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
            }
        }
    }
    let saved = folder().join("saved");
    let _ = fs::remove_dir_all(&saved);
    tokenizer.save(&saved).expect("the folder can be written to");
    let again = Tokenizer::load(&saved).expect("what was saved loads");
    assert_eq!(tokenizer.fingerprint(), again.fingerprint());
    if let Ok(json) = fs::read(saved.join("tokenizer.json")) {
        let other = Tokenizer::from_json_bytes(&json, &saved.join("tokenizer.json")).expect("the file of its own writer loads");
        for text in tokenizer_use::TEXTS {
            assert_eq!(tokenizer.encode(text), other.encode(text), "{text:?} by tokenizer.json");
        }
    }
});

/// Whether decoding gives back any text that was encoded: every character becomes a piece or bytes, no piece is silent, and the space has
/// a piece of its own, for out of its bytes comes U+2581, as in SentencePiece.
fn keeps_texts(tokenizer: &Tokenizer) -> bool {
    let ids = || 0..tokenizer.vocab_size() as u32;
    let mut texts = HashSet::new();
    let distinct = ids().all(|id| tokenizer.token(id).is_none_or(|text| texts.insert(text)));
    let silent = ids().any(|id| {
        matches!(tokenizer.kind(id), Some(PieceKind::Control | PieceKind::Unknown | PieceKind::Byte))
            && tokenizer.token(id).is_some_and(|text| text.chars().count() == 1)
    });
    let bytes = ids().any(|id| tokenizer.kind(id) == Some(PieceKind::Byte));
    let space = tokenizer.id_of("\u{2581}").and_then(|id| tokenizer.kind(id)) == Some(PieceKind::Normal);
    let rules = tokenizer.piece_rules();
    bytes
        && space
        && distinct
        && !silent
        && rules.is_some_and(|rules| rules.bpe && rules.space_prefix && !rules.collapses_spaces && !rules.replaces_characters)
}
