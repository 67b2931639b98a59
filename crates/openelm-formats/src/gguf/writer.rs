//! A GGUF file written tensor by tensor.

use std::collections::HashSet;
use std::path::Path;

use super::value::{GgufArray, GgufValue};
use super::{ALIGNMENT_KEY, MAGIC, MAX_DIMENSIONS, VERSION, alignment, data_type};
use crate::dtype::TensorInfo;
use crate::error::FormatError;
use crate::partial_file::PartialFile;

/// Writes the announced tensors in the announced order. The file gets its name when finished; dropped before, it leaves nothing.
pub struct GgufWriter {
    file: PartialFile,
    infos: Vec<TensorInfo>,
    written: usize,
    alignment: usize,
}

impl GgufWriter {
    /// Starts a file with this metadata, in this order, that will hold exactly `infos`. Shapes are slowest dimension first. The
    /// alignment is 32, or what `general.alignment` says.
    pub fn create(path: &Path, metadata: &[(String, GgufValue)], infos: &[TensorInfo]) -> Result<Self, FormatError> {
        let refused = |reason: String| FormatError::write(path, reason, "give unique keys and names, and types and shapes that GGUF knows");
        let alignment = alignment(metadata).ok_or_else(|| refused(format!("{ALIGNMENT_KEY} must be a power of two of type u32")))?;
        let mut head = header(metadata, infos, alignment).map_err(refused)?;
        head.resize(head.len().next_multiple_of(alignment), 0);
        let mut file = PartialFile::create(path)?;
        file.append(&head)?;
        Ok(Self { file, infos: infos.to_vec(), written: 0, alignment })
    }

    /// Writes the next tensor, which must be `name`: all its elements row by row and little endian, or its blocks.
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
        let padding = bytes.len().next_multiple_of(self.alignment) - bytes.len();
        self.file.append(&vec![0; padding])?;
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

/// The header up to its padding; an error says what the format cannot hold.
fn header(metadata: &[(String, GgufValue)], infos: &[TensorInfo], alignment: usize) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    put_len(&mut head, infos.len());
    put_len(&mut head, metadata.len());
    let mut keys = HashSet::new();
    for (key, value) in metadata {
        if !keys.insert(key) {
            return Err(format!("the metadata key {key:?} comes twice"));
        }
        put_string(&mut head, key);
        head.extend(value.code().to_le_bytes());
        put_value(&mut head, value);
    }
    let mut names = HashSet::new();
    let mut offset = 0_usize;
    for info in infos {
        let TensorInfo { name, dtype, shape } = info;
        if !names.insert(name) {
            return Err(format!("the tensor name {name:?} comes twice"));
        }
        if shape.len() > MAX_DIMENSIONS {
            return Err(format!("tensor {name:?} has {} dimensions, where {MAX_DIMENSIONS} are the most", shape.len()));
        }
        let code = data_type::code(*dtype).ok_or_else(|| format!("tensor {name:?} is of type {dtype}, which GGUF does not know"))?;
        let len = info.checked_byte_len().ok_or_else(|| {
            format!("tensor {name:?} of shape {shape:?} is too large, or its rows are no whole {dtype} blocks of {}", dtype.block_len())
        })?;
        put_string(&mut head, name);
        head.extend((shape.len() as u32).to_le_bytes());
        for size in shape.iter().rev() {
            put_len(&mut head, *size);
        }
        head.extend(code.to_le_bytes());
        put_len(&mut head, offset);
        let end = offset.checked_add(len).and_then(|end| end.checked_next_multiple_of(alignment));
        offset = end.ok_or_else(|| format!("tensor {name:?} of shape {shape:?} is too large"))?;
    }
    Ok(head)
}

fn put_len(head: &mut Vec<u8>, len: usize) {
    head.extend((len as u64).to_le_bytes());
}

fn put_string(head: &mut Vec<u8>, text: &str) {
    put_len(head, text.len());
    head.extend(text.as_bytes());
}

fn put_value(head: &mut Vec<u8>, value: &GgufValue) {
    match value {
        GgufValue::U8(number) => head.extend(number.to_le_bytes()),
        GgufValue::I8(number) => head.extend(number.to_le_bytes()),
        GgufValue::U16(number) => head.extend(number.to_le_bytes()),
        GgufValue::I16(number) => head.extend(number.to_le_bytes()),
        GgufValue::U32(number) => head.extend(number.to_le_bytes()),
        GgufValue::I32(number) => head.extend(number.to_le_bytes()),
        GgufValue::F32(number) => head.extend(number.to_le_bytes()),
        GgufValue::Bool(flag) => head.push((*flag).into()),
        GgufValue::String(text) => put_string(head, text),
        GgufValue::Array(array) => put_array(head, array),
        GgufValue::U64(number) => head.extend(number.to_le_bytes()),
        GgufValue::I64(number) => head.extend(number.to_le_bytes()),
        GgufValue::F64(number) => head.extend(number.to_le_bytes()),
    }
}

fn put_array(head: &mut Vec<u8>, array: &GgufArray) {
    fn put_all<T>(head: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
        put_len(head, items.len());
        for item in items {
            put(head, item);
        }
    }
    head.extend(array.code().to_le_bytes());
    match array {
        GgufArray::U8(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
        GgufArray::I8(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
        GgufArray::U16(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
        GgufArray::I16(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
        GgufArray::U32(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
        GgufArray::I32(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
        GgufArray::F32(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
        GgufArray::Bool(items) => put_all(head, items, |head, item| head.push((*item).into())),
        GgufArray::String(items) => put_all(head, items, |head, item| put_string(head, item)),
        GgufArray::Array(items) => put_all(head, items, put_array),
        GgufArray::U64(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
        GgufArray::I64(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
        GgufArray::F64(items) => put_all(head, items, |head, item| head.extend(item.to_le_bytes())),
    }
}
