//! The tokens of a preference pair, as TRL 0.8.6 makes them (`DPOTrainer.tokenize_row`, `build_tokenized_answer`).
//!
//! What must stay true: equal to TRL, its oddities included. The answer's tokens are those that the prompt's and the answer's text
//! have together; where a token has merged over the boundary, it is the answer's. BOS before the prompt and EOS behind the
//! answer unless they are there: a template that ends with EOS and a line break gets a second EOS. What is too long loses
//! the prompt's beginning first, then the answers' end.

use openelm_tokenizer::Tokenizer;

use crate::error::{Fault, FinetuneError};

/// Longest sequences, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairLimits {
    /// Prompt and answer together.
    pub max_length: usize,
    /// Of a prompt that has to be cut. Smaller than `max_length`.
    pub max_prompt_length: usize,
}

/// A prompt with one of its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub ids: Vec<u32>,
    /// How many of them are the prompt's, and so no targets.
    pub prompt: usize,
}

impl Answered {
    /// Targets.
    pub fn counted(&self) -> usize {
        self.ids.len().saturating_sub(self.prompt.max(1))
    }
}

/// A pair as the objective takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairTokens {
    /// The prompt by itself.
    pub prompt: Vec<u32>,
    pub chosen: Answered,
    pub rejected: Answered,
}

/// The two tokens at the ends of a sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub bos: u32,
    pub eos: u32,
}

impl Ends {
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, FinetuneError> {
        Ok(Self {
            bos: tokenizer.bos_id().ok_or(FinetuneError::NoToken { token: "beginning-of-sequence" })?,
            eos: tokenizer.eos_id().ok_or(FinetuneError::NoToken { token: "end-of-sequence" })?,
        })
    }
}

/// The prompt and the answer apart, before BOS, EOS and cutting.
struct Parts {
    prompt: Vec<u32>,
    answer: Vec<u32>,
}

fn parts(tokenizer: &Tokenizer, prompt: &str, prompt_ids: &[u32], answer: &str) -> Parts {
    let mut together = tokenizer.encode_with_special(&format!("{prompt}{answer}"));
    let mut start = prompt_ids.len().min(together.len());
    if prompt_ids != &together[..start] {
        start = start.saturating_sub(1);
    }
    let answer = together.split_off(start);
    Parts { prompt: together, answer }
}

/// The tokens of texts that a chat template has made.
pub(crate) fn pair_tokens(
    tokenizer: &Tokenizer,
    ends: Ends,
    (prompt, chosen, rejected): (&str, &str, &str),
    limits: PairLimits,
) -> Result<PairTokens, Fault> {
    let mut prompt_ids = tokenizer.encode_with_special(prompt);
    let mut sides = [chosen, rejected].map(|answer| parts(tokenizer, prompt, &prompt_ids, answer));
    let lengths = [sides[0].prompt.len(), sides[1].prompt.len()];
    let differing = sides[0].prompt.iter().zip(&sides[1].prompt).filter(|(a, b)| a != b).count();
    if differing > 1 || lengths[0].abs_diff(lengths[1]) > 1 {
        let reason = "the prompt's tokens differ by more than its last one before the two answers";
        return Err(Fault::new("two prompts", reason, "let the chat template end the prompt with a token that does not merge"));
    }
    prompt_ids.truncate(lengths[0].min(lengths[1]));
    if prompt_ids.first() != Some(&ends.bos) {
        prompt_ids.insert(0, ends.bos);
    }
    for Parts { prompt, answer } in &mut sides {
        if prompt.first() != Some(&ends.bos) {
            prompt.insert(0, ends.bos);
        }
        if answer.last() != Some(&ends.eos) {
            answer.push(ends.eos);
        }
    }
    let longer = sides[0].answer.len().max(sides[1].answer.len());
    let PairLimits { max_length, max_prompt_length } = limits;
    let keep_end = |ids: &mut Vec<u32>| {
        if ids.len() + longer > max_length {
            ids.drain(..ids.len().saturating_sub(max_prompt_length));
        }
    };
    keep_end(&mut prompt_ids);
    for Parts { prompt, answer } in &mut sides {
        keep_end(prompt);
        if prompt.len() + longer > max_length {
            answer.truncate(max_length.saturating_sub(max_prompt_length));
        }
    }
    let [chosen, rejected] = sides.map(|Parts { mut prompt, answer }| {
        let length = prompt.len();
        prompt.extend(answer);
        Answered { ids: prompt, prompt: length }
    });
    Ok(PairTokens { prompt: prompt_ids, chosen, rejected })
}
