//! The thread that owns the decoder: continuous batching over slots.
//!
//! Every step reads one token of each running answer, with guesses of the next ones where there is a draft, and a piece of the prompts
//! that are not read yet, so that a long prompt does not hold the others up. What must stay true: an answer depends on its own request alone, but for the rounding of the decoder; a
//! client that has gone gives its slot back before the next step; a step that fails ends the answers in it and no others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use openelm_kernels::FEW_TOKENS;
use openelm_tokenizer::Tokenizer;

use crate::decoder::{Decoder, Run};
use crate::draft::Draft;
use crate::error::InferError;
use crate::sampler::{Sampler, SamplingSettings};
use crate::server::caches::Caches;
use crate::server::echo::{MOST_LOGITS, Said};
use crate::server::error::ApiError;
use crate::server::job::{Event, Request, Sequence};
use crate::server::metrics::Metrics;
use crate::server::queue::Queue;
use crate::server::row::Row;
use crate::server::settings::{ServedModel, ServerSettings};

pub(super) struct Scheduler {
    decoder: Arc<dyn Decoder>,
    draft: Option<Arc<Draft>>,
    tokenizer: Tokenizer,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    slots: usize,
    context: usize,
    prefill_chunk: usize,
    rows: Vec<Row>,
    caches: Caches,
    /// The draft model's.
    draft_caches: Caches,
    /// Of the request that was begun last: what has no slot yet.
    waiting: VecDeque<(Sequence, Arc<Request>)>,
}

/// Closes the queue and tells what is inside when the scheduler ends, however it ends.
struct AtTheEnd(Arc<Queue>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.abort();
        while let Some(job) = self.0.pop() {
            let _ = job.request.events.send(Event::Failed(ApiError::shutting_down()));
        }
    }
}

impl Scheduler {
    /// `settings` are checked; `context` positions hold a sequence.
    pub fn new(model: &ServedModel, settings: &ServerSettings, context: usize, queue: Arc<Queue>, metrics: Arc<Metrics>) -> Self {
        let draft_capacity = model.draft.as_ref().and_then(|draft| draft.read()).map_or(0, |(_, cache)| cache.capacity());
        Self {
            decoder: Arc::clone(&model.decoder),
            draft: model.draft.clone(),
            tokenizer: model.tokenizer.clone(),
            queue,
            metrics,
            slots: settings.slots,
            context,
            prefill_chunk: settings.prefill_chunk,
            rows: Vec::new(),
            caches: Caches::new(settings.kept_caches, context),
            draft_caches: Caches::new(settings.kept_caches, context.min(draft_capacity)),
            waiting: VecDeque::new(),
        }
    }

    /// Works until the queue is closed and all answers are whole.
    pub fn run(mut self) {
        let _end = AtTheEnd(Arc::clone(&self.queue));
        loop {
            if self.queue.is_aborted() {
                return self.fail_all();
            }
            self.drop_gone();
            self.admit();
            self.metrics.slots_busy.set(self.rows.len());
            if !self.rows.is_empty() {
                self.step();
            } else if !self.queue.wait() {
                return;
            }
        }
    }

    fn drop_gone(&mut self) {
        for place in (0..self.rows.len()).rev() {
            if self.rows.get(place).is_some_and(|row| row.request.events.is_closed()) {
                self.release(place);
            }
        }
        self.waiting.retain(|(_, request)| !request.events.is_closed());
    }

    /// Frees a slot and keeps what its sequence has read, with the model and with the draft.
    fn release(&mut self, place: usize) {
        let row = self.rows.swap_remove(place);
        self.caches.keep(row.ids, row.cache);
        if let Some((ids, cache)) = row.draft.and_then(Draft::into_read) {
            self.draft_caches.keep(ids, cache);
        }
    }

    fn admit(&mut self) {
        while self.rows.len() < self.slots {
            // A choice of a prompt that is being read waits, to take over what has been read.
            let being_read = |prompt: &Arc<[u32]>| self.rows.iter().any(|row| row.in_prompt() && Arc::ptr_eq(&row.prompt, prompt));
            let next = self.waiting.iter().position(|(sequence, _)| !being_read(&sequence.prompt));
            if let Some((sequence, request)) = next.and_then(|place| self.waiting.remove(place)) {
                self.begin(sequence, request);
                continue;
            }
            let Some(job) = self.queue.pop() else { break };
            self.metrics.queue_seconds.observe(job.request.arrived.elapsed());
            self.waiting.extend(job.sequences.into_iter().map(|sequence| (sequence, Arc::clone(&job.request))));
        }
        self.queue.set_idle_slots(self.slots - self.rows.len());
    }

    fn begin(&mut self, sequence: Sequence, request: Arc<Request>) {
        let sampling = request.wishes.sampling;
        let sampler = Sampler::new(SamplingSettings { seed: sampling.seed.wrapping_add(sequence.choice as u64), ..sampling });
        let sampler = match sampler {
            Ok(sampler) => sampler.constrained(request.wishes.constraint.clone()),
            Err(error) => {
                let _ = request.events.send(Event::Failed(ApiError::invalid(error.to_string())));
                return;
            }
        };
        let running = self.rows.iter().map(|row| (row.ids.get(..row.cache.length()).unwrap_or_default(), &row.cache));
        let wishes = &request.wishes;
        // Log-probabilities of the prompt need every position of it.
        let beginning = if wishes.echo && wishes.logprobs.is_some() { &[] } else { &*sequence.prompt };
        let cache = self.caches.take(beginning, running, self.decoder.as_ref());
        self.metrics.prompt_tokens_reused.add(cache.length());
        let draft = self.draft.as_ref().filter(|_| wishes.max_tokens > 1).map(|draft| {
            let running = self.rows.iter().filter_map(|row| row.draft.as_ref()?.read());
            draft.another(&sequence.prompt, |decoder| self.draft_caches.take(&sequence.prompt, running, decoder))
        });
        self.rows.push(Row::new(sequence, request, sampler, cache, draft, &self.tokenizer));
        if self.rows.last_mut().is_some_and(Row::tell_prompt) {
            self.release(self.rows.len() - 1);
        }
    }

    /// Tokens to read of each row: those that are unread, but of prompts together no more than a piece, which short ones share
    /// evenly with long ones.
    fn counts(&self) -> Vec<usize> {
        let mut counts: Vec<usize> = self.rows.iter().map(Row::unread).collect();
        let mut in_prompt: Vec<usize> = (0..counts.len()).filter(|place| self.rows.get(*place).is_some_and(Row::in_prompt)).collect();
        in_prompt.sort_by_key(|place| counts.get(*place).copied());
        let likeliest = self.rows.iter().filter(|row| row.scores(true)).count().max(1);
        let most = (MOST_LOGITS / self.decoder.config().vocab_size.max(1) / likeliest).max(1);
        let mut budget = self.prefill_chunk;
        for (done, place) in in_prompt.iter().enumerate() {
            if let Some(count) = counts.get_mut(*place) {
                *count = (*count).min((budget / (in_prompt.len() - done)).max(1));
                if self.rows.get(*place).is_some_and(|row| row.scores(true)) {
                    *count = (*count).min(most);
                }
                budget = budget.saturating_sub(*count);
            }
        }
        counts
    }

    /// Guesses what follows the running answers: as many tokens as can be read along with theirs as quickly as these alone. A prompt
    /// in the step makes it slow, and guesses would make it slower.
    fn guess(&mut self) {
        if self.draft.is_none() || self.rows.iter().any(Row::in_prompt) {
            return;
        }
        let mut room = FEW_TOKENS.saturating_sub(self.rows.len());
        let mut failed = Vec::new();
        let count = self.rows.len();
        for (place, row) in self.rows.iter_mut().enumerate() {
            match row.guess(room / (count - place)) {
                Ok(guessed) => room -= guessed,
                Err(error) => failed.push((place, error)),
            }
        }
        for (place, error) in failed.into_iter().rev() {
            self.fail(&[place], &error.to_string());
        }
    }

    /// Reads once with all rows.
    fn step(&mut self) {
        let begin = Instant::now();
        self.guess();
        let counts = self.counts();
        let read = self.read(&counts);
        let all = match read {
            Ok(all) => all,
            Err(error) => return self.fail(&(0..counts.len()).collect::<Vec<_>>(), &error.to_string()),
        };
        let vocabulary = self.decoder.config().vocab_size;
        // From the back, for a row that is taken out is replaced by the last one.
        for (place, said) in all.into_iter().rev() {
            let Some(row) = self.rows.get_mut(place) else { continue };
            match row.hear(said, vocabulary, &self.tokenizer, self.context, &self.metrics) {
                Ok(false) => {}
                Ok(true) => self.release(place),
                Err(error) => self.fail(&[place], &error.to_string()),
            }
        }
        self.metrics.step_seconds.observe(begin.elapsed());
    }

    /// Reads `counts` tokens of the rows; gives what was said, with the rows' places, in their order.
    fn read(&mut self, counts: &[usize]) -> Result<Vec<(usize, Said)>, InferError> {
        let (mut places, mut runs) = (Vec::new(), Vec::new());
        // Prompts of which only the log-probabilities of their own tokens are wanted.
        let (mut looked_up, mut lookups, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for ((place, row), count) in self.rows.iter_mut().enumerate().zip(counts.iter().copied()) {
            if row.in_prompt() {
                self.metrics.prompt_tokens.add(count);
            }
            let start = row.cache.length();
            let (by_ids, logits) = (row.scores(false), row.wanted(count));
            let Row { ids, cache, prompt, .. } = row;
            let run = Run { ids: ids.get(start..start + count).unwrap_or_default(), cache, logits };
            if by_ids {
                looked_up.push((place, count));
                lookups.push(run);
                targets.extend(prompt.get(start + 1..=start + count).unwrap_or_default().chunks(1));
            } else {
                places.push(place);
                runs.push(run);
            }
        }
        let mut all: Vec<(usize, Said)> = Vec::with_capacity(counts.len());
        if !runs.is_empty() {
            all.extend(places.into_iter().zip(self.decoder.read(&mut runs)?.into_iter().map(Said::Logits)));
        }
        if !lookups.is_empty() {
            let mut found = self.decoder.look_up(&mut lookups, &targets)?.into_iter();
            all.extend(looked_up.into_iter().map(|(place, count)| (place, Said::Next(found.by_ref().take(count).collect()))));
        }
        all.sort_by_key(|(place, _)| *place);
        Ok(all)
    }

    /// Ends the requests of the rows at `places`, in their order; what their caches hold is not known.
    fn fail(&mut self, places: &[usize], reason: &str) {
        eprintln!("error: {reason}");
        for place in places.iter().rev() {
            let row = self.rows.swap_remove(*place);
            let _ = row.request.events.send(Event::Failed(ApiError::model_failed(reason)));
        }
    }

    fn fail_all(&mut self) {
        let rows = self.rows.drain(..).map(|row| row.request);
        for request in rows.chain(self.waiting.drain(..).map(|(_, request)| request)) {
            let _ = request.events.send(Event::Failed(ApiError::shutting_down()));
        }
    }
}
