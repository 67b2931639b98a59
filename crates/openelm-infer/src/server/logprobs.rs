//! Log-probabilities of tokens, for clients that ask for them: of the model's own distribution, before temperature, penalties and
//! filters.

use openelm_kernels::IdLogits;
use openelm_tokenizer::{PieceKind, Tokenizer};

/// A token with its log-probability and the likeliest ones at its place.
#[derive(Clone, Debug)]
pub(super) struct TokenLogprob {
    pub token: TokenText,
    /// Characters of the text before it.
    pub offset: usize,
    /// `None` for the first token of a sequence, which nothing foretells.
    pub logprob: Option<f32>,
    pub top: Vec<(TokenText, f32)>,
}

impl TokenLogprob {
    /// `id` and the `count` likeliest tokens under `logits` [vocabulary].
    pub fn of(logits: &[f32], id: u32, offset: usize, count: usize, tokenizer: &Tokenizer) -> Self {
        let found = IdLogits::of(logits, &[id]);
        let top = likeliest(logits, count).into_iter();
        let top = top.map(|(id, logit)| (TokenText::of(id, tokenizer), (f64::from(logit) - found.log_sum) as f32)).collect();
        Self { top, ..Self::found(&found, id, offset, tokenizer) }
    }

    /// `id`, the one whose logit was `found`.
    pub fn found(found: &IdLogits, id: u32, offset: usize, tokenizer: &Tokenizer) -> Self {
        let logprob = found.logits.first().map(|logit| (f64::from(*logit) - found.log_sum) as f32);
        Self { token: TokenText::of(id, tokenizer), offset, logprob, top: Vec::new() }
    }

    /// The first token of a sequence.
    pub fn first(id: u32, tokenizer: &Tokenizer) -> Self {
        Self { token: TokenText::of(id, tokenizer), offset: 0, logprob: None, top: Vec::new() }
    }
}

/// The `count` largest logits with their ids, the smaller id first where they are equal.
fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut largest: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (id, logit) in (0..).zip(logits.iter().copied()) {
        if largest.len() == count && largest.last().is_none_or(|(_, least)| logit <= *least) {
            continue;
        }
        largest.insert(largest.partition_point(|(_, other)| *other >= logit), (id, logit));
        largest.truncate(count);
    }
    largest
}

/// What one token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenText {
    pub bytes: Vec<u8>,
}

impl TokenText {
    fn of(id: u32, tokenizer: &Tokenizer) -> Self {
        let Some((piece, kind)) = tokenizer.token(id).zip(tokenizer.kind(id)) else { return Self { bytes: Vec::new() } };
        let byte = || u8::from_str_radix(piece.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok();
        let bytes = match (kind, byte()) {
            (PieceKind::Byte, Some(byte)) => vec![byte],
            (PieceKind::Control | PieceKind::Unknown, _) => piece.into(),
            _ if tokenizer.piece_rules().is_none() => tokenizer.decode(&[id]).into_bytes(),
            _ => piece.replace('\u{2581}', " ").into_bytes(),
        };
        Self { bytes }
    }

    /// As a text; bytes that are none become U+FFFD.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// As a text; parts of a character, which are none, as OpenAI writes them: `bytes:\xe2\x82`.
    pub fn distinct(&self) -> String {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => self.bytes.iter().fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_are_those_of_a_whole_sort() {
        let logits: Vec<f32> = (0..500).map(|i| (i * 7919 % 61) as f32 - 30.0).collect();
        let mut order: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for count in [0, 1, 2, 20, 499, 500, 600] {
            assert_eq!(likeliest(&logits, count), order[..count.min(500)], "{count}");
        }
    }
}
