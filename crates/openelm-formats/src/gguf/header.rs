//! Everything before the data, parsed and checked.
//!
//! A parsed header guarantees that every tensor lies inside the file, that the tensors follow each other in the listed order with
//! nothing but padding between them, that each is as long as its shape and type say, and that no key and no name comes twice.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use super::reader::Reader;
use super::value::GgufValue;
use super::{ALIGNMENT_KEY, MAGIC, MAX_DIMENSIONS, VERSION, alignment, data_type};
use crate::dtype::TensorInfo;
use crate::error::FormatError;

/// `ranges[i]` are the bytes of `infos[i]` in the file.
pub(super) struct Header {
    pub metadata: Vec<(String, GgufValue)>,
    pub infos: Vec<TensorInfo>,
    pub ranges: Vec<Range<usize>>,
}

impl Header {
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(path, file);
        let (tensors, keys) = counts(path, &mut reader)?;

        let mut metadata = Vec::with_capacity(keys);
        let mut seen = HashSet::new();
        for number in 0..keys {
            let key = reader.string(&format!("metadata key {number}"))?;
            let value = reader.value(&format!("metadata {key:?}"))?;
            if !seen.insert(key.clone()) {
                return Err(reader.damaged("metadata", format!("the key {key:?} comes twice")));
            }
            metadata.push((key, value));
        }
        let alignment =
            alignment(&metadata).ok_or_else(|| reader.damaged("metadata", format!("{ALIGNMENT_KEY} is no power of two of type u32")))?;

        let mut header = Self { metadata, infos: Vec::with_capacity(tensors), ranges: Vec::with_capacity(tensors) };
        let mut seen = HashSet::new();
        for number in 0..tensors {
            let (info, offset) = tensor(path, &mut reader, number)?;
            if !seen.insert(info.name.clone()) {
                return Err(reader.damaged("tensor list", format!("the name {:?} comes twice", info.name)));
            }
            // Relative to the data for now, which begins where the list ends.
            let end = info.checked_byte_len().and_then(|len| offset.checked_add(len));
            let end =
                end.ok_or_else(|| reader.damaged("tensor list", format!("{:?} of shape {:?} is too large", info.name, info.shape)))?;
            let expected = header.ranges.last().map_or(Some(0), |last| last.end.checked_next_multiple_of(alignment));
            if expected != Some(offset) {
                let reason = format!("{:?} starts at {offset} of the data, which does not follow the tensor before it", info.name);
                return Err(reader.damaged("tensor list", reason));
            }
            header.infos.push(info);
            header.ranges.push(offset..end);
        }
        header.place(path, &reader, alignment, file.len())?;
        Ok(header)
    }

    /// Moves the ranges to where the data begins, and compares them with the file.
    fn place(&mut self, path: &Path, reader: &Reader, alignment: usize, file_len: usize) -> Result<(), FormatError> {
        let too_large = || reader.damaged("tensor list", "the tensors are larger than any file");
        let start = reader.position.checked_next_multiple_of(alignment).ok_or_else(too_large)?;
        for range in &mut self.ranges {
            let end = start.checked_add(range.end).ok_or_else(too_large)?;
            *range = start + range.start..end;
        }
        let end = self.ranges.last().map_or(start, |last| last.end);
        if let Some((info, _)) = self.infos.iter().zip(&self.ranges).find(|(_, range)| range.end > file_len) {
            return Err(FormatError::cut(path, format!("tensor {:?}", info.name), (end - file_len) as u64));
        }
        // The padding after the last tensor may be missing.
        if file_len > end.next_multiple_of(alignment) {
            return Err(FormatError::damaged(path, "data", format!("{} bytes at the end belong to no tensor", file_len - end)));
        }
        Ok(())
    }
}

/// Checks how the file begins; gives the numbers of tensors and of metadata keys.
fn counts(path: &Path, reader: &mut Reader) -> Result<(usize, usize), FormatError> {
    let magic: [u8; 4] = reader.array("the start")?;
    if magic != MAGIC {
        return Err(FormatError::damaged(
            path,
            "start",
            format!("it begins with {:?} instead of \"GGUF\"", magic.escape_ascii().to_string()),
        ));
    }
    let version = reader.u32("the version")?;
    if !(2..=VERSION).contains(&version) {
        let (reason, hint) = match version.swap_bytes() {
            swapped @ 1..=VERSION => {
                (format!("a big-endian file of version {swapped}"), "convert the model again for little-endian machines")
            }
            _ => (format!("GGUF version {version}; 2 and 3 are read"), "convert the model with another version of llama.cpp"),
        };
        return Err(FormatError::unsupported(path, "start", reason, hint));
    }
    // The least that one takes: a name's length, the number of dimensions, type and offset; a key's length, a type, a byte.
    let tensors = reader.count(8 + 4 + 4 + 8, "the list of tensors")?;
    let keys = reader.count(8 + 4 + 1, "the metadata")?;
    Ok((tensors, keys))
}

/// One entry of the list, and where it says its data lies.
fn tensor(path: &Path, reader: &mut Reader, number: usize) -> Result<(TensorInfo, usize), FormatError> {
    let place = format!("tensor list, entry {number}");
    let name = reader.string(&place)?;
    let place = format!("tensor list, {name:?}");
    let dimensions = reader.u32(&place)? as usize;
    if dimensions > MAX_DIMENSIONS {
        return Err(reader.damaged(&place, format!("{dimensions} dimensions, where {MAX_DIMENSIONS} are the most")));
    }
    // The file names the fastest dimension first.
    let mut shape = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        let size = reader.u64(&place)?;
        shape.insert(0, usize::try_from(size).map_err(|_| reader.damaged(&place, format!("a dimension of {size}")))?);
    }
    let code = reader.u32(&place)?;
    let offset = reader.u64(&place)?;
    let Some(dtype) = data_type::from_code(code) else {
        let hint = "convert the model to F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1 or Q4_0";
        return Err(FormatError::unsupported(path, place, format!("elements of type {}", data_type::unknown(code)), hint));
    };
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(dtype.block_len()) {
        return Err(reader.damaged(&place, format!("a row of {row} elements is no whole number of {dtype} blocks")));
    }
    let offset = usize::try_from(offset).map_err(|_| reader.damaged(&place, format!("an offset of {offset}")))?;
    Ok((TensorInfo { name, dtype, shape }, offset))
}
