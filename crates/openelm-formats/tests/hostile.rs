//! Valid files cut, overwritten and with bits flipped: opening and reading them whole may fail but never panics, and never takes
//! more than a small multiple of the file's size.

// The helpers below serve tests only, which clippy does not see.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use openelm_formats::{
    DType, FormatError, Gguf, GgufArray, GgufValue, GgufWriter, PickleValue, Safetensors, SafetensorsWriter, StoredTensor, TensorInfo,
    TensorSource, TorchFile, encode_f32, write_torch,
};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Memory is measured for the whole process, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What opening and reading may take: buffers of fixed size, and a multiple of the file.
#[derive(Clone, Copy)]
struct Limit {
    fixed: usize,
    per_byte: usize,
}

/// Descriptions are a few times larger in memory than in the file.
const HEADERS: Limit = Limit { fixed: 2 << 10, per_byte: 8 };
/// The zip reader's buffer; and one-byte pickle instructions, each of which makes a node, in lists that double as they grow.
const PICKLES: Limit = Limit { fixed: 80 << 10, per_byte: 150 };

impl Limit {
    /// Runs `read`, which may take this much for a file, or an inflated pickle, of `size`.
    fn check(self, size: usize, read: impl FnOnce()) {
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        read();
        let taken = ALLOCATOR.peak_usage().saturating_sub(before);
        assert!(taken <= self.fixed + self.per_byte * size, "{taken} bytes for a file of {size}");
    }
}

/// Reads all there is, one tensor at a time. Errors are what is expected here; that they can be printed is checked.
fn read_all(weights: Result<impl TensorSource, FormatError>) {
    match weights {
        Err(error) => assert!(error.to_string().contains("\nhint: ")),
        Ok(weights) => {
            for info in weights.infos() {
                match weights.bytes(&info.name) {
                    Ok(bytes) => assert_eq!(bytes.len(), info.byte_len()),
                    Err(error) => assert!(error.to_string().contains("\nhint: ")),
                }
                let _ = weights.f32(&info.name);
                weights.release(&info.name);
            }
        }
    }
}

fn read_safetensors(path: &Path) {
    read_all(Safetensors::open(path));
}

fn read_gguf(path: &Path) {
    read_all(Gguf::open(path));
}

fn read_torch(path: &Path) {
    read_all(TorchFile::open(path).and_then(|file| file.state_dict()));
}

/// One change to a file.
#[derive(Debug, Clone)]
enum Change {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    /// Eight bytes: a length, a count or an offset.
    Number(prop::sample::Index, u64),
    /// A piece moved elsewhere.
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let index = any::<prop::sample::Index>;
    let number = prop_oneof![any::<u64>(), (0..64_u32).prop_map(|bits| (1_u64 << bits).wrapping_sub(1)), 0..4096_u64];
    let change = prop_oneof![
        1 => index().prop_map(Change::Cut),
        4 => (index(), 1..=255_u8).prop_map(|(at, bits)| Change::Flip(at, bits)),
        2 => (index(), number).prop_map(|(at, number)| Change::Number(at, number)),
        1 => (index(), index(), 1..64_usize).prop_map(|(from, to, len)| Change::Copy(from, to, len)),
    ];
    prop::collection::vec(change, 1..4)
}

fn changed(file: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut file = file.to_vec();
    let overwrite = |file: &mut [u8], at: usize, new: &[u8]| {
        for (byte, new) in file[at..].iter_mut().zip(new) {
            *byte = *new;
        }
    };
    for change in changes {
        if file.is_empty() {
            break;
        }
        let place = |index: &prop::sample::Index| index.index(file.len());
        match change {
            Change::Cut(at) => file.truncate(place(at)),
            Change::Flip(at, bits) => {
                let at = place(at);
                file[at] ^= bits;
            }
            Change::Number(at, number) => {
                let at = place(at);
                overwrite(&mut file, at, &number.to_le_bytes());
            }
            Change::Copy(from, to, len) => {
                let (from, to) = (place(from), place(to));
                let piece = file[from..(from + len).min(file.len())].to_vec();
                overwrite(&mut file, to, &piece);
            }
        }
    }
    file
}

/// Reads `valid`, every cut of it, and many changed forms, each put into a file by `write`.
fn try_all(valid: &[u8], cases: u32, limit: Limit, write: impl Fn(&Path, &[u8]), read: fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let attempt = |contents: &[u8]| {
        write(&path, contents);
        let size = fs::metadata(&path).unwrap().len() as usize;
        limit.check(size, || read(&path));
    };
    for len in 0..=valid.len() {
        attempt(&valid[..len]);
    }
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&changes(), |changes| {
        attempt(&changed(valid, &changes));
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
}

/// A new file each time: some file systems wait for the disk when a file is cut to nothing and written anew.
fn create(path: &Path) -> fs::File {
    let _ = fs::remove_file(path);
    fs::File::create(path).unwrap()
}

fn put(path: &Path, contents: &[u8]) {
    create(path).write_all(contents).unwrap();
}

#[test]
fn safetensors() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("valid");
    let infos = [TensorInfo::new("a", DType::F32, [2, 3]), TensorInfo::new("b", DType::BF16, [5]), TensorInfo::new("c", DType::U8, [])];
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut writer = SafetensorsWriter::create(&path, &infos, &metadata).unwrap();
    for info in &infos {
        writer.write(&info.name, &vec![7; info.byte_len()]).unwrap();
    }
    writer.finish().unwrap();
    try_all(&fs::read(&path).unwrap(), 4000, HEADERS, put, read_safetensors);
}

#[test]
fn gguf() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("valid");
    let infos =
        [TensorInfo::new("a", DType::Q8_0, [2, 32]), TensorInfo::new("b", DType::F32, [3]), TensorInfo::new("c", DType::Q4_K, [1, 256])];
    let metadata = [
        ("general.alignment", GgufValue::U32(32)),
        ("text", GgufValue::String("text".to_owned())),
        ("tokens", GgufValue::Array(GgufArray::String(vec!["a".to_owned(), "bc".to_owned()]))),
        ("heads", GgufValue::Array(GgufArray::I32(vec![1, 2]))),
        ("nested", GgufValue::Array(GgufArray::Array(vec![GgufArray::Bool(vec![true])]))),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let mut writer = GgufWriter::create(&path, &metadata, &infos).unwrap();
    for info in &infos {
        writer.write(&info.name, &encode_f32(&vec![0.5; info.count()], info.dtype).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    try_all(&fs::read(&path).unwrap(), 6000, HEADERS, put, read_gguf);
}

fn torch_tree() -> PickleValue {
    let text = |text: &str| PickleValue::Str(text.into());
    let tensor = |key: &str, dtype, shape: &[usize]| PickleValue::Tensor(Box::new(StoredTensor::contiguous(key, dtype, shape)));
    let weights =
        PickleValue::OrderedDict(vec![(text("a"), tensor("0", DType::F32, &[2, 3])), (text("b"), tensor("1", DType::BF16, &[4]))]);
    let group =
        PickleValue::Dict(vec![(text("lr"), PickleValue::Float(0.1)), (text("params"), PickleValue::List(vec![PickleValue::Int(0)]))]);
    PickleValue::Dict(vec![(text("model_state_dict"), weights), (text("groups"), PickleValue::Tuple(vec![group, PickleValue::None]))])
}

/// The valid file, and the pickle in it.
fn torch_file() -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("valid.pt");
    write_torch(&path, &torch_tree(), |tensor| Ok::<_, FormatError>(vec![1; tensor.storage_len * tensor.dtype.size()])).unwrap();
    let mut archive = zip::ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
    let mut pickle = Vec::new();
    std::io::copy(&mut archive.by_name("valid/data.pkl").unwrap(), &mut pickle).unwrap();
    (fs::read(&path).unwrap(), pickle)
}

/// An archive with right checksums around a pickle, with the storages of `torch_tree`.
fn put_pickle(path: &Path, pickle: &[u8], method: zip::CompressionMethod) {
    let mut archive = zip::ZipWriter::new(create(path));
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", &[1; 24]), ("a/data/1", &[1; 8])] {
        archive.start_file(name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn torch_archives() {
    let _alone = alone();
    let (file, _) = torch_file();
    try_all(&file, 4000, PICKLES, put, read_torch);
}

#[test]
fn torch_archives_deflated() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("valid.pt");
    put_pickle(&path, &torch_file().1, zip::CompressionMethod::Deflated);
    try_all(&fs::read(&path).unwrap(), 4000, PICKLES, put, read_torch);
}

#[test]
fn torch_pickles() {
    let _alone = alone();
    try_all(&torch_file().1, 6000, PICKLES, |path, pickle| put_pickle(path, pickle, zip::CompressionMethod::Stored), read_torch);
}

/// Instructions in any order, weighted towards those that build containers.
#[test]
fn torch_pickles_of_random_instructions() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pt");
    let globals =
        [b"ccollections\nOrderedDict\n)R".as_slice(), b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n"];
    let small = prop::sample::select(b"(0)]}tNRaesub1Q.\x85\x86\x87\x88\x94".to_vec()).prop_map(|opcode| vec![opcode]);
    let indexed = (prop::sample::select(b"qhK".to_vec()), 0..6_u8).prop_map(|(opcode, operand)| vec![opcode, operand]);
    let global = prop::sample::select(globals.to_vec()).prop_map(<[u8]>::to_vec);
    let text = Just(b"X\x01\0\0\x000".to_vec());
    let instruction = prop_oneof![6 => small, 4 => indexed, 1 => global, 1 => text];
    let mut runner = TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(instruction, 1..60), |instructions| {
        let pickle = [b"\x80\x02".as_slice(), &instructions.concat(), b"."].concat();
        put_pickle(&path, &pickle, zip::CompressionMethod::Stored);
        PICKLES.check(pickle.len(), || read_torch(&path));
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
}

#[test]
fn the_worst_pickles_stay_within_the_limits() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pt");
    let count = 1 << 16;
    let many = |opcode: &[u8], tail: &[u8]| [b"\x80\x02(".as_slice(), &opcode.repeat(count), tail].concat();
    let mut deep = b"\x80\x02)q\0".to_vec();
    for _ in 0..count {
        deep.extend(b"h\0\x86q\0");
    }
    // A tree of 2^24 nodes in a hundred bytes.
    let shared = [b"\x80\x02)q\0".as_slice(), &b"h\0\x86q\0".repeat(24), b"."].concat();
    let worst = [
        many(b"}", b"t."),
        many(b")", b"l."),
        many(b"]", b"t\x85\x85."),
        many(b"\x94", b"."),
        many(b"(", b"."),
        many(b"N\x94", b"t."),
        deep,
        shared,
    ];
    for pickle in &worst {
        for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
            put_pickle(&path, pickle, method);
            PICKLES.check(pickle.len(), || read_torch(&path));
        }
    }
}
