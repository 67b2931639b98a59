//! Reads the texts of shards in the four layouts, whole, for tests and for timing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use arrow_array::{Array, StringArray, cast::AsArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// The folder of reference files; `None`, with a line that says so, when this checkout has none.
#[allow(dead_code)]
pub fn shared() -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    if path.is_dir() {
        return Some(path.to_owned());
    }
    assert!(std::env::var_os("OPENELM_REQUIRE_REFERENCE").is_none(), "{} is missing", path.display());
    println!("skipped: {} is not there", path.display());
    None
}

/// All texts of a shard: its text or content, or else the content of each message.
pub fn texts(path: &Path) -> Vec<String> {
    let file = BufReader::new(File::open(path).unwrap());
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => parquet(path),
        Some("gz") => lines(flate2::bufread::MultiGzDecoder::new(file)),
        Some("zst") => lines(zstd::Decoder::new(file).unwrap()),
        _ => lines(file),
    }
}

fn lines(reader: impl Read) -> Vec<String> {
    let mut texts = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let row: Value = serde_json::from_slice(&line.unwrap()).unwrap();
        match row["text"].as_str() {
            Some(text) => texts.push(text.to_owned()),
            None => {
                let messages = ["messages", "chosen", "rejected"].iter().filter_map(|key| row[key].as_array()).flatten();
                texts.extend(messages.map(|message| message["content"].as_str().unwrap().to_owned()));
            }
        }
    }
    texts
}

fn parquet(path: &Path) -> Vec<String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = builder.parquet_schema();
    let column = schema.columns().iter().map(|column| column.name()).find(|name| ["text", "content"].contains(name)).unwrap().to_owned();
    let mask = ProjectionMask::columns(schema, [column.as_str()]);
    let mut texts = Vec::new();
    for batch in builder.with_projection(mask).build().unwrap() {
        let batch = batch.unwrap();
        let rows: &StringArray = batch.column(0).as_string();
        texts.extend((0..rows.len()).map(|row| rows.value(row).to_owned()));
    }
    texts
}
