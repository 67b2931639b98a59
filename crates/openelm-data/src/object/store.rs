//! Object stores: opening one, finding objects in it, and fetching an object into a file.
//!
//! What must stay true: nothing here blocks inside somebody else's asynchronous runtime. The work runs on two threads of this
//! module's own; callers wait for it on a channel, whatever thread they are on.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path as FilePath;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use rayon::ThreadPool;
use tokio::runtime::{Builder, Runtime};

use super::cache::ObjectCache;
use super::location::{Location, Scheme};
use super::remote_shard::RemoteShard;
use super::store_error::{OPENING, answered, explain};
use crate::config::ObjectStoreConfig;
use crate::error::DataError;
use crate::prefetch::pool;

/// Objects that are asked for at a time when a list is made.
const ASKED_AT_ONCE: usize = 32;
/// Objects that are fetched ahead at a time by this process.
const AHEAD: usize = 8;
/// A server that sends nothing for so long is given up and asked again.
const SILENCE: Duration = Duration::from_secs(60);
/// A transfer may take as long as it takes, as long as something arrives.
const WHOLE_TRANSFER: &str = "30 days";

/// The stores that one configuration reads from.
pub(crate) struct Stores {
    open: HashMap<String, Arc<dyn ObjectStore>>,
    cache: Arc<ObjectCache>,
    retries: usize,
}

/// An object as it was when it was looked up.
pub(crate) struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    location: Location,
    size: u64,
    version: String,
    retries: usize,
}

impl Stores {
    pub fn new(settings: &ObjectStoreConfig) -> Self {
        let cache = Arc::new(ObjectCache::new(settings.folder(), settings.max_bytes));
        Self { open: HashMap::new(), cache, retries: settings.retries }
    }

    /// The objects of these names, in this order.
    pub fn named(&mut self, locations: &[Location]) -> Result<Vec<Arc<RemoteShard>>, DataError> {
        let mut asked = Vec::new();
        for location in locations {
            asked.push((self.store(location)?, path(location)?, location.clone()));
        }
        let heads = stream::iter(asked).map(|(store, path, location)| async move {
            let meta = store.head(&path).await.map_err(|error| explain(&location, "asking for its size", &error))?;
            Ok::<_, DataError>((store, path, location, meta))
        });
        let found: Vec<_> = wait(heads.buffered(ASKED_AT_ONCE).try_collect())??;
        Ok(found.into_iter().map(|(store, path, location, meta)| self.shard(store, path, location, &meta)).collect())
    }

    /// The objects that match a glob, sorted as paths are. None is an empty list.
    pub fn matching(&mut self, pattern: &Location) -> Result<Vec<Arc<RemoteShard>>, DataError> {
        let glob = glob::Pattern::new(&pattern.key).map_err(|error| DataError::Object {
            url: pattern.url.clone(),
            action: "reading the URL",
            reason: format!("it is no glob: {error}"),
            hint: "check its brackets and stars".into(),
        })?;
        // As in globs of paths: a star stays inside one folder.
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let store = self.store(pattern)?;
        let folder = path(&pattern.beside(pattern.folder()))?;
        let (asked, url) = (store.clone(), pattern.clone());
        let listed: Vec<ObjectMeta> = wait(async move {
            let list = asked.list((!folder.as_ref().is_empty()).then_some(&folder));
            list.try_collect().await.map_err(|error| explain(&url, "listing the bucket", &error))
        })??;
        let mut found: Vec<_> = listed.into_iter().filter(|meta| glob.matches_with(meta.location.as_ref(), options)).collect();
        found.sort_by(|a, b| FilePath::new(a.location.as_ref()).cmp(FilePath::new(b.location.as_ref())));
        let shard = |meta: ObjectMeta| self.shard(store.clone(), meta.location.clone(), pattern.beside(meta.location.as_ref()), &meta);
        Ok(found.into_iter().map(shard).collect())
    }

    fn shard(&self, store: Arc<dyn ObjectStore>, path: Path, location: Location, meta: &ObjectMeta) -> Arc<RemoteShard> {
        let object = Object { store, path, location, size: meta.size, version: version(meta), retries: self.retries };
        Arc::new(RemoteShard::new(object, self.cache.clone()))
    }

    /// The store that an object is in.
    fn store(&mut self, location: &Location) -> Result<Arc<dyn ObjectStore>, DataError> {
        if let Some(store) = self.open.get(&location.root) {
            return Ok(store.clone());
        }
        let store = open(location, self.retries).map_err(|error| explain(location, OPENING, &error))?;
        self.open.insert(location.root.clone(), store.clone());
        Ok(store)
    }

    #[cfg(test)]
    pub fn insert(&mut self, root: &str, store: Arc<dyn ObjectStore>) {
        self.open.insert(root.into(), store);
    }
}

fn open(location: &Location, retries: usize) -> object_store::Result<Arc<dyn ObjectStore>> {
    // The TLS library asks for a default; one that is set already serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(15), base: 2.0 };
    let retry = RetryConfig { backoff, max_retries: retries, retry_timeout: Duration::from_secs(280) };
    let bucket = location.root.split_once("://").map_or("", |(_, bucket)| bucket);
    let client = [(ClientConfigKey::Timeout, WHOLE_TRANSFER.to_owned()), (ClientConfigKey::ReadTimeout, format!("{}s", SILENCE.as_secs()))];
    Ok(match location.scheme {
        Scheme::S3 => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
            let set = |builder: AmazonS3Builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value);
            Arc::new(client.into_iter().fold(builder, set).build()?)
        }
        Scheme::Google => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry);
            let set = |builder: GoogleCloudStorageBuilder, (key, value)| builder.with_config(GoogleConfigKey::Client(key), value);
            Arc::new(client.into_iter().fold(builder, set).build()?)
        }
        Scheme::Azure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(&location.root).with_retry(retry);
            let set = |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value);
            Arc::new(client.into_iter().fold(builder, set).build()?)
        }
        Scheme::Http => {
            let options = ClientOptions::new().with_allow_http(true).with_timeout_disabled().with_read_timeout(SILENCE);
            Arc::new(HttpBuilder::new().with_url(&location.root).with_client_options(options).with_retry(retry).build()?)
        }
        Scheme::Memory => Arc::new(object_store::memory::InMemory::new()),
    })
}

fn path(location: &Location) -> Result<Path, DataError> {
    let path = match location.scheme {
        // In web addresses escapes are part of the writing, in stores part of the name.
        Scheme::Http => Path::from_url_path(&location.key),
        _ => Path::parse(&location.key),
    };
    path.map_err(|error| explain(location, "reading the URL", &error.into()))
}

/// The entity tag, written alike by listing and asking; else the second of the last change; else nothing.
fn version(meta: &ObjectMeta) -> String {
    match (&meta.e_tag, meta.last_modified.timestamp()) {
        (Some(tag), _) => tag.trim_start_matches("W/").trim_matches('"').to_owned(),
        (None, 0) => String::new(),
        (None, second) => format!("changed {second}"),
    }
}

impl Object {
    pub fn url(&self) -> &str {
        &self.location.url
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// Writes the object into an empty file. A transfer that breaks off is begun again, `retries` times.
    pub fn download(&self, file: &File) -> Result<(), DataError> {
        let io = |error: std::io::Error| self.failed(error.to_string(), "check the free space of data.object_store.cache");
        let mut pause = Duration::from_millis(200);
        for left in (0..=self.retries).rev() {
            let mut file = file.try_clone().map_err(io)?;
            file.seek(SeekFrom::Start(0)).map_err(io)?;
            let (store, path) = (self.store.clone(), self.path.clone());
            let transfer = wait(async move {
                let answer = store.get_opts(&path, GetOptions::default()).await.map_err(Transfer::Refused)?;
                let meta = answer.meta.clone();
                let mut received = 0u64;
                let mut body = answer.into_stream();
                while let Some(bytes) = body.try_next().await.map_err(Transfer::Broken)? {
                    file.write_all(&bytes).map_err(Transfer::Disk)?;
                    received += bytes.len() as u64;
                    if received > meta.size {
                        break;
                    }
                }
                Ok((meta, received))
            })?;
            let reason = match transfer {
                Ok((meta, _)) if meta.size != self.size || version(&meta) != self.version => {
                    let hint = "objects must stay as they are while a run reads them; start the command again to read the new one";
                    return Err(self.failed("it is not what it was when the run began".into(), hint));
                }
                Ok((_, received)) if received == self.size => return Ok(()),
                Ok((_, received)) => format!("{received} of {} bytes arrived", self.size),
                Err(Transfer::Disk(error)) => return Err(io(error)),
                Err(Transfer::Refused(error)) => return Err(explain(&self.location, "downloading it", &error)),
                Err(Transfer::Broken(error)) => answered(&error),
            };
            if left == 0 {
                let hint = "the connection or the server cuts the transfer off; see whether other programs can fetch the whole object";
                return Err(self.failed(format!("{reason} (tried {} times)", self.retries + 1), hint));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(15));
        }
        Ok(())
    }

    fn failed(&self, reason: String, hint: &str) -> DataError {
        DataError::Object { url: self.location.url.clone(), action: "downloading it", reason, hint: hint.to_owned() }
    }
}

/// Why a transfer ended early.
enum Transfer {
    /// The request failed, retries included.
    Refused(object_store::Error),
    /// The body broke off.
    Broken(object_store::Error),
    Disk(std::io::Error),
}

fn background(reason: impl ToString) -> DataError {
    DataError::Background { reason: reason.to_string(), hint: "lower the limits of this machine's threads, or copy the shards here".into() }
}

/// Runs on this module's threads, and waits.
fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, DataError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let make = || Builder::new_multi_thread().worker_threads(2).thread_name("openelm-objects").enable_all().build();
    let runtime = RUNTIME.get_or_init(|| make().map_err(|error| error.to_string())).as_ref().map_err(background)?;
    let (send, receive) = sync_channel(1);
    runtime.spawn(async move {
        // Nobody waits any more when the receiver is gone.
        let _ = send.send(work.await);
    });
    receive.recv().map_err(|_| background("a transfer died"))
}

/// Runs on threads for fetching ahead. When there are none, nothing is fetched ahead.
pub(crate) fn in_background(work: impl FnOnce() + Send + 'static) {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    if let Some(pool) = POOL.get_or_init(|| pool(AHEAD).ok()) {
        pool.spawn(work);
    }
}
