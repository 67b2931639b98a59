//! Notes of records that were passed over: file, place and reason, never text.
//!
//! Each record is noted once, however many lanes and epochs meet it, and once in the file even over several runs. Notes made
//! before a file is attached wait in memory, because a loader starts reading before its run has a folder.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// A record that was passed over.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct SkippedRecord {
    /// Path of the shard.
    pub file: String,
    /// Line, row or where else in it.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
}

/// Collects the records that are passed over. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct SkipLog(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// File and place of all that were noted.
    seen: HashSet<(String, String)>,
    records: Vec<SkippedRecord>,
    file: Option<(PathBuf, File)>,
    new: u64,
}

impl SkipLog {
    /// A log in memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what was noted, and what will be, to a file of JSON lines. What stands in the file already is not noted again.
    /// The file is made with the first note.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn attach(&self, path: &Path) -> Result<(), DataError> {
        let failed = |source| DataError::SkipLog { path: path.to_owned(), source };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    // A last line that a crash has cut is noted again.
                    if let Ok(record) = serde_json::from_str::<SkippedRecord>(&line.map_err(failed)?) {
                        inner.records.retain(|waiting| (&waiting.file, &waiting.place) != (&record.file, &record.place));
                        inner.seen.insert((record.file, record.place));
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        inner.file = Some((path.to_owned(), file));
        let waiting = std::mem::take(&mut inner.records);
        waiting.iter().try_for_each(|record| inner.write(record))
    }

    /// Notes one record; nothing happens when it was noted before.
    pub(crate) fn note(&self, file: &str, place: String, reason: String) -> Result<(), DataError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.seen.insert((file.to_owned(), place.clone())) {
            return Ok(());
        }
        inner.new += 1;
        let record = SkippedRecord { file: file.to_owned(), place, reason };
        if inner.file.is_some() {
            return inner.write(&record);
        }
        inner.records.push(record);
        Ok(())
    }

    /// Records noted by this process.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).new
    }

    /// What was noted and is in no file.
    pub fn records(&self) -> Vec<SkippedRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).records.clone()
    }
}

impl Inner {
    fn write(&mut self, record: &SkippedRecord) -> Result<(), DataError> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(record).unwrap_or_default();
        line.push(b'\n');
        // One call a line, so that lines of several processes do not mix.
        file.write_all(&line).map_err(|source| DataError::SkipLog { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_once_over_two_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skipped.jsonl");
        let first = SkipLog::new();
        first.note("a", "line 1".into(), "x".into()).unwrap();
        first.attach(&path).unwrap();
        first.note("a", "line 1".into(), "x".into()).unwrap();
        first.note("a", "line 2".into(), "y".into()).unwrap();
        let second = SkipLog::new();
        second.note("a", "line 2".into(), "y".into()).unwrap();
        second.note("b", "line 2".into(), "y".into()).unwrap();
        second.attach(&path).unwrap();
        assert_eq!((first.count(), second.records().len()), (2, 0));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.starts_with("{\"file\":\"a\",\"place\":\"line 1\",\"reason\":\"x\"}\n"));
    }
}
