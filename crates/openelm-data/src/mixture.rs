//! What all lanes of the mixed order share: which shards, or which documents of a shard, belong to which lane.
//!
//! A corpus with at least as many shards as lanes is dealt shard by shard. With fewer, lanes share a shard by taking every
//! k-th document. Either way each document belongs to exactly one lane. A lane whose share holds no document that passes the
//! filters takes the whole corpus instead (`Share::whole`), so that few documents and many lanes still mix.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::config::{DataConfig, Packing};
use crate::encoder::TextEncoder;
use crate::error::DataError;
use crate::seeded::{Purpose, Seeded};
use crate::shard::Shard;
use crate::shard_reader::Mark;
use crate::shared_shard::SharedShard;
use crate::skip_log::SkipLog;
use crate::token_cache::TokenCache;

/// The fixed facts of a mixed order.
pub(crate) struct Mixture {
    pub corpora: Vec<MixedCorpus>,
    pub padding_id: u32,
    pub length: usize,
    pub packing: Packing,
    /// Notes bad records, where they are skipped.
    pub skip: Option<SkipLog>,
    pub cache: Option<TokenCache>,
    /// Sequences of a lane that are permuted among each other.
    pub block: usize,
    pub lanes: usize,
    shuffle: bool,
    seed: u64,
    /// This rank, and the number of ranks: a lane is this rank's when lane mod world is the rank.
    ranks: (u64, u64),
    /// Passes over shared shards that lanes of this rank are in.
    passes: Mutex<HashMap<Pass, Weak<SharedShard>>>,
    /// Where the lanes of a resumed run stand in them: the first document that one of them needs.
    starts: HashMap<Pass, (u64, Mark)>,
}

/// Corpus, shard in it, and epoch.
pub(crate) type Pass = (usize, usize, u64);

/// One corpus of a mixture.
pub(crate) struct MixedCorpus {
    pub name: String,
    pub weight: f64,
    pub max_epochs: Option<u64>,
    /// The tokenizer with the corpus's filters.
    pub encoder: TextEncoder,
    pub shards: Vec<Shard>,
    /// Order in which shards are dealt to lanes.
    deal: Vec<usize>,
}

/// A lane's part of a corpus.
pub(crate) struct Share {
    /// Indexes into the corpus's shards.
    pub shards: Vec<usize>,
    /// In each shard: the first document, and the distance from one to the next.
    pub first: u64,
    pub stride: u64,
}

impl Mixture {
    /// Bad records are noted in `skip`, or are errors.
    pub fn new(config: &DataConfig, shards: &[Shard], encoder: TextEncoder, skip: Option<SkipLog>) -> Self {
        let corpora = config.corpora.iter().enumerate().map(|(index, corpus)| {
            let shards: Vec<Shard> = shards.iter().filter(|shard| shard.corpus == index).cloned().collect();
            let deal = if config.shuffle {
                Seeded::new(config.seed, Purpose::DealShards, &[index as u64]).permutation(shards.len())
            } else {
                (0..shards.len()).collect()
            };
            MixedCorpus {
                name: corpus.name.clone(),
                weight: corpus.weight,
                max_epochs: corpus.max_epochs,
                encoder: encoder.for_corpus(corpus),
                shards,
                deal,
            }
        });
        Self {
            corpora: corpora.collect(),
            padding_id: encoder.padding_id(),
            length: config.sequence_length,
            packing: config.packing,
            skip,
            cache: config.cache.as_deref().map(TokenCache::new),
            block: config.shuffle_buffer,
            lanes: config.lanes,
            shuffle: config.shuffle,
            seed: config.seed,
            ranks: (0, 1),
            passes: Mutex::default(),
            starts: HashMap::new(),
        }
    }

    /// Of rank `rank` of `world`, whose lanes stand in shared shards at `positions`.
    pub fn of_rank(mut self, rank: usize, world: usize, positions: impl Iterator<Item = (Pass, u64, Mark)>) -> Self {
        self.ranks = (rank as u64, world.max(1) as u64);
        for (pass, document, mark) in positions {
            let start = self.starts.entry(pass).or_insert((document, mark));
            if document < start.0 {
                *start = (document, mark);
            }
        }
        self
    }

    /// The pass over a shared shard that a lane enters at `document`.
    pub fn pass(&self, pass: Pass, document: u64, mark: Mark) -> Result<Arc<SharedShard>, DataError> {
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = passes.get(&pass).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let first = (document, mark);
        let (start, mark) = match self.starts.get(&pass) {
            Some(start) if start.0 < document => *start,
            // The other lanes' documents begin before this lane's in a pass that is entered at its beginning.
            None if mark == Mark::default() && document < self.lanes as u64 => (0, mark),
            _ => first,
        };
        let opened = Arc::new(SharedShard::open(&self.corpora[pass.0].shards[pass.1], start, mark)?);
        passes.retain(|_, pass| pass.strong_count() > 0);
        passes.insert(pass, Arc::downgrade(&opened));
        Ok(opened)
    }

    /// Whether a lane of this rank takes document `document` of a shard that lanes share.
    pub fn wants(&self, corpus: usize, shard: usize, document: u64, stride: u64) -> bool {
        let deal = &self.corpora[corpus].deal;
        let at = deal.iter().position(|dealt| *dealt == shard).unwrap_or(0) as u64;
        let lane = (document % stride.max(1)) * deal.len() as u64 + at;
        lane % self.ranks.1 == self.ranks.0
    }

    /// A lane's part of a corpus; all of it when `whole`.
    pub fn share(&self, corpus: usize, lane: usize, whole: bool) -> Share {
        let deal = &self.corpora[corpus].deal;
        let shards = deal.len();
        if whole {
            return Share { shards: (0..shards).collect(), first: 0, stride: 1 };
        }
        if shards >= self.lanes {
            let own = deal.iter().copied().skip(lane).step_by(self.lanes).collect();
            return Share { shards: own, first: 0, stride: 1 };
        }
        let at = lane % shards;
        let sharers = (self.lanes - at).div_ceil(shards);
        Share { shards: vec![deal[at]], first: (lane / shards) as u64, stride: sharers as u64 }
    }

    /// The order of `count` shards of a lane in an epoch.
    pub fn shard_order(&self, corpus: usize, lane: usize, epoch: u64, count: usize) -> Vec<usize> {
        if !self.shuffle {
            return (0..count).collect();
        }
        Seeded::new(self.seed, Purpose::ShardOrder, &[corpus as u64, lane as u64, epoch]).permutation(count)
    }

    /// The order in which a block's `count` sequences are given.
    pub fn block_order(&self, lane: usize, block: u64, count: usize) -> Vec<usize> {
        if !self.shuffle {
            return (0..count).collect();
        }
        Seeded::new(self.seed, Purpose::BlockOrder, &[lane as u64, block]).permutation(count)
    }

    /// Tokens that each corpus counts as given before the lane starts. Up to one sequence each, so that lanes do not all
    /// begin with the same corpus; the shares are not touched in the long run.
    pub fn first_credits(&self, lane: usize) -> Vec<f64> {
        let mut random = Seeded::new(self.seed, Purpose::FirstCorpora, &[lane as u64]);
        self.corpora.iter().map(|_| random.fraction() * self.length as f64).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::CorpusConfig;
    use crate::encoder::tests::Bytes;
    use crate::shard::Layout;

    fn mixture(shards: usize, lanes: usize) -> Mixture {
        let mut config = DataConfig::new(vec![CorpusConfig::new("a", vec!["a".into()])], 8);
        config.lanes = lanes;
        let shard = Shard {
            path: "a".into(),
            source: "a".into(),
            corpus: 0,
            corpus_name: "a".into(),
            text_key: "text".into(),
            layout: Layout::Lines,
            size: 0,
            remote: None,
        };
        let encoder = TextEncoder::new(&config, Arc::new(Bytes)).unwrap();
        Mixture::new(&config, &vec![shard; shards], encoder, None)
    }

    #[test]
    fn every_document_belongs_to_one_lane() {
        for (shards, lanes) in [(1, 1), (1, 8), (3, 8), (8, 8), (13, 8), (7, 4)] {
            let mixture = mixture(shards, lanes);
            let mut owners = vec![[0u32; 40]; shards];
            for lane in 0..lanes {
                let share = mixture.share(0, lane, false);
                for shard in share.shards {
                    for document in (share.first..40).step_by(share.stride as usize) {
                        owners[shard][document as usize] += 1;
                    }
                }
            }
            assert!(owners.iter().flatten().all(|count| *count == 1), "{shards} shards, {lanes} lanes");
        }
    }
}
