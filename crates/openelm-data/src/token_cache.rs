//! Tokens of shards, kept in files of a folder.
//!
//! A file holds the documents of one shard that one lane takes, or all. Its name is a digest of everything that its content
//! depends on: tokenizer, filters, text key, the shard (size, time of change, samples of its bytes) and the share. It is written
//! beside its place and renamed when it is complete, so a file that is there is whole; each record has a checksum, which is
//! tested when the record is read.
//!
//! Layout, little-endian: records, one a part of a document (tokens u32, flags u32, checksum u64, then ids of 2 or 4 bytes); the
//! offset u64 of every 64th document's first record; a trailer (`Trailer`). A document without a record of tokens was filtered.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::encoder::TextEncoder;
use crate::error::DataError;
use crate::part::PART_BYTES;
use crate::shard::Shard;

const MAGIC: u64 = u64::from_le_bytes(*b"OELMtok1");
/// Documents from one entry of the index to the next.
const INDEXED: u64 = 64;
const HEADER_BYTES: usize = 16;
const TRAILER_BYTES: usize = 48;
/// Parts of a shard that its digest samples, and their length.
const SAMPLES: u64 = 16;
const SAMPLE_BYTES: u64 = 4096;
/// Flags of a record: the last part of its document; ids of 4 bytes.
const LAST: u32 = 1;
const WIDE: u32 = 2;

/// A folder of token files.
#[derive(Clone, Debug)]
pub(crate) struct TokenCache(PathBuf);

/// The place of one share of a shard in the cache.
#[derive(Clone, Debug)]
pub(crate) struct CacheKey {
    path: PathBuf,
    /// Part of the digest, repeated in the file.
    mark: u64,
}

/// What a read of the cache came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CachedPart {
    Kept { last: bool },
    Filtered,
    End,
}

impl TokenCache {
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The file for the documents `first`, `first + stride`, ... of a shard.
    pub fn key(&self, shard: &Shard, encoder: &TextEncoder, first: u64, stride: u64) -> Result<CacheKey, DataError> {
        let mut hash = Sha256::new();
        let described = encoder.describe();
        for text in [&*described, &*shard.text_key] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        for number in [MAGIC, PART_BYTES as u64, first, stride] {
            hash.update(number.to_le_bytes());
        }
        identify(shard, &mut hash)?;
        let digest = hash.finalize();
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let mark = digest.iter().skip(16).take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte));
        Ok(CacheKey { path: self.0.join(&name[..2]).join(format!("{name}.tokens")), mark })
    }

    /// Whether a complete file is there, its records unchecked.
    pub fn holds(&self, key: &CacheKey) -> Result<bool, DataError> {
        Ok(self.open(key)?.is_some())
    }

    /// Opens the file if it is there; one with a damaged trailer is removed.
    pub fn open(&self, key: &CacheKey) -> Result<Option<TokenReader>, DataError> {
        let file = match File::open(&key.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataError::io(key.path.clone(), "opening it", error)),
        };
        let reader = TokenReader::new(file, key);
        if reader.is_none() {
            remove(&key.path);
        }
        Ok(reader)
    }

    /// Begins the file.
    pub fn create(&self, key: &CacheKey) -> Result<TokenWriter, DataError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let folder = key.path.parent().unwrap_or(&self.0);
        fs::create_dir_all(folder).map_err(|error| DataError::io(folder, "making the folder", error))?;
        let aside = folder.join(format!(".{}-{}.part", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        let file = File::create_new(&aside).map_err(|error| DataError::io(aside.clone(), "making it", error))?;
        Ok(TokenWriter {
            file: Some(BufWriter::new(file)),
            aside,
            key: key.clone(),
            bytes: 0,
            documents: 0,
            tokens: 0,
            index: Vec::new(),
            inside: false,
        })
    }
}

/// Mixes in what tells a shard's content from any other's. An object is not read for it.
fn identify(shard: &Shard, hash: &mut Sha256) -> Result<(), DataError> {
    if let Some(remote) = &shard.remote {
        hash.update(remote.size().to_le_bytes());
        for text in [remote.url(), remote.version()] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        return Ok(());
    }
    let io = |error| DataError::io(shard.path.clone(), "reading it", error);
    let mut file = shard.open_file()?;
    let metadata = file.metadata().map_err(io)?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_nanos());
    let size = metadata.len();
    for number in [size, changed as u64] {
        hash.update(number.to_le_bytes());
    }
    for sample in 0..SAMPLES {
        let at = size.saturating_sub(SAMPLE_BYTES) / (SAMPLES - 1) * sample;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at)).and_then(|_| (&mut file).take(SAMPLE_BYTES).read_to_end(&mut bytes)).map_err(io)?;
        hash.update(&bytes);
    }
    Ok(())
}

fn remove(path: &Path) {
    // A file that cannot be removed is found damaged again next time; nothing is read from it.
    let _ = fs::remove_file(path);
}

/// FNV-1a over words.
fn checksum(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23))
}

fn record_checksum(document: u64, part: u64, flags: u32, ids: &[u32]) -> u64 {
    checksum([document, part, u64::from(flags), ids.len() as u64].into_iter().chain(ids.iter().map(|id| u64::from(*id))))
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// A file being written; dropped before `finish`, it leaves nothing.
pub(crate) struct TokenWriter {
    file: Option<BufWriter<File>>,
    aside: PathBuf,
    key: CacheKey,
    bytes: u64,
    documents: u64,
    tokens: u64,
    index: Vec<u64>,
    /// A document has been begun and not ended.
    inside: bool,
}

impl TokenWriter {
    /// Adds a part of a document; a filtered one has no ids.
    pub fn write(&mut self, part: u64, last: bool, ids: &[u32]) -> Result<(), DataError> {
        if !self.inside && self.documents.is_multiple_of(INDEXED) {
            self.index.push(self.bytes);
        }
        let wide = ids.iter().any(|id| *id > u32::from(u16::MAX));
        let flags = if last { LAST } else { 0 } | if wide { WIDE } else { 0 };
        let mut record = Vec::with_capacity(HEADER_BYTES + ids.len() * 4);
        record.extend((ids.len() as u32).to_le_bytes());
        record.extend(flags.to_le_bytes());
        record.extend(record_checksum(self.documents, part, flags, ids).to_le_bytes());
        if wide {
            ids.iter().for_each(|id| record.extend(id.to_le_bytes()));
        } else {
            ids.iter().for_each(|id| record.extend((*id as u16).to_le_bytes()));
        }
        self.put(&record)?;
        self.tokens += ids.len() as u64;
        self.inside = !last;
        self.documents += u64::from(last);
        Ok(())
    }

    /// Puts the file in its place.
    pub fn finish(mut self) -> Result<(), DataError> {
        let index = self.bytes;
        let offsets: Vec<u8> = self.index.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        self.put(&offsets)?;
        let words = [self.documents, self.tokens, index, self.key.mark];
        let check = checksum(words.into_iter().chain(self.index.iter().copied()));
        let trailer: Vec<u8> = words.into_iter().chain([check, MAGIC]).flat_map(u64::to_le_bytes).collect();
        self.put(&trailer)?;
        let Some(file) = self.file.take() else { return Ok(()) };
        let done = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_data());
        done.and_then(|()| fs::rename(&self.aside, &self.key.path)).map_err(|error| self.failed(error))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.bytes += bytes.len() as u64;
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: std::io::Error) -> DataError {
        DataError::io(self.aside.clone(), "writing the token cache", error)
    }
}

impl Drop for TokenWriter {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name any more.
        remove(&self.aside);
    }
}

/// An open file. Any damage makes `read` give `None`.
pub(crate) struct TokenReader {
    file: BufReader<File>,
    path: PathBuf,
    documents: u64,
    index: u64,
    /// The document and part of the record that the file stands at.
    at: (u64, u64),
    bytes: Vec<u8>,
}

impl TokenReader {
    fn new(file: File, key: &CacheKey) -> Option<Self> {
        let mut file = BufReader::new(file);
        let end = file.seek(SeekFrom::End(0)).ok()?.checked_sub(TRAILER_BYTES as u64)?;
        let mut trailer = [0; TRAILER_BYTES];
        file.seek(SeekFrom::Start(end)).ok()?;
        file.read_exact(&mut trailer).ok()?;
        let [documents, tokens, index, mark, check, magic] = [0, 8, 16, 24, 32, 40].map(|at| number(&trailer, at));
        if magic != MAGIC || mark != key.mark || index.checked_add(documents.div_ceil(INDEXED).checked_mul(8)?)? != end {
            return None;
        }
        file.seek(SeekFrom::Start(index)).ok()?;
        let mut offsets = Vec::new();
        (&mut file).take(end - index).read_to_end(&mut offsets).ok()?;
        let listed = offsets.chunks_exact(8).map(|offset| number(offset, 0));
        if check != checksum([documents, tokens, index, mark].into_iter().chain(listed)) {
            return None;
        }
        // The first read of any document seeks.
        Some(Self { file, path: key.path.clone(), documents, index, at: (u64::MAX, 0), bytes: Vec::new() })
    }

    /// Removes the damaged file.
    pub fn remove(&self) {
        remove(&self.path);
    }

    /// Puts the ids of a part of a document into `ids`. `None` when the file is damaged there.
    pub fn read(&mut self, document: u64, part: u64, ids: &mut Vec<u32>) -> Option<CachedPart> {
        if document >= self.documents {
            return Some(CachedPart::End);
        }
        let near = self.at.0 <= document && document - self.at.0 < INDEXED && (self.at.0 < document || self.at.1 <= part);
        if !near {
            self.file.seek(SeekFrom::Start(self.index + document / INDEXED * 8)).ok()?;
            let mut offset = [0; 8];
            self.file.read_exact(&mut offset).ok()?;
            self.file.seek(SeekFrom::Start(u64::from_le_bytes(offset))).ok()?;
            self.at = (document / INDEXED * INDEXED, 0);
        }
        loop {
            let mut header = [0; HEADER_BYTES];
            self.file.read_exact(&mut header).ok()?;
            let head = number(&header, 0);
            let (count, flags) = (head as u32 as usize, (head >> 32) as u32);
            let length = count * if flags & WIDE == 0 { 2 } else { 4 };
            // A part has at most a token a byte and a few special ones.
            if count > PART_BYTES + 64 {
                return None;
            }
            let at = self.at;
            let last = flags & LAST != 0;
            self.at = if last { (at.0 + 1, 0) } else { (at.0, at.1 + 1) };
            if at != (document, part) {
                if at > (document, part) {
                    return None;
                }
                self.file.seek_relative(length as i64).ok()?;
                continue;
            }
            self.bytes.resize(length, 0);
            self.file.read_exact(&mut self.bytes).ok()?;
            ids.clear();
            if flags & WIDE == 0 {
                ids.extend(self.bytes.chunks_exact(2).map(|id| u32::from(id[0]) | u32::from(id[1]) << 8));
            } else {
                ids.extend(self.bytes.chunks_exact(4).map(|id| id.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))));
            }
            if record_checksum(document, part, flags, ids) != number(&header, 8) {
                return None;
            }
            return Some(if part == 0 && ids.is_empty() { CachedPart::Filtered } else { CachedPart::Kept { last } });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path) -> (TokenCache, CacheKey) {
        let cache = TokenCache::new(folder);
        let key = CacheKey { path: folder.join("ab/x.tokens"), mark: 7 };
        let mut writer = cache.create(&key).unwrap();
        for document in 0..200u32 {
            match document % 5 {
                0 => writer.write(0, true, &[]).unwrap(),
                1 => {
                    writer.write(0, false, &[document, 1]).unwrap();
                    writer.write(1, true, &[document, 2, 3]).unwrap();
                }
                _ => writer.write(0, true, &vec![document; document as usize]).unwrap(),
            }
        }
        writer.finish().unwrap();
        (cache, key)
    }

    #[test]
    fn any_document_and_part_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, key) = written(folder.path());
        let mut reader = cache.open(&key).unwrap().unwrap();
        let mut ids = Vec::new();
        for document in [0u64, 1, 2, 199, 64, 63, 128, 3, 196] {
            match document % 5 {
                0 => assert_eq!(reader.read(document, 0, &mut ids), Some(CachedPart::Filtered)),
                1 => {
                    assert_eq!(reader.read(document, 0, &mut ids), Some(CachedPart::Kept { last: false }));
                    assert_eq!(reader.read(document, 1, &mut ids), Some(CachedPart::Kept { last: true }));
                    assert_eq!(ids, [document as u32, 2, 3]);
                    assert_eq!(reader.read(document, 1, &mut ids), Some(CachedPart::Kept { last: true }));
                }
                _ => {
                    assert_eq!(reader.read(document, 0, &mut ids), Some(CachedPart::Kept { last: true }));
                    assert_eq!(ids, vec![document as u32; document as usize]);
                }
            }
        }
        assert_eq!(reader.read(200, 0, &mut ids), Some(CachedPart::End));
        let other = CacheKey { mark: 8, ..key };
        assert!(cache.open(&other).unwrap().is_none() && !other.path.exists(), "a file of another content is removed");
    }

    /// Every changed byte is noticed: at the opening, or by the first record that it touches.
    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, key) = written(folder.path());
        let good = fs::read(&key.path).unwrap();
        for at in (0..good.len()).step_by(97).chain(good.len() - TRAILER_BYTES..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&key.path, bad).unwrap();
            let Some(mut reader) = cache.open(&key).unwrap() else { continue };
            let mut ids = Vec::new();
            let noticed = (0..200).any(|document| {
                let first = reader.read(document, 0, &mut ids);
                first.is_none() || (first == Some(CachedPart::Kept { last: false }) && reader.read(document, 1, &mut ids).is_none())
            });
            assert!(noticed, "byte {at}");
        }
        fs::write(&key.path, &good[..good.len() / 2]).unwrap();
        assert!(cache.open(&key).unwrap().is_none());
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let key = CacheKey { path: folder.path().join("ab/x.tokens"), mark: 7 };
        let mut writer = TokenCache::new(folder.path()).create(&key).unwrap();
        writer.write(0, true, &[1]).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(folder.path().join("ab")).unwrap().count(), 0);
    }
}
