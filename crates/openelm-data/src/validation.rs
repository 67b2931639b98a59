//! One pass over shards in file order: held-out sequences, and the documents themselves.

use std::sync::Arc;

use openelm_tokenizer::Tokenizer;
use rayon::prelude::*;

use crate::config::{CorpusConfig, DataConfig, ObjectStoreConfig};
use crate::encoder::{Encode, TextEncoder, Verdict, Verdicts};
use crate::error::DataError;
use crate::packer::Packer;
use crate::sequence::Sequence;
use crate::shard::{Shard, list_shards};
use crate::shard_reader::{Document, ShardReader};

/// Bytes of text, and documents, that are tokenized in one go.
const CHUNK_BYTES: usize = 4 << 20;
const CHUNK_DOCUMENTS: usize = 256;

/// The documents of the corpora as configured, once each, packed as in the mixed order (one token of overlap), the last
/// sequence padded; at most `max_sequences` of them. Weights, order, seed and shuffling are not looked at.
///
/// # Errors
/// A bad configuration or shard, and corpora of which the filters keep nothing.
pub fn validation_sequences(config: &DataConfig, tokenizer: &Tokenizer, max_sequences: Option<usize>) -> Result<Vec<Sequence>, DataError> {
    packed_once(config, Arc::new(tokenizer.clone()), max_sequences)
}

pub(crate) fn packed_once(
    config: &DataConfig,
    tokenizer: Arc<dyn Encode>,
    max_sequences: Option<usize>,
) -> Result<Vec<Sequence>, DataError> {
    config.validate()?;
    let encoder = TextEncoder::new(config, tokenizer)?;
    let limit = max_sequences.unwrap_or(usize::MAX);
    let mut documents = documents(&config.corpora, &config.object_store);
    let mut packer = Packer::new(config.sequence_length);
    let mut verdicts = Verdicts::default();
    let mut sequences = Vec::new();
    while sequences.len() < limit {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while chunk.len() < CHUNK_DOCUMENTS && bytes < CHUNK_BYTES {
            let Some(document) = documents.next().transpose()? else { break };
            bytes += document.text.len();
            chunk.push(document);
        }
        if chunk.is_empty() {
            break;
        }
        let encoded: Vec<(Verdict, Vec<u32>)> = chunk
            .par_iter()
            .map(|document| {
                let mut ids = Vec::new();
                (encoder.encode(&document.text, &mut ids), ids)
            })
            .collect();
        for (document, (verdict, ids)) in chunk.iter().zip(encoded) {
            verdicts.count(verdict);
            if verdict == Verdict::Kept {
                packer.push(&ids, 0, &document.source);
                while let Some(sequence) = packer.pop() {
                    sequences.push(sequence);
                }
            }
        }
    }
    if verdicts.kept == 0 && limit > 0 {
        let names: Vec<&str> = config.corpora.iter().map(|corpus| corpus.name.as_str()).collect();
        return Err(verdicts.empty_corpus(&names.join(", "), list_shards(&config.corpora, &config.object_store)?.len()));
    }
    sequences.extend(packer.pop_padded(encoder.padding_id()));
    sequences.truncate(limit);
    Ok(sequences)
}

/// Every document of the corpora, corpora and shards in order, as it stands on disk. Ends after an error.
pub fn documents(
    corpora: &[CorpusConfig],
    object_store: &ObjectStoreConfig,
) -> impl Iterator<Item = Result<Document, DataError>> + Send + use<> {
    let (shards, error) = match list_shards(corpora, object_store) {
        Ok(shards) => (shards, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    Documents { shards: shards.into_iter(), error, open: None }
}

struct Documents {
    shards: std::vec::IntoIter<Shard>,
    /// The error of listing, given first.
    error: Option<DataError>,
    open: Option<(ShardReader, Arc<str>)>,
}

impl Documents {
    fn step(&mut self) -> Result<Option<Document>, DataError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        loop {
            if let Some((reader, source)) = &mut self.open {
                if let Some((text, place)) = reader.read_whole()? {
                    return Ok(Some(Document { text, source: source.clone(), place }));
                }
                self.open = None;
            }
            let Some(shard) = self.shards.next() else { return Ok(None) };
            self.open = Some((ShardReader::open(&shard, None)?, shard.source));
        }
    }
}

impl Iterator for Documents {
    type Item = Result<Document, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.open = None;
            self.shards = Vec::new().into_iter();
        }
        step.transpose()
    }
}
