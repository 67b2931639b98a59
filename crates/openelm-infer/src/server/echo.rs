//! A prompt that is told before its answer, with what the model says of its tokens where the client asks for that.
//!
//! What must stay true: every position of such a prompt is read for it, none taken over from another sequence; the likeliest tokens
//! beside one are of the whole vocabulary, so their logits are made for a piece of the prompt at a time.

use openelm_kernels::IdLogits;
use openelm_tokenizer::Tokenizer;

use crate::server::logprobs::TokenLogprob;

/// Logits of prompts that are made in a step: 32 MiB of f32, and as much again where an engine copies those of several sequences.
pub(super) const MOST_LOGITS: usize = 8 << 20;

/// What a step said of a row.
#[derive(Debug)]
pub(super) enum Said {
    /// [positions, vocabulary] of the positions that the row wanted.
    Logits(Vec<f32>),
    /// Of the token behind each position.
    Next(Vec<IdLogits>),
}

#[derive(Debug)]
pub(super) struct Echo {
    text: String,
    /// Likeliest tokens to tell beside each one; `None`: no log-probabilities.
    count: Option<usize>,
    /// Characters of the text before each token.
    offsets: Vec<usize>,
    scored: Vec<TokenLogprob>,
}

impl Echo {
    /// `text` is told for `prompt`, whose tokens stand at `offsets`.
    pub fn new(prompt: &[u32], text: String, offsets: Vec<usize>, count: Option<usize>, tokenizer: &Tokenizer) -> Self {
        let first = count.and(prompt.first());
        let scored = first.map(|id| TokenLogprob::first(*id, tokenizer)).into_iter().collect();
        Self { text, count, offsets, scored }
    }

    /// Tokens whose log-probabilities are wanted and not there yet.
    pub fn unscored(&self) -> usize {
        self.count.map_or(0, |_| self.offsets.len() - self.scored.len())
    }

    /// Whether the logits of whole positions are needed, not those of the prompt's tokens alone.
    pub fn wants_likeliest(&self) -> bool {
        self.count.is_some_and(|count| count > 0)
    }

    /// Takes what was said of the next tokens of `prompt`.
    pub fn hear(&mut self, said: &Said, prompt: &[u32], vocabulary: usize, tokenizer: &Tokenizer) {
        let start = self.scored.len();
        let next = prompt.iter().zip(&self.offsets).skip(start).map(|(id, offset)| (*id, *offset));
        match said {
            Said::Logits(logits) => {
                let count = self.count.unwrap_or(0);
                let each = logits.chunks_exact(vocabulary.max(1)).zip(next);
                self.scored.extend(each.map(|(logits, (id, offset))| TokenLogprob::of(logits, id, offset, count, tokenizer)));
            }
            Said::Next(found) => {
                self.scored.extend(found.iter().zip(next).map(|(found, (id, offset))| TokenLogprob::found(found, id, offset, tokenizer)));
            }
        }
    }

    /// The text and, where they are wanted, the log-probabilities.
    pub fn told(self) -> (String, Vec<TokenLogprob>) {
        (self.text, self.scored)
    }
}
