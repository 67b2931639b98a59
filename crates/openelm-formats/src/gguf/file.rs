//! An opened GGUF file, mapped.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::header::Header;
use super::value::GgufValue;
use crate::dtype::TensorInfo;
use crate::error::FormatError;
use crate::mapped_file::MappedFile;
use crate::source::{TensorBytes, TensorSource};

/// A GGUF file. Shapes are slowest dimension first, as everywhere in this crate; the file lists them the other way round.
pub struct Gguf {
    file: MappedFile,
    metadata: Vec<(String, GgufValue)>,
    infos: Vec<TensorInfo>,
    ranges: Vec<Range<usize>>,
    places: HashMap<String, usize>,
}

impl Gguf {
    /// Maps a file and checks its header whole, so that later reading can only fail for a name that is not there.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let file = MappedFile::open(path)?;
        let Header { metadata, infos, ranges } = Header::parse(path, file.bytes())?;
        let places = infos.iter().enumerate().map(|(place, info)| (info.name.clone(), place)).collect();
        Ok(Self { file, metadata, infos, ranges, places })
    }

    /// Keys and values in the order of the file.
    pub fn metadata(&self) -> &[(String, GgufValue)] {
        &self.metadata
    }

    /// The value of a metadata key.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl TensorSource for Gguf {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, FormatError> {
        let range = self.places.get(name).and_then(|place| self.ranges.get(*place));
        let bytes = range.and_then(|range| self.file.bytes().get(range.clone()));
        Ok(Cow::Borrowed(bytes.ok_or_else(|| FormatError::no_tensor(self.path(), name))?))
    }

    fn parts(&self, name: &str) -> Result<Vec<(TensorInfo, TensorBytes)>, FormatError> {
        let place = self.places.get(name).copied();
        let found = place.and_then(|place| self.infos.get(place).zip(self.ranges.get(place)));
        let part = found.and_then(|(info, range)| Some((info.clone(), TensorBytes::mapped(&self.file, range.clone())?)));
        Ok(vec![part.ok_or_else(|| FormatError::no_tensor(self.path(), name))?])
    }

    fn release(&self, name: &str) {
        if let Some(range) = self.places.get(name).and_then(|place| self.ranges.get(*place)) {
            self.file.release(range.clone());
        }
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.places.get(name).and_then(|place| self.infos.get(*place))
    }
}
