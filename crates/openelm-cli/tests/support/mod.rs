//! What the tests of the program share: a folder with shards, a tokenizer and a configuration; calls of the real program; run
//! folders read back.
//!
//! What must stay true: every test has a folder of its own, the texts come from a fixed generator, and nothing outside the
//! folder is read or written.

// Each test binary uses a part of this, and clippy does not see that it serves tests only.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod conversations;
pub mod program;
pub mod run_folder;
pub mod shards;

use std::fs;
use std::path::{Path, PathBuf};

use program::Call;
use run_folder::RunDir;
use shards::{json_lines, texts};
use tempfile::TempDir;

/// Tokens of the tests' tokenizer.
pub const TOKENS: u64 = 300;

/// A small model on three shards of short texts. Every file it names lies in the test's folder.
const CONFIG: &str = "\
name: tiny
seed: 3
model:
  preset: OpenELM-tiny
  vocab_size: 320
  max_context_length: 64
  rope_max_length: 128
tokenizer:
  path: tok
data:
  sequence_length: 32
  lanes: 4
  shuffle_buffer: 4
  corpora:
    - name: stories
      files: [\"stories-*.jsonl\"]
validation:
  every: 4
  max_sequences: 4
  corpora:
    - name: held-out
      files: [held-out.jsonl]
training:
  steps: 12
  global_batch: 4
  micro_batch: 4
schedule:
  warmup_steps: 2
  max_lr: 0.003
  min_lr: 0.0003
checkpoint:
  every: 3
log:
  tensorboard: false
";

/// A test's own folder.
pub struct Ground {
    folder: TempDir,
}

impl Ground {
    /// Shards `stories-0.jsonl` to `stories-2.jsonl`, `held-out.jsonl`, a tokenizer in `tok` and `config.yaml`.
    pub fn new() -> Self {
        let ground = Self { folder: tempfile::tempdir().unwrap() };
        for shard in 0..3 {
            ground.write(&format!("stories-{shard}.jsonl"), json_lines(&texts(shard, 60)));
        }
        ground.write("held-out.jsonl", json_lines(&texts(9, 10)));
        ground.write("config.yaml", CONFIG);
        ground.call(["tokenizer", "train", "config.yaml", "--out", "tok", "--set", &trained_tokenizer()]).succeeds();
        ground
    }

    /// Where `name` lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// `config.yaml` with one text in it replaced, as the file `name`.
    pub fn config(&self, name: &str, from: &str, to: &str) -> PathBuf {
        assert!(CONFIG.contains(from), "{from:?} is not in the configuration");
        self.write(name, CONFIG.replace(from, to))
    }

    /// A call of the program in this folder.
    pub fn call<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Call {
        Call::new(self.folder.path(), arguments)
    }

    /// `openelm train config.yaml --out OUT` with these `--set`.
    pub fn train(&self, out: &str, set: &[&str]) -> Call {
        self.call(["train", "config.yaml", "--out", out]).set(set)
    }

    /// A run of 6 updates in `name`, with checkpoints of step 3 and step 6.
    pub fn finished_run(&self, name: &str) -> RunDir {
        self.train(name, &["training.steps=6", "schedule.max_iterations=12"]).succeeds();
        self.run(name)
    }

    pub fn run(&self, name: &str) -> RunDir {
        RunDir::new(self.path(name))
    }

    /// A copy of the folder `from`, called `to`.
    pub fn copy(&self, from: &str, to: &str) -> PathBuf {
        copy_folder(&self.path(from), &self.path(to));
        self.path(to)
    }
}

/// The override that has the tokenizer trained instead of read.
pub fn trained_tokenizer() -> String {
    format!("tokenizer={{train: {{vocab_size: {TOKENS}}}}}")
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
