//! One answer in the making.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use openelm_tokenizer::{Decoder as TextDecoder, Tokenizer};

use crate::decoder::{Cache, Wanted};
use crate::draft::Draft;
use crate::error::InferError;
use crate::sampler::Sampler;
use crate::server::echo::{Echo, Said};
use crate::server::job::{Event, FinishReason, Request, Sequence, Usage};
use crate::server::logprobs::TokenLogprob;
use crate::server::metrics::Metrics;
use crate::server::stop_strings::StopStrings;

/// A sequence that holds a slot.
#[derive(Debug)]
pub(super) struct Row {
    pub request: Arc<Request>,
    choice: usize,
    /// The prompt, and the tokens made so far; in a step, guesses behind them.
    pub ids: Vec<u32>,
    guessed: usize,
    pub draft: Option<Draft>,
    pub prompt: Arc<[u32]>,
    pub cache: Cache,
    reused: usize,
    /// Until the prompt is told.
    echo: Option<Echo>,
    sampler: Sampler,
    text: TextDecoder,
    /// Characters of what the client was told, or will be when no stop string comes.
    characters: usize,
    stops: StopStrings,
    /// How often the answer has each token.
    counts: HashMap<u32, u32>,
    /// When the last token came.
    last: Option<Instant>,
}

impl Row {
    /// `cache` holds a beginning of the prompt: none of one whose log-probabilities are wanted.
    pub fn new(
        sequence: Sequence,
        request: Arc<Request>,
        sampler: Sampler,
        cache: Cache,
        draft: Option<Draft>,
        tokenizer: &Tokenizer,
    ) -> Self {
        let Sequence { prompt, echo: written, choice } = sequence;
        let wishes = &request.wishes;
        // The decoder must have seen the prompt, so that the space before the first new word is not taken for a leading one.
        let mut text = tokenizer.decoder();
        let (mut told, mut offsets, mut characters) = (String::new(), Vec::new(), 0);
        for id in prompt.iter() {
            offsets.push(characters);
            let new = text.push(*id).unwrap_or_default();
            characters += new.chars().count();
            told += &new;
        }
        if wishes.max_tokens == 0 {
            told += &text.clone().finish();
        }
        let told = written.map_or(told, |written| written.as_ref().to_owned());
        let characters = if wishes.echo { told.chars().count() } else { 0 };
        Self {
            choice,
            ids: prompt.to_vec(),
            guessed: 0,
            draft,
            reused: cache.length(),
            cache,
            echo: wishes.echo.then(|| Echo::new(&prompt, told, offsets, wishes.logprobs, tokenizer)),
            prompt,
            sampler,
            text,
            characters,
            stops: StopStrings::new(wishes.stop.clone()),
            counts: HashMap::new(),
            last: None,
            request,
        }
    }

    /// Tokens that wait to be read: of a prompt whose log-probabilities are wanted, first all that have a next one.
    pub fn unread(&self) -> usize {
        match self.unscored() {
            0 => self.ids.len() - self.cache.length(),
            unscored => unscored,
        }
    }

    fn unscored(&self) -> usize {
        self.echo.as_ref().map_or(0, Echo::unscored)
    }

    /// Whether the next piece of the prompt is read for the log-probabilities of its tokens, without or with the likeliest ones.
    pub fn scores(&self, with_likeliest: bool) -> bool {
        self.echo.as_ref().is_some_and(|echo| echo.unscored() > 0 && echo.wants_likeliest() == with_likeliest)
    }

    /// Whose logits are needed when `count` tokens are read.
    pub fn wanted(&self, count: usize) -> Wanted {
        match (self.unscored(), self.unread()) {
            (0, unread) if unread == count => Wanted::End(1 + self.guessed),
            (0, _) => Wanted::Nothing,
            _ => Wanted::All,
        }
    }

    /// Whether the prompt is not wholly read yet.
    pub fn in_prompt(&self) -> bool {
        self.cache.length() < self.prompt.len()
    }

    /// Guesses what follows, at most `most` tokens and no more than the answer may still have; gives how many. They are read, and
    /// forgotten or kept, in the step that follows.
    ///
    /// # Errors
    /// When the draft fails.
    pub fn guess(&mut self, most: usize) -> Result<usize, InferError> {
        let Some(draft) = &mut self.draft else { return Ok(0) };
        let left = self.request.wishes.max_tokens.saturating_sub(self.ids.len() - self.prompt.len() + 1);
        let room = self.cache.capacity().saturating_sub(self.ids.len()).min(left).min(most);
        let mut guesses = Vec::new();
        if room > 0 {
            draft.propose(&self.ids, room, &mut guesses)?;
        }
        self.guessed = guesses.len();
        self.ids.append(&mut guesses);
        Ok(self.guessed)
    }

    pub fn usage(&self) -> Usage {
        Usage { prompt: self.prompt.len(), reused: self.reused, made: self.ids.len() - self.prompt.len() }
    }

    /// Tells the prompt, if that is wanted and its log-probabilities are there. True: the answer is whole.
    pub fn tell_prompt(&mut self) -> bool {
        let Some(echo) = self.echo.take_if(|echo| echo.unscored() == 0) else { return false };
        let (text, logprobs) = echo.told();
        // A client that has gone is noticed before the next step.
        let _ = self.request.events.send(Event::Piece { choice: self.choice, text, logprobs });
        let whole = self.request.wishes.max_tokens == 0;
        if whole {
            let _ = self.request.events.send(Event::Finished { choice: self.choice, reason: FinishReason::Length, usage: self.usage() });
        }
        whole
    }

    /// Takes what a step said: scores of the prompt, or the next token and those behind it that were guessed. True: the answer is
    /// whole.
    ///
    /// # Errors
    /// When no token can follow in the form that the answer must have.
    pub fn hear(
        &mut self,
        said: Said,
        vocabulary: usize,
        tokenizer: &Tokenizer,
        context: usize,
        metrics: &Metrics,
    ) -> Result<bool, InferError> {
        if let Some(echo) = self.echo.as_mut().filter(|echo| echo.unscored() > 0) {
            echo.hear(&said, &self.prompt, vocabulary, tokenizer);
            return Ok(self.tell_prompt());
        }
        let Said::Logits(mut logits) = said else { return Ok(false) };
        let guesses = self.ids.split_off(self.ids.len() - std::mem::take(&mut self.guessed));
        metrics.guesses.add(guesses.len());
        let mut whole = false;
        // The logits behind the last token, then those behind each guess: they hold as long as the guesses are what is drawn.
        for (number, logits) in logits.chunks_exact_mut(vocabulary.max(1)).enumerate() {
            whole = self.advance(logits, tokenizer, context, metrics)?;
            if whole || guesses.get(number) != self.ids.last() {
                break;
            }
            metrics.guesses_accepted.add(1);
        }
        if !guesses.is_empty() {
            self.cache.truncate(self.ids.len() - 1);
        }
        Ok(whole)
    }

    /// Makes the next token of `logits` [vocabulary], the ones behind the last token, and tells the client. True: the answer is whole.
    fn advance(&mut self, logits: &mut [f32], tokenizer: &Tokenizer, context: usize, metrics: &Metrics) -> Result<bool, InferError> {
        let request = Arc::clone(&self.request);
        let wishes = &request.wishes;
        let raw = wishes.logprobs.map(|count| (count, logits.to_vec()));
        self.bend(logits);
        let id = self.sampler.pick(logits, &self.ids)?;
        self.ids.push(id);
        *self.counts.entry(id).or_default() += 1;
        let now = Instant::now();
        match self.last.replace(now) {
            Some(last) => metrics.token_seconds.observe(now - last),
            None => metrics.first_token_seconds.observe(now - request.arrived),
        }
        metrics.tokens_made.add(1);
        let logprob = raw.map(|(count, raw)| TokenLogprob::of(&raw, id, self.characters, count, tokenizer));
        let ended = tokenizer.eos_id() == Some(id) && !wishes.ignore_eos;
        let made = self.ids.len() - self.prompt.len();
        let new = if ended { String::new() } else { self.text.push(id).unwrap_or_default() };
        self.characters += new.chars().count();
        let (mut text, stopped) = self.stops.push(&new);
        // The position of the last token made is filled only when it is read.
        let full = made >= wishes.max_tokens || self.ids.len() > context;
        let reason = match (ended || stopped || self.sampler.is_whole(), full) {
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
            let logprobs = logprob.into_iter().collect();
            let _ = request.events.send(Event::Piece { choice: self.choice, text, logprobs });
        }
        if let Some(reason) = reason {
            let _ = request.events.send(Event::Finished { choice: self.choice, reason, usage: self.usage() });
        }
        Ok(reason.is_some())
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
