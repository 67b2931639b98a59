//! For tests alone: YAML and JSON as a user or a client might get them wrong: a value of another kind or size, one too many or too few, a
//! text that ends early.
//!
//! What must stay true: the same damages to the same text give the same text.

use std::ops::Range;

use proptest::prelude::*;

/// What one place of a text suffers. Places are shares of the text's words.
#[derive(Clone, Debug)]
pub enum Damage {
    /// Another value stands in the place of a value or a key (places are shares of these alone), by its number among the odd ones.
    Replace(f64, usize),
    Remove(f64),
    Repeat(f64),
    /// The text ends there.
    Cut(f64),
}

/// Values that few expect, in JSON and in YAML.
const ODD: [&str; 30] = [
    "0",
    "-1",
    "1",
    "7",
    "0.5",
    "-0.0",
    "1e999",
    "-1e999",
    "1e-320",
    "4294967296",
    "1000000000",
    "9223372036854775807",
    "18446744073709551615",
    "123456789012345678901234567890",
    "null",
    "true",
    "false",
    "\"\"",
    "\"\\u0000\"",
    "\"é\\ud83d\\ude00 ß\"",
    "\"../../x{file_id:99999999d}\"",
    "\"*[\"",
    "[]",
    "{}",
    "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",
    "[1, 2, 3, \"x\"]",
    "{\"a\": {\"b\": [null]}}",
    ".nan",
    ".inf",
    "\"\u{202e}\"",
];

/// A few damages.
pub fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let place = || 0.0..1.0;
    let damage = prop_oneof![
        8 => (place(), 0..ODD.len()).prop_map(|(place, odd)| Damage::Replace(place, odd)),
        2 => place().prop_map(Damage::Remove),
        2 => place().prop_map(Damage::Repeat),
        1 => place().prop_map(Damage::Cut),
    ];
    prop::collection::vec(damage, 1..4)
}

/// The text with its damages, one after the other.
pub fn damaged(text: &str, damages: &[Damage]) -> String {
    damages.iter().fold(text.to_owned(), |text, damage| {
        let words = words(&text);
        let nth = |words: &[Range<usize>], place: f64| words.get((words.len() as f64 * place) as usize).cloned();
        let at = |place: f64| nth(&words, place).unwrap_or(text.len()..text.len());
        let is_value = |range: &Range<usize>| text.get(range.clone()).is_some_and(|word| !"{}[],:\n#&?|>%@`!".contains(word));
        let values: Vec<Range<usize>> = words.iter().filter(|range| is_value(range)).cloned().collect();
        let (range, new) = match *damage {
            Damage::Replace(place, odd) => (nth(&values, place).unwrap_or(0..0), ODD.get(odd).copied().unwrap_or_default().to_owned()),
            Damage::Remove(place) => (at(place), String::new()),
            Damage::Repeat(place) => (at(place), text.get(at(place)).unwrap_or_default().repeat(2)),
            Damage::Cut(place) => (at(place).start..text.len(), String::new()),
        };
        let (before, behind) = (text.get(..range.start).unwrap_or_default(), text.get(range.end..).unwrap_or_default());
        format!("{before}{new}{behind}")
    })
}

/// Where words stand: numbers and names, strings with their quotes, and single signs.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut left = text.char_indices().peekable();
    while let Some((start, first)) = left.next() {
        let plain = |sign: char| sign.is_alphanumeric() || "_+-./*".contains(sign);
        let mut end = start + first.len_utf8();
        if first == '"' || first == '\'' {
            for (at, sign) in left.by_ref() {
                end = at + sign.len_utf8();
                if sign == first || sign == '\n' {
                    break;
                }
            }
        } else if plain(first) {
            while let Some((at, sign)) = left.next_if(|(_, sign)| plain(*sign)) {
                end = at + sign.len_utf8();
            }
        } else if first == ' ' {
            continue;
        }
        words.push(start..end);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_and_damaged() {
        let text = "{\"a b\": [1.5, true], x: 'y'}\n";
        let found: Vec<&str> = words(text).into_iter().map(|range| &text[range]).collect();
        assert_eq!(found, ["{", "\"a b\"", ":", "[", "1.5", ",", "true", "]", ",", "x", ":", "'y'", "}", "\n"]);
        let place = |number: f64| (number + 0.5) / found.len() as f64;
        assert_eq!(damaged(text, &[Damage::Replace(0.3, 1)]), "{\"a b\": [-1, true], x: 'y'}\n");
        assert_eq!(damaged(text, &[Damage::Replace(0.99, 14)]), "{\"a b\": [1.5, true], x: null}\n");
        assert_eq!(damaged(text, &[Damage::Remove(place(1.0))]), "{: [1.5, true], x: 'y'}\n");
        assert_eq!(damaged(text, &[Damage::Repeat(place(11.0))]), "{\"a b\": [1.5, true], x: 'y''y'}\n");
        assert_eq!(damaged(text, &[Damage::Cut(place(6.0))]), "{\"a b\": [1.5, ");
        assert_eq!(damaged("", &[Damage::Remove(0.3), Damage::Replace(0.9, 0)]), "0");
    }
}
