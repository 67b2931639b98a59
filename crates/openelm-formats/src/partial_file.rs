//! A file that gets its name only once it is whole and on the disk.
//!
//! Written beside its place under a name ending in `.partial`; removed when dropped unfinished.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::FormatError;

pub(crate) struct PartialFile {
    file: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl PartialFile {
    pub fn create(path: &Path) -> Result<Self, FormatError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = File::create(&partial).map_err(|source| FormatError::io(&partial, "creating", source))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), partial, path: path.to_owned(), finished: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends, with the path in the error.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.file.write_all(bytes).map_err(|source| FormatError::io(&self.path, "writing", source))
    }

    /// Syncs the contents, renames the file to its name and syncs the folder.
    pub fn finish(mut self) -> Result<(), FormatError> {
        let failed = |action| move |source| (action, source);
        let outcome = (|| {
            self.file.flush().map_err(failed("writing"))?;
            self.file.get_ref().sync_all().map_err(failed("syncing"))?;
            fs::rename(&self.partial, &self.path).map_err(failed("renaming"))?;
            self.finished = true;
            sync_folder(&self.path).map_err(failed("syncing the folder"))
        })();
        outcome.map_err(|(action, source)| FormatError::io(&self.path, action, source))
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for PartialFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing sensible can be done where removing fails too; the name says what the file is.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Makes the rename durable. Windows has no such call and needs none.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_only_when_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.bin");
        fs::write(&path, "old").unwrap();
        let mut file = PartialFile::create(&path).unwrap();
        file.append(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let mut file = PartialFile::create(&path).unwrap();
        file.append(b"whole").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = PartialFile::create(&folder.path().join("none/weights.bin")).err().unwrap().to_string();
        assert!(message.contains("none") && message.contains("hint: check the path"), "{message}");
    }
}
