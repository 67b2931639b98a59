//! How fast each stage between a shard and a sequence is, one after the other over the same texts.

use std::sync::Arc;
use std::time::Instant;

use openelm_tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;

use crate::config::DataConfig;
use crate::encoder::TextEncoder;
use crate::error::DataError;
use crate::fix_text::fix_text;
use crate::packer::Packer;
use crate::prefetch::pool;
use crate::python_text::has_characters;
use crate::shard::{Shard, list_shards};
use crate::shard_reader::{Read, ShardReader};

/// Megabytes (10^6 bytes) of text a second through each stage, with all threads.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct StageRates {
    /// Shard to text: reading, decompressing, decoding.
    pub read_mb_per_second: f64,
    /// The filter by characters.
    pub filter_mb_per_second: f64,
    /// Repair and NFC; absent when the configuration has none.
    pub normalize_mb_per_second: Option<f64>,
    /// Repaired text to ids.
    pub tokenize_mb_per_second: f64,
    /// Ids to sequences, on one thread.
    pub pack_mb_per_second: f64,
    /// Text that was measured, in MB.
    pub mb: f64,
    /// Bytes of text for each token.
    pub bytes_per_token: f64,
}

/// Measures the stages over about `budget` bytes of text, taken evenly from the corpora.
///
/// # Errors
/// A bad configuration or shard.
pub fn stage_rates(config: &DataConfig, tokenizer: &Tokenizer, budget: usize) -> Result<StageRates, DataError> {
    config.validate()?;
    let encoder = TextEncoder::new(config, Arc::new(tokenizer.clone()))?;
    let shards = list_shards(&config.corpora, &config.object_store)?;
    let each = budget / shards.len().max(1) + 1;
    let pool = pool(config.threads)?;
    pool.install(|| {
        let begin = Instant::now();
        let texts: Vec<Vec<String>> = shards.par_iter().map(|shard| read(shard, each)).collect::<Result<_, _>>()?;
        let reading = begin.elapsed().as_secs_f64();
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        let mb = texts.iter().map(String::len).sum::<usize>() as f64 / 1e6;
        let timed = |work: &mut dyn FnMut()| {
            let begin = Instant::now();
            work();
            mb / begin.elapsed().as_secs_f64().max(1e-9)
        };
        let minimum = config.min_characters_per_text;
        let mut kept = 0;
        let filter = timed(&mut || kept = texts.par_iter().filter(|text| has_characters(text, minimum)).count());
        let normalize = config.normalize.then(|| timed(&mut || texts.par_iter().for_each(|text| drop(fix_text(text)))));
        let fixed: Vec<_> = texts.par_iter().map(|text| if config.normalize { fix_text(text) } else { text.into() }).collect();
        let mut ids: Vec<Vec<u32>> = Vec::new();
        let tokenize = timed(&mut || {
            let encode = |text: &std::borrow::Cow<str>| {
                let mut ids = Vec::new();
                encoder.tokenizer().encode_into(text, &mut ids);
                ids
            };
            ids = fixed.par_iter().map(encode).collect();
        });
        let tokens: usize = ids.iter().map(Vec::len).sum();
        let source: Arc<str> = "".into();
        let mut packer = Packer::new(config.sequence_length);
        let pack = timed(&mut || {
            for ids in &ids {
                packer.push(ids, 0, &source);
                while packer.pop().is_some() {}
            }
        });
        if kept == 0 {
            return Err(DataError::EmptyCorpus {
                corpus: "(all)".into(),
                files: shards.len(),
                texts: texts.len() as u64,
                short_characters: texts.len() as u64,
                short_tokens: 0,
                kept: 0,
            });
        }
        Ok(StageRates {
            read_mb_per_second: mb / reading.max(1e-9),
            filter_mb_per_second: filter,
            normalize_mb_per_second: normalize,
            tokenize_mb_per_second: tokenize,
            pack_mb_per_second: pack,
            mb,
            bytes_per_token: mb * 1e6 / tokens.max(1) as f64,
        })
    })
}

fn read(shard: &Shard, budget: usize) -> Result<Vec<String>, DataError> {
    let mut reader = ShardReader::open(shard, None)?;
    let (mut texts, mut bytes) = (Vec::new(), 0);
    while bytes < budget
        && let Read::Part(part) = reader.read()?
    {
        bytes += part.text.len();
        texts.push(part.text);
    }
    Ok(texts)
}
