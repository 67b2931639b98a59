//! A run folder as it lies on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Fields that no two runs have alike.
const TIMES: [&str; 2] = ["tokens_per_second", "data_wait_seconds"];

/// Path and digest of every file of a folder.
pub type Digests = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub struct RunDir {
    pub path: PathBuf,
}

impl RunDir {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// The folder of a checkpoint.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.path.join(format!("checkpoints/step-{step:08}"))
    }

    /// Names of everything in `checkpoints`, sorted.
    pub fn checkpoint_names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path.join("checkpoints")) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Steps of the checkpoints that have a manifest, oldest first.
    pub fn steps(&self) -> Vec<u64> {
        let step = |name: String| name.strip_prefix("step-")?.parse().ok();
        let steps = self.checkpoint_names().into_iter().filter_map(step);
        steps.filter(|step| self.checkpoint(*step).join("manifest.json").is_file()).collect()
    }

    /// The step of the newest checkpoint.
    pub fn newest(&self) -> u64 {
        *self.steps().last().unwrap()
    }

    /// The manifest of a checkpoint.
    pub fn manifest(&self, step: u64) -> Value {
        serde_json::from_slice(&fs::read(self.checkpoint(step).join("manifest.json")).unwrap()).unwrap()
    }

    /// Lines of metrics.jsonl that are whole; none when there is no file.
    pub fn metric_count(&self) -> usize {
        fs::read(self.path.join("metrics.jsonl")).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
    }

    /// metrics.jsonl without the fields that measure time.
    pub fn metrics(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path.join("metrics.jsonl")).unwrap();
        let record = |line: &str| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            let fields = record.as_object_mut().unwrap();
            if fields.contains_key("loss") {
                for time in TIMES {
                    assert!(fields.remove(time).unwrap().as_f64().unwrap() >= 0.0, "{line}");
                }
            }
            record
        };
        text.lines().map(record).collect()
    }

    /// The loss of each update.
    pub fn losses(&self) -> Vec<f64> {
        self.metrics().iter().filter_map(|record| record.get("loss")?.as_f64()).collect()
    }

    /// Fails unless both runs are the same: newest checkpoint byte by byte, log, and names of all files.
    pub fn assert_same(&self, other: &RunDir) {
        assert_eq!(self.metrics(), other.metrics(), "metrics.jsonl");
        self.assert_same_checkpoint(other);
        let names = |run: &RunDir| digests(&run.path).into_keys().collect::<Vec<_>>();
        assert_eq!(names(self), names(other), "files of the run folders");
    }

    /// Fails unless the newest checkpoints are the same, byte by byte.
    pub fn assert_same_checkpoint(&self, other: &RunDir) {
        let step = self.newest();
        assert_eq!(step, other.newest());
        let (own, others) = (self.manifest(step), other.manifest(step));
        for key in ["step", "tokens", "data", "model", "files"] {
            assert_eq!(own[key], others[key], "{key} of manifest.json");
        }
        for name in ["model.safetensors", "optimizer.safetensors"] {
            let read = |run: &RunDir| fs::read(run.checkpoint(step).join(name)).unwrap();
            assert!(read(self) == read(other), "{name} of step {step} differs");
        }
    }
}

/// Every file below `folder`.
pub fn digests(folder: &Path) -> Digests {
    let mut digests = Digests::new();
    collect(folder, "", &mut digests);
    digests
}

fn collect(folder: &Path, prefix: &str, digests: &mut Digests) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            // So that an empty folder is seen too.
            digests.insert(format!("{name}/"), String::new());
            collect(&entry.path(), &format!("{name}/"), digests);
        } else {
            let digest = Sha256::digest(fs::read(entry.path()).unwrap());
            digests.insert(name, digest.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
}
