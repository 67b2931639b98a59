//! Where an export goes: a new folder, written beside its place and renamed into it, or a new file.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::error::ExportError;

/// A folder that appears under its name when published; dropped before, it leaves nothing.
pub(crate) struct FolderDraft<'a> {
    out: &'a Path,
    draft: TempDir,
}

impl<'a> FolderDraft<'a> {
    /// Refuses an `out` that holds anything.
    pub fn new(out: &'a Path) -> Result<Self, ExportError> {
        let occupied = out.is_file() || out.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            return Err(ExportError::NotEmpty { path: out.to_owned() });
        }
        let parent = made_parent(out)?;
        let draft = tempfile::Builder::new().prefix(".openelm-export-").tempdir_in(&parent);
        let draft = draft.map_err(|source| io("making a folder", &parent, source))?;
        // Permissions of an ordinary folder; temporary ones are private.
        #[cfg(unix)]
        std::fs::set_permissions(draft.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|source| io("opening up the folder", draft.path(), source))?;
        Ok(Self { out, draft })
    }

    pub fn path(&self) -> &Path {
        self.draft.path()
    }

    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) -> Result<(), ExportError> {
        let path = self.path().join(name);
        std::fs::write(&path, text).map_err(|source| io("writing it", &path, source))
    }

    pub fn put_json(&self, name: &str, value: &Value) -> Result<(), ExportError> {
        self.put(name, format!("{value:#}\n"))
    }

    /// Gives the folder its name and the paths of its files.
    pub fn publish(self) -> Result<Vec<PathBuf>, ExportError> {
        let out = self.out;
        if out.is_dir() {
            std::fs::remove_dir(out).map_err(|source| io("replacing the empty folder", out, source))?;
        }
        std::fs::rename(self.path(), out).map_err(|source| io("renaming the draft", out, source))?;
        // The folder has moved; there is nothing left to remove.
        let _ = self.draft.keep();
        let entries = out.read_dir().map_err(|source| io("listing it", out, source))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        Ok(files)
    }
}

/// Refuses a file that is there, and makes the folder of one that is not.
pub(crate) fn new_file(out: &Path) -> Result<(), ExportError> {
    if out.exists() {
        return Err(ExportError::Exists { path: out.to_owned() });
    }
    made_parent(out).map(drop)
}

fn made_parent(out: &Path) -> Result<PathBuf, ExportError> {
    let absolute = std::path::absolute(out).map_err(|source| io("finding the folder", out, source))?;
    let parent = absolute.parent().unwrap_or(&absolute);
    std::fs::create_dir_all(parent).map_err(|source| io("making the folder", parent, source))?;
    Ok(parent.to_owned())
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> ExportError {
    ExportError::Io { path: path.to_owned(), action, source }
}
