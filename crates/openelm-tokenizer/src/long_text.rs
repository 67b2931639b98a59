//! Merging a stretch of any length in windows, so that cost stays linear and buffers small.
//!
//! What makes it exact: let L and R be texts encoded alone. While LR is encoded, both sides go through the same merges in the
//! same relative order as alone, until one crosses the middle. Whether one does depends only on the symbols that touch the
//! middle, all of them parts of L's last token and R's first; and these two tokens alone go through these same merges in
//! the same relative order. So if the last token of L and the first of R, put side by side, do not merge across, LR's tokens
//! are L's followed by R's. Nothing is assumed of ranks: equal ones, and pieces that outrank their parts, are covered.
//!
//! So: keep the tokens of the text so far; encode the next window together with the last few of them, and go further
//! back while the seam does not hold. The next window is at least as long as what was done again, so work is bounded by a
//! constant times the length even for a text made to defeat this.

use crate::merge::Merger;
use crate::symbols::Symbols;

/// Bytes of new text in one step.
pub(crate) const WINDOW: usize = 2048;
/// Tokens that are done again with the next window at first.
const BACK: usize = 8;

/// A token of a long stretch, with its first byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LongToken {
    pub symbol: u32,
    pub start: usize,
}

/// Appends the tokens of `text` to the empty `tokens`, taking at least `least` bytes of new text in a step.
pub(crate) fn merge_long(merger: &mut Merger, symbols: &Symbols, text: &str, least: usize, tokens: &mut Vec<LongToken>) {
    let mut window = least;
    let mut done = 0;
    while done < text.len() {
        let end = char_boundary(text, done.saturating_add(window));
        let mut back = BACK;
        loop {
            let keep = tokens.len().saturating_sub(back);
            let begin = tokens.get(keep).map_or(done, |token| token.start);
            let part = merger.merge(symbols, text.get(begin..end).unwrap_or_default());
            let first = part.first().map(|token| token.symbol);
            let second = part.get(1).map_or(end, |token| begin + token.start as usize);
            // The token that followed in the text so far is known to stay apart.
            let same = first.is_some()
                && first == tokens.get(keep).map(|token| token.symbol)
                && tokens.get(keep + 1).is_some_and(|token| token.start == second);
            if let (false, Some(before)) = (same, keep.checked_sub(1).and_then(|last| tokens.get(last)).copied()) {
                let seam = (begin - before.start) as u32;
                let pair = merger.merge(symbols, text.get(before.start..second).unwrap_or_default());
                if !pair.iter().any(|token| token.start == seam) {
                    back *= 4;
                    continue;
                }
                merger.merge(symbols, text.get(begin..end).unwrap_or_default());
            }
            tokens.truncate(keep);
            tokens.extend(merger.tokens().iter().map(|token| LongToken { symbol: token.symbol, start: begin + token.start as usize }));
            window = least.max(end - begin);
            break;
        }
        done = end;
    }
}

fn char_boundary(text: &str, mut place: usize) -> usize {
    while !text.is_char_boundary(place.min(text.len())) {
        place += 1;
    }
    place.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::tests::{Random, naive, symbols_of};

    fn long(symbols: &Symbols, text: &str, least: usize) -> (Vec<(u32, usize)>, u64) {
        let (mut merger, mut tokens) = (Merger::default(), Vec::new());
        merge_long(&mut merger, symbols, text, least, &mut tokens);
        (tokens.iter().map(|token| (token.symbol, token.start)).collect(), merger.work)
    }

    #[test]
    fn windows_change_nothing() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let pieces = random.pieces(&["a", "b", "c", "é"]);
            let symbols = symbols_of(&pieces);
            for _ in 0..10 {
                let length = random.below(120);
                let text = random.text(&['a', 'b', 'c', 'é', 'x'], length);
                let expected = naive(&pieces, &text);
                for least in [1, 3, 10, 40] {
                    assert_eq!(long(&symbols, &text, least).0, expected, "seed {seed}, windows of {least}, {text:?} with {pieces:?}");
                }
            }
        }
    }

    /// Twenty thousand characters, each of which merges with the next, later ones first: which pairs win depends on the very
    /// end of a text, so that each window changes all tokens so far.
    #[test]
    fn a_text_made_to_defeat_windows_costs_a_constant_factor() {
        let chars: Vec<char> = ('\u{4e00}'..).take(20_000).collect();
        let pieces: Vec<(String, f32)> =
            chars.windows(2).zip(0u16..).map(|(pair, score)| (pair.iter().collect(), f32::from(score))).collect();
        let symbols = symbols_of(&pieces);
        for odd in [0, 1] {
            let text: String = chars[odd..].iter().collect();
            let (tokens, work) = long(&symbols, &text, WINDOW);
            let mut merger = Merger::default();
            let whole: Vec<_> = merger.merge(&symbols, &text).iter().map(|token| (token.symbol, token.start as usize)).collect();
            assert_eq!(tokens, whole);
            assert!(work < 40 * 20_000, "work {work}");
        }
    }
}
