//! A prompt continued, token by token.

use std::time::Instant;

use openelm_model::{OpenElm, Precision};

use crate::error::InferError;
use crate::sampler::Sampler;
use crate::session::Session;

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
    /// A stop token came.
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

/// Continues `prompt`. Each new token is given to `receive` at once; it says whether to go on.
///
/// # Errors
/// When the prompt is empty, too long or has unknown ids, or the device fails.
pub fn generate(
    model: &OpenElm,
    prompt: &[u32],
    sampler: &mut Sampler,
    limits: &Limits,
    precision: Precision,
    mut receive: impl FnMut(u32) -> bool,
) -> Result<Generation, InferError> {
    let context = model.config().rope_max_length;
    if prompt.len() > context {
        return Err(InferError::PromptTooLong { prompt: prompt.len(), context });
    }
    // The last new token is not read again, so it needs no room.
    let capacity = prompt.len() + limits.max_new_tokens.saturating_sub(1);
    let mut session = Session::new(model, capacity, precision);
    let mut seen = prompt.to_vec();
    let begin = Instant::now();
    let mut logits = session.read(prompt)?;
    let mut prefill_seconds = begin.elapsed().as_secs_f64();
    let mut reason = StopReason::Length;
    while seen.len() - prompt.len() < limits.max_new_tokens {
        let next = sampler.pick(&mut logits, &seen);
        seen.push(next);
        if seen.len() == prompt.len() + 1 {
            prefill_seconds = begin.elapsed().as_secs_f64();
        }
        let goes_on = receive(next);
        if limits.stop.contains(&next) {
            reason = StopReason::Stop;
            break;
        }
        if !goes_on {
            reason = StopReason::Cancelled;
            break;
        }
        if seen.len() - prompt.len() == limits.max_new_tokens {
            break;
        }
        if session.length() == context {
            reason = StopReason::Context;
            break;
        }
        logits = session.read(&[next])?;
    }
    Ok(Generation {
        ids: seen.split_off(prompt.len()),
        reason,
        prompt_tokens: prompt.len(),
        prefill_seconds,
        decode_seconds: begin.elapsed().as_secs_f64() - prefill_seconds,
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use openelm_model::preset;

    use super::*;
    use crate::sampler::SamplingSettings;

    fn run(max_new_tokens: usize, stop: Vec<u32>, rope: usize, cancel_after: usize) -> Generation {
        let mut config = preset("gpt-test").unwrap();
        (config.vocab_size, config.max_context_length, config.rope_max_length) = (11, rope, rope);
        let model = OpenElm::init(&config, 1, &Device::flex()).unwrap();
        let mut sampler = Sampler::new(SamplingSettings::default()).unwrap();
        let mut received = Vec::new();
        let limits = Limits { max_new_tokens, stop };
        let generation = generate(&model, &[1, 2, 3], &mut sampler, &limits, Precision::F32, |id| {
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
