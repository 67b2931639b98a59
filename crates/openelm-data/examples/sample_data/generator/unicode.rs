//! Letters with accents, taken apart as one shard has them, so that Unicode normalisation in a loader has something to do.

/// The letters of the tables that Unicode takes apart, with their base letter and accent.
const PARTS: [(char, [char; 2]); 17] = [
    ('é', ['e', '\u{301}']),
    ('É', ['E', '\u{301}']),
    ('ó', ['o', '\u{301}']),
    ('Ó', ['O', '\u{301}']),
    ('ú', ['u', '\u{301}']),
    ('Í', ['I', '\u{301}']),
    ('ź', ['z', '\u{301}']),
    ('ö', ['o', '\u{308}']),
    ('Ö', ['O', '\u{308}']),
    ('ü', ['u', '\u{308}']),
    ('ë', ['e', '\u{308}']),
    ('ä', ['a', '\u{308}']),
    ('å', ['a', '\u{30a}']),
    ('ñ', ['n', '\u{303}']),
    ('ã', ['a', '\u{303}']),
    ('ç', ['c', '\u{327}']),
    ('が', ['か', '\u{3099}']),
];

/// The text in Unicode's decomposed form (NFD), as far as the letters of the tables go.
pub fn decomposed(text: &str) -> String {
    let mut apart = String::with_capacity(text.len());
    for letter in text.chars() {
        match PARTS.iter().find(|(whole, _)| *whole == letter) {
            Some((_, parts)) => apart.extend(parts),
            None => apart.push(letter),
        }
    }
    apart
}
