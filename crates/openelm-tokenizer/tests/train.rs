//! Training on the texts of the edge fixture: the files it writes are the ones in fixtures/trained, which SentencePiece and Hugging
//! Face tokenizers have loaded and agree on (scripts/sentencepiece_hashes.py).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use openelm_tokenizer::{BpeTraining, PieceKind, Tokenizer, TokenizerError, TrainError, train};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Each text as it is, with at most forty repetitions.
fn texts() -> Vec<String> {
    let edge: serde_json::Value = serde_json::from_slice(&std::fs::read(fixtures().join("edge.json")).unwrap()).unwrap();
    let run = |run: &serde_json::Value| run[0].as_str().unwrap().repeat(run[1].as_u64().unwrap().min(40) as usize);
    edge["texts"].as_array().unwrap().iter().map(|runs| runs.as_array().unwrap().iter().map(run).collect()).collect()
}

fn trained(settings: &BpeTraining, texts: &[String]) -> Tokenizer {
    train(settings, texts.iter().cloned().map(Ok::<_, Infallible>)).unwrap()
}

/// The texts are full of characters that occur once.
fn settings(vocab_size: usize) -> BpeTraining {
    BpeTraining { character_coverage: 0.97, ..BpeTraining::new(vocab_size) }
}

#[test]
fn writes_the_files_that_others_have_read() {
    let folder = tempfile::tempdir().unwrap();
    trained(&settings(700), &texts()).save(folder.path()).unwrap();
    for name in ["tokenizer.model", "tokenizer.json"] {
        let same = std::fs::read(folder.path().join(name)).unwrap() == std::fs::read(fixtures().join("trained").join(name)).unwrap();
        assert!(same, "{name} differs from fixtures/trained: make it again with --ignored, then run scripts/sentencepiece_hashes.py");
    }
}

#[test]
#[ignore = "writes fixtures/trained"]
fn write_fixture() {
    trained(&settings(700), &texts()).save(&fixtures().join("trained")).unwrap();
}

#[test]
fn the_order_of_texts_does_not_matter() {
    let mut texts = texts();
    let first = trained(&settings(500), &texts);
    texts.reverse();
    texts.rotate_left(17);
    let second = trained(&settings(500), &texts);
    assert_eq!(first.fingerprint(), second.fingerprint());
    texts.push("zzq zzq ".repeat(300));
    assert_ne!(first.fingerprint(), trained(&settings(500), &texts).fingerprint());
}

#[test]
fn llamas_layout() {
    let tokenizer = trained(&settings(600), &texts());
    assert_eq!(tokenizer.vocab_size(), 600);
    assert_eq!(
        (tokenizer.unk_id(), tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id(), tokenizer.padding_id()),
        (Some(0), Some(1), Some(2), None, 600)
    );
    for byte in 0..256u32 {
        assert_eq!(
            (tokenizer.token(3 + byte), tokenizer.kind(3 + byte)),
            (Some(format!("<0x{byte:02X}>").as_str()), Some(PieceKind::Byte))
        );
    }
    let length = |id: u32| tokenizer.token(id).unwrap().chars().count();
    let first_character = (259..600).find(|id| length(*id) == 1).unwrap();
    assert!(first_character > 300, "there are merged pieces");
    for id in 259..600 {
        assert_eq!(tokenizer.score(id), Some(-((id - 259) as f32)));
        assert_eq!(length(id) == 1, id >= first_character);
        assert!(length(id) <= 16);
        let digits = tokenizer.token(id).unwrap().chars().filter(|char| char.is_ascii_digit()).count();
        assert!(digits == 0 || length(id) == 1, "digits stand alone");
    }
    assert_eq!(tokenizer.decode(&tokenizer.encode("Ünï ↔ 漢字\n\t12")), "Ünï ↔ 漢字\n\t12");
}

#[test]
fn without_bytes_all_covered_text_comes_back() {
    let settings = BpeTraining { byte_fallback: false, split_digits: false, character_coverage: 1.0, ..BpeTraining::new(400) };
    let text = "lines\nof 1234 words\nand 1234 words of lines\n".to_owned();
    let tokenizer = trained(&BpeTraining { vocab_size: 35, ..settings.clone() }, std::slice::from_ref(&text));
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
    assert_eq!(tokenizer.encode("é漢"), [tokenizer.id_of("▁").unwrap(), 0]);
    assert!(tokenizer.id_of("▁1234").is_some(), "digits stay together");
    let error = train(&settings, [Ok::<_, Infallible>(text)].into_iter()).unwrap_err().to_string();
    assert!(error.starts_with("tokenizer training: the texts hold pieces for ") && error.contains("\nhint: set vocab_size to "), "{error}");
}

#[test]
fn impossible_settings_and_unreadable_texts() {
    let error = |settings: BpeTraining, text: &str| match train(&settings, [Ok::<_, Infallible>(text.to_owned())].into_iter()).unwrap_err()
    {
        TrainError::Tokenizer(error @ TokenizerError::Training { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(error(BpeTraining::new(259), "a").contains("no room for the 259 fixed tokens"));
    assert!(error(BpeTraining { character_coverage: 0.0, ..BpeTraining::new(500) }, "a").contains("character_coverage 0"));
    assert!(error(BpeTraining { max_piece_length: 0, ..BpeTraining::new(500) }, "a").contains("max_piece_length"));
    assert!(error(BpeTraining::new(500), "").contains("no characters"));
    assert!(
        error(BpeTraining { character_coverage: 1.0, ..BpeTraining::new(262) }, "abcdefghij")
            .contains("has room for 3 characters, the texts have 11")
    );
    let unreadable = train(&BpeTraining::new(300), [Ok("a".to_owned()), Err(std::io::Error::other("line 2 is broken"))].into_iter());
    assert!(matches!(unreadable, Err(TrainError::Text(error)) if error.to_string() == "line 2 is broken"));
}
