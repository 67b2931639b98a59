//! Shards in a folder of their own, for tests of everything above the readers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use crate::config::{CorpusConfig, DataConfig};

pub(crate) const LAYOUTS: [&str; 4] = ["jsonl", "json.gz", "jsonl.zst", "parquet"];

/// A folder that goes away with the test.
pub(crate) struct Shards {
    pub folder: TempDir,
}

impl Shards {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Writes texts in a layout; row groups of a parquet file have three rows.
    pub fn write(&self, name: &str, layout: &str, texts: &[String]) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.{layout}"));
        std::fs::write(&path, bytes(layout, texts)).unwrap();
        path
    }

    pub fn config(&self, corpora: &[(&str, f64)], length: usize) -> DataConfig {
        let corpus = |(name, weight): &(&str, f64)| {
            let pattern = self.folder.path().join(format!("{name}-*")).to_string_lossy().into_owned();
            CorpusConfig { weight: *weight, ..CorpusConfig::new(*name, vec![pattern]) }
        };
        DataConfig::new(corpora.iter().map(corpus).collect(), length)
    }
}

pub(crate) fn lines(texts: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        writeln!(out, "{}", serde_json::json!({"id": number, "text": text, "meta": {"text": [1, "}"]}})).unwrap();
    }
    out
}

pub(crate) fn bytes(layout: &str, texts: &[String]) -> Vec<u8> {
    match layout {
        "jsonl" => lines(texts),
        "json.gz" => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&lines(texts)).unwrap();
            gzip.finish().unwrap()
        }
        "jsonl.zst" => zstd::encode_all(&*lines(texts), 1).unwrap(),
        _ => parquet(texts),
    }
}

fn parquet(texts: &[String]) -> Vec<u8> {
    let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(3)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// All files below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}
