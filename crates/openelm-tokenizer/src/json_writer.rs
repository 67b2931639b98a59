//! Writes a SentencePiece BPE model as a `tokenizer.json` that Hugging Face tokenizers reads, in the form that LLaMA's has.
//!
//! SentencePiece merges any two neighbours that make a piece; the file lists them all, better pieces first.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::TokenizerError;
use crate::merge::Merger;
use crate::model_file::{Algorithm, ModelFile, PieceKind};
use crate::symbols::{Merge, Symbols};
use crate::vocabulary::Vocabulary;

/// Runs of one character are tried up to here: the work grows with the square, and LLaMA's longest run has 16 spaces.
const LONGEST_RUN: usize = 256;

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

/// True when a `tokenizer.json` can say everything that the model does, with the same ids for every text.
///
/// SentencePiece takes the leftmost of equally good merges, a list has no equals. It makes no difference which pairs the list names
/// for one piece, for a text whose ends are free goes through the same merges wherever it stands. Only different pieces of one score
/// could part the two; LLaMA's runs of spaces are such. Those are tried.
pub(crate) fn is_expressible(model: &ModelFile, vocabulary: &Vocabulary) -> bool {
    let (trainer, normalizer) = (&model.trainer, &model.normalizer);
    let kinds = model.pieces.iter().all(|piece| !matches!(piece.kind, PieceKind::Unused | PieceKind::UserDefined));
    let spaces = normalizer.escape_whitespaces
        && !normalizer.remove_extra_whitespaces
        && !(trainer.treat_whitespace_as_suffix && normalizer.add_dummy_prefix);
    trainer.algorithm == Algorithm::Bpe && normalizer.charsmap.is_empty() && kinds && spaces && pairs_are_listable(vocabulary)
}

fn pairs_are_listable(vocabulary: &Vocabulary) -> bool {
    let symbols = Symbols::of_scores(vocabulary, true);
    // A list can only name pieces, so a character that is none, but part of one, could not merge.
    if symbols.emit.len() > vocabulary.pieces.len() {
        return false;
    }
    let mut made: Vec<(u32, u32)> = symbols.pairs().map(|(_, _, merge)| (merge.rank, merge.symbol)).collect();
    made.sort_unstable();
    made.dedup();
    let tied = made.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1).flatten();
    let texts: Vec<&str> =
        tied.filter_map(|(_, symbol)| vocabulary.pieces.get(*symbol as usize)).map(|piece| piece.text.as_str()).collect();
    let Some(char) = texts.first().and_then(|text| text.chars().next()) else { return true };
    if !texts.iter().all(|text| text.chars().all(|other| other == char)) {
        return false;
    }
    // Runs of one character: both ways must cut each length alike, up to where a run repeats itself several times.
    let mut listed = Symbols::of_scores(vocabulary, true);
    for ((left, right, merge), rank) in listed_pairs(&symbols).into_iter().zip(0..) {
        listed.add_pair(left, right, Merge { rank, ..merge });
    }
    let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or_default();
    if longest > LONGEST_RUN {
        return false;
    }
    let (mut by_score, mut by_list) = (Merger::default(), Merger::default());
    (1..=4 * longest + 1).all(|length| {
        let run = char.to_string().repeat(length);
        by_score.merge(&symbols, &run) == by_list.merge(&listed, &run)
    })
}

/// All pairs, by the score of what they make, then by its id, then by the ids of their parts.
fn listed_pairs(symbols: &Symbols) -> Vec<(u32, u32, Merge)> {
    let mut pairs: Vec<_> = symbols.pairs().collect();
    pairs.sort_by_key(|(left, right, merge)| (merge.rank, merge.symbol, *left, *right));
    pairs
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

fn merges(vocabulary: &Vocabulary) -> Vec<Value> {
    let symbols = Symbols::of_scores(vocabulary, true);
    let text = |id: u32| vocabulary.pieces.get(id as usize).map(|piece| piece.text.as_str());
    listed_pairs(&symbols).into_iter().filter_map(|(left, right, _)| Some(json!([text(left)?, text(right)?]))).collect()
}

#[cfg(test)]
mod tests {
    use crate::model_file::{NormalizerSpec, Piece, TrainerSpec};

    use super::*;

    fn expressible(runs: &[usize]) -> bool {
        let piece = |text: String, kind| Piece { text, score: 0.0, kind };
        let mut pieces = vec![piece("<unk>".to_owned(), PieceKind::Unknown), piece("a".to_owned(), PieceKind::Normal)];
        pieces.extend(runs.iter().map(|length| piece("a".repeat(*length), PieceKind::Normal)));
        let trainer = TrainerSpec { algorithm: Algorithm::Bpe, ..TrainerSpec::default() };
        let normalizer = NormalizerSpec { remove_extra_whitespaces: false, ..NormalizerSpec::default() };
        let model = ModelFile { pieces, trainer, normalizer, denormalizer: None };
        let vocabulary = Vocabulary::of_model(&model, Path::new("a.model")).unwrap();
        is_expressible(&model, &vocabulary)
    }

    #[test]
    fn runs_of_any_length_are_decided_in_bounded_time() {
        assert!(expressible(&[2, 4]));
        // Trying all runs up to a few times this length would take minutes.
        let doubled: Vec<usize> = (1..13).map(|power| 1 << power).collect();
        assert!(!expressible(&doubled));
    }
}
