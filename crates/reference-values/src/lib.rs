//! For tests alone: values that CoreNet and its peers computed, in a folder `shared` beside the checkout.
//!
//! What must stay true: without the folder a test says so in one line and passes, unless OPENELM_REQUIRE_REFERENCE=1, with
//! which it fails; a file that is missing from a present folder always fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// The folder `shared`, or `None` with a line on the standard error.
///
/// # Panics
/// When the folder is missing and OPENELM_REQUIRE_REFERENCE is 1.
pub fn shared() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if folder.join("reference").is_dir() {
        return Some(folder.canonicalize().expect("the folder was there"));
    }
    let required = std::env::var("OPENELM_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
    assert!(!required, "OPENELM_REQUIRE_REFERENCE=1, but {} does not exist", folder.display());
    eprintln!("skipped: no reference values beside the checkout");
    None
}

/// `shared/reference`, or `None` as [`shared`].
pub fn reference() -> Option<PathBuf> {
    Some(shared()?.join("reference"))
}

/// A JSON file.
pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A safetensors file, read whole.
pub struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    pub fn open(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, bytes }
    }

    fn parsed(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    pub fn names(&self) -> Vec<String> {
        self.parsed().names().into_iter().map(str::to_owned).collect()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.parsed().tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).shape().to_vec()
    }

    /// The values of an F32 tensor.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.words(name, Dtype::F32).map(f32::from_le_bytes).collect()
    }

    /// The values of an I32 tensor.
    pub fn i32(&self, name: &str) -> Vec<i32> {
        self.words(name, Dtype::I32).map(i32::from_le_bytes).collect()
    }

    fn words(&self, name: &str, dtype: Dtype) -> impl Iterator<Item = [u8; 4]> {
        let parsed = self.parsed();
        let tensor = parsed.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        let words: Vec<[u8; 4]> = tensor.data().chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]).collect();
        words.into_iter()
    }
}

/// The largest absolute difference.
pub fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |largest, difference| if difference.is_nan() { f32::NAN } else { largest.max(difference) })
}

/// The largest absolute value.
pub fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}
