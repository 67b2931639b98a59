//! The manifest of a checkpoint: what it is of, where the run stood, and the length and digest of every other file.
//!
//! What must stay true: the manifest is written last, so a folder without a readable one is no checkpoint.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use openelm_model::ModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::CheckpointError;

pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// Where a run stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// Updates done.
    pub step: u64,
    /// Targets seen, padding not counted.
    pub tokens: u64,
    pub seed: u64,
    /// Digest of the tokenizer, as the tokenizer gives it.
    pub tokenizer: String,
    pub model: ModelConfig,
    /// The loader's state.
    pub data: Value,
    /// The resolved configuration of the run.
    pub config: Value,
    /// Every other file of the checkpoint.
    pub files: Vec<FileRecord>,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    pub name: String,
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl FileRecord {
    /// Reads the file `name` in `folder` through.
    pub(crate) fn of(folder: &Path, name: &str) -> Result<Self, CheckpointError> {
        let path = folder.join(name);
        let fault = |source| CheckpointError::io(&path, "reading it", source);
        let mut file = File::open(&path).map_err(fault)?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer).map_err(fault)? {
                0 => break,
                read => {
                    digest.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
        let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: name.to_owned(), bytes, sha256 })
    }
}

impl Manifest {
    /// Raised when an older program could not resume from a newer checkpoint.
    pub const VERSION: u32 = 1;

    /// Reads the manifest of the checkpoint in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(MANIFEST_FILE);
        let text = std::fs::read(&path).map_err(|source| CheckpointError::io(&path, "reading it", source))?;
        // The version comes first, so that a newer manifest is not taken for a damaged one.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |error: serde_json::Error| CheckpointError::damaged(folder, format!("{MANIFEST_FILE}: {error}"));
        let Versioned { version } = serde_json::from_slice(&text).map_err(damaged)?;
        if version != Self::VERSION {
            return Err(CheckpointError::Damaged {
                path: folder.to_owned(),
                reason: format!("its manifest has version {version}, this program reads version {}", Self::VERSION),
                hint: "use the program version that wrote the checkpoint".into(),
            });
        }
        serde_json::from_slice(&text).map_err(damaged)
    }
}
