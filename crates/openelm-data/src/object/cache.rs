//! Local copies of objects, in a folder with a bound that several processes share.
//!
//! What must stay true, between processes as between threads: a copy that has its final name is whole; the files together, those
//! being fetched with their full size among them, never pass the bound; a copy that is open is never removed. File locks say who
//! uses what: `.lock` is held while the folder is looked at or changed, an open copy is locked by its readers, and a file being
//! written (`.part`) by its writer, so that what a killed process left is recognised by its missing lock. A lock ends with its
//! process. The folder must be on a file system with locks (any local disk).

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::error::DataError;

/// Who finds the folder full of open shards waits so long for one to be closed, and looks again so often.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The folder.
#[derive(Debug)]
pub(crate) struct ObjectCache {
    folder: PathBuf,
    max_bytes: u64,
}

/// One copy.
pub(crate) struct Entry {
    /// A digest of the object's URL, size and version.
    pub name: String,
    pub bytes: u64,
}

enum Found {
    /// Open, and locked as in use.
    Ready(File),
    /// Somebody else fetches it into this file.
    Coming(File),
    /// An empty file of the full size, locked, to be filled by the asker.
    Mine(File),
    /// What is open leaves no room; whether some of it is only being fetched, and so can be removed when that is done.
    Full { coming: bool, error: DataError },
}

impl ObjectCache {
    #[cfg_attr(not(feature = "object-store"), allow(dead_code))]
    pub fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self { folder, max_bytes }
    }

    /// Opens a copy, of the object at `url`, filled by `fill` when it is not there. Nobody removes it while the file is open.
    /// Where there is no room, a `patient` caller waits for some.
    pub fn open(&self, entry: &Entry, url: &str, patient: bool, fill: &dyn Fn(&File) -> Result<(), DataError>) -> Result<File, DataError> {
        let mut end = Instant::now() + PATIENCE;
        loop {
            match self.look(entry, url)? {
                Found::Ready(file) => return Ok(file),
                // Ends when the writer closes the file, whether it was successful or not.
                Found::Coming(file) => file.lock_shared().map_err(|error| self.failed(error))?,
                Found::Full { coming, error } => {
                    if coming {
                        end = Instant::now() + PATIENCE;
                    }
                    if !patient || Instant::now() > end {
                        return Err(error);
                    }
                    sleep(LOOK_AGAIN);
                }
                Found::Mine(file) => {
                    let part = self.part(entry);
                    let filled = fill(&file).and_then(|()| {
                        let length = file.metadata().map_err(|error| self.failed(error))?.len();
                        if length == entry.bytes {
                            Ok(())
                        } else {
                            Err(self.failed(io::Error::other(format!("{length} bytes were written"))))
                        }
                    });
                    let _guard = self.guard()?;
                    if let Err(error) = filled {
                        remove(&part);
                        return Err(error);
                    }
                    fs::rename(&part, self.place(entry)).map_err(|error| self.failed(error))?;
                    drop(file);
                    return self.take(entry)?.ok_or_else(|| self.failed(io::ErrorKind::NotFound.into()));
                }
            }
        }
    }

    fn look(&self, entry: &Entry, url: &str) -> Result<Found, DataError> {
        fs::create_dir_all(&self.folder).map_err(|error| self.failed(error))?;
        let _guard = self.guard()?;
        if let Some(file) = self.take(entry)? {
            return Ok(Found::Ready(file));
        }
        let part = self.part(entry);
        match File::open(&part) {
            Ok(file) if in_use(&file) => return Ok(Found::Coming(file)),
            Ok(_) => remove(&part),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.failed(error)),
        }
        if let Some(full) = self.make_room(entry.bytes, url)? {
            return Ok(full);
        }
        let file = File::create_new(&part).map_err(|error| self.failed(error))?;
        // The full length from the beginning, so that others count it.
        file.lock().and_then(|()| file.set_len(entry.bytes)).map_err(|error| self.failed(error))?;
        Ok(Found::Mine(file))
    }

    /// The copy, if it is there, locked and marked as the one used last. Asks for the guard.
    fn take(&self, entry: &Entry) -> Result<Option<File>, DataError> {
        let file = match File::open(self.place(entry)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        file.lock_shared().map_err(|error| self.failed(error))?;
        // Another user's file cannot be marked; it is only removed earlier then.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(file))
    }

    /// Removes what was used least recently and is not open until `bytes` more fit; gives `Full` when they do not.
    /// Asks for the guard.
    fn make_room(&self, bytes: u64, url: &str) -> Result<Option<Found>, DataError> {
        let mut copies = Vec::new();
        let (mut total, mut coming) = (0u64, 0u64);
        for entry in fs::read_dir(&self.folder).map_err(|error| self.failed(error))? {
            let entry = entry.map_err(|error| self.failed(error))?;
            let path = entry.path();
            let Some(part) = path.extension().map(|extension| extension == "part").filter(|part| *part || is_copy(&path)) else { continue };
            let metadata = entry.metadata().map_err(|error| self.failed(error))?;
            if part && removed_unless_open(&path) {
                continue;
            }
            total = total.saturating_add(metadata.len());
            if part {
                coming += metadata.len();
            } else {
                copies.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), path));
            }
        }
        copies.sort();
        for (_, length, path) in copies {
            if total.saturating_add(bytes) <= self.max_bytes {
                return Ok(None);
            }
            if removed_unless_open(&path) {
                total -= length;
            }
        }
        if total.saturating_add(bytes) <= self.max_bytes {
            return Ok(None);
        }
        let error = DataError::ObjectCache {
            folder: self.folder.clone(),
            reason: format!("no room for {url} ({bytes} bytes): {total} of {} bytes hold shards that are open now", self.max_bytes),
            hint: "raise data.object_store.max_bytes, or lower data.lanes: each lane keeps one shard of every corpus open",
        };
        let fits = (total - coming).saturating_add(bytes) <= self.max_bytes;
        Ok(Some(Found::Full { coming: fits && coming > 0, error }))
    }

    fn guard(&self) -> Result<File, DataError> {
        let open = File::options().create(true).truncate(false).write(true).open(self.folder.join(".lock"));
        open.and_then(|file| file.lock().map(|()| file)).map_err(|error| self.failed(error))
    }

    fn place(&self, entry: &Entry) -> PathBuf {
        self.folder.join(format!("{}.shard", entry.name))
    }

    fn part(&self, entry: &Entry) -> PathBuf {
        self.folder.join(format!("{}.part", entry.name))
    }

    fn failed(&self, error: io::Error) -> DataError {
        DataError::ObjectCache {
            folder: self.folder.clone(),
            reason: error.to_string(),
            hint: "check the folder's permissions and the free space, or name another with data.object_store.cache",
        }
    }
}

fn is_copy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "shard")
}

fn in_use(file: &File) -> bool {
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// False when somebody has the file open. Asks for the guard, so that nobody opens it meanwhile.
fn removed_unless_open(path: &Path) -> bool {
    let free = File::open(path).is_ok_and(|file| !in_use(&file));
    free && fs::remove_file(path).is_ok()
}

fn remove(path: &Path) {
    // One that cannot be removed has no lock any more and is removed when room is made.
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn entry(name: &str, bytes: u64) -> Entry {
        Entry { name: name.into(), bytes }
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != ".lock").collect();
        names.sort();
        names
    }

    fn open(cache: &ObjectCache, name: &str, bytes: u64) -> Result<File, DataError> {
        cache.open(&entry(name, bytes), name, false, &|mut file| {
            file.write_all(&vec![b'x'; bytes as usize]).unwrap();
            Ok(())
        })
    }

    #[test]
    fn the_bound_holds_and_what_is_open_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ObjectCache::new(folder.path().into(), 100);
        let used = open(&cache, "a", 40).unwrap();
        drop(open(&cache, "b", 40).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(20));
        drop(open(&cache, "c", 20).unwrap());
        assert_eq!(names(folder.path()), ["a.shard", "b.shard", "c.shard"]);
        // a is older than b, but open.
        drop(open(&cache, "d", 30).unwrap());
        assert_eq!(names(folder.path()), ["a.shard", "c.shard", "d.shard"]);
        let message = open(&cache, "e", 70).unwrap_err().to_string();
        assert!(message.contains("no room for e") && message.contains("40 of 100 bytes") && message.contains("hint: "), "{message}");
        drop(used);
        drop(open(&cache, "e", 70).unwrap());
        assert_eq!(names(folder.path()).last().unwrap(), "e.shard");
        assert!(open(&cache, "f", 101).is_err());
    }

    #[test]
    fn one_fetches_and_the_others_wait() {
        let folder = tempfile::tempdir().unwrap();
        let fetched = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    // A cache of its own stands for another process.
                    let cache = ObjectCache::new(folder.path().into(), 1000);
                    let mut file = cache.open(&entry("a", 3), "a", false, &|mut file| {
                        fetched.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        file.write_all(b"abc").unwrap();
                        Ok(())
                    });
                    let mut text = String::new();
                    file.as_mut().unwrap().read_to_string(&mut text).unwrap();
                    assert_eq!(text, "abc");
                });
            }
        });
        assert_eq!(fetched.into_inner(), 1);
    }

    #[test]
    fn who_is_patient_waits_for_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ObjectCache::new(folder.path().into(), 100);
        let used = open(&cache, "a", 60).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cache.open(&entry("b", 60), "b", true, &|_| Ok(())).is_ok());
            std::thread::sleep(Duration::from_millis(60));
            drop(used);
            assert!(waiting.join().unwrap());
        });
        assert_eq!(names(folder.path()), ["b.shard"]);
    }

    #[test]
    fn what_was_left_unfinished_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ObjectCache::new(folder.path().into(), 100);
        for name in ["a", "other"] {
            fs::write(folder.path().join(format!("{name}.part")), "x".repeat(90)).unwrap();
        }
        drop(open(&cache, "a", 20).unwrap());
        assert_eq!(names(folder.path()), ["a.shard"]);
        let failing = cache.open(&entry("b", 5), "b", false, &|_| Err(DataError::config("x", "y", "z")));
        assert!(failing.is_err());
        assert_eq!(names(folder.path()), ["a.shard"]);
    }
}
