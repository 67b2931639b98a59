//! [`TokenScorer`] for any [`Decoder`]: every context is read once, what many contexts begin with once for all of them, and
//! continuations behind forks of their context's cache; many sequences go through the model together.
//!
//! What must stay true: a score is that of the whole sequence; logits exist for a bounded number of positions at a time.

use crate::decoder::{Cache, Decoder, Run, Wanted};
use crate::error::InferError;
use crate::score::{ContextGroup, TokenScore, TokenScorer, beginning_of, by_beginning, check_groups, shared_start};

/// Logits that exist at a time: 256 MiB of f32.
const MOST_LOGITS: usize = 64 << 20;

/// A decoder that scores tokens.
pub struct DecoderScorer<'a> {
    decoder: &'a dyn Decoder,
    batch_tokens: usize,
}

/// A sequence to read: `ids` behind a cache, and the targets that its last positions tell.
struct Reading<'t> {
    cache: Cache,
    ids: Vec<u32>,
    /// For each of the last positions: group, continuation, and the id whose probability is wanted there.
    targets: Vec<Vec<(usize, usize, u32)>>,
    /// Continuations to read behind it: group, continuation, its tokens.
    follow: Vec<(usize, usize, &'t [u32])>,
}

impl<'a> DecoderScorer<'a> {
    /// `batch_tokens`: tokens that go through the model at a time; a longer sequence goes alone.
    pub fn new(decoder: &'a dyn Decoder, batch_tokens: usize) -> Self {
        Self { decoder, batch_tokens: batch_tokens.max(1) }
    }

    /// Reads everything, in batches, and what follows it; adds up the scores.
    fn read_all(&self, readings: Vec<Reading<'_>>, scores: &mut [Vec<TokenScore>]) -> Result<(), InferError> {
        let vocabulary = self.decoder.config().vocab_size.max(1);
        let most_rows = (MOST_LOGITS / vocabulary).max(1);
        let mut waiting = readings.into_iter().peekable();
        while let Some(first) = waiting.next() {
            let (mut tokens, mut rows) = (first.ids.len(), first.targets.len());
            let mut batch = vec![first];
            while let Some(next) = waiting.next_if(|next| {
                tokens += next.ids.len();
                rows += next.targets.len();
                tokens <= self.batch_tokens && rows <= most_rows
            }) {
                batch.push(next);
            }
            let ids: Vec<Vec<u32>> =
                batch.iter().flat_map(|reading| &reading.targets).map(|targets| targets.iter().map(|(_, _, id)| *id).collect()).collect();
            let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
            let mut runs: Vec<Run<'_>> = Vec::with_capacity(batch.len());
            for reading in &mut batch {
                runs.push(Run { ids: &reading.ids, cache: &mut reading.cache, logits: Wanted::End(reading.targets.len()) });
            }
            let found = self.decoder.look_up(&mut runs, &ids)?;
            drop(runs);
            for (targets, found) in batch.iter().flat_map(|reading| &reading.targets).zip(&found) {
                for ((group, continuation, _), logit) in targets.iter().zip(&found.logits) {
                    if let Some(score) = scores.get_mut(*group).and_then(|scores| scores.get_mut(*continuation)) {
                        score.log_probability += f64::from(*logit) - found.log_sum;
                        score.greedy &= *logit >= found.largest;
                    }
                }
            }
            // Forks live as long as their batch: contexts of few tokens, continuations of fewer.
            let mut behind = Vec::new();
            for reading in &batch {
                for (group, continuation, tokens) in &reading.follow {
                    let (read, rest) = (&tokens[..tokens.len() - 1], &tokens[1..]);
                    behind.push(Reading {
                        cache: reading.cache.fork(reading.cache.length()),
                        ids: read.to_vec(),
                        targets: rest.iter().map(|id| vec![(*group, *continuation, *id)]).collect(),
                        follow: Vec::new(),
                    });
                }
            }
            if !behind.is_empty() {
                self.read_all(behind, scores)?;
            }
        }
        Ok(())
    }

    /// What is read of a group behind `shared` tokens that `before` holds.
    fn reading<'t>(&self, number: usize, group: &'t ContextGroup, shared: usize, before: Option<&Cache>) -> Reading<'t> {
        let longest = group.continuations.iter().map(Vec::len).max().unwrap_or(0);
        let mut ids = group.context[shared..].to_vec();
        let mut targets: Vec<Vec<(usize, usize, u32)>> = Vec::new();
        let mut follow = Vec::new();
        if let [only] = group.continuations.as_slice() {
            // One continuation is read along with its context.
            ids.extend(&only[..only.len() - 1]);
            targets.extend(only.iter().map(|id| vec![(number, 0, *id)]));
        } else {
            let all = group.continuations.iter().enumerate();
            targets.push(all.clone().filter_map(|(index, tokens)| Some((number, index, *tokens.first()?))).collect());
            follow.extend(all.filter(|(_, tokens)| tokens.len() > 1).map(|(index, tokens)| (number, index, tokens.as_slice())));
        }
        let cache = match before {
            Some(before) => before.fork(shared),
            None => self.decoder.cache(group.context.len() + longest.saturating_sub(1)),
        };
        Reading { cache, ids, targets, follow }
    }
}

impl TokenScorer for DecoderScorer<'_> {
    fn vocabulary(&self) -> usize {
        self.decoder.config().vocab_size
    }

    fn positions(&self) -> usize {
        self.decoder.config().rope_max_length
    }

    fn score(&self, groups: &[ContextGroup]) -> Result<Vec<Vec<TokenScore>>, InferError> {
        check_groups(self, groups)?;
        let fresh = TokenScore { log_probability: 0.0, greedy: true };
        let mut scores: Vec<Vec<TokenScore>> = groups.iter().map(|group| vec![fresh; group.continuations.len()]).collect();
        let asked = (0..groups.len()).filter(|number| !groups[*number].continuations.is_empty());
        for numbers in by_beginning(asked, |number| beginning_of(&groups[*number].context)) {
            let shared = shared_start(numbers.iter().map(|number| groups[*number].context.as_slice()));
            let before = match shared {
                0 => None,
                shared => {
                    let longest = numbers.iter().map(|number| {
                        let group = &groups[*number];
                        group.context.len() + group.continuations.iter().map(Vec::len).max().unwrap_or(0)
                    });
                    let mut cache = self.decoder.cache(longest.max().unwrap_or(0));
                    let ids = &groups[numbers[0]].context[..shared];
                    self.decoder.read(&mut [Run { ids, cache: &mut cache, logits: Wanted::Nothing }])?;
                    Some(cache)
                }
            };
            // Caches are made batch by batch, not for all groups at once.
            let mut left = numbers.as_slice();
            while !left.is_empty() {
                let mut tokens = 0;
                let fitting = left.iter().take_while(|number| {
                    tokens += groups[**number].context.len() - shared;
                    tokens <= self.batch_tokens
                });
                let (now, later) = left.split_at(fitting.count().max(1).min(left.len()));
                left = later;
                let readings = now.iter().map(|number| self.reading(*number, &groups[*number], shared, before.as_ref()));
                self.read_all(readings.collect(), &mut scores)?;
            }
        }
        Ok(scores)
    }
}
