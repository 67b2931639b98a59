//! Where an export or a merge goes: a new folder, written beside its place and renamed into it, or a new file.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::error::CheckpointError;

/// A folder that appears under its name when published; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct NewFolder<'a> {
    out: &'a Path,
    draft: TempDir,
}

impl<'a> NewFolder<'a> {
    /// Refuses an `out` that holds anything.
    ///
    /// # Errors
    /// Then, and when the folder beside it cannot be made.
    pub fn new(out: &'a Path) -> Result<Self, CheckpointError> {
        refuse_filled(out)?;
        let parent = made_parent(out)?;
        let draft = tempfile::Builder::new().prefix(".openelm-draft-").tempdir_in(&parent);
        let draft = draft.map_err(|source| CheckpointError::io(&parent, "making a folder", source))?;
        // Permissions of an ordinary folder; temporary ones are private.
        #[cfg(unix)]
        std::fs::set_permissions(draft.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|source| CheckpointError::io(draft.path(), "opening up the folder", source))?;
        Ok(Self { out, draft })
    }

    /// Where its files are written until it is published.
    pub fn path(&self) -> &Path {
        self.draft.path()
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) -> Result<(), CheckpointError> {
        let path = self.path().join(name);
        std::fs::write(&path, text).map_err(|source| CheckpointError::io(&path, "writing it", source))
    }

    /// Writes a file of JSON.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_json(&self, name: &str, value: &Value) -> Result<(), CheckpointError> {
        self.put(name, format!("{value:#}\n"))
    }

    /// Gives the folder its name, and the paths of its files.
    ///
    /// # Errors
    /// When the operating system refuses; the draft is removed then.
    pub fn publish(self) -> Result<Vec<PathBuf>, CheckpointError> {
        let out = self.out;
        if out.is_dir() {
            std::fs::remove_dir(out).map_err(|source| CheckpointError::io(out, "replacing the empty folder", source))?;
        }
        std::fs::rename(self.path(), out).map_err(|source| CheckpointError::io(out, "renaming the draft", source))?;
        // The folder has moved; there is nothing left to remove.
        let _ = self.draft.keep();
        let entries = out.read_dir().map_err(|source| CheckpointError::io(out, "listing it", source))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        Ok(files)
    }
}

/// Refuses a folder that holds anything.
///
/// # Errors
/// Then.
pub fn refuse_filled(out: &Path) -> Result<(), CheckpointError> {
    if out.is_file() || out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let (reason, hint) = ("the folder is not empty".to_owned(), "choose an empty or a new folder with --out".to_owned());
        return Err(CheckpointError::Folder { path: out.to_owned(), reason, hint });
    }
    Ok(())
}

/// Refuses a file that is there, and makes the folder of one that is not.
///
/// # Errors
/// Then, and when the folder cannot be made.
pub fn refuse_existing(out: &Path) -> Result<(), CheckpointError> {
    if out.exists() {
        let (reason, hint) = ("the file exists".to_owned(), "choose another name with --out, or remove it".to_owned());
        return Err(CheckpointError::Folder { path: out.to_owned(), reason, hint });
    }
    made_parent(out).map(drop)
}

fn made_parent(out: &Path) -> Result<PathBuf, CheckpointError> {
    let absolute = std::path::absolute(out).map_err(|source| CheckpointError::io(out, "finding the folder", source))?;
    let parent = absolute.parent().unwrap_or(&absolute);
    std::fs::create_dir_all(parent).map_err(|source| CheckpointError::io(parent, "making the folder", source))?;
    Ok(parent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_when_published_and_leaves_nothing_otherwise() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("deep/out");
        let folder = NewFolder::new(&out).unwrap();
        folder.put("a.txt", "text").unwrap();
        assert!(!out.exists());
        drop(folder);
        assert_eq!(out.parent().unwrap().read_dir().unwrap().count(), 0);

        // An empty folder is taken, a filled one and a file are not.
        std::fs::create_dir(&out).unwrap();
        let folder = NewFolder::new(&out).unwrap();
        folder.put_json("b.json", &serde_json::json!({ "b": 1 })).unwrap();
        assert_eq!(folder.publish().unwrap(), [out.join("b.json")]);
        let again = NewFolder::new(&out).unwrap_err().to_string();
        assert!(again.contains("not empty") && again.contains("--out"), "{again}");
        assert!(NewFolder::new(&out.join("b.json")).is_err());
        assert!(refuse_existing(&out.join("b.json")).unwrap_err().to_string().contains("exists"));
        refuse_existing(&out.join("more/c.gguf")).unwrap();
        assert!(out.join("more").is_dir());
    }
}
