//! Names of corpora, taken from the names of their files, because CoreNet gives them none.

use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Names that say nothing about the corpus; its folder's name is better.
const PLAIN: [&str; 6] = ["train", "part", "data", "shard", "file", "text"];

/// The names so far, so that each is given once.
#[derive(Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    /// The number that the next file of the same stem gets.
    next: HashMap<String, u64>,
}

impl Names {
    /// `refinedweb` for `/data/refinedweb-{file_id:05d}-of-05534.parquet`; a second one is `refinedweb-2`.
    pub fn name(&mut self, file: Option<&str>) -> String {
        let base = file.and_then(stem).unwrap_or_else(|| "corpus".into());
        let number = self.next.entry(base.clone()).or_insert(1);
        loop {
            let name = if *number == 1 { base.clone() } else { format!("{base}-{number}") };
            *number += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

fn stem(file: &str) -> Option<String> {
    let path = Path::new(file);
    let name = path.file_name()?.to_string_lossy().into_owned();
    let before_id = match name.find("{file_id") {
        Some(at) => name.get(..at)?,
        // The extensions, `.json.gz` too.
        None => name.trim_start_matches('.').split('.').next()?,
    };
    let before_id = before_id.trim_matches(['-', '_', '.', ' ']);
    if !before_id.is_empty() && !PLAIN.contains(&before_id.to_lowercase().as_str()) {
        return Some(before_id.to_owned());
    }
    let folder = path.parent().and_then(Path::file_name).map(|folder| folder.to_string_lossy().into_owned());
    folder.filter(|folder| !folder.trim().is_empty()).or_else(|| (!before_id.is_empty()).then(|| before_id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_files() {
        let mut names = Names::default();
        let mut name = |file: &str| names.name(Some(file));
        assert_eq!(name("/c/refinedweb-{file_id:05d}-of-05534.parquet"), "refinedweb");
        assert_eq!(name("/c/wiki/en_simple_wiki_v0-{file_id:04d}.json.gz"), "en_simple_wiki_v0");
        assert_eq!(name("/c/book.jsonl"), "book");
        assert_eq!(name("/c/v1.6/books/{file_id}.json.gz"), "books");
        assert_eq!(name("/c/pile/train-{file_id:05d}.parquet"), "pile");
        assert_eq!(name("train-{file_id:05d}.parquet"), "train");
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut names = Names::default();
        assert_eq!(names.name(Some("a/x-{file_id}.json")), "x");
        assert_eq!(names.name(Some("b/x-2.json")), "x-2");
        assert_eq!(names.name(Some("c/x-{file_id}.json")), "x-3");
        assert_eq!((names.name(None), names.name(Some(""))), ("corpus".into(), "corpus-2".into()));
    }
}
