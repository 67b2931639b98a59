//! What the shards of a configuration hold: every document read, filtered and tokenized once, whatever the order.

use openelm_tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;
use std::sync::Arc;

use crate::config::{DataConfig, OnBadRecord};
use crate::encoder::{TextEncoder, Verdict};
use crate::error::DataError;
use crate::prefetch::pool;
use crate::shard::{Shard, list_shards};
use crate::shard_reader::{Read, ShardReader};
use crate::skip_log::SkipLog;

/// Counts of one corpus.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct CorpusSurvey {
    pub name: String,
    pub shards: u64,
    /// Bytes on disk.
    pub file_bytes: u64,
    /// Documents, bad records not among them.
    pub documents: u64,
    /// Unicode characters of all documents, as they stand on disk.
    pub characters: u64,
    /// Bytes of all documents in UTF-8.
    pub text_bytes: u64,
    /// Tokens of the documents that are kept, BOS and EOS included.
    pub tokens: u64,
    pub kept: u64,
    /// Filtered, because they have too few characters.
    pub few_characters: u64,
    /// Filtered, because they have too few tokens.
    pub few_tokens: u64,
    /// Records passed over as bad.
    pub bad: u64,
    /// Kept documents by length: entry i counts those of 2^i to 2^(i+1) - 1 tokens.
    pub lengths: Vec<u64>,
}

impl CorpusSurvey {
    fn add(&mut self, other: &Self) {
        self.shards += other.shards;
        self.file_bytes += other.file_bytes;
        self.documents += other.documents;
        self.characters += other.characters;
        self.text_bytes += other.text_bytes;
        self.tokens += other.tokens;
        self.kept += other.kept;
        self.few_characters += other.few_characters;
        self.few_tokens += other.few_tokens;
        self.bad += other.bad;
        self.lengths.resize(self.lengths.len().max(other.lengths.len()), 0);
        self.lengths.iter_mut().zip(&other.lengths).for_each(|(mine, theirs)| *mine += theirs);
    }

    fn end_document(&mut self, tokens: u64) {
        self.tokens += tokens;
        let bucket = tokens.max(1).ilog2() as usize;
        self.lengths.resize(self.lengths.len().max(bucket + 1), 0);
        if let Some(count) = self.lengths.get_mut(bucket) {
            *count += 1;
        }
    }
}

/// Counts the corpora, shards in parallel. Bad records are noted in `skipped` where the configuration skips them.
///
/// # Errors
/// A bad configuration or shard.
pub fn survey(config: &DataConfig, tokenizer: &Tokenizer, skipped: &SkipLog) -> Result<Vec<CorpusSurvey>, DataError> {
    config.validate()?;
    let encoder = TextEncoder::new(config, Arc::new(tokenizer.clone()))?;
    let encoders: Vec<TextEncoder> = config.corpora.iter().map(|corpus| encoder.for_corpus(corpus)).collect();
    let shards = list_shards(&config.corpora, &config.object_store)?;
    let skip = (config.on_bad_record == OnBadRecord::Skip).then_some(skipped);
    let count = |shard: &Shard| survey_shard(shard, &encoders[shard.corpus], skip).map(|counts| (shard.corpus, counts));
    let counted: Vec<_> = pool(config.threads)?.install(|| shards.par_iter().map(count).collect::<Result<_, _>>())?;
    let mut corpora: Vec<CorpusSurvey> =
        config.corpora.iter().map(|corpus| CorpusSurvey { name: corpus.name.clone(), ..CorpusSurvey::default() }).collect();
    for (corpus, counts) in counted {
        corpora[corpus].add(&counts);
    }
    Ok(corpora)
}

fn survey_shard(shard: &Shard, encoder: &TextEncoder, skip: Option<&SkipLog>) -> Result<CorpusSurvey, DataError> {
    let mut counts = CorpusSurvey { shards: 1, file_bytes: shard.size, ..CorpusSurvey::default() };
    let mut reader = ShardReader::open(shard, skip)?;
    let mut ids = Vec::new();
    let (mut tokens, mut kept) = (0, false);
    loop {
        let part = match reader.read()? {
            Read::Part(part) => part,
            Read::Skipped => {
                counts.bad += 1;
                continue;
            }
            Read::End => return Ok(counts),
        };
        counts.documents += u64::from(part.index == 0);
        counts.characters += part.text.chars().count() as u64;
        counts.text_bytes += part.text.len() as u64;
        if part.index == 0 || kept {
            let verdict = encoder.encode_part(&part.text, part.index, part.last, &mut ids);
            if part.index == 0 {
                (tokens, kept) = (0, verdict == Verdict::Kept);
                match verdict {
                    Verdict::Kept => counts.kept += 1,
                    Verdict::FewCharacters => counts.few_characters += 1,
                    Verdict::FewTokens => counts.few_tokens += 1,
                }
            }
            tokens += ids.len() as u64;
            if part.last && kept {
                counts.end_document(tokens);
            }
        }
    }
}
