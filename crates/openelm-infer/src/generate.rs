//! A prompt continued, token by token, or several at a time where a draft guesses them.
//!
//! What must stay true: every token is drawn from the model's own logits behind all tokens before it, with a draft as without one.

use std::time::Instant;

use crate::decoder::{Cache, Decoder, Run, Wanted};
use crate::draft::Draft;
use crate::error::InferError;
use crate::sampler::Sampler;

/// When to stop.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Tokens to make at most.
    pub max_new_tokens: usize,
    /// Tokens that end the text; they are given too.
    pub stop: Vec<u32>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A stop token came, or the answer has the form that it must have.
    Stop,
    /// `max_new_tokens` were made.
    Length,
    /// The context is full.
    Context,
    /// The receiver wanted no more.
    Cancelled,
}

/// What was made, and how fast.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The new tokens.
    pub ids: Vec<u32>,
    pub reason: StopReason,
    pub prompt_tokens: usize,
    /// New tokens that a draft had proposed.
    pub accepted: usize,
    /// Seconds until the first token.
    pub prefill_seconds: f64,
    /// Seconds for the tokens after the first.
    pub decode_seconds: f64,
}

impl Generation {
    /// Tokens a second after the first token; `None` when there was only one.
    pub fn decode_tokens_per_second(&self) -> Option<f64> {
        (self.ids.len() > 1).then(|| (self.ids.len() - 1) as f64 / self.decode_seconds)
    }
}

/// Continues `prompt`. Each new token is given to `receive` at once; it says whether to go on. With a `draft`, several tokens are
/// checked at a time; the text is the same as without.
///
/// # Errors
/// When the prompt is empty, too long or has unknown ids, no token can follow under a constraint, or the device fails.
pub fn generate(
    decoder: &dyn Decoder,
    prompt: &[u32],
    sampler: &mut Sampler,
    limits: &Limits,
    draft: Option<&mut Draft>,
    mut receive: impl FnMut(u32) -> bool,
) -> Result<Generation, InferError> {
    let context = decoder.config().rope_max_length;
    if prompt.len() > context {
        return Err(InferError::PromptTooLong { prompt: prompt.len(), context });
    }
    // The last new token is not read again, so it needs no room; rejected proposals are read and forgotten.
    let ahead = draft.as_ref().map_or(0, |draft| draft.tokens());
    let mut cache = decoder.cache((prompt.len() + limits.max_new_tokens.saturating_sub(1) + ahead).min(context));
    let begun = Begun { cache: &mut cache, context, piece: usize::MAX };
    continue_text(decoder, prompt, begun, sampler, limits, draft, |id| id.is_none_or(&mut receive))
}

/// How far a text was read before.
pub(crate) struct Begun<'a> {
    /// Holds a beginning of the prompt, never all of it.
    pub cache: &'a mut Cache,
    /// Positions of the text at most.
    pub context: usize,
    /// Tokens of the prompt that are read at a time.
    pub piece: usize,
}

/// As [`generate`], behind what the cache holds. `receive` is called after each piece of the prompt but the last, too, without a token.
/// The cache holds all but the last token afterwards, and, when there is an error, some beginning of the text.
pub(crate) fn continue_text(
    decoder: &dyn Decoder,
    prompt: &[u32],
    begun: Begun<'_>,
    sampler: &mut Sampler,
    limits: &Limits,
    mut draft: Option<&mut Draft>,
    mut receive: impl FnMut(Option<u32>) -> bool,
) -> Result<Generation, InferError> {
    let Begun { cache, context, piece } = begun;
    let mut seen = prompt.to_vec();
    let begin = Instant::now();
    let mut reason = StopReason::Length;
    let mut logits = loop {
        let piece = cache.length()..prompt.len().min(cache.length().saturating_add(piece));
        let last = piece.end == prompt.len();
        let ids = prompt.get(piece).unwrap_or_default();
        let logits = decoder.read(&mut [Run { ids, cache, logits: if last { Wanted::Last } else { Wanted::Nothing } }])?.concat();
        if last {
            break logits;
        }
        if !receive(None) {
            reason = StopReason::Cancelled;
            break Vec::new();
        }
    };
    let mut prefill_seconds = begin.elapsed().as_secs_f64();
    let mut proposed: Vec<u32> = Vec::new();
    let mut accepted = 0;
    let vocabulary = decoder.config().vocab_size.max(1);
    'text: while !logits.is_empty() && seen.len() - prompt.len() < limits.max_new_tokens {
        // The logits behind the last token, then those behind each proposal: they hold as long as proposals are what is drawn.
        for (number, logits) in logits.chunks_exact_mut(vocabulary).enumerate() {
            let next = sampler.pick(logits, &seen)?;
            seen.push(next);
            if seen.len() == prompt.len() + 1 {
                prefill_seconds = begin.elapsed().as_secs_f64();
            }
            let goes_on = receive(Some(next));
            let ends = if limits.stop.contains(&next) || sampler.is_whole() {
                Some(StopReason::Stop)
            } else if !goes_on {
                Some(StopReason::Cancelled)
            } else if seen.len() - prompt.len() == limits.max_new_tokens {
                Some(StopReason::Length)
            } else if seen.len() > context {
                Some(StopReason::Context)
            } else {
                None
            };
            if let Some(end) = ends {
                reason = end;
                break 'text;
            }
            if proposed.get(number) != Some(&next) {
                break;
            }
            accepted += 1;
        }
        // All but the newest token are read and stay; what was proposed beyond goes.
        cache.truncate(seen.len() - 1);
        proposed.clear();
        if let Some(draft) = &mut draft {
            let room = (cache.capacity() - seen.len()).min(limits.max_new_tokens - (seen.len() - prompt.len()));
            draft.propose(&seen, room, &mut proposed)?;
        }
        let mut ids = vec![seen[seen.len() - 1]];
        ids.extend(&proposed);
        logits = decoder.read(&mut [Run { ids: &ids, cache, logits: Wanted::All }])?.concat();
    }
    Ok(Generation {
        ids: seen.split_off(prompt.len()),
        reason,
        prompt_tokens: prompt.len(),
        accepted,
        prefill_seconds,
        decode_seconds: begin.elapsed().as_secs_f64() - prefill_seconds,
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use openelm_model::{OpenElm, Precision, preset};

    use super::*;
    use crate::BurnDecoder;
    use crate::sampler::SamplingSettings;

    fn run(max_new_tokens: usize, stop: Vec<u32>, rope: usize, cancel_after: usize) -> Generation {
        let mut config = preset("gpt-test").unwrap();
        (config.vocab_size, config.max_context_length, config.rope_max_length) = (11, rope, rope);
        let model = OpenElm::init(&config, 1, &Device::flex()).unwrap();
        let mut sampler = Sampler::new(SamplingSettings::default()).unwrap();
        let mut received = Vec::new();
        let limits = Limits { max_new_tokens, stop };
        let decoder = BurnDecoder::new(model, Precision::F32);
        let generation = generate(&decoder, &[1, 2, 3], &mut sampler, &limits, None, |id| {
            received.push(id);
            received.len() < cancel_after
        });
        let generation = generation.unwrap();
        assert_eq!(received, generation.ids);
        generation
    }

    #[test]
    fn every_way_to_end() {
        let free = run(6, vec![], 64, usize::MAX);
        assert_eq!((free.ids.len(), free.reason), (6, StopReason::Length));
        let stopped = run(6, vec![free.ids[0]], 64, usize::MAX);
        assert_eq!((stopped.ids, stopped.reason), (vec![free.ids[0]], StopReason::Stop));
        let cancelled = run(6, vec![], 64, 2);
        assert_eq!((cancelled.ids.len(), cancelled.reason), (2, StopReason::Cancelled));
        // Three prompt tokens and two new ones fill five positions; the third new token was made from the last position.
        let full = run(6, vec![], 5, usize::MAX);
        assert_eq!((full.ids.len(), full.reason), (3, StopReason::Context));
        assert_eq!(full.ids, free.ids[..3]);
        assert_eq!(run(0, vec![], 64, usize::MAX).ids, Vec::<u32>::new());
    }
}
