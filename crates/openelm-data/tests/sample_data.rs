//! The samples in data/sample are what their generator writes, and their entropy is what the generator says it is.

#[path = "../examples/sample_data/generator/mod.rs"]
mod generator;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use generator::document::{Document, Language};
use generator::plan::{ALL_GENRES, CORPORA, VALIDATION};
use generator::{SEED, documents, samples};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/sample")
}

/// The files below a folder, by their paths below it.
#[allow(clippy::unwrap_used, reason = "part of a test")]
fn files_below(folder: &Path, prefix: &str, found: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name);
        }
    }
}

#[test]
fn the_repository_holds_what_the_generator_writes() {
    let folder = folder();
    let mut there = HashSet::new();
    files_below(&folder, "", &mut there);
    let files = samples(SEED).unwrap();
    let mut total = 0;
    for file in &files {
        let held = fs::read(folder.join(&file.path)).unwrap_or_else(|error| panic!("data/sample/{}: {error}", file.path));
        assert!(
            held == file.bytes,
            "data/sample/{} differs from what the generator writes ({} bytes held, {} written); run the sample_data example again",
            file.path,
            held.len(),
            file.bytes.len()
        );
        assert!(there.remove(&file.path), "{} is written twice", file.path);
        total += file.bytes.len();
    }
    assert!(there.is_empty(), "data/sample holds files that the generator does not write: {there:?}");
    assert!(total < 3_200_000, "the samples have grown to {total} bytes");
}

#[test]
fn another_seed_gives_another_world_and_other_texts() {
    let (one, other) = (samples(SEED).unwrap(), samples(SEED + 1).unwrap());
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one.path, other.path);
        assert!(one.bytes != other.bytes, "{} does not depend on the seed", one.path);
    }
}

#[allow(clippy::unwrap_used, reason = "part of a test")]
fn all() -> Vec<(&'static str, Vec<Document>)> {
    let language = Language::new(SEED).unwrap();
    CORPORA.iter().map(|corpus| (corpus.name, documents(SEED, &language, corpus).unwrap())).collect()
}

#[test]
fn no_document_comes_twice_and_none_of_validation_is_trained_on() {
    let mut texts = HashSet::new();
    let mut count = 0;
    for (name, documents) in all() {
        for document in documents {
            let characters = document.text.chars().count();
            assert!((200..6000).contains(&characters), "{name}: a {} of {characters} characters", document.genre.name());
            assert!(texts.insert(document.text), "{name} has a {} that was there before", document.genre.name());
            count += 1;
        }
    }
    assert!(count > 5000);
}

/// Each document of the validation shard, as it stands on disk, can come about in exactly one way, and that way has the bits
/// that the shard says. So the sum of the bits is the exact floor, not a bound.
#[test]
fn validation_bits_are_exact() {
    let language = Language::new(SEED).unwrap();
    let path = folder().join("validation/validation-00000-00001.jsonl");
    let lines = fs::read_to_string(path).unwrap();
    let (mut bits, mut bytes) = (0.0, 0);
    for (number, line) in lines.lines().enumerate() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let (text, said) = (row["text"].as_str().unwrap(), row["meta"]["bits"].as_f64().unwrap());
        let (ways, reached) = language.derivations(text, ALL_GENRES).unwrap();
        assert_eq!(ways.len(), 1, "line {}: {} ways, the longest to byte {reached} of {}", number + 1, ways.len(), text.len());
        assert!((ways[0] - said).abs() < 1e-3, "line {}: {} bits, not {said}", number + 1, ways[0]);
        bits += ways[0];
        bytes += text.len() as u64;
    }
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(folder().join("entropy.json")).unwrap()).unwrap();
    let account = &report["corpora"][VALIDATION];
    assert_eq!(account["bytes"].as_u64().unwrap(), bytes);
    assert!((account["bits"].as_f64().unwrap() - bits).abs() < 1e-3);
    // A text of another world is not of this language: facts are not free to choose.
    let other = Language::new(SEED + 1).unwrap();
    let article = lines.lines().find(|line| line.contains("\"genre\":\"article\"")).unwrap();
    let article: serde_json::Value = serde_json::from_str(article).unwrap();
    assert!(other.derivations(article["text"].as_str().unwrap(), ALL_GENRES).unwrap().0.is_empty());
}

/// Bytes are counted in the form that the loader's text repair leaves; it must not change a document.
#[test]
fn text_repair_leaves_every_document_as_it_is() {
    let mut beyond_ascii = 0;
    for (name, documents) in all() {
        for document in documents {
            let fixed = plsfix::fix_text(&document.text, None);
            assert!(fixed == document.text, "{name}: a {} is changed by text repair", document.genre.name());
            beyond_ascii += usize::from(!document.text.is_ascii());
        }
    }
    assert!(beyond_ascii > 1000);
}

/// What the users of a file ask, without the wrapping ("Please tell me: ...").
#[allow(clippy::unwrap_used, reason = "part of a test")]
fn questions(text: &str) -> HashSet<String> {
    let mut questions = HashSet::new();
    for row in text.lines() {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        let messages = row.get("messages").or(row.get("chosen")).unwrap().as_array().unwrap();
        for message in messages.iter().filter(|message| message["role"] == "user") {
            let mut question = message["content"].as_str().unwrap();
            for before in ["Please tell me: ", "I am reading about Veyra. ", "Quick question: "] {
                question = question.strip_prefix(before).unwrap_or(question);
            }
            questions.insert(question.strip_suffix(" Keep it short, please.").unwrap_or(question).to_string());
        }
    }
    questions
}

#[test]
fn test_questions_are_not_trained_on() {
    let read = |name: &str| questions(&fs::read_to_string(folder().join(format!("instruct/{name}.jsonl"))).unwrap());
    for test in ["sft-test", "preference-test"] {
        let test = read(test);
        assert!(test.len() >= 40);
        for train in ["sft-train", "preference-train"] {
            let both: Vec<String> = read(train).intersection(&test).cloned().collect();
            assert!(both.is_empty(), "{train} has {both:?}");
        }
    }
}
