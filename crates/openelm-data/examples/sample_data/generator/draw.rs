//! The one place where chance enters: every choice goes through `Draw::pick`, which knows its exact probability.
//!
//! A text is written left to right by choices and sayings. The same code runs in two ways: sampling takes choices from a
//! stream and adds up their surprise, -log2 p; following takes them from a script and stops at the first choice beyond it,
//! which lets `derive.rs` enumerate a grammar or find every way in which a given text can come about.

use super::stream::Stream;

/// Why writing stopped before the end.
#[derive(Debug)]
pub enum Halt {
    /// Following only: the script is used up and these are the weights of the next choice.
    Open(Vec<u32>),
    /// Following only: the text said so far is no beginning of the wanted text.
    Differs,
    /// A mistake in the grammar or in the code that uses it.
    Fault(String),
}

enum Chooser<'a> {
    Sample(Stream),
    Follow { script: &'a [usize], at: usize, wanted: Option<&'a str> },
}

/// A text in the making.
pub struct Draw<'a> {
    chooser: Chooser<'a>,
    text: String,
    bits: f64,
    /// Where the parts begin that are held back to be changed before they count as said.
    held: Vec<usize>,
}

impl<'a> Draw<'a> {
    /// Choices by chance.
    pub fn sample(stream: Stream) -> Self {
        Self::new(Chooser::Sample(stream))
    }

    /// Choices by a script; with `wanted`, only as long as its beginning is what is said.
    pub fn follow(script: &'a [usize], wanted: Option<&'a str>) -> Self {
        Self::new(Chooser::Follow { script, at: 0, wanted })
    }

    fn new(chooser: Chooser<'a>) -> Self {
        Self { chooser, text: String::new(), bits: 0.0, held: Vec::new() }
    }

    /// An index into `weights`, each with probability weight / sum of the weights. A choice of one possibility is none.
    pub fn pick(&mut self, weights: &[u32]) -> Result<usize, Halt> {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        if total == 0 {
            return Err(Halt::Fault("a choice without possibilities".into()));
        }
        if let Some(only) = weights.iter().position(|weight| u64::from(*weight) == total) {
            return Ok(only);
        }
        let index = match &mut self.chooser {
            Chooser::Sample(stream) => {
                let mut value = stream.below(total);
                let mut index = 0;
                for (at, weight) in weights.iter().enumerate() {
                    index = at;
                    match value.checked_sub(u64::from(*weight)) {
                        Some(rest) => value = rest,
                        None => break,
                    }
                }
                index
            }
            Chooser::Follow { script, at, .. } => {
                let Some(index) = script.get(*at) else { return Err(Halt::Open(weights.to_vec())) };
                *at += 1;
                *index
            }
        };
        let weight = weights.get(index).copied().unwrap_or(0);
        self.bits += (total as f64 / f64::from(weight)).log2();
        Ok(index)
    }

    /// Evenly one of `count`.
    pub fn even(&mut self, count: usize) -> Result<usize, Halt> {
        self.pick(&vec![1; count])
    }

    /// Evenly from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> Result<i64, Halt> {
        let count = usize::try_from(high - low + 1).map_err(|_| Halt::Fault(format!("no number lies between {low} and {high}")))?;
        Ok(low + self.even(count)? as i64)
    }

    /// True with probability `yes` / (`yes` + `no`).
    pub fn chance(&mut self, yes: u32, no: u32) -> Result<bool, Halt> {
        Ok(self.pick(&[no, yes])? == 1)
    }

    /// Appends to the text.
    pub fn say(&mut self, words: &str) -> Result<(), Halt> {
        let from = self.text.len();
        self.text.push_str(words);
        match &self.chooser {
            Chooser::Follow { wanted: Some(wanted), .. } if self.held.is_empty() => match wanted.get(from..) {
                Some(rest) if rest.starts_with(words) => Ok(()),
                _ => Err(Halt::Differs),
            },
            _ => Ok(()),
        }
    }

    /// What is said from here on is held back until `release`.
    pub fn hold(&mut self) {
        self.held.push(self.text.len());
    }

    /// Takes back what was said since the last `hold`.
    pub fn release(&mut self) -> String {
        let from = self.held.pop().unwrap_or(0);
        self.text.split_off(from)
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Surprise of the choices so far, in bits.
    pub fn bits(&self) -> f64 {
        self.bits
    }

    /// Following only: the end was reached, and the text is the wanted one.
    pub fn complete(&self) -> bool {
        match &self.chooser {
            Chooser::Follow { wanted: Some(wanted), .. } => self.text == *wanted,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_follow_the_weights() {
        let mut draw = Draw::sample(Stream::new(3, "weights", 0));
        let mut counts = [0u32; 4];
        for _ in 0..12_000 {
            counts[draw.pick(&[1, 0, 2, 3]).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        for (count, expected) in [(counts[0], 2_000), (counts[2], 4_000), (counts[3], 6_000)] {
            // Five standard deviations of a binomial count are below 300 here.
            assert!(u32::abs_diff(count, expected) < 300, "{counts:?}");
        }
    }

    #[test]
    fn surprise_is_minus_log2_of_the_probability() {
        let mut draw = Draw::follow(&[0, 2, 1], None);
        draw.pick(&[1, 3]).unwrap();
        draw.pick(&[0, 7]).unwrap(); // no choice: takes nothing from the script
        draw.pick(&[1, 1, 6]).unwrap();
        draw.even(4).unwrap();
        assert!((draw.bits() - (2.0 + (8.0f64 / 6.0).log2() + 2.0)).abs() < 1e-12);
        assert!(matches!(draw.even(5), Err(Halt::Open(weights)) if weights.len() == 5));
    }
}
