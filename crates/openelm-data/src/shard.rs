//! The list of shards that a configuration names, in a fixed order.
//!
//! Order: corpora as configured; in each, patterns as configured, each pattern expanded by its id range, or by a glob sorted
//! by path. Every listed shard existed, with a known extension, when the list was made.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::config::{CorpusConfig, check_corpora};
use crate::error::DataError;
use crate::python_format::{format_file_id, has_file_id};

/// One file of a corpus.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    pub path: PathBuf,
    /// The path as text, shared by everything that came from this shard.
    pub source: Arc<str>,
    /// Index into the configuration's corpora.
    pub corpus: usize,
    pub corpus_name: Arc<str>,
    pub text_key: Arc<str>,
    pub layout: Layout,
    /// Bytes on disk.
    pub size: u64,
}

/// How the documents stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Parquet,
    Lines,
    GzipLines,
    ZstdLines,
}

impl Layout {
    fn of(path: &Path) -> Result<Self, DataError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("parquet") => Ok(Self::Parquet),
            Some("jsonl" | "json") => Ok(Self::Lines),
            Some("gz") => Ok(Self::GzipLines),
            Some("zst") => Ok(Self::ZstdLines),
            _ => Err(DataError::UnknownExtension { path: path.into() }),
        }
    }
}

/// All shards of all corpora. A corpus without a shard is an error.
pub(crate) fn list_shards(corpora: &[CorpusConfig]) -> Result<Vec<Shard>, DataError> {
    check_corpora(corpora)?;
    let mut shards = Vec::new();
    for (corpus, config) in corpora.iter().enumerate() {
        let corpus_name: Arc<str> = config.name.as_str().into();
        let text_key: Arc<str> = config.text_key.as_str().into();
        let mut seen = HashSet::new();
        for path in paths(corpus, config)? {
            let metadata = match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => metadata,
                Ok(_) => {
                    return Err(DataError::config(
                        format!("corpora[{corpus}] ({}).files", config.name),
                        format!("names {}, which is not a file", path.display()),
                        "name files, for example folder/*.jsonl",
                    ));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(DataError::MissingShard { corpus: config.name.clone(), path });
                }
                Err(error) => return Err(DataError::io(path, "looking it up", error)),
            };
            if !seen.insert(path.clone()) {
                return Err(DataError::config(
                    format!("corpora[{corpus}] ({}).files", config.name),
                    format!("name {} twice", path.display()),
                    "let the patterns not overlap; to repeat texts, raise the corpus's weight",
                ));
            }
            shards.push(Shard {
                layout: Layout::of(&path)?,
                source: path.to_string_lossy().into(),
                path,
                corpus,
                corpus_name: corpus_name.clone(),
                text_key: text_key.clone(),
                size: metadata.len(),
            });
        }
    }
    Ok(shards)
}

fn paths(corpus: usize, config: &CorpusConfig) -> Result<Vec<PathBuf>, DataError> {
    let field = || format!("corpora[{corpus}] ({}).files", config.name);
    let mut paths = Vec::new();
    for pattern in &config.files {
        match config.file_id_range {
            Some([first, end]) => {
                if first >= end {
                    return Err(DataError::config(
                        format!("corpora[{corpus}] ({}).file_id_range", config.name),
                        format!("[{first}, {end}] is empty"),
                        "give the first id and one past the last",
                    ));
                }
                if end - first > 1 && !has_file_id(pattern) {
                    return Err(DataError::config(
                        field(),
                        format!("name {pattern:?} without {{file_id}}, but file_id_range has {} ids", end - first),
                        "put {file_id:05d} where the number stands in the file names",
                    ));
                }
                for file_id in first..end {
                    let path = format_file_id(pattern, file_id)
                        .map_err(|reason| DataError::config(field(), format!("pattern {pattern:?} {reason}"), "write {file_id:05d}"))?;
                    paths.push(path.into());
                }
            }
            None if has_file_id(pattern) => {
                return Err(DataError::config(
                    field(),
                    format!("name {pattern:?}, but the corpus has no file_id_range"),
                    "add file_id_range: [first, one past the last]",
                ));
            }
            // A file whose own name has glob characters is taken as it is.
            None if pattern.contains(['*', '?', '[']) && !Path::new(pattern).is_file() => paths.extend(globbed(field(), config, pattern)?),
            None => paths.push(pattern.into()),
        }
    }
    Ok(paths)
}

fn globbed(field: String, config: &CorpusConfig, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let matches = glob::glob(pattern)
        .map_err(|error| DataError::config(field, format!("pattern {pattern:?} is no glob: {error}"), "check its brackets and stars"))?;
    let mut paths = Vec::new();
    for path in matches {
        let path = path.map_err(|error| DataError::io(error.path().to_path_buf(), "listing a folder", error.into()))?;
        if path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(DataError::NoMatch { corpus: config.name.clone(), pattern: pattern.into() });
    }
    paths.sort();
    Ok(paths)
}

/// A hash of the ordered list: corpus, file name and size of each shard. Folders may move.
pub(crate) fn list_fingerprint(shards: &[Shard]) -> String {
    let mut hash = Sha256::new();
    for shard in shards {
        let name = shard.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        hash.update((shard.corpus as u64).to_le_bytes());
        hash.update(shard.size.to_le_bytes());
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b-00001.jsonl", "b-00000.jsonl", "c.parquet", "d.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        folder
    }

    fn corpus(folder: &tempfile::TempDir, files: &[&str], range: Option<[u64; 2]>) -> CorpusConfig {
        let files = files.iter().map(|file| folder.path().join(file).to_string_lossy().into_owned()).collect();
        CorpusConfig { file_id_range: range, ..CorpusConfig::new("b", files) }
    }

    fn names(shards: &[Shard]) -> Vec<String> {
        shards.iter().map(|shard| shard.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn ranges_and_globs_are_ordered() {
        let folder = folder();
        let range = list_shards(&[corpus(&folder, &["b-{file_id:05d}.jsonl"], Some([0, 2]))]).unwrap();
        assert_eq!(names(&range), ["b-00000.jsonl", "b-00001.jsonl"]);
        let glob = list_shards(&[corpus(&folder, &["c.parquet", "b-*.jsonl"], None)]).unwrap();
        assert_eq!(names(&glob), ["c.parquet", "b-00000.jsonl", "b-00001.jsonl"]);
        assert_eq!(glob[0].layout, Layout::Parquet);
        assert_ne!(list_fingerprint(&range), list_fingerprint(&glob));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = folder();
        let fails = |files: &[&str], range| list_shards(&[corpus(&folder, files, range)]).unwrap_err();
        assert!(
            matches!(fails(&["b-{file_id:05d}.jsonl"], Some([0, 3])), DataError::MissingShard { path, .. } if path.ends_with("b-00002.jsonl"))
        );
        assert!(matches!(fails(&["missing.jsonl"], None), DataError::MissingShard { .. }));
        assert!(matches!(fails(&["z*.jsonl"], None), DataError::NoMatch { .. }));
        assert!(matches!(fails(&["d.txt"], None), DataError::UnknownExtension { .. }));
        assert!(fails(&["b-{file_id}.jsonl"], None).to_string().contains("no file_id_range"));
        assert!(fails(&["b.jsonl"], Some([0, 2])).to_string().contains("without {file_id}"));
        assert!(fails(&["b-{file_id:05d}.jsonl"], Some([1, 1])).to_string().contains("is empty"));
        assert!(fails(&["b-*.jsonl", "b-00000.jsonl"], None).to_string().contains("twice"));
    }
}
