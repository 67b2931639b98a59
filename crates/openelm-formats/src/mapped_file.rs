//! A file mapped into memory: pages are read when touched and can be dropped again, so a model larger than the memory can be read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::error::FormatError;

/// Cloning shares the mapping.
#[derive(Debug, Clone)]
pub(crate) struct MappedFile {
    path: Arc<PathBuf>,
    map: Arc<Mmap>,
}

impl MappedFile {
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let file = File::open(path).map_err(|source| FormatError::io(path, "opening", source))?;
        let metadata = file.metadata().map_err(|source| FormatError::io(path, "opening", source))?;
        if !metadata.is_file() {
            return Err(FormatError::io(path, "opening", io::Error::other("not a regular file")));
        }
        // SAFETY: the mapping is private to this type and only ever read. As everywhere with mapped files, another process that
        // shortens the file meanwhile makes a later read fail with a signal; writers of this crate never change a finished file
        // in place, they rename a new one over it, which leaves existing mappings alone.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| FormatError::io(path, "mapping", source))?;
        // Large pages of a file that is not cached yet, where the system has them for files; nothing is lost where it has not.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { path: Arc::new(path.to_owned()), map: Arc::new(map) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's contents.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Drops pages from this process's memory; they stay in the system's cache, and reading them again brings them back. Where that
    /// does not work, nothing is lost but memory.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        // SAFETY: the mapping is shared and only read, so that dropped pages come back from the file with the same contents; for
        // whoever still holds a slice of them nothing changes.
        let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
