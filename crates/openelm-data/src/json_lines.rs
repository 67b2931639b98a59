//! JSON lines, plain or in gzip (of any number of members) or zstd (of any number of frames).
//!
//! Lines end at '\n'. A blank line is no document. Lines are counted from 1, blank ones included. A line of up to [`LINE_BYTES`]
//! is held and checked as a whole; a longer one is read in parts (`long_line.rs`).

use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::DataError;
use crate::long_line::{LongLine, LongLineError};
use crate::pick_text::{Picked, pick_text};
use crate::shard::{Layout, Shard};
use crate::shard_reader::{Mark, Place};

/// Bytes read from the file at a time, and bytes decompressed at a time.
const BUFFER: usize = 64 * 1024;
/// A zstd frame may ask for a window of at most 2 to this power: what `zstd --long=31` writes.
const LARGEST_WINDOW_LOG: u32 = 31;
/// The longest line that is held.
const LINE_BYTES: usize = 8 << 20;
/// A line's memory above this is given back.
const KEPT_BYTES: usize = 1 << 20;

pub(crate) struct JsonLines {
    path: PathBuf,
    key: Arc<str>,
    layout: Layout,
    input: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// Lines read so far, and their bytes.
    lines: u64,
    bytes: u64,
    /// The next document.
    document: u64,
    /// The line in which a text is being read.
    long: Option<LongLine>,
    /// Bytes read from the disk.
    consumed: Arc<AtomicU64>,
}

/// A file that counts what is read of it.
struct Counted(File, Arc<AtomicU64>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The text in a file of this layout.
pub(crate) fn decompressed(file: impl BufRead + Send + 'static, layout: Layout) -> std::io::Result<Box<dyn BufRead + Send>> {
    Ok(match layout {
        Layout::GzipLines => Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(file))),
        Layout::ZstdLines => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(file)?;
            decoder.window_log_max(LARGEST_WINDOW_LOG)?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        }
        Layout::Lines | Layout::Parquet => Box::new(file),
    })
}

impl JsonLines {
    /// Opens the shard at its first document, or at a mark, which only plain files have.
    pub fn open(shard: &Shard, mark: Mark) -> Result<Self, DataError> {
        let io = |error| DataError::io(shard.path.clone(), "opening it", error);
        let mut file = shard.open_file()?;
        let mark = if shard.layout == Layout::Lines && mark.bytes() > 0 { mark } else { Mark::default() };
        if mark.bytes() > 0 {
            // A mark follows a line break; where none is, the file is not the one that was marked.
            let mut before = [0];
            file.seek(SeekFrom::Start(mark.bytes() - 1)).and_then(|_| file.read_exact(&mut before)).map_err(io)?;
            if before != *b"\n" {
                return Err(DataError::resume(
                    format!("no line of {} begins at byte {}", shard.source, mark.bytes()),
                    "resume with the shards that the run was started with",
                ));
            }
        }
        let consumed = Arc::new(AtomicU64::new(mark.bytes()));
        let file = BufReader::with_capacity(BUFFER, Counted(file, consumed.clone()));
        let input = decompressed(file, shard.layout).map_err(io)?;
        let reader = Self {
            path: shard.path.clone(),
            key: shard.text_key.clone(),
            layout: shard.layout,
            input,
            line: Vec::new(),
            lines: mark.lines(),
            bytes: mark.bytes(),
            document: mark.documents(),
            long: None,
            consumed,
        };
        // An empty file is an empty list of lines, but no compressor writes zero bytes.
        if shard.size == 0 && shard.layout != Layout::Lines {
            return Err(reader.broken(Error::new(ErrorKind::UnexpectedEof, "the file is empty")));
        }
        Ok(reader)
    }

    /// The number of the document that is given next.
    pub fn document(&self) -> u64 {
        self.document
    }

    /// Where reading can begin again.
    pub fn mark(&self) -> Mark {
        Mark::new(self.document, self.lines, if self.layout == Layout::Lines { self.bytes } else { 0 })
    }

    /// Bytes of the file that were read from the disk so far.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    pub fn skip(&mut self, count: u64) -> Result<(), DataError> {
        self.pass_line()?;
        let mut left = count;
        while left > 0 {
            match self.pass_short_line()? {
                None => break,
                Some(document) => {
                    left -= u64::from(document);
                    self.document += u64::from(document);
                }
            }
        }
        Ok(())
    }

    /// The next text, or its first part: then the flag is false and `more` gives the rest.
    pub fn next(&mut self) -> Result<Option<(String, Place, bool)>, DataError> {
        self.pass_line()?;
        loop {
            self.line.clear();
            self.line.shrink_to(KEPT_BYTES);
            let read = (&mut self.input).take(LINE_BYTES as u64).read_until(b'\n', &mut self.line);
            match read {
                Ok(0) => return Ok(None),
                Ok(_) => self.lines += 1,
                Err(error) => return Err(self.broken(error)),
            }
            if self.line.len() == LINE_BYTES && self.line.last() != Some(&b'\n') {
                self.document += 1;
                self.long = Some(LongLine::new(std::mem::take(&mut self.line)));
                return self.more().map(|(text, last)| Some((text, Place::Line(self.lines), last)));
            }
            self.bytes += self.line.len() as u64;
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        self.document += 1;
        let place = Place::Line(self.lines);
        let path = || self.path.clone();
        let not_utf8 = |error: std::str::Utf8Error| DataError::NotUtf8 { path: path(), place, byte: error.valid_up_to(), undecoded: false };
        let line = std::str::from_utf8(&self.line).map_err(not_utf8)?;
        match pick_text(line, &self.key) {
            Picked::Text(text) => Ok(Some((text, place, true))),
            Picked::Missing => Err(DataError::MissingKey { path: path(), line: self.lines, key: self.key.to_string() }),
            Picked::Other(found) => Err(DataError::NotText { path: path(), place, key: self.key.to_string(), found }),
            Picked::NotJson { column, reason } => Err(DataError::NotJson { path: path(), line: self.lines, column, reason }),
        }
    }

    /// The next part of a long text, and whether it is the last one.
    pub fn more(&mut self) -> Result<(String, bool), DataError> {
        let Some(long) = &mut self.long else { return Ok((String::new(), true)) };
        let line = self.lines;
        let error = match long.next_part(&mut *self.input, &self.key) {
            Ok((text, last)) => {
                if last {
                    self.bytes += long.bytes;
                    self.long = None;
                }
                return Ok((text, last));
            }
            Err(error) => error,
        };
        let (path, key) = (self.path.clone(), self.key.to_string());
        Err(match error {
            LongLineError::Io(error) => self.broken(error),
            LongLineError::NotJson(column, reason) => DataError::NotJson { path, line, column: column as usize, reason: reason.into() },
            LongLineError::NotUtf8(byte) => DataError::NotUtf8 { path, place: Place::Line(line), byte, undecoded: false },
            LongLineError::MissingKey => DataError::MissingKey { path, line, key },
            LongLineError::NotText(found) => DataError::NotText { path, place: Place::Line(line), key, found },
        })
    }

    /// Passes over what is left of a long line.
    pub fn pass_line(&mut self) -> Result<(), DataError> {
        let Some(mut long) = self.long.take() else { return Ok(()) };
        long.pass(&mut *self.input).map_err(|error| self.broken(error))?;
        self.bytes += long.bytes;
        Ok(())
    }

    /// Passes over a line without holding it; whether it was a document. `None` at the end.
    fn pass_short_line(&mut self) -> Result<Option<bool>, DataError> {
        let (mut document, mut read) = (false, false);
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(error)),
            };
            if chunk.is_empty() {
                self.lines += u64::from(read);
                return Ok(read.then_some(document));
            }
            read = true;
            let end = memchr::memchr(b'\n', chunk);
            let length = end.map_or(chunk.len(), |at| at + 1);
            document = document || !chunk[..length].trim_ascii().is_empty();
            self.input.consume(length);
            self.bytes += length as u64;
            if end.is_some() {
                self.lines += 1;
                return Ok(Some(document));
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
