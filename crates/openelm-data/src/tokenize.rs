//! The token cache filled ahead of training: one shard at a time, so that a stop costs at most a shard and several processes can
//! share the work.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use openelm_tokenizer::Tokenizer;
use rayon::prelude::*;

use crate::config::{DataConfig, OnBadRecord, Order};
use crate::encoder::{Encode, TextEncoder, Verdict};
use crate::error::DataError;
use crate::mixture::Mixture;
use crate::part::Part;
use crate::prefetch::pool;
use crate::shard::{Shard, list_shards};
use crate::shard_reader::{Read, ShardReader};
use crate::skip_log::SkipLog;
use crate::token_cache::{TokenCache, TokenWriter};

/// Bytes of text, and parts, that are tokenized in one go.
const CHUNK_BYTES: usize = 16 << 20;
const CHUNK_PARTS: usize = 4096;

/// What became of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizedShard {
    pub file: String,
    /// Files of the cache that the shard has: one for each lane that shares it.
    pub files: usize,
    /// Files that were there already.
    pub present: usize,
    /// Documents read now.
    pub documents: u64,
    /// Tokens written now.
    pub tokens: u64,
    /// Bad records; a shard with one is not kept, so that a later run meets it.
    pub bad: u64,
}

/// Writes the missing files of the shards whose number leaves `part` when divided by `parts`; `done` hears of each shard.
///
/// # Errors
/// A bad configuration, one without `cache`, `part` not below `parts`, a bad shard, a full disk.
pub fn tokenize(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    part: usize,
    parts: usize,
    skipped: &SkipLog,
    done: &mut dyn FnMut(&TokenizedShard),
) -> Result<(), DataError> {
    tokenize_with(config, Arc::new(tokenizer.clone()), part, parts, skipped, done)
}

pub(crate) fn tokenize_with(
    config: &DataConfig,
    tokenizer: Arc<dyn Encode>,
    part: usize,
    parts: usize,
    skipped: &SkipLog,
    done: &mut dyn FnMut(&TokenizedShard),
) -> Result<(), DataError> {
    config.validate()?;
    let folder = match &config.cache {
        Some(folder) if config.order == Order::Mixed => folder,
        _ => return Err(DataError::config("cache", "is not set", "name a folder for the tokens: --set data.cache=DIR")),
    };
    if part >= parts {
        return Err(DataError::Ranks { reason: format!("part {part} of {parts} does not exist"), hint: "parts count from 0".into() });
    }
    let encoder = TextEncoder::new(config, tokenizer)?;
    let shards = list_shards(&config.corpora, &config.object_store)?;
    let skip = (config.on_bad_record == OnBadRecord::Skip).then(|| skipped.clone());
    let mixture = Mixture::new(config, &shards, encoder, skip);
    let pool = pool(config.threads)?;
    let mut number = 0;
    for (index, corpus) in mixture.corpora.iter().enumerate().filter(|(_, corpus)| corpus.weight > 0.0) {
        for (at, shard) in corpus.shards.iter().enumerate() {
            number += 1;
            if (number - 1) % parts != part {
                continue;
            }
            let shares: BTreeSet<(u64, u64)> = (0..mixture.lanes)
                .map(|lane| mixture.share(index, lane, false))
                .filter(|share| share.shards.contains(&at))
                .map(|share| (share.first, share.stride))
                .collect();
            done(&pool.install(|| tokenize_shard(shard, &corpus.encoder, folder, &shares, mixture.skip.as_ref()))?);
        }
    }
    Ok(())
}

fn tokenize_shard(
    shard: &Shard,
    encoder: &TextEncoder,
    folder: &Path,
    shares: &BTreeSet<(u64, u64)>,
    skip: Option<&SkipLog>,
) -> Result<TokenizedShard, DataError> {
    let cache = TokenCache::new(folder);
    let mut writers: Vec<(u64, u64, TokenWriter)> = Vec::new();
    for (first, stride) in shares {
        let key = cache.key(shard, encoder, *first, *stride)?;
        if !cache.holds(&key)? {
            writers.push((*first, *stride, cache.create(&key)?));
        }
    }
    let present = shares.len() - writers.len();
    let mut report = TokenizedShard { file: shard.source.to_string(), files: shares.len(), present, documents: 0, tokens: 0, bad: 0 };
    if writers.is_empty() {
        return Ok(report);
    }
    let mut reader = ShardReader::open(shard, skip)?;
    let mut dropping = false;
    loop {
        let mut chunk: Vec<(u64, Part)> = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES && chunk.len() < CHUNK_PARTS {
            match reader.read()? {
                Read::Part(part) => {
                    bytes += part.text.len();
                    chunk.push((reader.document() - 1, part));
                }
                Read::Skipped => report.bad += 1,
                Read::End => break,
            }
        }
        if chunk.is_empty() {
            break;
        }
        let encode = |(_, part): &(u64, Part)| {
            let mut ids = Vec::new();
            (encoder.encode_part(&part.text, part.index, part.last, &mut ids), ids)
        };
        let encoded: Vec<(Verdict, Vec<u32>)> = chunk.par_iter().map(encode).collect();
        for ((document, part), (verdict, ids)) in chunk.iter().zip(encoded) {
            if part.index == 0 {
                dropping = verdict != Verdict::Kept;
                report.documents += 1;
            } else if dropping {
                continue;
            }
            let ids: &[u32] = if dropping { &[] } else { &ids };
            report.tokens += ids.len() as u64;
            for (first, stride, writer) in &mut writers {
                if document >= first && (document - *first).is_multiple_of((*stride).max(1)) {
                    writer.write(part.index, part.last || dropping, ids)?;
                }
            }
        }
    }
    if report.bad == 0 && reader.document() != u64::MAX {
        writers.into_iter().try_for_each(|(_, _, writer)| writer.finish())?;
    }
    Ok(report)
}
