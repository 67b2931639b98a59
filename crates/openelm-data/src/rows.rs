//! Whole rows as JSON objects, from JSON lines, a JSON array or a parquet file with nested columns: what conversations come in.
//!
//! What must stay true: rows come in the order of the files; a row that is no object is an error with its place. Files of
//! conversations are small beside corpora, so a JSON array is held whole.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::{CorpusConfig, ObjectStoreConfig};
use crate::error::DataError;
use crate::json_lines::decompressed;
use crate::parquet_values::read_parquet;
use crate::shard::{Layout, Shard, list_shards};
use crate::shard_reader::Place;

/// The longest line or array that is held.
const LARGEST: u64 = 4 << 30;

/// One row and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub fields: Map<String, Value>,
    pub place: Place,
}

/// Gives `each` every row of the files that the patterns name (paths and globs), with the path of its file.
///
/// # Errors
/// When a pattern names nothing, a file does not read, a row is no JSON object, or `each` fails.
pub fn read_rows<E: From<DataError>>(name: &str, patterns: &[String], mut each: impl FnMut(&Path, Row) -> Result<(), E>) -> Result<(), E> {
    for shard in list_shards(&[CorpusConfig::new(name, patterns.to_vec())], &ObjectStoreConfig::default())? {
        let each = |row: Row| each(&shard.path, row);
        match shard.layout {
            Layout::Parquet => read_parquet(&shard.path, shard.open_file()?, each)?,
            Layout::Lines | Layout::GzipLines | Layout::ZstdLines => read_json(&shard, each)?,
        }
    }
    Ok(())
}

fn read_json<E: From<DataError>>(shard: &Shard, mut each: impl FnMut(Row) -> Result<(), E>) -> Result<(), E> {
    let io = |error| DataError::io(shard.path.clone(), "reading it", error);
    let file = shard.open_file()?;
    let mut input = decompressed(BufReader::new(file), shard.layout).map_err(io)?;
    let (mut line, mut number, mut begun) = (Vec::new(), 0, false);
    loop {
        line.clear();
        let read = (&mut input).take(LARGEST).read_until(b'\n', &mut line).map_err(|error| broken(shard, number, error))?;
        if read == 0 {
            return Ok(());
        }
        number += 1;
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if !begun && text.starts_with(b"[") {
            input.take(LARGEST).read_to_end(&mut line).map_err(|error| broken(shard, number, error))?;
            return read_array(shard, &line, number, each);
        }
        begun = true;
        let fields = serde_json::from_slice(text).map_err(|error| not_json(shard, number, &error))?;
        each(Row { fields, place: Place::Line(number) })?;
    }
}

fn read_array<E: From<DataError>>(
    shard: &Shard,
    text: &[u8],
    first_line: u64,
    mut each: impl FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    let rows: Vec<Map<String, Value>> =
        serde_json::from_slice(text).map_err(|error| not_json(shard, first_line - 1 + error.line() as u64, &error))?;
    for (number, fields) in (1..).zip(rows) {
        each(Row { fields, place: Place::Element(number) })?;
    }
    Ok(())
}

/// The error of a text that is no JSON object; serde_json's message can quote the text, so only its kind is given.
fn not_json(shard: &Shard, line: u64, error: &serde_json::Error) -> DataError {
    use serde_json::error::Category;
    let reason = match error.classify() {
        Category::Eof => "it ends inside the object",
        Category::Syntax => "wrong syntax",
        Category::Data | Category::Io => "it holds something else",
    };
    DataError::NotJson { path: shard.path.clone(), line, column: error.column(), reason: reason.into() }
}

fn broken(shard: &Shard, lines: u64, error: std::io::Error) -> DataError {
    let format = match shard.layout {
        Layout::GzipLines if error.raw_os_error().is_none() => "gzip",
        Layout::ZstdLines if error.raw_os_error().is_none() => "zstd",
        _ => return DataError::io(shard.path.clone(), "reading it", error),
    };
    DataError::Broken { path: shard.path.clone(), format, lines, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, content: &str) -> Result<Vec<(String, String)>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut found = Vec::new();
        read_rows("rows", &[path.to_string_lossy().into_owned()], |_, row| {
            found.push((row.place.to_string(), Value::Object(row.fields).to_string()));
            Ok::<_, DataError>(())
        })?;
        Ok(found)
    }

    #[test]
    fn lines_and_arrays_are_read() {
        let expected = |one: &str, two: &str| vec![(one.to_owned(), r#"{"b":[1],"a":null}"#.to_owned()), (two.to_owned(), "{}".to_owned())];
        assert_eq!(rows("x.jsonl", "{\"b\": [1], \"a\": null}\n\n{}").unwrap(), expected("line 1", "line 3"));
        assert_eq!(rows("x.json", "\n[{\"b\": [1],\n \"a\": null}, {}]\n").unwrap(), expected("element 1", "element 2"));
        assert_eq!(rows("x.json", "").unwrap(), []);
    }

    #[test]
    fn what_is_no_object_is_named() {
        for (content, place) in [("{}\n{\"a\": secret}\n", "line 2"), ("{}\n[1]\n", "line 2"), ("[{},\n3]", "line 2"), ("[{}", "line 1")] {
            let message = rows("x.jsonl", content).unwrap_err().to_string();
            assert!(message.contains(place) && message.contains("not a JSON object") && !message.contains("secret"), "{message}");
        }
        assert!(rows("x.jsonl.gz", "no gzip").unwrap_err().to_string().contains("gzip stream breaks"));
        assert!(rows("x.txt", "").unwrap_err().to_string().contains("extension"));
    }
}
