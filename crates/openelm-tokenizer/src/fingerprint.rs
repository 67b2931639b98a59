//! A name for a tokenizer that is the same wherever its ids are the same for the same reason.
//!
//! What is hashed is a canonical form, not a file: a model saved by another program, with other training notes in it, keeps its
//! fingerprint. The form has a version, and every text in it its length before it, so that no two contents look alike.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::model_file::{Algorithm, ModelFile};

const VERSION: &str = "openelm tokenizer 1";

struct Hasher(Sha256);

impl Hasher {
    fn new(kind: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.bytes(VERSION.as_bytes());
        hasher.bytes(kind.as_bytes());
        hasher
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The fingerprint of a SentencePiece model.
pub(crate) fn of_model(model: &ModelFile) -> String {
    let mut hasher = Hasher::new("sentencepiece");
    let (trainer, normalizer) = (&model.trainer, &model.normalizer);
    hasher.bytes(match trainer.algorithm {
        Algorithm::Unigram => b"unigram",
        Algorithm::Bpe => b"bpe",
        Algorithm::Word => b"word",
        Algorithm::Char => b"char",
    });
    let flags = [
        trainer.byte_fallback,
        trainer.treat_whitespace_as_suffix,
        normalizer.add_dummy_prefix,
        normalizer.remove_extra_whitespaces,
        normalizer.escape_whitespaces,
    ];
    hasher.bytes(&flags.map(u8::from));
    for text in [&trainer.unk_piece, &trainer.bos_piece, &trainer.eos_piece, &trainer.pad_piece, &trainer.unk_surface] {
        hasher.bytes(text.as_bytes());
    }
    hasher.bytes(&normalizer.charsmap);
    for piece in &model.pieces {
        hasher.bytes(piece.text.as_bytes());
        // 0 and -0 are one score.
        hasher.bytes(&(piece.score + 0.0).to_bits().to_le_bytes());
        hasher.bytes(&[piece.kind.number() as u8]);
    }
    hasher.finish()
}

/// The fingerprint of a `tokenizer.json`: its values, whatever the order of its keys and the white space between them.
pub(crate) fn of_json(json: &Value) -> String {
    let mut hasher = Hasher::new("tokenizer.json");
    add(&mut hasher, json);
    hasher.finish()
}

fn add(hasher: &mut Hasher, value: &Value) {
    match value {
        Value::Array(values) => {
            hasher.bytes(format!("array {}", values.len()).as_bytes());
            values.iter().for_each(|value| add(hasher, value));
        }
        Value::Object(fields) => {
            hasher.bytes(format!("object {}", fields.len()).as_bytes());
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            for (key, value) in fields {
                hasher.bytes(key.as_bytes());
                add(hasher, value);
            }
        }
        Value::String(text) => {
            hasher.bytes(b"string");
            hasher.bytes(text.as_bytes());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => hasher.bytes(value.to_string().as_bytes()),
    }
}
