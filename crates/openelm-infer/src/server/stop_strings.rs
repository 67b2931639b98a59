//! Stop strings, which may begin in one token and end in another.
//!
//! What must stay true: nothing of a stop string, and nothing behind it, is given out; all other text is, at the latest by
//! [`StopStrings::rest`].

#[derive(Debug)]
pub(super) struct StopStrings {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

impl StopStrings {
    /// None of `stops` is empty.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes more text. Gives what is certain, and whether a stop string came.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (text.to_owned(), false);
        }
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let kept = self.stops.iter().map(|stop| self.begun(stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// Bytes at the end of the held text with which `stop` begins.
    fn begun(&self, stop: &str) -> usize {
        let prefixes = stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0).rev();
        prefixes.into_iter().find(|at| stop.get(..*at).is_some_and(|prefix| self.held.ends_with(prefix))).unwrap_or(0)
    }

    /// What was held back, when no more text comes.
    pub fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that comes out of `pieces`, and how many of them were taken.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, usize) {
        let mut strings = StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out = String::new();
        for (taken, piece) in pieces.iter().enumerate() {
            let (text, stopped) = strings.push(piece);
            out += &text;
            if stopped {
                return (out, taken + 1);
            }
        }
        out += &strings.rest();
        (out, pieces.len())
    }

    #[test]
    fn a_stop_string_over_several_tokens() {
        assert_eq!(run(&["\nUser:"], &["Hi", "\n", "Us", "er", ": x"]), ("Hi".into(), 5));
        assert_eq!(run(&["\nUser:"], &["Hi\nUs", "age", "\n"]), ("Hi\nUsage\n".into(), 3));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b", "c"]), ("a".into(), 4));
        assert_eq!(run(&["abc", "b"], &["xa", "b"]), ("xa".into(), 2));
        assert_eq!(run(&["é!"], &["caf", "é", "é", "!"]), ("café".into(), 4));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), 2));
        assert_eq!(run(&["."], &["a.b"]), ("a".into(), 1));
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held() {
        let mut strings = StopStrings::new(vec!["END".into(), "NDX".into()]);
        assert_eq!(strings.push("some E"), ("some ".into(), false));
        assert_eq!(strings.push("N"), (String::new(), false));
        // No END any more, but ND may be the beginning of NDX.
        assert_eq!(strings.push("d"), ("ENd".into(), false));
        assert_eq!(strings.push("EN"), (String::new(), false));
        assert_eq!(strings.rest(), "EN");
    }
}
