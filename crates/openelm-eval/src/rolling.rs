//! Whole texts: log-likelihood in windows that do not overlap in what they score, perplexity, bits a byte.
//!
//! What must stay true: the windows are the harness's (`get_rolling_token_windows` with one token of context): each token is scored
//! once, the first window is as long as any, the last looks back as far as the length allows. One beginning token stands before the
//! text and is not scored.

use openelm_infer::{ContextGroup, TokenScorer};

use crate::error::EvalError;
use crate::requests::Encoding;

/// Sums over texts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Perplexity {
    pub documents: usize,
    /// Tokens scored.
    pub tokens: usize,
    /// UTF-8 bytes.
    pub bytes: usize,
    /// As Python's `re.split(r"\s+", text)` counts.
    pub words: usize,
    pub log_likelihood: f64,
}

impl Perplexity {
    /// Mean negative log-likelihood of a token.
    pub fn loss(&self) -> f64 {
        -self.log_likelihood / self.tokens as f64
    }

    pub fn token_perplexity(&self) -> f64 {
        self.loss().exp()
    }

    pub fn word_perplexity(&self) -> f64 {
        (-self.log_likelihood / self.words as f64).exp()
    }

    pub fn byte_perplexity(&self) -> f64 {
        (-self.log_likelihood / self.bytes as f64).exp()
    }

    pub fn bits_per_byte(&self) -> f64 {
        -self.log_likelihood / self.bytes as f64 / std::f64::consts::LN_2
    }
}

/// Windows over `ids`, each with what comes before and what is scored; `prefix` comes before the first.
pub fn windows(ids: &[u32], prefix: u32, max_length: usize) -> Vec<ContextGroup> {
    let mut windows = Vec::new();
    let mut scored = 0;
    while scored < ids.len() {
        let end = ids.len().min(scored + max_length);
        let context = match scored {
            0 => vec![prefix],
            _ => ids[end.saturating_sub(max_length + 1).min(scored - 1)..scored].to_vec(),
        };
        windows.push(ContextGroup { context, continuations: vec![ids[scored..end].to_vec()] });
        scored = end;
    }
    windows
}

/// The log-likelihoods of `texts`, one a text, and their sums. Empty texts count as texts alone.
///
/// # Errors
/// When the tokenizer has no token to begin with, or the engine fails.
pub fn rolling(texts: &[String], encoding: &Encoding<'_>, scorer: &dyn TokenScorer) -> Result<(Vec<f64>, Perplexity), EvalError> {
    let prefix = encoding.prefix()?;
    let mut groups = Vec::new();
    let mut owners = Vec::new();
    let mut total = Perplexity { documents: texts.len(), ..Perplexity::default() };
    for (number, text) in texts.iter().enumerate() {
        let ids = encoding.tokenizer.encode_with_special(text);
        total.tokens += ids.len();
        total.bytes += text.len();
        total.words += words(text);
        for window in windows(&ids, prefix, encoding.max_length.max(1)) {
            groups.push(window);
            owners.push(number);
        }
    }
    let mut each = vec![0.0; texts.len()];
    for (owner, scores) in owners.iter().zip(scorer.score(&groups)?) {
        each[*owner] += scores.iter().map(|score| score.log_probability).sum::<f64>();
    }
    total.log_likelihood = each.iter().sum();
    Ok((each, total))
}

/// Pieces between runs of white space, empty ones at the ends included.
fn words(text: &str) -> usize {
    let mut runs = 0;
    let mut inside = false;
    for letter in text.chars() {
        let white = letter.is_whitespace();
        runs += usize::from(white && !inside);
        inside = white;
    }
    runs + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_the_harnesses() {
        // The harness's own example: ten tokens, windows of four, one token of context.
        let ids: Vec<u32> = (0..10).collect();
        let found = windows(&ids, 99, 4);
        let pairs: Vec<(&[u32], &[u32])> = found.iter().map(|w| (w.context.as_slice(), w.continuations[0].as_slice())).collect();
        assert_eq!(pairs, [(&[99][..], &[0, 1, 2, 3][..]), (&[3][..], &[4, 5, 6, 7][..]), (&[5, 6, 7][..], &[8, 9][..])]);
        assert!(windows(&[], 9, 4).is_empty());
    }

    #[test]
    fn words_are_pythons() {
        for (text, count) in [("a b  c", 3), ("", 1), (" a\n", 3), ("abc", 1)] {
            assert_eq!(words(text), count, "{text:?}");
        }
    }
}
