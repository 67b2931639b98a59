//! `.pt` files written and read back, and archives that must be refused.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use openelm_formats::{DType, FormatError, PickleValue, StoredTensor, TensorSource, TorchFile, write_torch};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn text(text: &str) -> PickleValue {
    PickleValue::Str(text.into())
}

/// A tree with every kind of value, two tensors in one storage and one with strides.
fn tree() -> PickleValue {
    let shared = |shape: &[usize], stride: &[usize], offset| {
        let (shape, stride) = (shape.into(), stride.into());
        PickleValue::Tensor(Box::new(StoredTensor { shape, stride, offset, ..StoredTensor::contiguous("0", DType::F32, [6]) }))
    };
    let tensor = |key: &str, dtype, shape: &[usize]| PickleValue::Tensor(Box::new(StoredTensor::contiguous(key, dtype, shape)));
    let weights = PickleValue::OrderedDict(vec![
        (text("first"), shared(&[2, 3], &[3, 1], 0)),
        (text("transposed"), shared(&[3, 2], &[1, 3], 0)),
        (text("last column"), shared(&[2], &[3], 2)),
        (text("half"), tensor("1", DType::BF16, &[3])),
        (text("scalar"), tensor("2", DType::F64, &[])),
        (text("empty"), tensor("3", DType::F16, &[0, 5])),
    ]);
    let numbers = [0, 255, 256, 65_535, 65_536, -1, i64::from(i32::MIN), i64::MAX, i64::MIN].map(PickleValue::Int);
    let numbered = (0..300).map(|i| (PickleValue::Int(i), text(&format!("name {}", i % 290)))).collect();
    PickleValue::Dict(vec![
        (text("model_state_dict"), weights),
        (text("numbers"), PickleValue::List(numbers.into())),
        (text("numbered"), PickleValue::Dict(numbered)),
        (text("betas"), PickleValue::Tuple(vec![PickleValue::Float(0.9), PickleValue::Float(-1e-8), PickleValue::Bool(true)])),
        (
            text("nothing"),
            PickleValue::Tuple(vec![PickleValue::None, PickleValue::Dict(vec![]), PickleValue::List(vec![]), PickleValue::Tuple(vec![])]),
        ),
        (text("bytes"), PickleValue::Bytes([0, 127, 128, 255].as_slice().into())),
        (text("words ä"), text("ö")),
        (text("steps"), tensor("4", DType::I64, &[2])),
    ])
}

fn bytes(tensor: &StoredTensor) -> Vec<u8> {
    (0..tensor.storage_len * tensor.dtype.size()).map(|i| (i * 5 + tensor.storage.len()) as u8).collect()
}

#[test]
fn a_tree_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tree.pt");
    let write = || write_torch(&path, &tree(), |tensor| Ok::<_, FormatError>(bytes(tensor))).unwrap();
    write();
    let first = fs::read(&path).unwrap();
    write();
    assert_eq!(first, fs::read(&path).unwrap(), "the same every time");

    let file = TorchFile::open(&path).unwrap();
    assert_eq!(file.root(), &tree());
    let weights = file.state_dict().unwrap();
    let names: Vec<_> = weights.infos().iter().map(|info| &*info.name).collect();
    assert_eq!(names, ["first", "transposed", "last column", "half", "scalar", "empty"]);
    let storage = bytes(&StoredTensor::contiguous("0", DType::F32, [6]));
    let element = |i: usize| &storage[4 * i..4 * i + 4];
    assert_eq!(*weights.bytes("first").unwrap(), storage);
    assert_eq!(*weights.bytes("transposed").unwrap(), [0, 3, 1, 4, 2, 5].map(element).concat());
    assert_eq!(*weights.bytes("last column").unwrap(), [2, 5].map(element).concat());
    assert!(weights.bytes("empty").unwrap().is_empty());
    assert_eq!(weights.f32("scalar").unwrap().len(), 1);
    let steps = file.root().get("steps").and_then(PickleValue::as_tensor).unwrap();
    assert!(file.tensor_f32(steps).unwrap_err().to_string().contains("elements of type I64"));

    for entry in 0..5 {
        let mut archive = zip::ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
        let start = archive.by_name(&format!("tree/data/{entry}")).unwrap().data_start().unwrap();
        assert!(start.is_multiple_of(64), "storage {entry} starts at {start}");
    }
}

#[test]
fn wrong_trees_are_refused_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tree.pt");
    let write = |tensor: StoredTensor, len: usize| {
        let root = PickleValue::Tensor(Box::new(tensor));
        write_torch(&path, &root, |_| Ok::<_, FormatError>(vec![0; len])).unwrap_err().to_string()
    };
    let whole = StoredTensor::contiguous("w", DType::F32, [4]);
    assert!(write(whole.clone(), 15).contains("has 15 bytes, not 4 elements of F32"));
    assert!(write(StoredTensor { offset: 1, ..whole.clone() }, 16).contains("does not fit into storage w"));
    assert!(write(StoredTensor { dtype: DType::Q8_0, ..whole }, 16).contains("no storage of Q8_0"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// An archive with this pickle and one storage of eight bytes, `data/0`.
fn archive(folder: &Path, pickle: &[u8], method: CompressionMethod) -> PathBuf {
    let path = folder.join("a.pt");
    let mut zip = ZipWriter::new(fs::File::create(&path).unwrap());
    for (name, bytes) in [("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", &[1, 2, 3, 4, 5, 6, 7, 8])] {
        zip.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    path
}

/// A pickle of one tensor: offset, shape and stride as pickle instructions.
fn one_tensor(rest: &[u8]) -> Vec<u8> {
    let head = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nByteStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x08tQ";
    [head, rest, b"\x89ccollections\nOrderedDict\n)RtR."].concat()
}

#[test]
fn deflated_archives_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = archive(folder.path(), &one_tensor(b"K\x02K\x02K\x02\x86K\x03K\x01\x86"), CompressionMethod::Deflated);
    let file = TorchFile::open(&path).unwrap();
    assert_eq!(*file.tensor_bytes(file.root().as_tensor().unwrap()).unwrap(), [3, 4, 6, 7]);
}

#[test]
fn bombs_are_not_inflated() {
    let folder = tempfile::tempdir().unwrap();
    let pickle = [b"\x80\x02".as_slice(), &b"N0".repeat(1 << 20), b"N."].concat();
    let message = TorchFile::open(&archive(folder.path(), &pickle, CompressionMethod::Deflated)).err().unwrap().to_string();
    assert!(message.contains("data.pkl: the entry is compressed by more than 64 to 1\nhint: store"), "{message}");
    assert!(TorchFile::open(&archive(folder.path(), &pickle, CompressionMethod::Stored)).is_ok());
}

#[test]
fn hostile_pickles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |pickle: &[u8]| TorchFile::open(&archive(folder.path(), pickle, CompressionMethod::Stored)).err().unwrap().to_string();
    let tensor = |rest: &[u8]| refused(&one_tensor(rest));
    let system = refused(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.");
    assert!(system.contains("asks for os.system, which is not allowed") && system.contains("nothing is executed"), "{system}");
    assert!(refused(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.").contains("asks for builtins.eval"));
    assert!(refused(b"\x80\x02c__torch__\nModel\n)\x81.").contains("__torch__.Model"));
    assert!(tensor(b"K\x01K\x08\x85K\x01\x85").contains("leaves storage 0, which has 8"));
    assert!(tensor(b"K\x00K\x03K\x03\x86K\x03K\x01\x86").contains("leaves storage 0"));
    assert!(tensor(b"K\x00J\0\0\0\x7f\x85K\0\x85").contains("repeats the 8 elements"));
    assert!(tensor(b"K\x00J\xff\xff\xff\xff\x85K\x01\x85").contains("no natural number"));
    assert!(refused(b"\x80\x02X\xff\xff\xff\x7fabc.").contains("needs 2147483647 bytes where 4 are left"));
    assert!(refused(b"\x80\x02]q\0h\0a.").contains("refers to its parts too often"), "a list that contains itself");
    assert!(refused(&[b"\x80\x02".as_slice(), &[b']'; 65], &[b'a'; 64], b"."].concat()).contains("nests deeper than 64 levels"));
    assert!(refused(b"\x80\x02)2\x86.").contains("pickle instruction '2' (0x32)"), "DUP, which torch.save does not use");
    let mut bomb = b"\x80\x02)q\0".to_vec();
    for _ in 0..40 {
        bomb.extend(b"h\0\x86q\0");
    }
    bomb.push(b'.');
    assert!(refused(&bomb).contains("refers to its parts too often"), "2^40 empty tuples");
    for empty in [b"".as_slice(), b"\x80\x02", b"\x80\x02.", b"\x80\x02e.", b"\x80\x02t.", b"\x80\x02NNs.", b"\x80\x02h\x07."] {
        assert!(refused(empty).contains("data.pkl, byte "));
    }
}

#[test]
fn broken_archives_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = archive(folder.path(), &one_tensor(b"K\0K\x08\x85K\x01\x85"), CompressionMethod::Stored);
    let contents = fs::read(&path).unwrap();
    let file = TorchFile::open(&path).unwrap();
    assert_eq!(*file.tensor_bytes(file.root().as_tensor().unwrap()).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(file.state_dict().err().unwrap().to_string().contains("the saved value is of type Tensor"));

    let at = contents.windows(8).position(|bytes| bytes == [1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let mut flipped = contents.clone();
    flipped[at] ^= 1;
    fs::write(&path, flipped).unwrap();
    let file = TorchFile::open(&path).unwrap();
    let message = file.tensor_bytes(file.root().as_tensor().unwrap()).unwrap_err().to_string();
    assert!(message.contains("a.pt, data/0: the contents do not fit the archive's checksum"), "{message}");

    fs::write(&path, &contents[..contents.len() - 30]).unwrap();
    let message = TorchFile::open(&path).err().unwrap().to_string();
    assert!(message.contains("a.pt, zip archive: no .pt file, or one that is cut"), "{message}");
    fs::write(&path, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    assert!(TorchFile::open(&path).err().unwrap().to_string().contains("before PyTorch 1.6"));
}
