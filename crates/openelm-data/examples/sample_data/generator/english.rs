//! The little English that tables cannot hold: numbers in words, "a" or "an", lists, capitals.

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const ORDINALS: [&str; 13] =
    ["zeroth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"];

/// A number from 0 to 9999 in words; others stay digits.
pub fn number(value: i64) -> String {
    let word = |table: &[&str], at: i64| usize::try_from(at).ok().and_then(|at| table.get(at)).copied().unwrap_or_default().to_string();
    match value {
        0..20 => word(&SMALL, value),
        20..100 if value % 10 == 0 => word(&TENS, value / 10),
        20..100 => format!("{}-{}", word(&TENS, value / 10), word(&SMALL, value % 10)),
        100..10_000 => {
            let (unit, name) = if value < 1000 { (100, "hundred") } else { (1000, "thousand") };
            let head = format!("{} {name}", number(value / unit));
            match value % unit {
                0 => head,
                rest @ 1..100 => format!("{head} and {}", number(rest)),
                rest => format!("{head} {}", number(rest)),
            }
        }
        _ => value.to_string(),
    }
}

/// First to twelfth; beyond that digits.
pub fn ordinal(value: i64) -> String {
    usize::try_from(value).ok().and_then(|at| ORDINALS.get(at)).map_or_else(|| format!("{value}th"), |word| (*word).to_string())
}

/// `count` of a noun: "one penny", "four pennies".
pub fn counted(count: i64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// The phrase with its first letter as a capital.
pub fn capital(phrase: &str) -> String {
    let mut letters = phrase.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The phrase after "a" or "an".
pub fn with_article(phrase: &str) -> String {
    let lower = phrase.to_lowercase();
    let vowel = lower.starts_with(['a', 'e', 'i', 'o', 'u', 'é', 'ö', 'ø', 'å']);
    // Sound decides, not spelling.
    let consonant_sound = ["one", "uni", "use", "eu"].iter().any(|start| lower.starts_with(start));
    let silent = ["hour", "honest"].iter().any(|start| lower.starts_with(start));
    format!("{} {phrase}", if (vowel && !consonant_sound) || silent { "an" } else { "a" })
}

/// "x", "x and y", "x, y and z".
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_they_are_said() {
        for (value, words) in [
            (0, "zero"),
            (17, "seventeen"),
            (40, "forty"),
            (99, "ninety-nine"),
            (100, "one hundred"),
            (305, "three hundred and five"),
            (1024, "one thousand and twenty-four"),
            (9810, "nine thousand eight hundred and ten"),
            (10_000, "10000"),
            (-3, "-3"),
        ] {
            assert_eq!(number(value), words);
        }
        assert_eq!(counted(1, "coin", "coins"), "one coin");
        assert_eq!(ordinal(3), "third");
    }

    #[test]
    fn articles_follow_the_sound() {
        for (phrase, whole) in
            [("owl", "an owl"), ("red owl", "a red owl"), ("honest baker", "an honest baker"), ("useful map", "a useful map")]
        {
            assert_eq!(with_article(phrase), whole);
        }
    }

    #[test]
    fn lists_and_capitals() {
        let items = |words: &[&str]| list(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(items(&["a"]), "a");
        assert_eq!(items(&["a", "b", "c"]), "a, b and c");
        assert_eq!(capital("éclair"), "Éclair");
    }
}
