//! The tokenizer in a GGUF file's metadata, as the bytes of a SentencePiece model.
//!
//! What must stay true: pieces that a converter appended to fill up the embedding's rows are left out again; a vocabulary that is no
//! SentencePiece BPE model gives `None`, for it could not be encoded the same way.

use openelm_formats::{Gguf, GgufArray, GgufValue};

/// llama.cpp's (and SentencePiece's) numbers of kinds of pieces.
const NORMAL: i64 = 1;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;
/// SentencePiece's number for BPE.
const BPE: u64 = 2;

/// A SentencePiece model that encodes as llama.cpp does with this metadata.
pub(crate) fn sentencepiece_of(file: &Gguf) -> Option<Vec<u8>> {
    let text = |key: &str| file.get(key).and_then(GgufValue::as_str);
    if text("tokenizer.ggml.model") != Some("llama") {
        return None;
    }
    let pieces = file.get("tokenizer.ggml.tokens")?.as_strings()?;
    let scores = file.get("tokenizer.ggml.scores")?.as_f32s()?;
    let kinds = match file.get("tokenizer.ggml.token_type")? {
        GgufValue::Array(GgufArray::I32(kinds)) => kinds.as_slice(),
        _ => return None,
    };
    if scores.len() != pieces.len() || kinds.len() != pieces.len() {
        return None;
    }
    let filler = |id: usize| {
        pieces.get(id).is_some_and(|piece| *piece == format!("[PAD{id}]")) && kinds.get(id).is_some_and(|kind| i64::from(*kind) == UNUSED)
    };
    let count = (0..pieces.len()).rev().find(|id| !filler(*id)).map_or(0, |last| last + 1);
    let pieces = pieces.get(..count)?;

    let mut model = Message::default();
    for ((piece, score), kind) in pieces.iter().zip(scores).zip(kinds) {
        let mut entry = Message::default();
        entry.bytes(1, piece.as_bytes());
        entry.float(2, *score);
        if i64::from(*kind) != NORMAL {
            entry.number(3, u64::try_from(*kind).ok()?);
        }
        model.bytes(1, &entry.0);
    }
    let mut trainer = Message::default();
    trainer.number(3, BPE);
    trainer.number(4, count as u64);
    trainer.number(35, kinds.iter().any(|kind| i64::from(*kind) == BYTE).into());
    for (field, key) in [(46, "tokenizer.ggml.bos_token_id"), (47, "tokenizer.ggml.eos_token_id"), (48, "tokenizer.ggml.padding_token_id")]
    {
        let id = file.get(key).and_then(GgufValue::as_u64).and_then(|id| usize::try_from(id).ok());
        if let Some(piece) = id.and_then(|id| pieces.get(id)) {
            trainer.bytes(field, piece.as_bytes());
        }
    }
    model.bytes(2, &trainer.0);
    let flag = |key: &str, default: bool| u64::from(file.get(key).and_then(GgufValue::as_bool).unwrap_or(default));
    let mut normalizer = Message::default();
    normalizer.bytes(1, b"identity");
    normalizer.number(3, flag("tokenizer.ggml.add_space_prefix", true));
    normalizer.number(4, flag("tokenizer.ggml.remove_extra_whitespaces", false));
    normalizer.number(5, 1);
    model.bytes(3, &normalizer.0);
    Some(model.0)
}

/// A protobuf message under construction: as much as a SentencePiece model needs.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
}
