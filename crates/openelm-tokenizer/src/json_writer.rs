//! Writes a SentencePiece BPE model as a `tokenizer.json` that Hugging Face tokenizers reads, in the form that LLaMA's has.
//!
//! SentencePiece merges any two neighbours that make a piece; the file lists them all, better pieces first.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::TokenizerError;
use crate::model_file::{Algorithm, ModelFile, PieceKind};
use crate::symbols::Symbols;
use crate::vocabulary::Vocabulary;

/// The file's text; `path` is for messages.
pub(crate) fn write_json(model: &ModelFile, vocabulary: &Vocabulary, path: &Path) -> Result<String, TokenizerError> {
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(vocabulary),
        "normalizer": normalizer(model),
        "pre_tokenizer": null,
        "post_processor": post_processor(vocabulary),
        "decoder": decoder(model),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": vocabulary.unk.and_then(|id| vocabulary.pieces.get(id as usize)).map(|piece| &piece.text),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": model.trainer.byte_fallback,
            "ignore_merges": false,
            "vocab": vocabulary.pieces.iter().zip(0u32..).map(|(piece, id)| (piece.text.clone(), Value::from(id))).collect::<Map<_, _>>(),
            "merges": merges(vocabulary),
        },
    });
    let mut text = serde_json::to_string_pretty(&json).map_err(|error| TokenizerError::bad_json(path, error.to_string()))?;
    text.push('\n');
    Ok(text)
}

/// True when a `tokenizer.json` can say everything that the model does.
pub(crate) fn is_expressible(model: &ModelFile) -> bool {
    let (trainer, normalizer) = (&model.trainer, &model.normalizer);
    let kinds = model.pieces.iter().all(|piece| !matches!(piece.kind, PieceKind::Unused | PieceKind::UserDefined));
    let spaces = normalizer.escape_whitespaces && !normalizer.remove_extra_whitespaces && !(trainer.treat_whitespace_as_suffix && normalizer.add_dummy_prefix);
    trainer.algorithm == Algorithm::Bpe && normalizer.charsmap.is_empty() && kinds && spaces
}

fn added_tokens(vocabulary: &Vocabulary) -> Vec<Value> {
    let special = |piece: &PieceKind| matches!(piece, PieceKind::Unknown | PieceKind::Control);
    let tokens = vocabulary.pieces.iter().zip(0u32..).filter(|(piece, _)| special(&piece.kind));
    tokens
        .map(|(piece, id)| {
            json!({
                "id": id, "content": piece.text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true
            })
        })
        .collect()
}

fn normalizer(model: &ModelFile) -> Value {
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" });
    match model.normalizer.add_dummy_prefix {
        true => json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": "\u{2581}" }, replace] }),
        false => replace,
    }
}

fn decoder(model: &ModelFile) -> Value {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if model.normalizer.add_dummy_prefix {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

/// Puts the beginning token before a text, when special tokens are asked for.
fn post_processor(vocabulary: &Vocabulary) -> Value {
    let Some((id, piece)) = vocabulary.bos.and_then(|id| Some((id, vocabulary.pieces.get(id as usize)?))) else { return Value::Null };
    let special = |part: u32| json!({ "SpecialToken": { "id": piece.text, "type_id": part } });
    let text = |name: &str, part: u32| json!({ "Sequence": { "id": name, "type_id": part } });
    json!({
        "type": "TemplateProcessing",
        "single": [special(0), text("A", 0)],
        "pair": [special(0), text("A", 0), special(1), text("B", 1)],
        "special_tokens": { piece.text.as_str(): { "id": piece.text, "ids": [id], "tokens": [piece.text] } },
    })
}

/// All pairs, by the score of what they make, then by the ids of their parts.
fn merges(vocabulary: &Vocabulary) -> Vec<Value> {
    let symbols = Symbols::of_scores(vocabulary, true);
    let mut pairs: Vec<_> = symbols.pairs().collect();
    pairs.sort_by_key(|(left, right, merge)| (merge.rank, merge.symbol, *left, *right));
    let text = |id: u32| vocabulary.pieces.get(id as usize).map(|piece| piece.text.as_str());
    pairs.into_iter().filter_map(|(left, right, _)| Some(json!([text(left)?, text(right)?]))).collect()
}
