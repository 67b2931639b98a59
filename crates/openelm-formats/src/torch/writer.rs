//! A `.pt` file written as `torch.save` does: a zip archive, nothing compressed, each storage at a multiple of 64 bytes.

use std::io::Write;
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::pickler::Pickler;
use super::value::{PickleValue, StoredTensor};
use crate::error::FormatError;
use crate::partial_file::PartialFile;

/// PyTorch's alignment of storages, so that they can be mapped.
const ALIGNMENT: u16 = 64;
/// Lengths from here on need the archive's 64-bit fields, with room for an entry's headers.
const LARGE: usize = u32::MAX as usize - (1 << 16);

/// Writes `root` to a `.pt` file that PyTorch loads. `storage` gives the bytes of a whole storage, little endian; it is asked once
/// for each, in the order in which they first appear in the tree, with the first tensor that lies in it. The storages' keys may be any
/// strings: in the file they are numbered. The same tree and bytes under the same file name give the same file.
pub fn write_torch<E: From<FormatError>>(
    path: &Path,
    root: &PickleValue,
    mut storage: impl FnMut(&StoredTensor) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let (pickle, storages) = Pickler::run(root).map_err(|reason| FormatError::write(path, reason, "correct the tensor's description"))?;
    let mut file = PartialFile::create(path)?;
    let folder = path.file_stem().map_or("archive".into(), |stem| stem.to_string_lossy().into_owned());
    let mut archive = ArchiveWriter { path, folder, zip: Some(ZipWriter::new(&mut file)) };
    archive.entry("data.pkl", &pickle)?;
    archive.entry("byteorder", b"little")?;
    for (key, tensor) in storages.iter().enumerate() {
        let bytes = storage(tensor)?;
        if tensor.storage_len.checked_mul(tensor.dtype.size()) != Some(bytes.len()) {
            let reason =
                format!("storage {} has {} bytes, not {} elements of {}", tensor.storage, bytes.len(), tensor.storage_len, tensor.dtype);
            return Err(FormatError::write(path, reason, "give whole storages").into());
        }
        archive.entry(&format!("data/{key}"), &bytes)?;
    }
    archive.entry("version", b"3\n")?;
    archive.finish()?;
    Ok(file.finish()?)
}

struct ArchiveWriter<'a> {
    path: &'a Path,
    folder: String,
    /// Taken when finished.
    zip: Option<ZipWriter<&'a mut PartialFile>>,
}

impl ArchiveWriter<'_> {
    fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        let Some(zip) = &mut self.zip else { return Ok(()) };
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .with_alignment(ALIGNMENT)
            .large_file(bytes.len() >= LARGE);
        let started = zip.start_file(format!("{}/{name}", self.folder), options).map_err(std::io::Error::from);
        started.and_then(|()| zip.write_all(bytes)).map_err(|source| FormatError::io(self.path, "writing", source))
    }

    fn finish(mut self) -> Result<(), FormatError> {
        let Some(zip) = self.zip.take() else { return Ok(()) };
        zip.finish().map_err(|error| FormatError::io(self.path, "writing", error.into()))?;
        Ok(())
    }
}

impl Drop for ArchiveWriter<'_> {
    fn drop(&mut self) {
        // Dropped unfinished, the zip writer would try to complete an archive that is thrown away, and print where that fails.
        std::mem::forget(self.zip.take());
    }
}
