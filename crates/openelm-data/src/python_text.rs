//! The length of a text as CoreNet's filter counts it (`corenet/data/datasets/language_modeling/base_lm.py`, `_process_text`,
//! after SlimPajama): lower-cased, without ASCII punctuation, stripped, runs of white space as one space, in code points.
//!
//! The processed text itself is never built. Lower-casing changes the number of code points of one character only: U+0130
//! becomes two. It makes no punctuation and no white space (checked over all of Unicode in CPython 3.11).

/// Python's `str.isspace` for one character, also `\s` of its `re` and the set of `str.strip`.
fn is_python_space(c: char) -> bool {
    // Rust's White_Space property lacks the four ASCII separators.
    matches!(c, '\u{1c}'..='\u{1f}') || c.is_whitespace()
}

/// True when the processed text has at least `minimum` code points. Stops reading as soon as that is known.
pub(crate) fn has_characters(text: &str, minimum: usize) -> bool {
    minimum == 0 || counted(text, minimum) >= minimum
}

fn counted(text: &str, enough: usize) -> usize {
    let mut count = 0;
    let mut space = false;
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            continue;
        }
        if is_python_space(c) {
            space = count > 0;
            continue;
        }
        count += usize::from(space) + if c == '\u{130}' { 2 } else { 1 };
        space = false;
        if count >= enough {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_python_does() {
        // Each count is what CPython 3.11 gives for len(re.sub(r"\s+", " ", x.lower().translate(table).strip())).
        let cases = [
            ("", 0),
            ("  \n\t ", 0),
            ("Hello, World!", 11),
            ("a - b", 3),
            ("-- a --", 1),
            ("a\u{1c}\u{1f}b", 3),
            ("\u{a0}a\u{85}\u{2003}b\u{3000}", 3),
            ("\u{200b}a", 2),
            ("İI", 3),
            ("ΑΣ ΟΔΟΣ", 7),
            ("“quoted”…", 9),
            ("$%&'()*+,-./:;<=>?@[\\]^_`{|}~!\"#", 0),
            ("e\u{301}", 2),
            ("😀 x", 3),
        ];
        for (text, expected) in cases {
            assert_eq!(counted(text, usize::MAX), expected, "{text:?}");
            assert!(has_characters(text, expected));
            assert!(!has_characters(text, expected + 1));
        }
    }
}
