//! What stands for object stores in a build without the feature `object-store`: every URL is an error that says so.

use std::fs::File;
use std::sync::Arc;

use super::location::Location;
use super::remote_shard::RemoteShard;
use crate::config::ObjectStoreConfig;
use crate::error::DataError;

/// No store.
pub(crate) struct Stores;

/// No object is ever made.
pub(crate) enum Object {}

impl Stores {
    pub fn new(_: &ObjectStoreConfig) -> Self {
        Self
    }

    pub fn named(&mut self, locations: &[Location]) -> Result<Vec<Arc<RemoteShard>>, DataError> {
        locations.iter().map(absent).collect()
    }

    pub fn matching(&mut self, pattern: &Location) -> Result<Vec<Arc<RemoteShard>>, DataError> {
        absent(pattern).map(|shard| vec![shard])
    }
}

fn absent(location: &Location) -> Result<Arc<RemoteShard>, DataError> {
    Err(DataError::Object {
        url: location.url.clone(),
        action: "opening the store",
        reason: "this program was built without object stores".into(),
        hint: "build it with the feature object-store (on by default), or copy the shards here".into(),
    })
}

impl Object {
    pub fn url(&self) -> &str {
        match *self {}
    }
    pub fn size(&self) -> u64 {
        match *self {}
    }
    pub fn version(&self) -> &str {
        match *self {}
    }
    pub fn download(&self, _: &File) -> Result<(), DataError> {
        match *self {}
    }
}

pub(crate) fn in_background(_: impl FnOnce() + Send + 'static) {}

#[cfg(test)]
mod tests {
    use crate::config::{CorpusConfig, ObjectStoreConfig};
    use crate::shard::list_shards;

    #[test]
    fn a_url_is_refused_with_the_reason() {
        for url in ["s3://bucket/*.jsonl", "http://host/a.jsonl"] {
            let corpora = [CorpusConfig::new("a", vec![url.into()])];
            let message = list_shards(&corpora, &ObjectStoreConfig::default()).unwrap_err().to_string();
            assert!(message.contains(url) && message.contains("built without object stores"), "{message}");
        }
    }
}
