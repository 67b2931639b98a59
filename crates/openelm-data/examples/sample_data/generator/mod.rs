//! Writes texts whose exact probability is known, and packs them into shards.
//!
//! `draw.rs` makes every choice and counts its surprise, `grammar/` holds the tables, `world.rs` the facts, `scribe.rs` fills
//! phrases, and each genre has a file. `derive.rs` turns the whole round: from a text to the choices that it came from.

mod article;
mod binding;
mod blog;
mod code;
mod derive;
pub mod document;
mod draw;
mod english;
mod entropy;
pub mod error;
mod grammar;
mod instruct;
mod kinds;
mod notes;
pub mod plan;
mod questions;
mod rill;
mod scribe;
mod shards;
mod story;
mod stream;
mod sums;
mod unicode;
mod world;

use sha2::{Digest, Sha256};

use document::{Document, Language};
use entropy::Account;
use error::SampleError;
use plan::{CORPORA, Corpus, VALIDATION};
use stream::Stream;

/// The seed of the samples in the repository.
pub const SEED: u64 = 1;

/// A file to write.
#[derive(Debug)]
pub struct File {
    /// Below the output folder.
    pub path: String,
    pub bytes: Vec<u8>,
}

/// The documents of a corpus, shard after shard.
pub fn documents(seed: u64, language: &Language, corpus: &Corpus) -> Result<Vec<Document>, SampleError> {
    let count = corpus.shards.iter().map(|shard| shard.documents).sum();
    (0..count).map(|index| Ok(language.document(Stream::new(seed, corpus.name, index), corpus.blend)?)).collect()
}

/// Every file of the samples, in a fixed order: shards, instructions, entropy.json, SHA256SUMS.
pub fn samples(seed: u64) -> Result<Vec<File>, SampleError> {
    let language = Language::new(seed)?;
    let mut files = Vec::new();
    let mut accounts = Vec::new();
    let mut training = Account::default();
    for corpus in CORPORA {
        let all = documents(seed, &language, corpus)?;
        let mut account = Account::default();
        all.iter().for_each(|document| account.add(document));
        let mut rest = &all[..];
        let mut first = 0;
        for shard in corpus.shards {
            let (these, others) = rest.split_at(rest.len().min(shard.documents as usize));
            files.push(File { path: shard.path.to_string(), bytes: shards::pack(shard, corpus.name, these, first)? });
            first += shard.documents;
            rest = others;
        }
        if corpus.name != VALIDATION {
            training.merge(&account);
        }
        accounts.push((corpus.name, account));
    }
    for (name, text) in instructions(seed, &language)? {
        files.push(File { path: format!("instruct/{name}.jsonl"), bytes: text.into_bytes() });
    }
    let report = entropy::report(seed, &language.world, &accounts, &training);
    files.push(File { path: "entropy.json".into(), bytes: report.into_bytes() });
    let sums: String = files.iter().map(|file| format!("{}  {}\n", digest(&file.bytes), file.path)).collect();
    files.push(File { path: "SHA256SUMS".into(), bytes: sums.into_bytes() });
    Ok(files)
}

/// Name and text of the files for fine-tuning.
fn instructions(seed: u64, language: &Language) -> Result<Vec<(&'static str, String)>, SampleError> {
    Ok(instruct::files(seed, language)?)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
