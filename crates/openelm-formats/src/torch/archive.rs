//! The zip archive around a `.pt` file: entries found and checked, stored ones handed out of the mapped file.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

use crate::error::FormatError;
use crate::mapped_file::MappedFile;

/// The entry that names an archive's folder.
const PICKLE: &str = "data.pkl";
/// Bytes that the pickle may have; what is made of it takes up to a hundred times as many. CoreNet's largest checkpoints stay below
/// a megabyte.
const MAX_PICKLE: usize = 16 << 20;
/// How much larger than its compressed form an entry may be, beyond `SMALL_ENTRY`, so that a small file cannot ask for much memory.
/// PyTorch never compresses; weights that somebody else compressed shrink by far less than this.
const MAX_RATIO: u64 = 64;
/// Bytes that any entry may have.
const SMALL_ENTRY: u64 = 4096;

pub(super) struct Archive {
    file: MappedFile,
    zip: ZipArchive<Cursor<MappedFile>>,
    /// The archive's folder, with the slash.
    prefix: String,
    /// Entries whose checksum was found right, so that tensors that share a storage do not check it again.
    checked: Mutex<HashSet<usize>>,
}

impl Archive {
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let file = MappedFile::open(path)?;
        if file.bytes().starts_with(&[0x80]) {
            let reason = "a bare pickle, as torch.save wrote before PyTorch 1.6";
            let hint = "load it in PyTorch and save it again; the result is a zip archive";
            return Err(FormatError::unsupported(path, "start", reason, hint));
        }
        let zip = ZipArchive::new(Cursor::new(file.clone())).map_err(|error| {
            FormatError::damaged(
                path,
                "zip archive",
                format!("no .pt file, or one that is cut, for its list of entries lies at the end: {error}"),
            )
        })?;
        let suffix = format!("/{PICKLE}");
        let mut prefixes = zip.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(&suffix)?.to_owned()));
        let Some(folder) = prefixes.next() else {
            return Err(FormatError::damaged(path, "zip archive", format!("it holds no {PICKLE}, so torch.save did not write it")));
        };
        if prefixes.next().is_some() {
            return Err(FormatError::damaged(path, "zip archive", format!("it holds {PICKLE} more than once")));
        }
        drop(prefixes);
        let archive = Self { prefix: format!("{folder}/"), file, zip, checked: Mutex::default() };
        match archive.read("byteorder")? {
            Some(order) if &*order != b"little" => {
                let reason = "the tensors are stored big endian";
                Err(FormatError::unsupported(path, "byteorder", reason, "load it in PyTorch and save it again on a little-endian machine"))
            }
            _ => Ok(archive),
        }
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The pickle that describes the contents.
    pub fn pickle(&self) -> Result<Cow<'_, [u8]>, FormatError> {
        let pickle = self.read(PICKLE)?.ok_or_else(|| FormatError::damaged(self.path(), "zip archive", format!("no {PICKLE}")))?;
        if pickle.len() > MAX_PICKLE {
            let reason = format!("the description alone has {} bytes; up to {MAX_PICKLE} are read", pickle.len());
            return Err(FormatError::unsupported(self.path(), PICKLE, reason, "save a state dict, without large lists of Python objects"));
        }
        Ok(pickle)
    }

    /// A storage's bytes, of which there must be `len`.
    pub fn storage(&self, key: &str, len: usize) -> Result<Cow<'_, [u8]>, FormatError> {
        let name = format!("data/{key}");
        let bytes = self.read(&name)?;
        let bytes =
            bytes.ok_or_else(|| FormatError::damaged(self.path(), &name, "the archive has no such entry, but a tensor lies in it"))?;
        if bytes.len() != len {
            return Err(FormatError::damaged(
                self.path(),
                &name,
                format!("the entry has {} bytes, but its tensors say {len}", bytes.len()),
            ));
        }
        Ok(bytes)
    }

    /// Drops a storage's pages from memory.
    pub fn release(&self, key: &str) {
        if let Some(index) = self.index(&format!("data/{key}"))
            && let Ok(entry) = self.zip.clone().by_index_raw(index)
            && let Some(range) = stored_range(&entry).filter(|range| range.end <= self.file.bytes().len())
        {
            self.file.release(range);
        }
    }

    /// Where an entry of the archive's folder stands in the list.
    fn index(&self, name: &str) -> Option<usize> {
        self.zip.index_for_name(&format!("{}{name}", self.prefix))
    }

    /// An entry of the archive's folder: mapped where stored, inflated where deflated. The checksum is verified the first time.
    fn read(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>, FormatError> {
        let damaged = |reason: String| FormatError::damaged(self.path(), name, reason);
        let Some(index) = self.index(name) else {
            return Ok(None);
        };
        // A clone shares the mapping and the list of entries; reading needs one of its own for its position.
        let mut zip = self.zip.clone();
        let mut entry = zip.by_index(index).map_err(|error| damaged(format!("not readable: {error}")))?;
        let checksum = |error: io::Error| damaged(format!("the contents do not fit the archive's checksum or length: {error}"));
        if entry.compression() == CompressionMethod::Stored {
            let bytes = stored_range(&entry).and_then(|range| self.file.bytes().get(range));
            let bytes = bytes.ok_or_else(|| damaged(format!("the archive gives it {} bytes, more than the file has", entry.size())))?;
            if entry.compressed_size() != entry.size() {
                return Err(damaged("a stored entry has two lengths".to_owned()));
            }
            if !self.checked.lock().is_ok_and(|checked| checked.contains(&index)) {
                io::copy(&mut entry, &mut io::sink()).map_err(checksum)?;
                if let Ok(mut checked) = self.checked.lock() {
                    checked.insert(index);
                }
            }
            return Ok(Some(Cow::Borrowed(bytes)));
        }
        if entry.size().saturating_sub(SMALL_ENTRY) / MAX_RATIO > entry.compressed_size() {
            let reason = format!("the entry is compressed by more than {MAX_RATIO} to 1");
            return Err(FormatError::unsupported(self.path(), name, reason, "store the archive uncompressed, as torch.save does"));
        }
        // Grows as data comes, whatever length the archive gives.
        let limit = entry.size();
        let mut bytes = Vec::new();
        entry.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(checksum)?;
        if bytes.len() as u64 != limit {
            return Err(damaged(format!("the archive gives it {limit} bytes, but it inflates to others")));
        }
        Ok(Some(Cow::Owned(bytes)))
    }
}

/// The bytes of the file that a stored entry takes; `None` where the archive gives no range.
fn stored_range(entry: &ZipFile<'_, Cursor<MappedFile>>) -> Option<Range<usize>> {
    let start = entry.data_start()?;
    Some(usize::try_from(start).ok()?..usize::try_from(start.checked_add(entry.size())?).ok()?)
}
