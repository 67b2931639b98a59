//! The folder of one run:
//!
//! ```text
//! RUN_DIR/config.yaml                resolved configuration
//! RUN_DIR/tokenizer/                 the tokenizer that the run uses
//! RUN_DIR/metrics.jsonl, tensorboard/
//! RUN_DIR/checkpoints/step-00000100/ model.safetensors, optimizer.safetensors, manifest.json
//! RUN_DIR/checkpoints/latest         name of the newest checkpoint
//! ```
//!
//! What must stay true: one process writes to a run folder at a time (an advisory lock says so); checkpoints are found by
//! their names, and `latest` is a convenience that nothing depends on.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;
use crate::error::CheckpointError;
use crate::manifest::{MANIFEST_FILE, Manifest};
use crate::save::{Draft, remove_folder, replace_file};

pub(crate) const CHECKPOINTS: &str = "checkpoints";
const CONFIG_FILE: &str = "config.yaml";
/// What `replace_file` writes before it renames it.
const UNFINISHED_CONFIG: &str = "config.yaml.new";
const LOCK_FILE: &str = ".lock";
const STEP_PREFIX: &str = "step-";
const DRAFT_PREFIX: &str = ".draft-";

/// A run folder that this process owns.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held until the process ends or the value is dropped.
    _lock: File,
}

impl RunFolder {
    /// Makes the folder of a new run, with its resolved configuration.
    ///
    /// # Errors
    /// When the folder holds anything already, or another process uses it.
    pub fn create(path: &Path, config_yaml: &str) -> Result<Self, CheckpointError> {
        let checkpoints = path.join(CHECKPOINTS);
        std::fs::create_dir_all(path).map_err(|source| CheckpointError::io(path, "making the folder", source))?;
        if is_run(path) {
            return Err(CheckpointError::Folder {
                path: path.to_owned(),
                reason: "the folder holds another run".into(),
                hint: "choose another folder with --out, or continue that run with --resume".into(),
            });
        }
        let mut entries = std::fs::read_dir(path).map_err(|source| CheckpointError::io(path, "listing it", source))?;
        if entries.any(|entry| entry.is_ok_and(|entry| !is_rest_of_creation(&entry))) {
            return Err(CheckpointError::Folder {
                path: path.to_owned(),
                reason: "the folder is not empty".into(),
                hint: "choose an empty or a new folder with --out".into(),
            });
        }
        let folder = Self::lock(path)?;
        std::fs::create_dir_all(&checkpoints).map_err(|source| CheckpointError::io(&checkpoints, "making the folder", source))?;
        folder.write_config(config_yaml)?;
        Ok(folder)
    }

    /// Opens the folder of a run that exists, and removes drafts and half-removed checkpoints that a crash has left.
    ///
    /// # Errors
    /// When there is no run, or another process uses it.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if !is_run(path) {
            return Err(CheckpointError::Folder {
                path: path.to_owned(),
                reason: "the folder holds no run to resume".into(),
                hint: "check --out, or leave --resume away to begin a new run there".into(),
            });
        }
        let folder = Self::lock(path)?;
        for (name, path) in folder.entries()? {
            let is_step = name.strip_prefix(STEP_PREFIX).is_some_and(|step| step.parse::<u64>().is_ok());
            let half_removed = is_step && !path.join(MANIFEST_FILE).exists();
            if name.starts_with(DRAFT_PREFIX) || half_removed {
                remove_folder(&path)?;
            }
        }
        Ok(folder)
    }

    fn lock(path: &Path) -> Result<Self, CheckpointError> {
        let lock = path.join(LOCK_FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let file = file.map_err(|source| CheckpointError::io(&lock, "opening it", source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(CheckpointError::Folder {
                path: path.to_owned(),
                reason: "another process is using this run".into(),
                hint: "wait for it, stop it, or choose another folder with --out".into(),
            }),
            Err(TryLockError::Error(source)) => Err(CheckpointError::io(&lock, "locking it", source)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the run's tokenizer lies.
    pub fn tokenizer(&self) -> PathBuf {
        tokenizer_of(&self.path)
    }

    /// Replaces the resolved configuration.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_config(&self, config_yaml: &str) -> Result<(), CheckpointError> {
        replace_file(&self.path.join(CONFIG_FILE), config_yaml.as_bytes())
    }

    /// Writes a checkpoint: `fill` puts weights and optimizer state into the draft. Gives the checkpoint's folder.
    ///
    /// # Errors
    /// When `fill` or the disk fails; earlier checkpoints are untouched then.
    pub fn save<E: From<CheckpointError>>(&self, manifest: Manifest, fill: impl FnOnce(&mut Draft) -> Result<(), E>) -> Result<PathBuf, E> {
        let name = format!("{STEP_PREFIX}{:08}", manifest.step);
        let checkpoints = self.path.join(CHECKPOINTS);
        let path = checkpoints.join(&name);
        let mut draft = Draft::create(checkpoints.join(format!("{DRAFT_PREFIX}{name}")))?;
        fill(&mut draft)?;
        draft.publish(manifest, &path)?;
        replace_file(&checkpoints.join("latest"), format!("{name}\n").as_bytes())?;
        Ok(path)
    }

    /// The newest checkpoint, verified; `None` when the run has written none yet.
    ///
    /// # Errors
    /// When the newest checkpoint is damaged; an older one is not taken silently in its place.
    pub fn newest(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        newest_path(&self.path)?.map(|path| Checkpoint::open(&path)).transpose()
    }

    /// Removes checkpoints but the newest `keep_last` and those at a multiple of `keep_every` (0: none).
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn prune(&self, keep_last: u64, keep_every: u64) -> Result<(), CheckpointError> {
        let mut steps = steps_in(&self.path)?;
        steps.truncate(steps.len().saturating_sub(usize::try_from(keep_last.max(1)).unwrap_or(usize::MAX)));
        for (step, path) in steps {
            if keep_every == 0 || !step.is_multiple_of(keep_every) {
                remove_folder(&path)?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(String, PathBuf)>, CheckpointError> {
        entries_of(&self.path.join(CHECKPOINTS))
    }
}

/// Where the tokenizer of the run in `run` lies.
pub(crate) fn tokenizer_of(run: &Path) -> PathBuf {
    run.join("tokenizer")
}

/// Whether a process that died before its configuration was in place has left this.
fn is_rest_of_creation(entry: &std::fs::DirEntry) -> bool {
    match entry.file_name().to_str() {
        Some(LOCK_FILE | UNFINISHED_CONFIG) => true,
        Some(CHECKPOINTS) => entry.path().read_dir().is_ok_and(|mut entries| entries.next().is_none()),
        _ => false,
    }
}

/// Whether `path` is a run folder.
pub(crate) fn is_run(path: &Path) -> bool {
    path.join(CONFIG_FILE).is_file() && path.join(CHECKPOINTS).is_dir()
}

/// The newest checkpoint of the run in `run`, not verified.
pub(crate) fn newest_path(run: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    Ok(steps_in(run)?.pop().map(|(_, path)| path))
}

/// Steps and folders of a run's checkpoints, oldest first.
fn steps_in(run: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let step = |(name, path): (String, PathBuf)| Some((name.strip_prefix(STEP_PREFIX)?.parse().ok()?, path));
    let mut steps: Vec<(u64, PathBuf)> = entries_of(&run.join(CHECKPOINTS))?.into_iter().filter_map(step).collect();
    // A folder without a manifest is the rest of a removal that a crash has cut short.
    steps.retain(|(_, path)| path.join(MANIFEST_FILE).exists());
    steps.sort();
    Ok(steps)
}

fn entries_of(folder: &Path) -> Result<Vec<(String, PathBuf)>, CheckpointError> {
    let fault = |source| CheckpointError::io(folder, "listing it", source);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use openelm_model::{OpenElm, preset};

    use super::*;

    fn model() -> OpenElm {
        let mut config = preset("gpt-test").unwrap();
        config.vocab_size = 7;
        OpenElm::init(&config, 1, &Device::flex()).unwrap()
    }

    fn manifest(model: &OpenElm, step: u64) -> Manifest {
        Manifest {
            version: Manifest::VERSION,
            program: "test".into(),
            step,
            tokens: 10 * step,
            seed: 0,
            tokenizer: "none".into(),
            model: model.config().clone(),
            data: serde_json::json!({"at": step}),
            config: serde_json::json!({}),
            files: Vec::new(),
        }
    }

    fn save(folder: &RunFolder, step: u64) -> PathBuf {
        let mut model = model();
        folder.save::<CheckpointError>(manifest(&model, step), |draft| draft.weights(&mut model)).unwrap()
    }

    #[test]
    fn saves_finds_and_prunes() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let folder = RunFolder::create(&run, "name: a\n").unwrap();
        assert!(folder.newest().unwrap().is_none());
        for step in [10, 20, 30, 40, 100] {
            save(&folder, step);
        }
        folder.prune(2, 20).unwrap();
        let steps: Vec<u64> = steps_in(&run).unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [20, 40, 100]);
        let newest = folder.newest().unwrap().unwrap();
        assert_eq!(newest.manifest().step, 100);
        assert_eq!(std::fs::read_to_string(run.join("checkpoints/latest")).unwrap(), "step-00000100\n");
        assert_eq!(newest.manifest().files.len(), 1);
    }

    #[test]
    fn a_failed_save_leaves_nothing_and_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run"), "").unwrap();
        save(&folder, 1);
        let mut model = model();
        let fail = |draft: &mut Draft| {
            draft.weights(&mut model)?;
            Err(CheckpointError::damaged(Path::new("x"), "on purpose"))
        };
        let manifest = manifest(&self::model(), 2);
        assert!(folder.save::<CheckpointError>(manifest, fail).is_err());
        assert_eq!(folder.newest().unwrap().unwrap().manifest().step, 1);
        assert_eq!(folder.entries().unwrap().len(), 2, "latest and step 1 alone");
    }

    #[test]
    fn a_run_has_one_owner_and_one_life() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        assert!(RunFolder::open(&run).unwrap_err().to_string().contains("no run to resume"));
        let folder = RunFolder::create(&run, "").unwrap();
        assert!(RunFolder::open(&run).unwrap_err().to_string().contains("another process"));
        drop(folder);
        assert!(RunFolder::create(&run, "").unwrap_err().to_string().contains("holds another run"));
        RunFolder::open(&run).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(RunFolder::create(root.path(), "").unwrap_err().to_string().contains("not empty"));
    }

    #[test]
    fn damage_is_found_and_drafts_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let folder = RunFolder::create(&run, "").unwrap();
        let path = save(&folder, 5);
        std::fs::create_dir(run.join("checkpoints/.draft-step-00000006")).unwrap();
        drop(folder);
        let weights = path.join(crate::WEIGHTS_FILE);
        let good = std::fs::read(&weights).unwrap();
        let folder = RunFolder::open(&run).unwrap();
        assert!(!run.join("checkpoints/.draft-step-00000006").exists());
        let reason = || folder.newest().unwrap_err().to_string();
        std::fs::write(&weights, &good[..good.len() - 1]).unwrap();
        assert!(reason().contains("model.safetensors has"), "{}", reason());
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&weights, flipped).unwrap();
        assert!(reason().contains("has changed"), "{}", reason());
        std::fs::write(path.join(MANIFEST_FILE), "{").unwrap();
        assert!(reason().contains("manifest.json"), "{}", reason());
        std::fs::write(path.join(MANIFEST_FILE), "{\"version\": 99}").unwrap();
        assert!(reason().contains("version 99"), "{}", reason());
    }
}
