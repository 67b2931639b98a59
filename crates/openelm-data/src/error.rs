//! Everything that can go wrong between a shard and a batch.
//!
//! A message names the file, the place in it, the reason and a remedy, and never holds text of a document.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::shard_reader::Place;

/// The place of what a parquet file says about itself.
pub(crate) const FOOTER: &str = "footer";

/// Why texts could not be read, or a loader not be opened or resumed.
#[derive(Debug, Error)]
pub enum DataError {
    /// A value of the configuration.
    #[error("data.{field} {reason}\nhint: {hint}")]
    Config { field: String, reason: String, hint: String },
    /// A glob without a match.
    #[error(
        "corpus {corpus}: no file matches {pattern}\nhint: check the folder and the pattern; relative paths start at the current folder"
    )]
    NoMatch { corpus: String, pattern: String },
    /// A named shard that is not there.
    #[error("corpus {corpus}: shard {path} does not exist\nhint: check the path and the file_id_range, or download the shard", path = path.display())]
    MissingShard { corpus: String, path: PathBuf },
    /// A shard whose name says nothing known about its layout.
    #[error("shard {path} has an unknown extension\nhint: use .parquet, .jsonl, .json, .gz (gzip JSON lines) or .zst (zstd JSON lines)", path = path.display())]
    UnknownExtension { path: PathBuf },
    /// The operating system refused.
    #[error("shard {path}: {action} failed: {source}\nhint: {hint}", path = path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error, hint: &'static str },
    /// A compressed stream that ends early or is damaged.
    #[error("shard {path}: the {format} stream breaks after line {lines}: {reason}\nhint: the file is truncated or damaged; fetch it again and compare its size", path = path.display())]
    Broken { path: PathBuf, format: &'static str, lines: u64, reason: String },
    /// A line that is not one JSON object.
    #[error("shard {path}, line {line}, column {column}: not a JSON object: {reason}\nhint: each line must hold one JSON object; a cut last line means a truncated file", path = path.display())]
    NotJson { path: PathBuf, line: u64, column: usize, reason: String },
    /// An object without the text key.
    #[error("shard {path}, line {line}: the object has no key {key:?}\nhint: set the corpus's text_key to the key that holds the text", path = path.display())]
    MissingKey { path: PathBuf, line: u64, key: String },
    /// A text key that holds something else, or a null cell.
    #[error("shard {path}, {place}: {key:?} is {found}, not a string\nhint: set the corpus's text_key to a key whose values are all strings", path = path.display())]
    NotText { path: PathBuf, place: Place, key: String, found: &'static str },
    /// Bytes that are not UTF-8.
    #[error("shard {path}, {place}: not UTF-8 (at byte {byte} of it)\nhint: convert the file to UTF-8", path = path.display())]
    NotUtf8 {
        path: PathBuf,
        place: Place,
        byte: usize,
        /// The decoder refused it, so that nothing after it in the row group can be read.
        undecoded: bool,
    },
    /// A parquet file that does not decode.
    #[error("shard {path}, {place}: {reason}\nhint: the file is truncated, damaged or not parquet; fetch it again and compare its size", path = path.display())]
    Parquet { path: PathBuf, place: String, reason: String },
    /// A parquet file without the text column.
    #[error("shard {path} has no column {column:?}; it has {columns}\nhint: set the corpus's text_key to one of these", path = path.display())]
    NoColumn { path: PathBuf, column: String, columns: String },
    /// A text column of another type.
    #[error("shard {path}: column {column:?} is {found}, not text\nhint: set the corpus's text_key to a column of strings", path = path.display())]
    ColumnType { path: PathBuf, column: String, found: String },
    /// A corpus that the filters leave nothing of.
    #[error(
        "corpus {corpus} is empty after filters: {files} shards, {texts} texts, {short_characters} with too few characters, {short_tokens} with too few tokens, {kept} kept\nhint: lower min_characters_per_text and min_tokens_per_text, or take the corpus out"
    )]
    EmptyCorpus { corpus: String, files: usize, texts: u64, short_characters: u64, short_tokens: u64, kept: u64 },
    /// A corpus that would be repeated more often than its configuration allows.
    #[error(
        "corpus {corpus}: lane {lane} has read its share {epochs} times, which is corpora.max_epochs\nhint: raise max_epochs, lower the corpus's weight, train for fewer steps, or add files (openelm data plan shows the passes a run needs)"
    )]
    Repeated { corpus: String, lane: usize, epochs: u64 },
    /// Skipped records that cannot be noted.
    #[error("{path}: noting a skipped record failed: {source}\nhint: check the free space and the permissions of the folder", path = path.display())]
    SkipLog { path: PathBuf, source: io::Error },
    /// Ranks and lanes that do not fit.
    #[error("{reason}\nhint: {hint}")]
    Ranks { reason: String, hint: String },
    /// A state of another run.
    #[error("the data cannot be resumed: {differs}\nhint: {hint}")]
    Resume { differs: String, hint: String },
    /// An object store or web server that does not give what is asked for.
    #[error("{url}: {action} failed: {reason}\nhint: {hint}")]
    Object { url: String, action: &'static str, reason: String, hint: String },
    /// The folder of local copies of objects.
    #[error("object cache {folder}: {reason}\nhint: {hint}", folder = folder.display())]
    ObjectCache { folder: PathBuf, reason: String, hint: &'static str },
    /// A background thread that could not be made or that died.
    #[error("background reading stopped: {reason}\nhint: {hint}")]
    Background { reason: String, hint: String },
}

/// How much is lost with a bad record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Record,
    /// The rest of the row group.
    Group,
    /// The rest of the shard.
    Shard,
}

impl DataError {
    /// Where a bad record stands, what is wrong with it, and what is lost with it; `None` for errors that no skipping helps.
    pub(crate) fn bad_record(&self) -> Option<(String, String, Loss)> {
        Some(match self {
            Self::NotJson { line, column, reason, .. } => {
                (Place::Line(*line).to_string(), format!("not a JSON object: {reason} (column {column})"), Loss::Record)
            }
            Self::MissingKey { line, key, .. } => (Place::Line(*line).to_string(), format!("no key {key:?}"), Loss::Record),
            Self::NotText { place, key, found, .. } => (place.to_string(), format!("{key:?} is {found}"), Loss::Record),
            Self::NotUtf8 { place, byte, undecoded, .. } => {
                (place.to_string(), format!("not UTF-8 (byte {byte})"), if *undecoded { Loss::Group } else { Loss::Record })
            }
            Self::Parquet { place, reason, .. } if place == FOOTER => (place.clone(), reason.clone(), Loss::Shard),
            Self::Parquet { place, reason, .. } => (place.clone(), format!("{reason}; the rest of the row group is lost"), Loss::Group),
            Self::Broken { format, lines, reason, .. } => {
                (format!("after line {lines}"), format!("the {format} stream breaks: {reason}; the rest of the shard is lost"), Loss::Shard)
            }
            _ => return None,
        })
    }

    pub(crate) fn config(field: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Config { field: field.into(), reason: reason.into(), hint: hint.into() }
    }

    pub(crate) fn resume(differs: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Resume { differs: differs.into(), hint: hint.into() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, action: &'static str, source: io::Error) -> Self {
        // 23 and 24 are ENFILE and EMFILE on every Unix.
        let hint = match (source.kind(), source.raw_os_error()) {
            (_, Some(23 | 24)) => {
                "too many files are open: raise the limit (ulimit -n) or lower data.lanes; each lane keeps one shard of every corpus open"
            }
            (io::ErrorKind::PermissionDenied, _) => "make the file readable",
            _ => "check the disk and the file",
        };
        Self::Io { path: path.into(), action, source, hint }
    }
}
