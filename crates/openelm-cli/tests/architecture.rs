//! The rules of the design that can be checked: which crate may use which, and what no crate may hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What each crate may use of the others; tests may use more.
const ARROWS: [(&str, &[&str]); 14] = [
    ("openelm-tokenizer", &[]),
    ("openelm-data", &["openelm-tokenizer"]),
    ("openelm-formats", &[]),
    ("openelm-kernels", &["openelm-formats"]),
    ("openelm-model", &["openelm-kernels"]),
    ("openelm-checkpoint", &["openelm-model", "openelm-formats"]),
    ("openelm-train", &["openelm-data", "openelm-model", "openelm-checkpoint", "openelm-kernels"]),
    ("openelm-finetune", &["openelm-train", "openelm-tokenizer"]),
    ("openelm-infer", &["openelm-model", "openelm-checkpoint", "openelm-formats", "openelm-tokenizer", "openelm-kernels"]),
    ("openelm-eval", &["openelm-infer", "openelm-tokenizer", "openelm-data"]),
    ("openelm-merge", &["openelm-formats", "openelm-checkpoint", "openelm-eval"]),
    ("openelm-export", &["openelm-checkpoint", "openelm-formats", "openelm-tokenizer"]),
    ("damaged-text", &[]),
    ("reference-values", &[]),
];

/// Crates that tensors have no place in.
const WITHOUT_BURN: [&str; 3] = ["openelm-data", "openelm-tokenizer", "openelm-formats"];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Names of the normal and build dependencies of each crate.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(crates()).unwrap() {
        let folder = entry.unwrap().path();
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let mut names = BTreeSet::new();
        let mut counts = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                counts = line.contains("dependencies") && !line.contains("dev-dependencies");
            } else if counts && let Some((key, _)) = line.split_once('=') {
                names.insert(key.trim().split('.').next().unwrap().to_owned());
            }
        }
        found.insert(folder.file_name().unwrap().to_string_lossy().into_owned(), names);
    }
    found
}

#[test]
fn no_crate_breaks_an_arrow() {
    let found = dependencies();
    assert!(found["openelm-train"].contains("openelm-model"), "the manifests were not read: {found:?}");
    for (name, used) in &found {
        assert!(!["common", "core", "utils"].iter().any(|word| name.ends_with(word)), "{name}: name the noun it holds");
        if name == "openelm-cli" {
            continue;
        }
        let allowed = ARROWS.iter().find(|(known, _)| known == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} has no row in ARROWS"));
        let ours = used.iter().filter(|used| used.starts_with("openelm-") || ["damaged-text", "reference-values"].contains(&used.as_str()));
        for used in ours {
            assert!(allowed.contains(&used.as_str()), "{name} must not use {used}");
        }
        if WITHOUT_BURN.contains(&name.as_str()) {
            assert!(!used.iter().any(|used| used.starts_with("burn")), "{name} must not use burn");
        }
    }
}

/// Files below `folder` with this ending.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
}

#[test]
fn files_open_with_what_they_hold() {
    let mut sources = Vec::new();
    for name in dependencies().keys() {
        files(&crates().join(name).join("src"), "rs", &mut sources);
    }
    assert!(sources.len() > 100, "{}", sources.len());
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{}: the first line must say what the file holds", path.display());
        let lines = text.lines().count();
        assert!(lines <= 500, "{}: {lines} lines; split it by noun", path.display());
    }
}

#[test]
fn unsafe_code_stands_in_kernels_and_mapped_files_alone() {
    let mut sources = Vec::new();
    for name in dependencies().keys().filter(|name| *name != "openelm-kernels") {
        files(&crates().join(name).join("src"), "rs", &mut sources);
    }
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let holds = code.filter(|line| line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl")).count();
        let mapped = path.file_name().is_some_and(|name| name == "mapped_file.rs");
        assert!(holds == 0 || mapped, "{}: unsafe code belongs in openelm-kernels", path.display());
    }
}
