//! Ids and texts equal to SentencePiece's: the values in fixtures/ are its own (scripts/sentencepiece_hashes.py).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod shards;

use std::path::{Path, PathBuf};

use openelm_tokenizer::Tokenizer;
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Shard {
    tokenizer: String,
    shard: String,
    documents: usize,
    ids: usize,
    sha256: String,
}

#[derive(Deserialize)]
struct Edge {
    /// Each text as runs: a text and how often it is repeated.
    texts: Vec<Vec<(String, usize)>>,
    tokenizers: Vec<EdgeTokenizer>,
}

#[derive(Deserialize)]
struct EdgeTokenizer {
    tokenizer: String,
    ids: Vec<(usize, String)>,
    decoded: Vec<(Vec<u32>, String)>,
    round_trips: Vec<String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn add(hasher: &mut Sha256, ids: &[u32]) {
    let bytes: Vec<u8> = ids.iter().chain([&u32::MAX]).flat_map(|id| id.to_le_bytes()).collect();
    hasher.update(bytes);
}

fn hash(ids: &[u32]) -> String {
    let mut hasher = Sha256::new();
    add(&mut hasher, ids);
    hex(hasher)
}

#[test]
fn every_shard() {
    let Some(shared) = shards::shared() else { return };
    let expected: Vec<Shard> = read("shards.json");
    assert_eq!(expected.len(), 40);
    for name in ["llama-spm", "spm-2k"] {
        let folder = shared.join("tokenizers").join(name);
        // The same model as SentencePiece's file and as Hugging Face's.
        let tokenizers = ["tokenizer.model", "tokenizer.json"].map(|file| Tokenizer::load(&folder.join(file)).unwrap());
        for row in expected.iter().filter(|row| row.tokenizer == name) {
            let texts = shards::texts(&shared.join("corpora").join(&row.shard));
            assert_eq!(texts.len(), row.documents, "{}", row.shard);
            for (tokenizer, file) in tokenizers.iter().zip(["model", "json"]) {
                let (mut hasher, mut count, mut ids) = (Sha256::new(), 0, Vec::new());
                for text in &texts {
                    ids.clear();
                    tokenizer.encode_into(text, &mut ids);
                    add(&mut hasher, &ids);
                    count += ids.len();
                    assert!(tokenizer.decode(&ids) == *text, "{name}: a text of {} does not come back", row.shard);
                }
                assert_eq!((count, hex(hasher)), (row.ids, row.sha256.clone()), "{name} as {file}: {}", row.shard);
            }
        }
    }
}

#[test]
fn texts_that_break_encoders() {
    let edge: Edge = read("edge.json");
    let shared = shards::shared();
    let texts: Vec<String> = edge.texts.iter().map(|runs| runs.iter().map(|(text, times)| text.repeat(*times)).collect()).collect();
    for expected in &edge.tokenizers {
        let name = &expected.tokenizer;
        let own = [fixtures().join("models").join(format!("{name}.model")), fixtures().join(name)];
        let path = match (&shared, own.into_iter().find(|path| path.exists())) {
            (_, Some(own)) => own,
            (Some(shared), None) => shared.join("tokenizers").join(name),
            (None, None) => continue,
        };
        let tokenizer = Tokenizer::load(&path).unwrap();
        // What is saved gives the same ids in both forms, LLaMA's equally scored runs of spaces included.
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        let saved = folder.path().join("tokenizer.json");
        assert!(saved.exists() || !["llama-spm", "spm-2k", "trained"].contains(&name.as_str()), "{name}");
        if saved.exists() {
            let saved = Tokenizer::load(&saved).unwrap();
            for text in texts.iter().filter(|text| text.len() < 2000 || name != "bpe-plain") {
                assert!(
                    saved.encode(text) == tokenizer.encode(text),
                    "{name}: {:?} after saving as tokenizer.json",
                    text.chars().take(60).collect::<String>()
                );
            }
        }
        // Twice: the second time from what the first has left in the caches.
        for _ in 0..2 {
            for (text, ((count, sha), round_trip)) in texts.iter().zip(expected.ids.iter().zip(&expected.round_trips)) {
                let shown: String = text.chars().take(60).collect();
                let ids = tokenizer.encode(text);
                assert_eq!(
                    (ids.len(), &hash(&ids)[..16]),
                    (*count, sha.as_str()),
                    "{name}: {shown:?} of {} bytes: {:?}",
                    text.len(),
                    ids.iter().take(20).map(|id| tokenizer.token(*id).unwrap()).collect::<Vec<_>>()
                );
                let decoded = tokenizer.decode(&ids);
                let sha: String = Sha256::digest(decoded.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(&sha[..16], round_trip, "{name}: decoding {shown:?}: {:?}", decoded.chars().take(60).collect::<String>());
            }
        }
        for (ids, text) in &expected.decoded {
            assert_eq!(tokenizer.decode(ids), *text, "{name}: {ids:?}");
            let mut decoder = tokenizer.decoder();
            let mut streamed: String = ids.iter().filter_map(|id| decoder.push(*id)).collect();
            streamed.push_str(&decoder.finish());
            assert_eq!(streamed, *text, "{name}: {ids:?}, one by one");
        }
    }
}
