//! The JSON header: parsed strictly, checked against the file's size, written deterministically.
//!
//! A parsed header guarantees that every tensor's range lies inside the data, that the ranges follow each other without gaps up to the
//! end of the file, that each is as long as its shape and type say, and that no name comes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use crate::dtype::{DType, TensorInfo};
use crate::error::FormatError;

const METADATA: &str = "__metadata__";
/// Bytes before the header: its length as u64.
const LENGTH_BYTES: usize = 8;

/// What a file holds and where. `ranges[i]` are the bytes of `infos[i]` in the file; both in the order of the data.
pub(super) struct Header {
    pub infos: Vec<TensorInfo>,
    pub ranges: Vec<Range<usize>>,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The header's entries as they stand there.
struct Entries {
    tensors: Vec<(String, Entry)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with an entry for each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Entries { tensors: Vec::new(), metadata: BTreeMap::new() };
                let mut names = BTreeSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        entries.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
                    } else {
                        entries.tensors.push((name.clone(), map.next_value()?));
                    }
                    if names.contains(&name) {
                        return Err(A::Error::custom(format!("the name {name:?} comes twice")));
                    }
                    names.insert(name);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

impl Header {
    /// Reads and checks the header of a whole file.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self, FormatError> {
        let damaged = |reason: String| FormatError::damaged(path, "header", reason);
        let Some(length) = file.first_chunk::<LENGTH_BYTES>() else {
            return Err(FormatError::cut(path, "the header's length", (LENGTH_BYTES - file.len()) as u64));
        };
        let length = u64::from_le_bytes(*length);
        let data_start = usize::try_from(length).ok().and_then(|length| length.checked_add(LENGTH_BYTES));
        let Some((data_start, header)) = data_start.and_then(|end| Some((end, file.get(LENGTH_BYTES..end)?))) else {
            // A length that does not begin a JSON object is no length: say so instead of asking for exabytes.
            return Err(match file.get(LENGTH_BYTES) {
                None | Some(b'{') => FormatError::cut(path, "the header", length.saturating_sub((file.len() - LENGTH_BYTES) as u64)),
                Some(_) => damaged(format!("the first eight bytes give a length of {length}, and no JSON object follows")),
            });
        };
        let entries: Entries = serde_json::from_slice(header).map_err(|error| damaged(format!("not a valid header: {error}")))?;
        Self::check(path, file.len(), data_start, entries)
    }

    fn check(path: &Path, file_len: usize, data_start: usize, entries: Entries) -> Result<Self, FormatError> {
        let mut tensors = entries.tensors;
        tensors.sort_by_key(|(_, entry)| entry.data_offsets);
        let mut header =
            Self { infos: Vec::with_capacity(tensors.len()), ranges: Vec::with_capacity(tensors.len()), metadata: entries.metadata };
        let data_len = file_len - data_start;
        let mut end = 0;
        let mut first_cut = None;
        for (name, Entry { dtype, shape, data_offsets }) in tensors {
            let place = || format!("header, tensor {name:?}");
            let damaged = |reason: String| FormatError::damaged(path, place(), reason);
            let dtype = DType::from_name(&dtype).ok_or_else(|| {
                let known: Vec<_> = DType::PLAIN.iter().map(|dtype| dtype.name()).collect();
                FormatError::unsupported(path, place(), format!("unknown type {dtype:?}"), format!("known types: {}", known.join(", ")))
            })?;
            let info = TensorInfo { name: name.clone(), dtype, shape };
            let (from, to) = data_offsets;
            if from != end || to < from {
                return Err(damaged(format!("its data_offsets are [{from}, {to}], but the data before it ends at {end}")));
            }
            if info.checked_byte_len() != Some(to - from) {
                let shape = &info.shape;
                return Err(damaged(format!(
                    "its data_offsets hold {} bytes, which is not what shape {shape:?} of {dtype} takes",
                    to - from
                )));
            }
            if to > data_len && first_cut.is_none() {
                first_cut = Some(info.name.clone());
            }
            let file_range = data_start.checked_add(from).zip(data_start.checked_add(to));
            let (from, end_in_file) = file_range.ok_or_else(|| damaged(format!("its data_offsets end at {to}")))?;
            header.infos.push(info);
            header.ranges.push(from..end_in_file);
            end = to;
        }
        if let Some(name) = first_cut {
            return Err(FormatError::cut(path, format!("tensor {name:?}"), (end - data_len) as u64));
        }
        if end < data_len {
            return Err(FormatError::damaged(path, "data", format!("{} bytes at the end belong to no tensor", data_len - end)));
        }
        Ok(header)
    }

    /// The bytes before the data: the header in the given order, filled up with blanks so that the data starts at a multiple of eight.
    /// An error says why a file cannot hold these tensors.
    pub fn encode(infos: &[TensorInfo], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, String> {
        // A string always has a JSON form; the error type asks for a way out all the same.
        let quoted = |text: &str| serde_json::to_string(text).map_err(|error| error.to_string());
        let mut fields = Vec::with_capacity(infos.len() + 1);
        if !metadata.is_empty() {
            fields.push(format!("\"{METADATA}\":{}", serde_json::to_string(metadata).map_err(|error| error.to_string())?));
        }
        let mut names = BTreeSet::from([METADATA]);
        let mut from = 0_usize;
        for info in infos {
            let TensorInfo { name, dtype, shape } = info;
            if !names.insert(name) {
                return Err(format!("the tensor name {name:?} comes twice or is reserved"));
            }
            if dtype.is_quantised() {
                return Err(format!("tensor {name:?} is of type {dtype}, which safetensors does not know"));
            }
            if !from.is_multiple_of(dtype.size()) {
                return Err(format!(
                    "tensor {name:?} of {dtype} would start at byte {from}, which PyTorch's reader refuses; put wider types first"
                ));
            }
            let to = info.checked_byte_len().and_then(|len| from.checked_add(len));
            let to = to.ok_or_else(|| format!("tensor {name:?} of shape {shape:?} is too large"))?;
            let shape: Vec<_> = shape.iter().map(usize::to_string).collect();
            let shape = shape.join(",");
            fields.push(format!("{}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{from},{to}]}}", quoted(name)?));
            from = to;
        }
        let mut json = format!("{{{}}}", fields.join(","));
        while !json.len().is_multiple_of(8) {
            json.push(' ');
        }
        Ok([&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        [&(json.len() as u64).to_le_bytes(), json.as_bytes(), &vec![0; data]].concat()
    }

    fn error(json: &str, data: usize) -> String {
        Header::parse(Path::new("w.safetensors"), &file(json, data)).err().unwrap().to_string()
    }

    const TWO: &str = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;

    #[test]
    fn infos_follow_the_data() {
        let header = Header::parse(Path::new("w"), &file(TWO, 12)).unwrap();
        let names: Vec<_> = header.infos.iter().map(|info| &*info.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(header.ranges[1], 8 + TWO.len() + 4..8 + TWO.len() + 12);
    }

    #[test]
    fn cuts_are_named() {
        let whole = file(TWO, 12);
        for (len, place, missing) in
            [(3, "the header's length", 5), (50, "the header", 8 + TWO.len() - 50), (whole.len() - 5, "tensor \"b\"", 5)]
        {
            let message = Header::parse(Path::new("w.safetensors"), &whole[..len]).err().unwrap().to_string();
            assert!(message.contains("w.safetensors are cut in ") && message.contains(place), "{message}");
            assert!(message.contains(&format!("{missing} bytes are missing")) && message.contains("\nhint: "), "{message}");
        }
        let cut = Header::parse(Path::new("w"), &whole[..whole.len() - 9]).err().unwrap().to_string();
        assert!(cut.contains("tensor \"a\"") && cut.contains("9 bytes"), "{cut}");
    }

    #[test]
    fn lies_are_named() {
        let one =
            |dtype: &str, shape: &str, offsets: &str| format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
        assert!(error(&one("F32", "[2]", "[0,7]"), 7).contains("7 bytes, which is not what shape [2] of F32 takes"));
        assert!(error(&one("F32", "[18446744073709551615,2]", "[0,8]"), 8).contains("not what shape"));
        assert!(error(&one("F32", "[1]", "[4,8]"), 8).contains("the data before it ends at 0"));
        assert!(error(&one("F32", "[1]", "[4,0]"), 8).contains("the data before it ends at 0"));
        assert!(error(&one("F32", "[1]", "[0,4]"), 6).contains("2 bytes at the end belong to no tensor"));
        assert!(error(&one("F99", "[1]", "[0,4]"), 4).contains("unknown type \"F99\"\nhint: known types: F64, F32"));
        assert!(error(&one("F32", "[-1]", "[0,4]"), 4).contains("not a valid header"));
        assert!(error(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}"#, 1).contains("unknown field `x`"));
        let twice = r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
        assert!(error(twice, 0).contains("the name \"a\" comes twice"));
        let not_safetensors = Header::parse(Path::new("w"), b"PK\x03\x04 this is a zip").err().unwrap().to_string();
        assert!(not_safetensors.contains("no JSON object follows"), "{not_safetensors}");
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let info = |name, dtype, shape: &[usize]| TensorInfo::new(name, dtype, shape);
        let none = BTreeMap::new();
        let refused = |infos: &[TensorInfo]| Header::encode(infos, &none).unwrap_err();
        assert!(refused(&[info("a", DType::U8, &[1]), info("a", DType::U8, &[1])]).contains("comes twice"));
        assert!(refused(&[info("a", DType::U8, &[1]), info("b", DType::F32, &[1])]).contains("wider types first"));
        assert!(refused(&[info("a", DType::F32, &[usize::MAX])]).contains("too large"));
        assert!(refused(&[info("a", DType::Q8_0, &[32])]).contains("does not know"));
    }
}
