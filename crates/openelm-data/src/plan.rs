//! What a run would read, from the shards' metadata and a sample of their documents alone.

use std::sync::Arc;

use openelm_tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;

use crate::config::{DataConfig, Order};
use crate::encoder::{Encode, TextEncoder, Verdict};
use crate::error::DataError;
use crate::prefetch::pool;
use crate::shard::{Shard, list_shards};
use crate::shard_reader::{Read, ShardReader};
use crate::skip_log::SkipLog;

/// Shards of a corpus that are sampled, and text of each.
const SAMPLED_SHARDS: usize = 3;
const SAMPLED_BYTES: usize = 2 << 20;
/// A corpus of so many bytes on disk is sampled in every shard.
const SMALL_CORPUS: u64 = 32 << 20;
/// How far a file is read ahead of its text on average: half a buffer.
const READ_AHEAD: u64 = 32 << 10;
/// Passes over a corpus from which on more of it is known to help little (Muennighoff et al., 2023).
const MANY_EPOCHS: f64 = 4.0;
/// Files that most systems let a process have open.
const OPEN_FILES: usize = 1024;

/// One corpus of a plan.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct CorpusPlan {
    pub name: String,
    pub shards: usize,
    /// Bytes on disk.
    pub file_bytes: u64,
    pub documents: u64,
    /// The number of documents is not estimated: the shards say it, or were read whole.
    pub documents_exact: bool,
    /// Estimated tokens of the documents that the filters keep.
    pub tokens: u64,
    /// Share of the sampled documents that the filters keep.
    pub kept: f64,
    /// Sampled documents.
    pub sampled: u64,
    /// Share of the run's tokens.
    pub share: f64,
    /// Tokens that the run takes from it.
    pub run_tokens: u64,
    /// Passes over it that the run makes.
    pub epochs: f64,
    /// Shards that each lane has for itself; below 1, lanes share one.
    pub shards_per_lane: f64,
}

/// What a run would read.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Plan {
    pub corpora: Vec<CorpusPlan>,
    /// Tokens of all corpora.
    pub tokens: u64,
    /// Tokens that the run trains on.
    pub run_tokens: u64,
    pub world: usize,
    pub lanes: usize,
    pub lanes_per_rank: usize,
    /// Shards that a rank reads at a time.
    pub open_shards_per_rank: usize,
    /// What cannot work, or hardly.
    pub warnings: Vec<String>,
}

/// Plans a run of `run_sequences` sequences on `world` ranks.
///
/// # Errors
/// A bad configuration, missing shards, or a sampled shard that cannot be read.
pub fn plan(config: &DataConfig, tokenizer: &Tokenizer, run_sequences: u64, world: usize) -> Result<Plan, DataError> {
    plan_with(config, Arc::new(tokenizer.clone()), run_sequences, world)
}

pub(crate) fn plan_with(config: &DataConfig, tokenizer: Arc<dyn Encode>, run_sequences: u64, world: usize) -> Result<Plan, DataError> {
    config.validate()?;
    let encoder = TextEncoder::new(config, tokenizer)?;
    let shards = list_shards(&config.corpora, &config.object_store)?;
    let run_tokens = run_sequences.saturating_mul(config.sequence_length as u64);
    let mixed = config.order == Order::Mixed;
    let samples = pool(config.threads)?.install(|| {
        let corpora = config.corpora.par_iter().enumerate();
        corpora.map(|(index, corpus)| estimate(&shards, index, &encoder.for_corpus(corpus))).collect::<Result<Vec<_>, _>>()
    })?;
    let weights: f64 = config.corpora.iter().map(|corpus| corpus.weight).sum();
    let all: u64 = samples.iter().map(|sample| sample.tokens).sum();
    let mut corpora = Vec::new();
    for (corpus, sample) in config.corpora.iter().zip(samples) {
        // The corenet order reads every file once an epoch, so a corpus counts by its size.
        let share = if mixed { corpus.weight / weights } else { sample.tokens as f64 / all.max(1) as f64 };
        let need = run_tokens as f64 * share;
        corpora.push(CorpusPlan {
            name: corpus.name.clone(),
            share,
            run_tokens: need as u64,
            epochs: need / (sample.tokens.max(1) as f64),
            shards_per_lane: sample.shards as f64 / config.lanes as f64,
            ..sample
        });
    }
    let lanes_per_rank = config.lanes / world.max(1);
    let streams =
        if mixed { lanes_per_rank * config.corpora.iter().filter(|corpus| corpus.weight > 0.0).count() } else { config.workers.max(1) };
    let mut plan = Plan {
        corpora,
        tokens: all,
        run_tokens,
        world,
        lanes: config.lanes,
        lanes_per_rank,
        open_shards_per_rank: streams,
        warnings: Vec::new(),
    };
    plan.warnings = warnings(config, &plan);
    let copies = open_copies(config, &shards, streams, lanes_per_rank);
    if copies > config.object_store.max_bytes {
        plan.warnings.push(format!(
            "the objects that a rank has open can take {copies} bytes, more than object_store.max_bytes ({}): raise it or lower data.lanes",
            config.object_store.max_bytes
        ));
    }
    Ok(plan)
}

/// Bytes of the objects that a rank has open at a time, at most.
fn open_copies(config: &DataConfig, shards: &[Shard], streams: usize, lanes_per_rank: usize) -> u64 {
    let largest = |shards: &mut dyn Iterator<Item = &Shard>, count: usize| {
        let mut sizes: Vec<u64> = shards.filter_map(|shard| shard.remote.as_ref().map(|remote| remote.size())).collect();
        sizes.sort_unstable();
        sizes.iter().rev().take(count).sum::<u64>()
    };
    if config.order == Order::Corenet {
        return largest(&mut shards.iter(), streams);
    }
    let weighted = config.corpora.iter().enumerate().filter(|(_, corpus)| corpus.weight > 0.0);
    weighted.map(|(index, _)| largest(&mut shards.iter().filter(|shard| shard.corpus == index), lanes_per_rank)).sum()
}

/// Documents and tokens of a corpus. The fields that depend on the run are left at 0.
fn estimate(shards: &[Shard], corpus: usize, encoder: &TextEncoder) -> Result<CorpusPlan, DataError> {
    let own: Vec<&Shard> = shards.iter().filter(|shard| shard.corpus == corpus).collect();
    let file_bytes: u64 = own.iter().map(|shard| shard.size).sum();
    let step = if file_bytes <= SMALL_CORPUS { 1 } else { own.len().div_ceil(SAMPLED_SHARDS).max(1) };
    // Of the sampled shards: documents they hold and their bytes; of the sampled documents: number, kept, tokens.
    let (mut held, mut bytes, mut sampled, mut kept, mut tokens) = (0.0, 0.0, 0u64, 0u64, 0u64);
    let mut exact = true;
    let mut ids = Vec::new();
    for shard in own.iter().step_by(step) {
        let mut reader = ShardReader::open(shard, Some(&SkipLog::new()))?;
        let (mut read, mut documents, mut ended, mut dropping) = (0, 0u64, false, false);
        // What is read from the disk anyway is read to its end, which makes small shards exact.
        while read < SAMPLED_BYTES || reader.consumed() == Some(shard.size) {
            match reader.read()? {
                Read::Part(part) => {
                    read += part.text.len();
                    documents += u64::from(part.index == 0);
                    if part.index > 0 && dropping {
                        continue;
                    }
                    let verdict = encoder.encode_part(&part.text, part.index, part.last, &mut ids);
                    if part.index == 0 {
                        dropping = verdict != Verdict::Kept;
                        kept += u64::from(!dropping);
                    }
                    tokens += if dropping { 0 } else { ids.len() as u64 };
                }
                Read::Skipped => {}
                Read::End => {
                    ended = true;
                    break;
                }
            }
        }
        sampled += documents;
        held += match (ended, reader.documents(), reader.consumed()) {
            (true, _, _) => documents as f64,
            (_, Some(rows), _) => rows as f64,
            (_, None, consumed) => {
                exact = false;
                let consumed = consumed.unwrap_or(shard.size).saturating_sub(READ_AHEAD).max(1);
                documents as f64 * shard.size as f64 / consumed as f64
            }
        };
        bytes += shard.size as f64;
    }
    exact &= step == 1;
    let documents = if exact { held } else { held * file_bytes as f64 / f64::max(bytes, 1.0) };
    Ok(CorpusPlan {
        name: String::new(),
        shards: own.len(),
        file_bytes,
        documents: documents as u64,
        documents_exact: exact,
        tokens: (documents * tokens as f64 / sampled.max(1) as f64) as u64,
        kept: kept as f64 / sampled.max(1) as f64,
        sampled,
        share: 0.0,
        run_tokens: 0,
        epochs: 0.0,
        shards_per_lane: 0.0,
    })
}

fn warnings(config: &DataConfig, plan: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    let mixed = config.order == Order::Mixed;
    if mixed && (plan.world == 0 || !plan.lanes.is_multiple_of(plan.world)) {
        warnings
            .push(format!("{} lanes cannot be shared by {} ranks: set data.lanes to a multiple of {}", plan.lanes, plan.world, plan.world));
    }
    if plan.open_shards_per_rank > OPEN_FILES * 9 / 10 {
        warnings.push(format!(
            "a rank has {} shards open at a time, and many systems allow {OPEN_FILES} files: raise the limit (ulimit -n) or lower data.lanes",
            plan.open_shards_per_rank
        ));
    }
    for (corpus, section) in plan.corpora.iter().zip(&config.corpora) {
        let CorpusPlan { name, epochs, kept, documents, sampled, .. } = corpus;
        if mixed && section.weight == 0.0 {
            warnings.push(format!("{name}: weight 0, so nothing of it is read"));
            continue;
        }
        if *sampled == 0 || *kept == 0.0 {
            warnings.push(format!("{name}: the filters keep none of {sampled} sampled documents"));
            continue;
        }
        if *kept < 0.5 {
            warnings.push(format!("{name}: the filters keep only {:.0} % of {sampled} sampled documents", kept * 100.0));
        }
        match section.max_epochs {
            // Lanes reach the end of their shares at different times.
            Some(limit) if *epochs > limit as f64 => {
                warnings.push(format!("{name}: the run needs {epochs:.1} passes, but max_epochs is {limit}: it will stop with an error"));
            }
            Some(limit) if *epochs > 0.9 * limit as f64 => {
                warnings
                    .push(format!("{name}: {epochs:.2} passes are close to max_epochs ({limit}), and some lanes reach it before others"));
            }
            None if *epochs > MANY_EPOCHS => {
                warnings.push(format!("{name}: {epochs:.1} passes; beyond {MANY_EPOCHS} a repeated text teaches little"))
            }
            _ => {}
        }
        if mixed && (*documents as f64) * kept < plan.lanes as f64 {
            warnings.push(format!(
                "{name}: fewer documents than lanes ({}): lanes without one take the whole corpus, so texts repeat early",
                plan.lanes
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::tests::Bytes;
    use crate::test_shards::{LAYOUTS, Shards};

    #[test]
    fn estimates_are_close_and_what_cannot_work_is_said() {
        for layout in LAYOUTS {
            let shards = Shards::new();
            for shard in 0..9 {
                let texts: Vec<String> = (0..3000).map(|at| format!("{at} {}", "some words ".repeat(at % 100))).collect();
                shards.write(&format!("a-{shard}"), layout, &texts);
            }
            let mut config = shards.config(&[("a", 1.0)], 99);
            (config.lanes, config.corpora[0].max_epochs, config.min_tokens_per_text) = (12, Some(2), 30);
            let plan = plan_with(&config, Arc::new(Bytes), 1_000_000, 8).unwrap();
            let corpus = &plan.corpora[0];
            let truth: usize =
                9 * (0..3000).map(|at: usize| 3 + at.to_string().len() + 11 * (at % 100)).filter(|tokens| *tokens >= 30).sum::<usize>();
            assert!((corpus.documents as f64 / 27_000.0 - 1.0).abs() < 0.15, "{layout}: {}", corpus.documents);
            assert!((corpus.tokens as f64 / truth as f64 - 1.0).abs() < 0.15, "{layout}: {} of {truth}", corpus.tokens);
            assert_eq!(plan.run_tokens, 99_000_000);
            assert!((corpus.epochs - 99e6 / corpus.tokens as f64).abs() < 1e-6);
            let all = plan.warnings.join("\n");
            assert!(all.contains("cannot be shared by 8 ranks") && all.contains("max_epochs is 2"), "{all}");
        }
    }
}
