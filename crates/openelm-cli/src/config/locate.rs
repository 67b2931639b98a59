//! The line and column at which a key's value stands in a YAML text.
//!
//! serde_yaml_ng keeps positions only for errors, so the text is read once more by a reader that fails on arriving at the key.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::parse::Segment;

/// Line and column (from 1) of the node at `path`, or of the deepest node on the way to it that exists.
pub(super) fn locate(text: &str, path: &[Segment]) -> Option<(usize, usize)> {
    (0..=path.len()).rev().find_map(|length| {
        let seed = Probe { path: &path[..length] };
        let error = seed.deserialize(serde_yaml_ng::Deserializer::from_str(text)).err()?;
        let location = error.location()?;
        error.to_string().contains(FOUND).then(|| (location.line(), location.column()))
    })
}

const FOUND: &str = "the probe has arrived";

struct Probe<'a> {
    path: &'a [Segment],
}

impl Probe<'_> {
    /// Fails where the path ends; whatever is not on the path is passed by.
    fn arrive<E: de::Error>(&self) -> Result<(), E> {
        if self.path.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.arrive()
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.arrive()
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.arrive()
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.arrive()
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.arrive()
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.arrive()
    }
    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.arrive()
    }
    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.arrive()?;
        if let Some((Segment::Index(index), rest)) = self.path.split_first() {
            for _ in 0..*index {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
            }
            seq.next_element_seed(Probe { path: rest })?;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.arrive()?;
        while let Some(key) = map.next_key::<String>()? {
            match self.path.split_first() {
                Some((Segment::Key(wanted), rest)) if *wanted == key => {
                    map.next_value_seed(Probe { path: rest })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(keys: &[&str]) -> Vec<Segment> {
        keys.iter()
            .map(|key| match key.parse() {
                Ok(index) => Segment::Index(index),
                Err(_) => Segment::Key((*key).to_owned()),
            })
            .collect()
    }

    #[test]
    fn values_are_found_by_their_path() {
        let text = "a: 1\nb:\n  - x: 2\n    y: {z: word}\n  - 3\nc:\n";
        assert_eq!(locate(text, &path(&["a"])), Some((1, 4)));
        assert_eq!(locate(text, &path(&["b", "0", "x"])), Some((3, 8)));
        assert_eq!(locate(text, &path(&["b", "0", "y", "z"])), Some((4, 12)));
        assert_eq!(locate(text, &path(&["b", "1"])), Some((5, 5)));
        // The deepest node that exists stands for one that does not.
        assert_eq!(locate(text, &path(&["b", "0", "none"])), Some((3, 5)));
        // A node that begins before the broken place is found; where nothing can be read, nothing is.
        assert_eq!(locate("a: [", &path(&["a"])), Some((1, 4)));
        assert_eq!(locate("@", &path(&["a"])), None);
    }
}
