//! GGUF written and read back, and files that must be refused.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use openelm_formats::{DType, Gguf, GgufArray, GgufValue, GgufWriter, TensorInfo, TensorSource, decode_f32, encode_f32};

fn metadata() -> Vec<(String, GgufValue)> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    [
        ("general.architecture", GgufValue::String("openelm".to_owned())),
        ("u8", GgufValue::U8(200)),
        ("i8", GgufValue::I8(-100)),
        ("u16", GgufValue::U16(60_000)),
        ("i16", GgufValue::I16(-30_000)),
        ("u32", GgufValue::U32(4_000_000_000)),
        ("i32", GgufValue::I32(-2_000_000_000)),
        ("f32", GgufValue::F32(1e-6)),
        ("yes", GgufValue::Bool(true)),
        ("no", GgufValue::Bool(false)),
        ("empty", GgufValue::String(String::new())),
        ("u64", GgufValue::U64(u64::MAX)),
        ("i64", GgufValue::I64(i64::MIN)),
        ("f64", GgufValue::F64(0.1)),
        ("tokens", GgufValue::Array(GgufArray::String(texts(&["<s>", "", "▁ä"])))),
        ("scores", GgufValue::Array(GgufArray::F32(vec![0.0, -1.5]))),
        ("heads", GgufValue::Array(GgufArray::I32(vec![4, 8, 8]))),
        ("flags", GgufValue::Array(GgufArray::Bool(vec![true, false]))),
        ("none", GgufValue::Array(GgufArray::U16(vec![]))),
        (
            "nested",
            GgufValue::Array(GgufArray::Array(vec![
                GgufArray::U8(vec![1, 2]),
                GgufArray::F64(vec![0.5]),
                GgufArray::String(texts(&["x"])),
            ])),
        ),
        ("wide", GgufValue::Array(GgufArray::U64(vec![1 << 40]))),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn infos() -> Vec<TensorInfo> {
    let blocks = DType::QUANTISED.into_iter().filter(|dtype| !matches!(dtype, DType::Affine4 | DType::Affine8));
    let mut infos: Vec<_> = blocks.map(|dtype| TensorInfo::new(format!("blocks.{dtype}"), dtype, [3, 512])).collect();
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I8, DType::I16, DType::I32, DType::I64] {
        infos.push(TensorInfo::new(format!("plain.{dtype}"), dtype, [2, 3, 5]));
    }
    infos.push(TensorInfo::new("scalar", DType::F32, []));
    infos
}

fn values(info: &TensorInfo) -> Vec<f32> {
    (0..info.count()).map(|i| (i as f32 * 0.37 + info.name.len() as f32).sin()).collect()
}

fn bytes(info: &TensorInfo) -> Vec<u8> {
    encode_f32(&values(info), info.dtype).unwrap_or_else(|_| (0..info.byte_len()).map(|i| i as u8).collect())
}

fn write(path: &Path, metadata: &[(String, GgufValue)]) {
    let mut writer = GgufWriter::create(path, metadata, &infos()).unwrap();
    for info in infos() {
        writer.write(&info.name, &bytes(&info)).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn everything_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    for alignment in [None, Some(8), Some(256)] {
        let mut metadata = metadata();
        metadata.extend(alignment.map(|alignment| ("general.alignment".to_owned(), GgufValue::U32(alignment))));
        write(&path, &metadata);
        let file = Gguf::open(&path).unwrap();
        assert_eq!(file.metadata(), metadata);
        assert_eq!(file.infos(), infos());
        let len = fs::metadata(&path).unwrap().len();
        assert!(len.is_multiple_of(alignment.unwrap_or(32).into()), "padded at the end: {len}");
        for info in infos() {
            assert_eq!(*file.bytes(&info.name).unwrap(), bytes(&info), "{}", info.name);
            let expected = decode_f32(&bytes(&info), info.dtype);
            assert_eq!(file.f32(&info.name).ok(), expected, "{}", info.name);
        }
        assert!(file.bytes("none").unwrap_err().to_string().contains("no tensor \"none\""));
    }
    let file = Gguf::open(&path).unwrap();
    assert_eq!(file.get("heads").and_then(GgufValue::as_u64s), Some(vec![4, 8, 8]));
    assert_eq!(file.get("tokens").and_then(GgufValue::as_strings).map(<[_]>::len), Some(3));
    assert_eq!(file.get("u32").and_then(GgufValue::as_u64), Some(4_000_000_000));
    assert_eq!(file.get("i32").and_then(GgufValue::as_u64), None, "negative");
    assert_eq!(file.get("f32").and_then(GgufValue::as_f64), Some(f64::from(1e-6_f32)));
}

#[test]
fn what_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    let refused =
        |metadata: &[(String, GgufValue)], info: TensorInfo| GgufWriter::create(&path, metadata, &[info]).err().unwrap().to_string();
    assert!(refused(&[], TensorInfo::new("a", DType::Q4_K, [2, 128])).contains("no whole Q4_K blocks of 256"));
    assert!(refused(&[], TensorInfo::new("a", DType::U16, [2])).contains("type U16, which GGUF does not know"));
    assert!(refused(&[], TensorInfo::new("a", DType::F32, [1; 5])).contains("5 dimensions"));
    let key = |value| [("general.alignment".to_owned(), value)];
    assert!(refused(&key(GgufValue::U32(24)), TensorInfo::new("a", DType::F32, [1])).contains("general.alignment must be a power of two"));
    let twice = [("a".to_owned(), GgufValue::U8(1)), ("a".to_owned(), GgufValue::U8(2))];
    assert!(refused(&twice, TensorInfo::new("a", DType::F32, [1])).contains("key \"a\" comes twice"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A header by hand: counts, then what follows them.
fn by_hand(tensors: u64, keys: u64, rest: &[&[u8]]) -> Vec<u8> {
    [&b"GGUF\x03\0\0\0"[..], &tensors.to_le_bytes(), &keys.to_le_bytes(), &rest.concat()].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// An entry of the tensor list; the fastest dimension first.
fn entry(name: &str, dimensions: &[u64], dtype: u32, offset: u64) -> Vec<u8> {
    let sizes: Vec<u8> = dimensions.iter().flat_map(|size| size.to_le_bytes()).collect();
    [&string(name)[..], &(dimensions.len() as u32).to_le_bytes(), &sizes, &dtype.to_le_bytes(), &offset.to_le_bytes()].concat()
}

#[test]
fn lies_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    let open = |contents: &[u8]| {
        fs::write(&path, contents).unwrap();
        Gguf::open(&path)
    };
    let refused = |contents: &[u8]| open(contents).err().unwrap().to_string();
    let one = |dimensions: &[u64], dtype, offset, data: usize| {
        let mut file = by_hand(1, 0, &[&entry("w", dimensions, dtype, offset)]);
        file.resize(file.len().next_multiple_of(32) + data, 7);
        file
    };
    assert!(open(&one(&[4], 0, 0, 16)).is_ok(), "padding may be missing at the end");
    assert!(open(&one(&[4], 0, 0, 32)).is_ok());
    assert!(refused(&one(&[4], 0, 0, 15)).contains("a.gguf are cut in tensor \"w\": 1 bytes are missing"));
    assert!(refused(&one(&[4], 0, 0, 33)).contains("bytes at the end belong to no tensor"));
    assert!(refused(&one(&[4], 0, 32, 64)).contains("does not follow the tensor before it"));
    assert!(refused(&one(&[u64::MAX / 2, 3], 0, 0, 16)).contains("is too large"));
    assert!(refused(&one(&[1 << 60], 0, 0, 16)).contains("are cut in tensor \"w\""));
    assert!(refused(&one(&[48, 2], 8, 0, 102)).contains("a row of 48 elements is no whole number of Q8_0 blocks"));
    assert!(refused(&one(&[256], 10, 0, 84)).contains("elements of type Q2_K"));
    assert!(refused(&one(&[32], 99, 0, 20)).contains("elements of type number 99"));
    assert!(refused(&one(&[1; 5], 0, 0, 4)).contains("5 dimensions"));
    let twice = by_hand(2, 0, &[&entry("w", &[0], 0, 0), &entry("w", &[0], 0, 0)]);
    assert!(refused(&twice).contains("the name \"w\" comes twice"));

    assert!(refused(&by_hand(u64::MAX, 0, &[])).contains("the list of tensors, whose count is 18446744073709551615"));
    assert!(refused(&by_hand(0, 1 << 40, &[&[0; 40]])).contains("the metadata, whose count is"));
    let huge =
        |kind: u32| by_hand(0, 1, &[&string("k"), &9_u32.to_le_bytes(), &kind.to_le_bytes(), &(1_u64 << 61).to_le_bytes(), &[0; 16]]);
    for kind in 0..=12 {
        assert!(refused(&huge(kind)).contains("metadata \"k\", whose count is 2305843009213693952"), "type {kind}");
    }
    assert!(refused(&by_hand(0, 1, &[&string("k"), &8_u32.to_le_bytes(), &u64::MAX.to_le_bytes()])).contains("are cut in metadata \"k\""));
    assert!(refused(&by_hand(0, 1, &[&string("k"), &13_u32.to_le_bytes(), &[0; 8]])).contains("unknown type 13"));
    assert!(refused(&by_hand(0, 1, &[&string("k"), &7_u32.to_le_bytes(), &[2]])).contains("a bool of 2"));
    assert!(refused(&by_hand(0, 1, &[&string("k"), &8_u32.to_le_bytes(), &1_u64.to_le_bytes(), &[0xff]])).contains("invalid utf-8"));
    let nested = [9_u32.to_le_bytes().as_slice(), &1_u64.to_le_bytes()].concat().repeat(40);
    assert!(refused(&by_hand(0, 1, &[&string("k"), &9_u32.to_le_bytes(), &nested])).contains("arrays nest deeper than 4"));

    assert!(refused(b"GGU").contains("are cut in the start: 1 bytes"));
    assert!(refused(b"PK\x03\x04 and more").contains("begins with \"PK\\\\x03\\\\x04\" instead of \"GGUF\""));
    assert!(refused(b"GGUF\0\0\0\x03").contains("a big-endian file of version 3"));
    assert!(refused(b"GGUF\x01\0\0\0").contains("GGUF version 1; 2 and 3 are read"));
}
