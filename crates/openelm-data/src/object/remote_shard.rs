//! One object as a shard: opened through the cache, and fetched ahead in the background.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::cache::{Entry, ObjectCache};
use super::store::{Object, in_background};
use crate::error::DataError;

/// An object of which size and version are known.
pub(crate) struct RemoteShard {
    object: Object,
    cache: Arc<ObjectCache>,
    entry: Entry,
    /// It is being fetched ahead.
    coming: AtomicBool,
}

impl std::fmt::Debug for RemoteShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteShard({})", self.object.url())
    }
}

impl RemoteShard {
    #[cfg_attr(not(feature = "object-store"), allow(dead_code))]
    pub fn new(object: Object, cache: Arc<ObjectCache>) -> Self {
        let mut hash = Sha256::new();
        for text in [object.url(), object.version()] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update(object.size().to_le_bytes());
        let name = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let entry = Entry { name, bytes: object.size() };
        Self { object, cache, entry, coming: AtomicBool::new(false) }
    }

    pub fn url(&self) -> &str {
        self.object.url()
    }

    /// Bytes of the object.
    pub fn size(&self) -> u64 {
        self.object.size()
    }

    /// What changes when the object does: its entity tag, else its time of change, else nothing.
    pub fn version(&self) -> &str {
        self.object.version()
    }

    /// The local copy, fetched when it is not there. It stays while the file is open.
    pub fn open(&self) -> Result<File, DataError> {
        self.copy(true)
    }

    fn copy(&self, patient: bool) -> Result<File, DataError> {
        self.cache.open(&self.entry, self.url(), patient, &|file| self.object.download(file))
    }

    /// Fetches the object in the background, if there is room. What goes wrong comes up again, and is reported, when the shard is opened.
    pub fn fetch_ahead(self: &Arc<Self>) {
        if !self.coming.swap(true, Ordering::Relaxed) {
            let shard = self.clone();
            in_background(move || {
                drop(shard.copy(false));
                shard.coming.store(false, Ordering::Relaxed);
            });
        }
    }
}
