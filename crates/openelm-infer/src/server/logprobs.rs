//! Log-probabilities of tokens, for clients that ask for them: of the model's own distribution, before temperature, penalties and
//! filters.

use openelm_tokenizer::{PieceKind, Tokenizer};

/// A token with its log-probability and the likeliest ones at its place.
#[derive(Clone, Debug)]
pub(super) struct TokenLogprob {
    pub token: TokenText,
    pub logprob: f32,
    pub top: Vec<(TokenText, f32)>,
}

impl TokenLogprob {
    /// `id` and the `count` likeliest tokens under `logits` [vocabulary].
    pub fn of(logits: &[f32], id: u32, count: usize, tokenizer: &Tokenizer) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let logprob = |logit: f32| (f64::from(logit - largest) - total.ln()) as f32;
        let mut order: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        let likelier = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if (1..order.len()).contains(&count) {
            order.select_nth_unstable_by(count - 1, likelier);
        }
        order.truncate(count);
        order.sort_unstable_by(likelier);
        Self {
            token: TokenText::of(id, tokenizer),
            logprob: logits.get(id as usize).map_or(f32::NEG_INFINITY, |logit| logprob(*logit)),
            top: order.into_iter().map(|(id, logit)| (TokenText::of(id, tokenizer), logprob(logit))).collect(),
        }
    }
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

    /// As a text that no other token has: parts of a character as OpenAI writes them, `bytes:\xe2\x82`.
    pub fn distinct(&self) -> String {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => self.bytes.iter().fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}")),
        }
    }
}
