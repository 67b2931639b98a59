//! One safetensors file, mapped.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use super::header::Header;
use crate::dtype::TensorInfo;
use crate::error::FormatError;
use crate::mapped_file::MappedFile;
use crate::source::TensorBytes;

pub(super) struct SafetensorsFile {
    file: MappedFile,
    ranges: HashMap<String, Range<usize>>,
    pub metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// The file and what it holds, in the order of its data.
    pub fn open(path: &Path) -> Result<(Self, Vec<TensorInfo>), FormatError> {
        let file = MappedFile::open(path)?;
        let Header { infos, ranges, metadata } = Header::parse(path, file.bytes())?;
        let ranges = infos.iter().map(|info| info.name.clone()).zip(ranges).collect();
        Ok((Self { file, ranges, metadata }, infos))
    }

    pub fn bytes(&self, name: &str) -> Result<&[u8], FormatError> {
        let bytes = self.ranges.get(name).and_then(|range| self.file.bytes().get(range.clone()));
        bytes.ok_or_else(|| FormatError::no_tensor(self.file.path(), name))
    }

    pub fn kept(&self, name: &str) -> Result<TensorBytes, FormatError> {
        let bytes = self.ranges.get(name).and_then(|range| TensorBytes::mapped(&self.file, range.clone()));
        bytes.ok_or_else(|| FormatError::no_tensor(self.file.path(), name))
    }

    pub fn release(&self, name: &str) {
        if let Some(range) = self.ranges.get(name) {
            self.file.release(range.clone());
        }
    }
}
