//! Long documents in parts, so that memory does not grow with a document.
//!
//! A text of more than [`PART_BYTES`] bytes is cut, at the end of a line or of a word where there is one, and each part is
//! repaired and tokenized by itself; BOS stands before the first and EOS after the last. Where the cuts lie depends on the text
//! alone, not on the layout it was read from. The values here are part of the order and must never change.

use crate::shard_reader::Place;

/// The longest part of a text in bytes.
pub(crate) const PART_BYTES: usize = 4 << 20;
/// A line break, else a space, is looked for in so many bytes before that length.
const LOOK_BACK: usize = 64 << 10;

/// A document, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub text: String,
    pub place: Place,
    /// Parts of the document before this one.
    pub index: u64,
    /// Nothing of the document follows.
    pub last: bool,
}

/// Where the part that starts at `begin` ends, given at least `PART_BYTES` bytes from there or the text's end.
pub(crate) fn part_end(text: &str, begin: usize) -> usize {
    if text.len() - begin <= PART_BYTES {
        return text.len();
    }
    let mut limit = begin + PART_BYTES;
    while !text.is_char_boundary(limit) {
        limit -= 1;
    }
    let near = &text.as_bytes()[limit - LOOK_BACK..limit];
    let at = |wanted: u8| near.iter().rposition(|byte| *byte == wanted).map(|at| limit - LOOK_BACK + at);
    match (at(b'\n'), at(b' ')) {
        (Some(line), _) => line + 1,
        // The space stays with the word after it, as tokenizers see it.
        (None, Some(space)) if space > begin => space,
        _ => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_lie_at_lines_then_words_then_characters() {
        let line = format!("{}\n{}", "a".repeat(PART_BYTES - 100), "b c ".repeat(100));
        assert_eq!(part_end(&line, 0), PART_BYTES - 99);
        let words = format!("{} {}", "a".repeat(PART_BYTES - 100), "b".repeat(200));
        assert_eq!(part_end(&words, 0), PART_BYTES - 100);
        let characters = format!("a{}", "é".repeat(PART_BYTES));
        assert_eq!(part_end(&characters, 0), PART_BYTES - 1);
        assert_eq!(part_end("short", 2), 5);
    }
}
