//! One safetensors file written tensor by tensor.

use std::collections::BTreeMap;
use std::path::Path;

use super::header::Header;
use crate::dtype::TensorInfo;
use crate::error::FormatError;
use crate::partial_file::PartialFile;

/// Writes the announced tensors in the announced order. The file gets its name when finished; dropped before, it leaves nothing.
pub struct SafetensorsWriter {
    file: PartialFile,
    infos: Vec<TensorInfo>,
    written: usize,
}

impl SafetensorsWriter {
    /// Starts a file that will hold exactly `infos`. The same arguments and data give the same bytes.
    pub fn create(path: &Path, infos: &[TensorInfo], metadata: &BTreeMap<String, String>) -> Result<Self, FormatError> {
        let header = Header::encode(infos, metadata)
            .map_err(|reason| FormatError::write(path, reason, "give each tensor its own name and a shape that fits into memory"))?;
        let mut file = PartialFile::create(path)?;
        file.append(&header)?;
        Ok(Self { file, infos: infos.to_vec(), written: 0 })
    }

    /// Writes the next tensor, which must be `name`: all its elements, row by row and little endian.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        let refused = |reason| Err(FormatError::write(self.file.path(), reason, "write the announced tensors, whole and in order"));
        match self.infos.get(self.written) {
            None => return refused(format!("tensor {name:?} comes after the last one announced")),
            Some(next) if next.name != name => return refused(format!("tensor {name:?} comes where {:?} was announced", next.name)),
            Some(next) if next.byte_len() != bytes.len() => {
                return refused(format!("tensor {name:?} has {} bytes where {} were announced", bytes.len(), next.byte_len()));
            }
            Some(_) => {}
        }
        self.file.append(bytes)?;
        self.written += 1;
        Ok(())
    }

    /// Syncs the file to the disk and gives it its name.
    pub fn finish(self) -> Result<(), FormatError> {
        if let Some(next) = self.infos.get(self.written) {
            let reason = format!("tensor {:?} was announced and not written", next.name);
            return Err(FormatError::write(self.file.path(), reason, "write all announced tensors before finishing"));
        }
        self.file.finish()
    }
}
