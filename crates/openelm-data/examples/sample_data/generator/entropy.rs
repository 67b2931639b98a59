//! The account of what the texts cost: the loss that the best possible model would have.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::document::{Document, Genre};
use super::world::World;

/// Sums over documents.
#[derive(Clone, Debug, Default)]
pub struct Account {
    documents: u64,
    characters: u64,
    bytes: u64,
    bits: f64,
    genres: BTreeMap<Genre, Account>,
}

impl Account {
    /// Counts a document, in its composed form.
    pub fn add(&mut self, document: &Document) {
        self.count(document);
        self.genres.entry(document.genre).or_default().count(document);
    }

    fn count(&mut self, document: &Document) {
        self.documents += 1;
        self.characters += document.text.chars().count() as u64;
        self.bytes += document.text.len() as u64;
        self.bits += document.bits;
    }

    /// Counts all that another account has counted.
    pub fn merge(&mut self, other: &Account) {
        self.documents += other.documents;
        self.characters += other.characters;
        self.bytes += other.bytes;
        self.bits += other.bits;
        for (genre, account) in &other.genres {
            self.genres.entry(*genre).or_default().merge(account);
        }
    }

    fn show(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("documents".into(), json!(self.documents));
        shown.insert("characters".into(), json!(self.characters));
        shown.insert("bytes".into(), json!(self.bytes));
        shown.insert("bits".into(), rounded(self.bits));
        shown.insert("bits_per_byte".into(), rounded(self.bits / self.bytes.max(1) as f64));
        if !self.genres.is_empty() {
            let genres = self.genres.iter().map(|(genre, account)| (genre.name().to_string(), account.show())).collect();
            shown.insert("genres".into(), Value::Object(genres));
        }
        Value::Object(shown)
    }
}

/// Enough digits for every use, and few enough to be the same on every machine.
fn rounded(value: f64) -> Value {
    json!((value * 1e5).round() / 1e5)
}

/// The contents of entropy.json.
pub fn report(seed: u64, world: &World, corpora: &[(&str, Account)], training: &Account) -> String {
    let corpora: Map<String, Value> = corpora.iter().map(|(name, account)| (name.to_string(), account.show())).collect();
    let report = json!({
        "seed": seed,
        "knowledge": {
            "facts": world.facts,
            "fact_bits": rounded(world.fact_bits),
            "names": world.names,
            "name_bits": rounded(world.name_bits),
        },
        "training": training.show(),
        "corpora": corpora,
    });
    format!("{report:#}\n")
}
