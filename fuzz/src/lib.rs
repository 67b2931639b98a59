//! What the fuzz targets share: the input as a file, the bound on memory, and the checks of any source of tensors.
//!
//! What must stay true: whatever bytes a reader is given, it ends in a value or an error, and the memory that it takes follows the
//! length of the input, not the numbers that stand in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use openelm_formats::{DType, TensorSource};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Heap that any input may cost: tables, buffers of decompressors, thread pools.
pub const BASE: usize = 4 << 20;

/// A folder for this process's files, below TMPDIR.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("openelm-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("TMPDIR is a folder that can be written to");
        folder
    })
}

/// Writes a file into the folder; gives its path.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    fs::write(&path, bytes).expect("TMPDIR has space");
    path
}

/// Does `work` and fails where its heap grew by more than `most` bytes at any time.
pub fn within<T>(most: usize, work: impl FnOnce() -> T) -> T {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = work();
    let grown = HEAP.peak_usage().saturating_sub(before);
    assert!(grown <= most, "{grown} bytes of heap were taken, {most} are allowed");
    result
}

/// Panics that a reader catches itself are no findings; those that reach the target end the process all the same.
pub fn allow_caught_panics() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
}

/// Reads all tensors in each way there is and compares the ways.
pub fn read_all(source: &impl TensorSource) {
    for info in source.infos() {
        assert_eq!(source.info(&info.name), Some(info));
        let Ok(bytes) = source.bytes(&info.name) else { continue };
        assert_eq!(bytes.len(), info.byte_len(), "{info:?}");
        let parts = source.parts(&info.name).expect("bytes were given");
        let joined: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        assert_eq!(joined, *bytes, "{info:?} in parts");
        let float = matches!(info.dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) || info.dtype.is_quantised();
        match source.f32(&info.name) {
            Ok(values) => assert!(float && values.len() == info.count(), "{info:?}"),
            Err(_) => assert!(!float, "{info:?}"),
        }
        source.release(&info.name);
        assert_eq!(source.bytes(&info.name).expect("bytes were given"), joined, "{info:?} after release");
    }
    assert!(source.bytes("no tensor of this name").is_err() || source.info("no tensor of this name").is_some());
}
