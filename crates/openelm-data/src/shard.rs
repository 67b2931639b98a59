//! The list of shards that a configuration names, in a fixed order.
//!
//! Order: corpora as configured; in each, patterns as configured, each pattern expanded by its id range, or by a glob sorted
//! by path. Every listed shard existed, with a known extension, when the list was made. A URL stands where a path may.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::config::{CorpusConfig, ObjectStoreConfig, check_corpora};
use crate::error::DataError;
use crate::object::{Location, RemoteShard, Stores, is_url, local_path};
use crate::python_format::{format_file_id, has_file_id};

/// One file of a corpus.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    /// Of an object its URL.
    pub path: PathBuf,
    /// The path as text, shared by everything that came from this shard.
    pub source: Arc<str>,
    /// Index into the configuration's corpora.
    pub corpus: usize,
    pub corpus_name: Arc<str>,
    pub text_key: Arc<str>,
    pub layout: Layout,
    /// Bytes on disk, or of the object.
    pub size: u64,
    /// Where the shard is an object.
    pub remote: Option<Arc<RemoteShard>>,
}

impl Shard {
    /// Opens the shard as a file of this machine; an object is fetched first, unless a copy is there.
    pub fn open_file(&self) -> Result<File, DataError> {
        match &self.remote {
            Some(remote) => remote.open(),
            None => File::open(&self.path).map_err(|error| DataError::io(self.path.clone(), "opening it", error)),
        }
    }

    /// Has an object fetched in the background.
    pub fn fetch_ahead(&self) {
        if let Some(remote) = &self.remote {
            remote.fetch_ahead();
        }
    }
}

/// What a pattern came to, before it is looked up.
enum Named {
    File(PathBuf),
    Object(Location),
    /// Listed by its store, so that nothing is left to ask.
    Known(Arc<RemoteShard>),
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
pub(crate) fn list_shards(corpora: &[CorpusConfig], object_store: &ObjectStoreConfig) -> Result<Vec<Shard>, DataError> {
    list_with(corpora, &mut Stores::new(object_store))
}

pub(crate) fn list_with(corpora: &[CorpusConfig], stores: &mut Stores) -> Result<Vec<Shard>, DataError> {
    check_corpora(corpora)?;
    let mut shards = Vec::new();
    for (corpus, config) in corpora.iter().enumerate() {
        let corpus_name: Arc<str> = config.name.as_str().into();
        let text_key: Arc<str> = config.text_key.as_str().into();
        let mut seen = HashSet::new();
        for (path, size, remote) in looked_up(corpus, config, stores)? {
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
                size,
                remote,
            });
        }
    }
    Ok(shards)
}

/// Paths and URLs of a corpus with their sizes. Objects that are named one by one are asked for together.
type LookedUp = (PathBuf, u64, Option<Arc<RemoteShard>>);

fn looked_up(corpus: usize, config: &CorpusConfig, stores: &mut Stores) -> Result<Vec<LookedUp>, DataError> {
    let named = named(corpus, config, stores)?;
    let asked: Vec<Location> =
        named.iter().filter_map(|name| if let Named::Object(location) = name { Some(location.clone()) } else { None }).collect();
    let mut answers = if asked.is_empty() { Vec::new() } else { stores.named(&asked)? }.into_iter();
    let mut found = Vec::with_capacity(named.len());
    for name in named {
        let remote = match name {
            Named::File(path) => {
                let size = file_size(corpus, config, &path)?;
                found.push((path, size, None));
                continue;
            }
            Named::Known(remote) => Some(remote),
            Named::Object(_) => answers.next(),
        };
        found.extend(remote.map(|remote| (remote.url().into(), remote.size(), Some(remote))));
    }
    Ok(found)
}

fn file_size(corpus: usize, config: &CorpusConfig, path: &Path) -> Result<u64, DataError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
        Ok(_) => Err(DataError::config(
            format!("corpora[{corpus}] ({}).files", config.name),
            format!("names {}, which is not a file", path.display()),
            "name files, for example folder/*.jsonl",
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(DataError::MissingShard { corpus: config.name.clone(), path: path.to_owned() })
        }
        Err(error) => Err(DataError::io(path, "looking it up", error)),
    }
}

fn named(corpus: usize, config: &CorpusConfig, stores: &mut Stores) -> Result<Vec<Named>, DataError> {
    let field = || format!("corpora[{corpus}] ({}).files", config.name);
    let mut names = Vec::new();
    for pattern in &config.files {
        let pattern = local_path(pattern)?;
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
                    names.push(one(path)?);
                }
            }
            None if has_file_id(pattern) => {
                return Err(DataError::config(
                    field(),
                    format!("name {pattern:?}, but the corpus has no file_id_range"),
                    "add file_id_range: [first, one past the last]",
                ));
            }
            None if is_url(pattern) && Location::parse(pattern)?.is_glob() => {
                let matches = stores.matching(&Location::parse(pattern)?)?;
                if matches.is_empty() {
                    return Err(DataError::NoMatch { corpus: config.name.clone(), pattern: pattern.into() });
                }
                names.extend(matches.into_iter().map(Named::Known));
            }
            // A file whose own name has glob characters is taken as it is.
            None if pattern.contains(['*', '?', '[']) && !Path::new(pattern).is_file() => {
                names.extend(globbed(field(), config, pattern)?.into_iter().map(Named::File));
            }
            None => names.push(one(pattern.to_owned())?),
        }
    }
    Ok(names)
}

fn one(name: String) -> Result<Named, DataError> {
    Ok(if is_url(&name) { Named::Object(Location::parse(&name)?) } else { Named::File(name.into()) })
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

/// A hash of the ordered list: corpus, file name and size of each shard, and of an object the version. Folders may move.
pub(crate) fn list_fingerprint(shards: &[Shard]) -> String {
    let mut hash = Sha256::new();
    for shard in shards {
        let name = shard.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        hash.update((shard.corpus as u64).to_le_bytes());
        hash.update(shard.size.to_le_bytes());
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        if let Some(remote) = &shard.remote {
            hash.update((remote.version().len() as u64).to_le_bytes());
            hash.update(remote.version());
        }
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(corpora: &[CorpusConfig]) -> Result<Vec<Shard>, DataError> {
        list_shards(corpora, &ObjectStoreConfig::default())
    }

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
        let range = list(&[corpus(&folder, &["b-{file_id:05d}.jsonl"], Some([0, 2]))]).unwrap();
        assert_eq!(names(&range), ["b-00000.jsonl", "b-00001.jsonl"]);
        let glob = list(&[corpus(&folder, &["c.parquet", "b-*.jsonl"], None)]).unwrap();
        let mut urls = corpus(&folder, &["c.parquet", "b-*.jsonl"], None);
        urls.files.iter_mut().for_each(|file| file.insert_str(0, "file://"));
        assert_eq!(list_fingerprint(&list(&[urls]).unwrap()), list_fingerprint(&glob));
        assert_eq!(names(&glob), ["c.parquet", "b-00000.jsonl", "b-00001.jsonl"]);
        assert_eq!(glob[0].layout, Layout::Parquet);
        assert_ne!(list_fingerprint(&range), list_fingerprint(&glob));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = folder();
        let fails = |files: &[&str], range| list(&[corpus(&folder, files, range)]).unwrap_err();
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
