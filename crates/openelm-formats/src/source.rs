//! One way to read weights, whatever file they lie in.

use std::borrow::Cow;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::MmapMut;

use crate::dtype::TensorInfo;
use crate::error::FormatError;
use crate::float::decode_f32;
use crate::mapped_file::MappedFile;

/// Bytes of a tensor that outlive the source they came from: a part of a mapped file, or memory of their own. Cloning shares them.
#[derive(Debug, Clone)]
pub struct TensorBytes(Kept);

#[derive(Debug, Clone)]
enum Kept {
    Mapped(MappedFile, Range<usize>),
    Own(Arc<Vec<u8>>),
    Huge(Arc<MmapMut>),
}

impl TensorBytes {
    /// `range` of a file; `None` when the file is shorter.
    pub(crate) fn mapped(file: &MappedFile, range: Range<usize>) -> Option<Self> {
        file.bytes().get(range.clone())?;
        Some(Self(Kept::Mapped(file.clone(), range)))
    }

    /// A copy in memory of its own, in huge pages where the system has them: processors find their way in these faster.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn in_memory(&self) -> io::Result<Self> {
        if self.is_empty() {
            return Ok(self.clone());
        }
        let mut copy = MmapMut::map_anon(self.len())?;
        // Advice: where it is not taken, small pages serve as well.
        #[cfg(target_os = "linux")]
        let _ = copy.advise(Advice::HugePage);
        copy.copy_from_slice(self);
        Ok(Self(Kept::Huge(Arc::new(copy))))
    }
}

impl From<Vec<u8>> for TensorBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Kept::Own(Arc::new(bytes)))
    }
}

impl Deref for TensorBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::Mapped(file, range) => file.bytes().get(range.clone()).unwrap_or_default(),
            Kept::Own(bytes) => bytes,
            Kept::Huge(bytes) => bytes,
        }
    }
}

/// Named tensors that can be read one at a time.
pub trait TensorSource: Send + Sync {
    /// Where the weights lie; for messages.
    fn path(&self) -> &Path;

    /// All tensors, in the order in which the file holds their data.
    fn infos(&self) -> &[TensorInfo];

    /// The tensor's elements, row by row and little endian, or its blocks; `info.byte_len()` bytes. Borrowed where they can be handed
    /// out of the mapped file as they are.
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, FormatError>;

    /// The tensor as it is stored, or in blocks of the same values, to be kept: mostly one part; several where the file keeps its rows in
    /// tensors of their own, one below the other. Parts lie in the mapped file where they can.
    fn parts(&self, name: &str) -> Result<Vec<(TensorInfo, TensorBytes)>, FormatError> {
        let info = self.info(name).ok_or_else(|| FormatError::no_tensor(self.path(), name))?;
        Ok(vec![(info.clone(), self.bytes(name)?.into_owned().into())])
    }

    /// Says that the tensor is not read again soon: its pages leave the process's memory, though not the system's cache. With this
    /// after each tensor, going through a model takes the memory of one tensor even by the strictest count. Unknown names are ignored.
    fn release(&self, name: &str);

    /// The tensor of that name.
    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.infos().iter().find(|info| info.name == name)
    }

    /// The tensor's elements, row by row, converted from F32, F16, BF16, F64 or a quantised type; other types are refused.
    fn f32(&self, name: &str) -> Result<Vec<f32>, FormatError> {
        let info = self.info(name).ok_or_else(|| FormatError::no_tensor(self.path(), name))?;
        let bytes = self.bytes(name)?;
        decode_f32(&bytes, info.dtype).ok_or_else(|| FormatError::NotFloat {
            path: self.path().to_owned(),
            name: name.to_owned(),
            dtype: info.dtype,
        })
    }
}
