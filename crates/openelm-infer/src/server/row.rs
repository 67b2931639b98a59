//! One answer in the making.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use openelm_tokenizer::{Decoder as TextDecoder, Tokenizer};

use crate::decoder::Cache;
use crate::sampler::Sampler;
use crate::server::job::{Event, FinishReason, Request, Sequence, Usage};
use crate::server::logprobs::TokenLogprob;
use crate::server::metrics::Metrics;
use crate::server::stop_strings::StopStrings;

/// A sequence that holds a slot.
#[derive(Debug)]
pub(super) struct Row {
    pub request: Arc<Request>,
    choice: usize,
    /// The prompt, and the tokens made so far.
    pub ids: Vec<u32>,
    pub prompt: Arc<[u32]>,
    pub cache: Cache,
    reused: usize,
    sampler: Sampler,
    text: TextDecoder,
    stops: StopStrings,
    /// How often the answer has each token.
    counts: HashMap<u32, u32>,
    /// When the last token came.
    last: Option<Instant>,
}

impl Row {
    /// `cache` holds a beginning of the prompt.
    pub fn new(sequence: Sequence, request: Arc<Request>, sampler: Sampler, cache: Cache, tokenizer: &Tokenizer) -> Self {
        let mut text = tokenizer.decoder();
        // The decoder must have seen the prompt, so that the space before the first new word is not taken for a leading one.
        for id in sequence.prompt.iter() {
            text.push(*id);
        }
        Self {
            choice: sequence.choice,
            ids: sequence.prompt.to_vec(),
            prompt: sequence.prompt,
            reused: cache.length(),
            cache,
            sampler,
            text,
            stops: StopStrings::new(request.wishes.stop.clone()),
            counts: HashMap::new(),
            last: None,
            request,
        }
    }

    /// Tokens that wait to be read.
    pub fn unread(&self) -> usize {
        self.ids.len() - self.cache.length()
    }

    /// Whether the prompt is not wholly read yet.
    pub fn in_prompt(&self) -> bool {
        self.cache.length() < self.prompt.len()
    }

    pub fn usage(&self) -> Usage {
        Usage { prompt: self.prompt.len(), reused: self.reused, made: self.ids.len() - self.prompt.len() }
    }

    /// Makes the next token of `logits` [vocabulary], the ones behind the last token, and tells the client. True: the answer is whole.
    pub fn advance(&mut self, mut logits: Vec<f32>, tokenizer: &Tokenizer, context: usize, metrics: &Metrics) -> bool {
        let request = Arc::clone(&self.request);
        let wishes = &request.wishes;
        let raw = wishes.logprobs.map(|count| (count, logits.clone()));
        self.bend(&mut logits);
        let id = self.sampler.pick(&mut logits, &self.ids);
        self.ids.push(id);
        *self.counts.entry(id).or_default() += 1;
        let now = Instant::now();
        match self.last.replace(now) {
            Some(last) => metrics.token_seconds.observe(now - last),
            None => metrics.first_token_seconds.observe(now - request.arrived),
        }
        metrics.tokens_made.add(1);
        let logprob = raw.map(|(count, raw)| TokenLogprob::of(&raw, id, count, tokenizer));
        let ended = tokenizer.eos_id() == Some(id) && !wishes.ignore_eos;
        let made = self.ids.len() - self.prompt.len();
        let new = if ended { String::new() } else { self.text.push(id).unwrap_or_default() };
        let (mut text, stopped) = self.stops.push(&new);
        // The position of the last token made is filled only when it is read.
        let full = made >= wishes.max_tokens || self.ids.len() > context;
        let reason = match (ended || stopped, full) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => None,
        };
        let reason = match reason {
            Some(reason) if !stopped => {
                // Bytes of a character that is not whole may come yet, and may complete a stop string.
                let (last, stopped) = self.stops.push(&self.text.clone().finish());
                text += &last;
                if !stopped {
                    text += &self.stops.rest();
                }
                Some(if stopped { FinishReason::Stop } else { reason })
            }
            other => other,
        };
        if !text.is_empty() || logprob.is_some() {
            // A client that has gone is noticed before the next step.
            let _ = request.events.send(Event::Piece { choice: self.choice, text, logprob });
        }
        if let Some(reason) = reason {
            let _ = request.events.send(Event::Finished { choice: self.choice, reason, usage: self.usage() });
        }
        reason.is_some()
    }

    /// Bias and penalties that are added to logits.
    fn bend(&self, logits: &mut [f32]) {
        let wishes = &self.request.wishes;
        for (id, bias) in &wishes.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if wishes.presence_penalty == 0.0 && wishes.frequency_penalty == 0.0 {
            return;
        }
        for (id, count) in &self.counts {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit -= wishes.presence_penalty + wishes.frequency_penalty * *count as f32;
            }
        }
    }
}
