//! Finds given texts inside a text: at each place the longest that begins there, from left to right.

/// The texts to be found, with their ids.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    /// For each first byte the texts, longest first.
    by_first: Vec<Vec<(String, u32)>>,
}

impl Matcher {
    /// `None` when there is nothing to find. Empty texts are left out.
    pub fn new<'a>(texts: impl Iterator<Item = (&'a str, u32)>) -> Option<Self> {
        let mut by_first = vec![Vec::new(); 256];
        let mut any = false;
        for (text, id) in texts {
            if let Some(first) = text.as_bytes().first() {
                by_first[usize::from(*first)].push((text.to_owned(), id));
                any = true;
            }
        }
        for texts in &mut by_first {
            texts.sort_by(|a: &(String, u32), b| b.0.len().cmp(&a.0.len()).then(a.1.cmp(&b.1)));
        }
        any.then_some(Self { by_first })
    }

    /// The longest text that `text` begins with: its length and id.
    #[inline]
    pub fn at_start(&self, text: &str) -> Option<(usize, u32)> {
        let candidates = self.by_first.get(usize::from(*text.as_bytes().first()?))?;
        candidates.iter().find(|(candidate, _)| text.starts_with(candidate)).map(|(candidate, id)| (candidate.len(), *id))
    }

    /// Gives the stretches between the texts found, each with the id that follows it; the last has none.
    pub fn cut<'a>(&self, text: &'a str, mut give: impl FnMut(&'a str, Option<u32>)) {
        let (mut start, mut place) = (0, 0);
        while let Some(rest) = text.get(place..).filter(|rest| !rest.is_empty()) {
            match self.at_start(rest) {
                Some((length, id)) => {
                    give(text.get(start..place).unwrap_or_default(), Some(id));
                    place += length;
                    start = place;
                }
                None => place += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        give(text.get(start..).unwrap_or_default(), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_from_the_left() {
        let matcher = Matcher::new([("<s>", 1), ("ab", 2), ("abc", 3), ("bcd", 4)].into_iter()).unwrap();
        let mut found = Vec::new();
        matcher.cut("é<s>abcdab", |stretch, id| found.push((stretch, id)));
        assert_eq!(found, [("é", Some(1)), ("", Some(3)), ("d", Some(2)), ("", None)]);
        assert!(Matcher::new([("", 1)].into_iter()).is_none());
    }
}
