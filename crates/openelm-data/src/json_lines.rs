//! JSON lines, plain or in gzip (of any number of members) or zstd (of any number of frames).
//!
//! Lines end at '\n'. A blank line is no document. Lines are counted from 1, blank ones included.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::DataError;
use crate::pick_text::{Picked, pick_text};
use crate::shard::{Layout, Shard};
use crate::shard_reader::Place;

/// Bytes read from the file at a time, and bytes decompressed at a time.
const BUFFER: usize = 64 * 1024;
/// A zstd frame may ask for a window of at most 2 to this power: what `zstd --long=31` writes.
const LARGEST_WINDOW_LOG: u32 = 31;

pub(crate) struct JsonLines {
    path: PathBuf,
    key: Arc<str>,
    layout: Layout,
    input: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// Lines read so far.
    lines: u64,
}

impl JsonLines {
    pub fn open(shard: &Shard) -> Result<Self, DataError> {
        let io = |error| DataError::io(shard.path.clone(), "opening it", error);
        let file = BufReader::with_capacity(BUFFER, File::open(&shard.path).map_err(io)?);
        let input: Box<dyn BufRead + Send> = match shard.layout {
            Layout::GzipLines => Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(file))),
            Layout::ZstdLines => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(file).map_err(io)?;
                decoder.window_log_max(LARGEST_WINDOW_LOG).map_err(io)?;
                Box::new(BufReader::with_capacity(BUFFER, decoder))
            }
            Layout::Lines | Layout::Parquet => Box::new(file),
        };
        let reader =
            Self { path: shard.path.clone(), key: shard.text_key.clone(), layout: shard.layout, input, line: Vec::new(), lines: 0 };
        // An empty file is an empty list of lines, but no compressor writes zero bytes.
        if shard.size == 0 && shard.layout != Layout::Lines {
            return Err(reader.broken(Error::new(ErrorKind::UnexpectedEof, "the file is empty")));
        }
        Ok(reader)
    }

    pub fn skip(&mut self, count: u64) -> Result<(), DataError> {
        let mut left = count;
        while left > 0 && self.read_line()? {
            left -= 1;
        }
        Ok(())
    }

    pub fn next(&mut self) -> Result<Option<(String, Place)>, DataError> {
        if !self.read_line()? {
            return Ok(None);
        }
        let place = Place::Line(self.lines);
        let path = || self.path.clone();
        let line =
            std::str::from_utf8(&self.line).map_err(|error| DataError::NotUtf8 { path: path(), place, byte: error.valid_up_to() })?;
        match pick_text(line, &self.key) {
            Picked::Text(text) => Ok(Some((text, place))),
            Picked::Missing => Err(DataError::MissingKey { path: path(), line: self.lines, key: self.key.to_string() }),
            Picked::Other(found) => Err(DataError::NotText { path: path(), place, key: self.key.to_string(), found }),
            Picked::NotJson { column, reason } => Err(DataError::NotJson { path: path(), line: self.lines, column, reason }),
        }
    }

    /// Reads the next line that is not blank. False at the end.
    fn read_line(&mut self) -> Result<bool, DataError> {
        loop {
            self.line.clear();
            match self.input.read_until(b'\n', &mut self.line) {
                Ok(0) => return Ok(false),
                Ok(_) => self.lines += 1,
                Err(error) => return Err(self.broken(error)),
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn broken(&self, error: Error) -> DataError {
        // The operating system's errors have a number; a decoder's have none.
        let format = match self.layout {
            Layout::GzipLines if error.raw_os_error().is_none() => "gzip",
            Layout::ZstdLines if error.raw_os_error().is_none() => "zstd",
            _ => return DataError::io(self.path.clone(), "reading it", error),
        };
        DataError::Broken { path: self.path.clone(), format, lines: self.lines, reason: error.to_string() }
    }
}
