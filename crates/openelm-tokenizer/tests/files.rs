//! Loading and saving: what is damaged is refused, what is saved comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use openelm_tokenizer::{PieceKind, Tokenizer, TokenizerError};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn models() -> Vec<PathBuf> {
    let mut models: Vec<_> = fs::read_dir(fixtures().join("models")).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.push(fixtures().join("trained/tokenizer.model"));
    models.sort();
    models
}

fn error(path: &Path) -> String {
    Tokenizer::load(path).unwrap_err().to_string()
}

const TEXTS: [&str; 9] = [
    "a<unk> <s>b</s>",
    "",
    " ",
    "the  foo.bar",
    "  leading",
    "中文 e\u{301} \0 \u{1f600}",
    "12 345\n\tx",
    "<sep>ab-ab ▁qu▁",
    "don't x_y café",
];

#[test]
fn every_truncation_of_a_model_is_an_error() {
    for path in models() {
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            let error = Tokenizer::from_model_bytes(&bytes[..cut], &path).expect_err("a cut model");
            assert!(matches!(error, TokenizerError::BrokenModel { .. }), "{} cut at {cut}: {error}", path.display());
        }
    }
    let bytes = fs::read(fixtures().join("trained/tokenizer.model")).unwrap();
    let message = Tokenizer::from_model_bytes(&bytes[..5000], Path::new("dir/tokenizer.model")).unwrap_err().to_string();
    assert!(
        message.starts_with("tokenizer dir/tokenizer.model, byte 5000: field 1 claims ")
            && message.contains("\nhint: the file is truncated"),
        "{message}"
    );
}

#[test]
fn damaged_models_never_panic() {
    let mut state = 1u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let (mut loaded, mut refused) = (0, 0);
    for path in models() {
        let bytes = fs::read(&path).unwrap();
        for _ in 0..400 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(3) {
                let place = random(damaged.len());
                match random(3) {
                    0 => damaged[place] = random(256) as u8,
                    1 => damaged[place] ^= 1 << random(8),
                    // Towards the end lie the settings and the normalisation rule.
                    _ => {
                        let place = damaged.len() - 1 - random(400.min(damaged.len()));
                        damaged[place] = random(256) as u8;
                    }
                }
            }
            match Tokenizer::from_model_bytes(&damaged, &path) {
                Ok(tokenizer) => {
                    loaded += 1;
                    for text in TEXTS {
                        let _ = tokenizer.decode(&tokenizer.encode(text));
                    }
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(loaded > 100 && refused > 100, "{loaded} loaded, {refused} refused");
}

/// A protobuf field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

#[test]
fn kinds_of_model_that_are_not_read() {
    let unknown = [field(1, b"<unk>"), vec![3 << 3, 2]].concat();
    for (kind, name) in [(3, "WORD"), (4, "CHAR")] {
        let bytes = [field(1, &unknown), field(2, &[3 << 3, kind]), field(3, &[])].concat();
        let error = Tokenizer::from_model_bytes(&bytes, Path::new("m")).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("tokenizer m: the SentencePiece model type {name} is not supported\nhint: use a model of type BPE or UNIGRAM")
        );
    }
    let bytes = [field(1, &unknown), field(2, &[3 << 3, 9]), field(3, &[])].concat();
    assert!(Tokenizer::from_model_bytes(&bytes, Path::new("m")).unwrap_err().to_string().contains("model type 9 does not exist"));
    let denormalizer = field(5, &field(2, b"some rule"));
    let bytes = [field(1, &unknown), field(2, &[3 << 3, 2]), field(3, &[]), denormalizer].concat();
    assert!(Tokenizer::from_model_bytes(&bytes, Path::new("m")).unwrap_err().to_string().contains("denormalisation rule is not supported"));
}

#[test]
fn missing_and_foreign_files() {
    let folder = tempfile::tempdir().unwrap();
    assert!(error(&folder.path().join("nothing")).contains("no such file or folder\nhint: give a tokenizer.model"));
    assert!(error(folder.path()).contains("the folder holds neither"));
    let write = |name: &str, text: &[u8]| {
        fs::write(folder.path().join(name), text).unwrap();
        error(&folder.path().join(name))
    };
    assert!(write("a.json", b"{\"version\": ").contains("not JSON: EOF while parsing"));
    assert!(write("b.json", b"{}").contains("not a tokenizer: "));
    assert!(write("c.json", b"[1, 2]").contains("not a tokenizer: "));
    assert!(write("d.model", b"").contains("byte 0: the file ends without the pieces"));
    assert!(
        write("e.model", b"version https://git-lfs.github.com/spec/v1\n")
            .contains("hint: the file is truncated, damaged or not a SentencePiece model")
    );
    assert!(write("f", b" {\"model\": 1}").contains("not a tokenizer: "), "a brace makes it JSON");
}

#[test]
fn what_is_saved_comes_back() {
    for path in models() {
        let tokenizer = Tokenizer::load(&path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("made/on/the/way");
        tokenizer.save(&inner).unwrap();
        let again = Tokenizer::load(&inner).unwrap();
        assert_eq!(again.fingerprint(), tokenizer.fingerprint());
        let mut copies = vec![again];
        let json = inner.join("tokenizer.json");
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expressible = ["bpe-plain.model", "bpe-crossing.model", "tokenizer.model"].contains(&name.as_str());
        assert_eq!(json.exists(), expressible, "{name}");
        if expressible {
            copies.push(Tokenizer::load(&json).unwrap());
        }
        for copy in copies {
            assert_eq!(copy.vocab_size(), tokenizer.vocab_size());
            assert_eq!(
                (copy.bos_id(), copy.eos_id(), copy.unk_id(), copy.pad_id()),
                (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.unk_id(), tokenizer.pad_id())
            );
            for id in 0..tokenizer.vocab_size() as u32 {
                assert_eq!((copy.token(id), copy.kind(id)), (tokenizer.token(id), tokenizer.kind(id)), "{name}: {id}");
            }
            for text in TEXTS {
                assert_eq!(copy.encode(text), tokenizer.encode(text), "{name}: {text:?}");
                assert_eq!(copy.encode_with_special(text), tokenizer.encode_with_special(text), "{name}: {text:?}");
                assert_eq!(copy.decode(&copy.encode(text)), tokenizer.decode(&tokenizer.encode(text)), "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn a_fingerprint_is_of_what_matters() {
    let path = fixtures().join("trained/tokenizer.model");
    let bytes = fs::read(&path).unwrap();
    let fingerprint = |bytes: &[u8]| Tokenizer::from_model_bytes(bytes, &path).unwrap().fingerprint().to_owned();
    let own = fingerprint(&bytes);
    assert_eq!(own.len(), 64);
    // A further message of trainer's settings is merged into the first: field 2 names the model's file, field 24 changes ids.
    assert_eq!(fingerprint(&[bytes.clone(), field(2, &field(2, b"another name"))].concat()), own);
    assert_ne!(fingerprint(&[bytes.clone(), field(2, &[24 << 3 & 0x7f | 0x80, 1, 1])].concat()), own);
    assert_ne!(fingerprint(&[bytes.clone(), field(1, &field(1, b"piece"))].concat()), own);
    let json = fs::read(fixtures().join("trained/tokenizer.json")).unwrap();
    let of_json = |bytes: &[u8]| Tokenizer::from_json_bytes(bytes, &path).unwrap().fingerprint().to_owned();
    let mut value: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(of_json(&json), of_json(&serde_json::to_vec(&value).unwrap()), "white space does not matter");
    value["normalizer"] = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
    assert_ne!(of_json(&json), of_json(&serde_json::to_vec(&value).unwrap()));
}

#[test]
fn control_tokens_are_text_unless_asked_for() {
    let folder = fixtures().join("trained");
    for file in ["tokenizer.model", "tokenizer.json"] {
        let tokenizer = Tokenizer::load(&folder.join(file)).unwrap();
        let text = "<s>a b</s> c<s><s>";
        let plain = tokenizer.encode(text);
        assert!(!plain.contains(&1) && !plain.contains(&2));
        assert_eq!(tokenizer.decode(&plain), text);
        let special = tokenizer.encode_with_special(text);
        let expected = [vec![1], tokenizer.encode("a b"), vec![2], tokenizer.encode(" c"), vec![1, 1]].concat();
        assert_eq!(special, expected);
        assert_eq!(tokenizer.encode_with_special("a b"), tokenizer.encode("a b"));
        assert_eq!(tokenizer.encode_with_special(""), Vec::<u32>::new());
        let mut ids = vec![5, 6];
        tokenizer.encode_into("a b", &mut ids);
        assert_eq!(ids, [vec![5, 6], tokenizer.encode("a b")].concat());
    }
}

/// A byte-level tokenizer, which is not of LLaMA's kind.
fn byte_level() -> Value {
    // GPT-2's letters for bytes: printable ones are themselves, the others follow from U+0100 on.
    let printable = |byte: u32| (0x21..=0x7e).contains(&byte) || (0xa1..=0xac).contains(&byte) || (0xae..=0xff).contains(&byte);
    let mut next = 0x100;
    let letters: Vec<String> = (0..256)
        .map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap().to_string()
        })
        .collect();
    let mut vocab: serde_json::Map<String, Value> = letters.iter().zip(0..).map(|(letter, id)| (letter.clone(), Value::from(id))).collect();
    for (piece, id) in [("th", 256), ("the", 257), ("Ġthe", 258)] {
        vocab.insert(piece.to_owned(), id.into());
    }
    let added = |id: u32, content: &str, special: bool| json!({"id": id, "content": content, "special": special, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [added(259, "<|endoftext|>", true), added(260, "<|pad|>", true), added(261, "<keep>", false)],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": ["t h", "th e", "Ġ the"]},
    })
}

#[test]
fn a_byte_level_file_runs_through_the_library() {
    let bytes = serde_json::to_vec(&byte_level()).unwrap();
    let tokenizer = Tokenizer::from_json_bytes(&bytes, Path::new("tokenizer.json")).unwrap();
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.eos_id(), tokenizer.pad_id(), tokenizer.padding_id(), tokenizer.unk_id()),
        (262, Some(259), Some(260), 260, None)
    );
    assert_eq!(
        (tokenizer.kind(259), tokenizer.kind(261), tokenizer.kind(258)),
        (Some(PieceKind::Control), Some(PieceKind::UserDefined), Some(PieceKind::Normal))
    );
    assert_eq!(tokenizer.encode("the the<keep>"), [257, 258, 261]);
    let text = "the end<|endoftext|> é 中 😀\n";
    assert!(!tokenizer.encode(text).contains(&259));
    assert!(tokenizer.encode_with_special(text).contains(&259));
    let ids = tokenizer.encode(text);
    assert_eq!(tokenizer.decode(&ids), text);
    // One by one, with bytes that make no character in between.
    for ids in [ids.clone(), [&ids[..], &[0xe4 - 60, 258, 0xff - 60, 258]].concat(), vec![259], vec![], vec![0xf0 - 60]] {
        let mut decoder = tokenizer.decoder();
        let mut streamed: String = ids.iter().filter_map(|id| decoder.push(*id)).collect();
        streamed.push_str(&decoder.finish());
        assert_eq!(streamed, tokenizer.decode(&ids), "{ids:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    let again = Tokenizer::load(folder.path()).unwrap();
    assert_eq!((again.fingerprint(), again.encode(text)), (tokenizer.fingerprint(), ids));
}

#[test]
fn the_bytes_of_tokens_make_the_text() {
    let trained = Tokenizer::load(&fixtures().join("trained/tokenizer.model")).unwrap();
    let json = Tokenizer::load(&fixtures().join("trained/tokenizer.json")).unwrap();
    let byte_level = Tokenizer::from_json_bytes(&serde_json::to_vec(&byte_level()).unwrap(), Path::new("tokenizer.json")).unwrap();
    for (tokenizer, space) in [(trained, " "), (json, " "), (byte_level, "")] {
        for text in ["the  foo.bar<keep>", "中文 e\u{301} \u{1f600}", "12 345\n\tx", "caf\u{e9} \u{7f}\u{1}"] {
            let ids = tokenizer.encode(text);
            let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap()).collect();
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("{space}{text}"), "{ids:?}");
        }
        assert_eq!(tokenizer.eos_id().and_then(|id| tokenizer.token_bytes(id)), None);
        assert_eq!(tokenizer.token_bytes(tokenizer.vocab_size() as u32), None);
    }
}

#[test]
fn damaged_json_never_panics() {
    let trained: Value = serde_json::from_slice(&fs::read(fixtures().join("trained/tokenizer.json")).unwrap()).unwrap();
    for json in [trained, byte_level()] {
        for damage in [
            Value::Null,
            json!(3),
            json!("text"),
            json!([]),
            json!({}),
            json!([{}]),
            json!(-1),
            json!([["a"]]),
            json!({"type": "BPE"}),
            json!(u64::MAX),
        ] {
            let mut places = vec![Vec::new()];
            let mut next = 0;
            while next < places.len() {
                let place: Vec<String> = places[next].clone();
                next += 1;
                let found = place.iter().fold(&json, |value, key| value.get(key).unwrap_or_else(|| &value[key.parse::<usize>().unwrap()]));
                let keys: Vec<String> = match found {
                    Value::Object(fields) => fields.keys().take(20).cloned().collect(),
                    Value::Array(values) => (0..values.len().min(4)).map(|index| index.to_string()).collect(),
                    _ => Vec::new(),
                };
                places.extend(keys.into_iter().map(|key| [place.clone(), vec![key]].concat()));
                let mut damaged = json.clone();
                let target = place.iter().fold(&mut damaged, |value, key| match value {
                    Value::Array(values) => &mut values[key.parse::<usize>().unwrap()],
                    other => &mut other[key],
                });
                *target = damage.clone();
                if let Ok(tokenizer) = Tokenizer::from_json_bytes(&serde_json::to_vec(&damaged).unwrap(), Path::new("t.json")) {
                    for text in TEXTS {
                        let _ = tokenizer.decode(&tokenizer.encode_with_special(text));
                    }
                }
            }
        }
    }
}
