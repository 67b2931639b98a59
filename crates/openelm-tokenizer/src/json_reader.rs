//! Reads a `tokenizer.json`, and finds out whether this crate's own encoder gives the same ids as the `tokenizers` crate.
//!
//! It does for LLaMA's kind: BPE over characters with byte fallback, where all that happens to a text beforehand is that spaces
//! become U+2581 and one may be put in front. `plan` checks every setting; whatever it does not know goes through the crate.

use std::path::Path;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::Value;

use crate::boundaries::Boundaries;
use crate::bpe::{BpeEncoder, Scratches};
use crate::decoder::DecodeRules;
use crate::error::TokenizerError;
use crate::fingerprint;
use crate::library::LibraryTokenizer;
use crate::matcher::Matcher;
use crate::model_file::{Piece, PieceKind};
use crate::symbols::{Merge, SPACE, Symbols, only_char};
use crate::tokenizer::{Decoding, Encoding, Parts, Prefix, Source};
use crate::vocabulary::{Vocabulary, all_bytes, byte_of, byte_piece};

/// Names under which files carry these tokens; the file itself does not say which is which.
const BOS: [&str; 4] = ["<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>"];
const EOS: [&str; 4] = ["</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"];
const PAD: [&str; 3] = ["<pad>", "[PAD]", "<|pad|>"];

/// Ids far beyond the number of tokens are a damaged file, not a vocabulary.
const HOLES: usize = 1 << 16;

pub(crate) fn read_json(bytes: &[u8], path: &Path) -> Result<Parts, TokenizerError> {
    let json: Value = serde_json::from_slice(bytes).map_err(|error| TokenizerError::bad_json(path, format!("not JSON: {error}")))?;
    let library = Arc::new(LibraryTokenizer::parse(bytes, path)?);
    let merges = listed_merges(&json["model"]);
    let vocabulary = vocabulary(&json, &library, &merges, path)?;
    let encoding = match prefix(&json).zip(own_encoder(&json, &vocabulary, &merges)) {
        Some((prefix, encoder)) => Encoding::ListedBpe { prefix, encoder: Box::new(encoder) },
        None => Encoding::Library(library.clone()),
    };
    let decoding = match decode_rules(&json["decoder"]) {
        Some(rules) => Decoding::Pieces(rules),
        None => Decoding::Library(library),
    };
    Ok(Parts {
        controls: Matcher::new(
            vocabulary.of_kind(PieceKind::Control).chain(vocabulary.of_kind(PieceKind::Unknown).filter(|(text, _)| is_added(&json, text))),
        ),
        fingerprint: fingerprint::of_json(&json),
        vocabulary,
        encoding,
        decoding,
        source: Source::Json(bytes.to_vec()),
    })
}

fn added(json: &Value) -> &[Value] {
    json["added_tokens"].as_array().map_or(&[], Vec::as_slice)
}

fn is_added(json: &Value, text: &str) -> bool {
    added(json).iter().any(|token| token["content"] == text)
}

/// The merges in order: both parts.
fn listed_merges(model: &Value) -> Vec<(String, String)> {
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
            _ => None,
        },
        _ => None,
    };
    model["merges"].as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(pair).collect()
}

fn vocabulary(json: &Value, library: &LibraryTokenizer, merges: &[(String, String)], path: &Path) -> Result<Vocabulary, TokenizerError> {
    let ids = library.implementation().get_vocab(true);
    let size = ids.values().max().map_or(0, |id| *id as usize + 1);
    if size > 2 * ids.len() + HOLES {
        return Err(TokenizerError::bad_json(path, format!("{} tokens have ids up to {}", ids.len(), size - 1)));
    }
    if ids.is_empty() {
        return Err(TokenizerError::bad_json(path, "the vocabulary is empty"));
    }
    let kind: FxHashMap<&str, PieceKind> = added(json)
        .iter()
        .filter_map(|token| {
            token["content"].as_str().map(|text| (text, if token["special"] == true { PieceKind::Control } else { PieceKind::UserDefined }))
        })
        .collect();
    let unknown = json["model"]["unk_token"].as_str();
    let byte_fallback = json["model"]["byte_fallback"] == true;
    let mut made_at: FxHashMap<String, usize> = FxHashMap::default();
    for (place, (left, right)) in merges.iter().enumerate() {
        made_at.entry(format!("{left}{right}")).or_insert(place);
    }
    let mut vocabulary =
        Vocabulary { pieces: vec![Piece { text: String::new(), score: 0.0, kind: PieceKind::Unused }; size], ..Vocabulary::default() };
    let mut bytes = [None; 256];
    for (text, id) in &ids {
        let kind = match kind.get(text.as_str()) {
            _ if unknown == Some(text) => PieceKind::Unknown,
            Some(kind) => *kind,
            None if byte_fallback && byte_of(text).is_some() => PieceKind::Byte,
            None => PieceKind::Normal,
        };
        if let (PieceKind::Byte, Some(byte)) = (kind, byte_of(text)) {
            bytes[usize::from(byte)] = Some(*id);
        }
        let score = match kind {
            PieceKind::Normal => -(made_at.get(text).copied().unwrap_or(merges.len() + *id as usize) as f32),
            _ => 0.0,
        };
        vocabulary.pieces[*id as usize] = Piece { text: text.clone(), score, kind };
        match kind {
            PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused => vocabulary.pieces_by_text.insert(text.clone(), *id),
            _ => vocabulary.reserved.insert(text.clone(), *id),
        };
    }
    let special = |names: &[&str]| names.iter().find_map(|name| vocabulary.reserved.get(*name).copied());
    (vocabulary.bos, vocabulary.eos, vocabulary.pad) = (special(&BOS), special(&EOS), special(&PAD));
    vocabulary.unk = unknown.and_then(|unknown| vocabulary.reserved.get(unknown).copied());
    vocabulary.bytes = byte_fallback.then(|| all_bytes(&bytes)).flatten();
    Ok(vocabulary)
}

/// What is done to a text before it is cut; `None` when it is more than the own encoder knows.
fn prefix(json: &Value) -> Option<Prefix> {
    let replace = |step: &Value| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == "\u{2581}";
    let prepend = |step: &Value| step["type"] == "Prepend" && step["prepend"] == "\u{2581}";
    let (normalizer, pre_tokenizer) = (&json["normalizer"], &json["pre_tokenizer"]);
    if pre_tokenizer.is_null() {
        if replace(normalizer) {
            return Some(Prefix::Never);
        }
        return match normalizer["normalizers"].as_array()?.as_slice() {
            [one] if replace(one) => Some(Prefix::Never),
            [first, second] if prepend(first) && replace(second) => Some(Prefix::Always),
            _ => None,
        };
    }
    if normalizer.is_null()
        && pre_tokenizer["type"] == "Metaspace"
        && pre_tokenizer["replacement"] == "\u{2581}"
        && pre_tokenizer["split"] == false
    {
        return match pre_tokenizer["prepend_scheme"].as_str()? {
            "always" => Some(Prefix::UnlessSpace),
            "first" => Some(Prefix::FirstUnlessSpace),
            "never" => Some(Prefix::Never),
            _ => None,
        };
    }
    None
}

/// The own encoder, if it gives the crate's ids.
fn own_encoder(json: &Value, vocabulary: &Vocabulary, merges: &[(String, String)]) -> Option<BpeEncoder> {
    let model = &json["model"];
    let unset = |value: &Value| value.is_null() || *value == "";
    let plain_model = model["type"] == "BPE"
        && (model["dropout"].is_null() || model["dropout"] == 0.0)
        && unset(&model["continuing_subword_prefix"])
        && unset(&model["end_of_word_suffix"])
        && model["ignore_merges"] != true;
    let plain_token =
        |token: &Value| token["special"] == true && ["single_word", "lstrip", "rstrip", "normalized"].iter().all(|key| token[key] == false);
    if !plain_model || !added(json).iter().all(plain_token) || merges.len() != model["merges"].as_array()?.len() {
        return None;
    }
    let bytes = vocabulary.bytes.clone()?;
    let ids = model["vocab"].as_object()?;
    let id = |text: &str| ids.get(text).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    // The crate looks bytes up in the model's own vocabulary.
    if !(0..=255u8).all(|byte| id(&byte_piece(byte)) == Some(bytes[usize::from(byte)])) {
        return None;
    }
    let mut symbols = Symbols::empty(true, (0..vocabulary.pieces.len() as u32).collect());
    for text in ids.keys() {
        // No text has a space left when it is cut.
        if let Some(char) = only_char(text).filter(|char| *char != ' ') {
            symbols.set_char(char, id(text)?);
        }
    }
    let mut made = Vec::with_capacity(merges.len());
    for ((left, right), rank) in merges.iter().zip(0..) {
        let whole = format!("{left}{right}");
        let (left, right, symbol) = (id(left)?, id(right)?, id(&whole)?);
        if bytes.contains(&left) || bytes.contains(&right) {
            return None;
        }
        symbols.add_pair(left, right, Merge { rank, symbol });
        made.push(whole);
    }
    debug_assert!(symbols.of_char(' ') == symbols.of_char(SPACE));
    Some(BpeEncoder {
        boundaries: Boundaries::new(made.iter().map(String::as_str), &symbols),
        symbols,
        unk: vocabulary.unk.unwrap_or_default(),
        bytes: Some(bytes),
        fixed: None,
        unused: None,
        scratches: Scratches::default(),
    })
}

/// SentencePiece's way of decoding, when the file describes it.
fn decode_rules(decoder: &Value) -> Option<DecodeRules> {
    let steps = decoder["decoders"].as_array()?;
    let replace = |step: &Value| step["type"] == "Replace" && step["pattern"]["String"] == "\u{2581}" && step["content"] == " ";
    let strip = |step: &Value| step["type"] == "Strip" && step["content"] == " " && step["start"] == 1 && step["stop"] == 0;
    let strip_first_space = match steps.as_slice() {
        [first, second, third] if replace(first) && second["type"] == "ByteFallback" && third["type"] == "Fuse" => false,
        [first, second, third, last] if replace(first) && second["type"] == "ByteFallback" && third["type"] == "Fuse" && strip(last) => {
            true
        }
        _ => return None,
    };
    // The crate writes out what the unknown token is called; with byte fallback it does not occur.
    Some(DecodeRules { strip_first_space, strip_all_first_spaces: false, unk_surface: " \u{2047} ".to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::merge::tests::Random;
    use crate::tokenizer::Tokenizer;

    const TRAINED: &[u8] = include_bytes!("../tests/fixtures/trained/tokenizer.json");

    fn texts() -> Vec<String> {
        let mut random = Random(5);
        let alphabets: [Vec<char>; 4] = ["ab \u{2581}", "thein \n01.", "é中😀\0 a", "<s></s>a "].map(|chars| chars.chars().collect());
        let mut texts: Vec<String> = (0..70).map(|length| " ".repeat(length)).collect();
        for alphabet in &alphabets {
            texts.extend((0..60).map(|_| {
                let length = random.below(50);
                random.text(alphabet, length)
            }));
        }
        texts.extend(["<s>a b</s> c", "a<unk>b", " <s> <s> ", "\u{2581}<s>\u{2581}x", "the<s>the </s>"].map(str::to_owned));
        texts
    }

    /// Compares with the crate; false when the own encoder is not used.
    fn compare(json: &[u8]) -> bool {
        let path = Path::new("tokenizer.json");
        let parts = read_json(json, path).unwrap();
        let own = matches!(parts.encoding, Encoding::ListedBpe { .. });
        let (tokenizer, library) = (Tokenizer::new(parts), LibraryTokenizer::parse(json, path).unwrap());
        for text in texts() {
            let (mut plain, mut special) = (Vec::new(), Vec::new());
            library.encode(&text, false, &mut plain);
            library.encode(&text, true, &mut special);
            assert_eq!(tokenizer.encode(&text), plain, "{text:?}");
            assert_eq!(tokenizer.encode_with_special(&text), special, "{text:?} with control tokens");
            if own {
                assert_eq!(tokenizer.decode(&plain), library.decode(&plain), "{text:?} decoded");
            }
        }
        own
    }

    #[test]
    fn every_form_that_is_taken_over_gives_the_crates_ids() {
        let trained: Value = serde_json::from_slice(TRAINED).unwrap();
        let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" });
        let metaspace =
            |scheme: &str, split: bool| json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split });
        let forms = [
            (trained["normalizer"].clone(), Value::Null, true),
            (replace.clone(), Value::Null, true),
            (json!({ "type": "Sequence", "normalizers": [replace] }), Value::Null, true),
            (Value::Null, metaspace("always", false), true),
            (Value::Null, metaspace("first", false), true),
            (Value::Null, metaspace("never", false), true),
            (Value::Null, metaspace("first", true), false),
            (json!({ "type": "NFC" }), metaspace("always", false), false),
            (json!({ "type": "Sequence", "normalizers": [replace, { "type": "Prepend", "prepend": "\u{2581}" }] }), Value::Null, false),
        ];
        for (normalizer, pre_tokenizer, own) in forms {
            let mut json = trained.clone();
            (json["normalizer"], json["pre_tokenizer"]) = (normalizer.clone(), pre_tokenizer.clone());
            assert_eq!(compare(&serde_json::to_vec(&json).unwrap()), own, "{normalizer} {pre_tokenizer}");
        }
    }

    #[test]
    fn settings_that_change_ids_go_through_the_crate() {
        let trained: Value = serde_json::from_slice(TRAINED).unwrap();
        let changes: [fn(&mut Value); 6] = [
            |json| json["model"]["byte_fallback"] = false.into(),
            |json| json["model"]["ignore_merges"] = true.into(),
            |json| json["model"]["end_of_word_suffix"] = "</w>".into(),
            |json| json["added_tokens"][1]["lstrip"] = true.into(),
            |json| json["added_tokens"][1]["special"] = false.into(),
            |json| json["added_tokens"][1]["normalized"] = true.into(),
        ];
        for change in changes {
            let mut json = trained.clone();
            change(&mut json);
            let bytes = serde_json::to_vec(&json).unwrap();
            if let Ok(parts) = read_json(&bytes, Path::new("tokenizer.json")) {
                assert!(matches!(parts.encoding, Encoding::Library(_)));
                assert!(!compare(&bytes));
            }
        }
    }

    #[test]
    fn merges_in_an_order_of_their_own() {
        // Lists that no scores could express: the same piece by several pairs at different places.
        let trained: Value = serde_json::from_slice(TRAINED).unwrap();
        for seed in 0..20 {
            let mut random = Random(seed);
            let mut json = trained.clone();
            let merges = json["model"]["merges"].as_array_mut().unwrap();
            for place in (1..merges.len()).rev() {
                merges.swap(place, random.below(place as u64 + 1) as usize);
            }
            assert!(compare(&serde_json::to_vec(&json).unwrap()));
        }
    }
}
