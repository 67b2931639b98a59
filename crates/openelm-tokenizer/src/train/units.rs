//! Texts taken apart into units that no piece may reach out of, and how often each occurs.
//!
//! As in LLaMA's vocabulary, a piece is spaces only, or one script's characters with at most one space before them; a digit
//! stands alone; control characters, line ends among them, are left to the bytes. A space in a text belongs to what follows.

use rustc_hash::FxHashMap;
use unicode_script::{Script, UnicodeScript};

use crate::symbols::SPACE;
use crate::train::BpeTraining;

/// Longer units are cut: what looks like one word of thousands of characters is not language.
const LONGEST_UNIT: usize = 256;

/// Counts units.
pub(super) struct UnitCounts {
    split_digits: bool,
    skip_control: bool,
    max_units: usize,
    counts: FxHashMap<String, u64>,
    /// Units counted no more often than this were forgotten at some time.
    forgotten: u64,
    unit: String,
    length: usize,
    script: Option<Script>,
}

impl UnitCounts {
    pub fn new(settings: &BpeTraining) -> Self {
        Self {
            split_digits: settings.split_digits,
            skip_control: settings.byte_fallback,
            max_units: settings.max_units,
            counts: FxHashMap::default(),
            forgotten: 0,
            unit: String::new(),
            length: 0,
            script: None,
        }
    }

    /// Counts the units of a text, as it is when it is encoded: with a space before it.
    pub fn add(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.add_char(' ');
        for char in text.chars() {
            self.add_char(char);
        }
        self.end();
    }

    fn add_char(&mut self, char: char) {
        match char {
            // No piece can hold it.
            '\0' => self.end(),
            ' ' | SPACE => {
                if !self.unit.ends_with(SPACE) {
                    self.end();
                }
                self.push(SPACE);
            }
            _ if char.is_control() && self.skip_control => self.end(),
            _ if char.is_control() || self.split_digits && is_digit(char) => {
                self.end();
                self.push(char);
                self.end();
            }
            _ => {
                let script = self.script_of(char);
                if self.script.is_some() && self.script != script {
                    self.end();
                }
                self.script = script;
                self.push(char);
            }
        }
    }

    /// Chinese characters and both kana count as one script; a combining mark belongs to what it stands on.
    fn script_of(&self, char: char) -> Option<Script> {
        match char.script() {
            Script::Hiragana | Script::Katakana => Some(Script::Han),
            _ if char == '\u{30fc}' => Some(Script::Han),
            Script::Inherited => self.script,
            Script::Unknown => Some(Script::Common),
            script => Some(script),
        }
    }

    fn push(&mut self, char: char) {
        if self.length == LONGEST_UNIT {
            self.end();
        }
        self.unit.push(char);
        self.length += 1;
    }

    fn end(&mut self) {
        if !self.unit.is_empty() {
            match self.counts.get_mut(&self.unit) {
                Some(count) => *count += 1,
                None => {
                    self.counts.insert(self.unit.clone(), 1);
                    self.forget();
                }
            }
        }
        self.unit.clear();
        self.length = 0;
        self.script = None;
    }

    /// Keeps the number of units within bounds, by dropping the rarest.
    fn forget(&mut self) {
        while self.counts.len() > self.max_units {
            self.forgotten += 1;
            let rare = self.forgotten;
            self.counts.retain(|_, count| *count > rare);
        }
    }

    /// The units in the order of their texts.
    pub fn finish(self) -> Vec<(String, u64)> {
        let mut units: Vec<_> = self.counts.into_iter().collect();
        units.sort_unstable();
        units
    }
}

fn is_digit(char: char) -> bool {
    char.is_ascii_digit() || ('\u{ff10}'..='\u{ff19}').contains(&char)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str, settings: &BpeTraining) -> Vec<(String, u64)> {
        let mut counts = UnitCounts::new(settings);
        counts.add(text);
        counts.finish()
    }

    #[test]
    fn units_of_a_text() {
        let of = |text| {
            units(text, &BpeTraining::new(300)).into_iter().map(|(unit, count)| format!("{unit}:{count}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("a  bc a"), "▁a:2 ▁▁bc:1");
        assert_eq!(of("x=12\n\ty"), "1:1 2:1 =:1 y:1 ▁x:1");
        assert_eq!(of("don't мир日本のー"), "':1 t:1 ▁don:1 ▁мир:1 日本のー:1");
        assert_eq!(of("e\u{301}a \u{301}"), "▁e\u{301}a:1 ▁\u{301}:1");
        assert_eq!(of("a\0b"), "b:1 ▁a:1");
    }

    #[test]
    fn settings_change_units() {
        let settings = BpeTraining { byte_fallback: false, split_digits: false, ..BpeTraining::new(300) };
        assert_eq!(units("a1\n22", &settings), [("\n", 1), ("1", 1), ("22", 1), ("▁a", 1)].map(|(unit, count)| (unit.to_owned(), count)));
    }

    #[test]
    fn rare_units_are_forgotten() {
        let settings = BpeTraining { max_units: 3, ..BpeTraining::new(300) };
        let mut counts = UnitCounts::new(&settings);
        for word in ["aa", "aa", "bb", "aa", "cc", "bb", "dd", "ee"] {
            counts.add(word);
        }
        assert_eq!(counts.finish(), [("▁aa", 3), ("▁bb", 2), ("▁ee", 1)].map(|(unit, count)| (unit.to_owned(), count)));
    }

    #[test]
    fn long_units_are_cut() {
        let units = units(&"x".repeat(600), &BpeTraining::new(300));
        assert_eq!(units.iter().map(|(unit, count)| unit.chars().count() as u64 * count).sum::<u64>(), 601);
        assert!(units.iter().all(|(unit, _)| unit.chars().count() <= LONGEST_UNIT));
    }
}
