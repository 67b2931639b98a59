//! Every record of every shard read once, and what is wrong with them.

use rayon::prelude::*;
use serde::Serialize;

use crate::config::DataConfig;
use crate::error::DataError;
use crate::prefetch::pool;
use crate::shard::{Shard, list_shards};
use crate::shard_reader::{Read, ShardReader};
use crate::skip_log::{SkipLog, SkippedRecord};

/// A shard with so many bad records is not read to its end.
const ENOUGH: u64 = 1000;

/// What a shard was found to be.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct ShardReport {
    pub corpus: String,
    pub file: String,
    /// Sound documents.
    pub documents: u64,
    /// Bad records, and damaged places that cost more than a record.
    pub bad: Vec<SkippedRecord>,
    /// The shard was not read to its end: reading failed, or it has 1000 bad records.
    pub unfinished: Option<String>,
}

impl ShardReport {
    pub fn is_sound(&self) -> bool {
        self.bad.is_empty() && self.unfinished.is_none()
    }
}

/// Reads all shards in parallel, in the order of the configuration.
///
/// # Errors
/// When the configuration is bad or a shard is missing. What is wrong inside shards is in the reports.
pub fn verify(config: &DataConfig) -> Result<Vec<ShardReport>, DataError> {
    config.validate()?;
    let shards = list_shards(&config.corpora, &config.object_store)?;
    Ok(pool(config.threads)?.install(|| shards.par_iter().map(verify_shard).collect()))
}

fn verify_shard(shard: &Shard) -> ShardReport {
    let log = SkipLog::new();
    let mut documents = 0;
    let unfinished = read_shard(shard, &log, &mut documents);
    let unfinished = unfinished.map_or_else(|error| Some(error.to_string()), |whole| (!whole).then(|| format!("{ENOUGH} bad records")));
    ShardReport { corpus: shard.corpus_name.to_string(), file: shard.source.to_string(), documents, bad: log.records(), unfinished }
}

/// False when there was enough to complain of.
fn read_shard(shard: &Shard, log: &SkipLog, documents: &mut u64) -> Result<bool, DataError> {
    let mut reader = ShardReader::open(shard, Some(log))?;
    while log.count() < ENOUGH {
        match reader.read()? {
            Read::Part(part) => *documents += u64::from(part.last),
            Read::Skipped => {}
            Read::End => return Ok(true),
        }
    }
    Ok(false)
}
