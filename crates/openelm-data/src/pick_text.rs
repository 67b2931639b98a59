//! One string out of a JSON object, without building the rest.
//!
//! The whole line is checked to be JSON. When a key stands twice the last one counts, as in Python. Messages never quote the
//! line: serde's own messages for wrong types would, so wrong types are noted as values instead.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a line holds under the key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Picked {
    Text(String),
    Missing,
    /// A value of this kind.
    Other(&'static str),
    NotJson {
        column: usize,
        reason: String,
    },
}

/// The string under `key` of the object in `line`.
pub(crate) fn pick_text(line: &str, key: &str) -> Picked {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let picked = Object { key }.deserialize(&mut deserializer).and_then(|picked| deserializer.end().map(|()| picked));
    picked.unwrap_or_else(|error| Picked::NotJson { column: error.column(), reason: reason(&error) })
}

fn reason(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    match error.classify() {
        Category::Eof => "the line ends inside it".into(),
        // These are serde_json's fixed phrases; its position counts inside the line and is given apart.
        Category::Syntax => {
            let text = error.to_string();
            text.split(" at line ").next().unwrap_or("wrong syntax").to_owned()
        }
        Category::Data | Category::Io => "the line holds something else".into(),
    }
}

struct Object<'k> {
    key: &'k str,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Picked;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Picked, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Picked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Picked, A::Error> {
        let mut picked = Picked::Missing;
        while let Some(wanted) = map.next_key_seed(KeyIs(self.key))? {
            if wanted {
                picked = map.next_value_seed(Value)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(picked)
    }
}

/// Whether a key is the wanted one.
struct KeyIs<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// A value under the wanted key.
struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Picked;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Picked, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Picked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Picked, E> {
        Ok(Picked::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Picked, E> {
        Ok(Picked::Text(text))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Picked, E> {
        Ok(Picked::Other("a boolean"))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Picked, E> {
        Ok(Picked::Other("a number"))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Picked, E> {
        Ok(Picked::Other("a number"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Picked, E> {
        Ok(Picked::Other("a number"))
    }

    fn visit_unit<E: Error>(self) -> Result<Picked, E> {
        Ok(Picked::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Picked, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Picked::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Picked, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Picked::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_strings() {
        let text = |line| pick_text(line, "text");
        assert_eq!(text(r#"{"id": 1, "text": "a\n\u00e9\ud83d\ude00", "meta": {"text": "no"}}"#), Picked::Text("a\né😀".into()));
        assert_eq!(text(" {\"te\\u0078t\": \"\"} \r\n"), Picked::Text(String::new()));
        assert_eq!(text(r#"{"text": "1", "text": "2"}"#), Picked::Text("2".into()));
        assert_eq!(text("{}"), Picked::Missing);
    }

    #[test]
    fn names_other_kinds() {
        for (value, kind) in [
            ("null", "null"),
            ("true", "a boolean"),
            ("-1.5", "a number"),
            ("7", "a number"),
            ("[1]", "a list"),
            ("{\"a\": 1}", "an object"),
        ] {
            assert_eq!(pick_text(&format!("{{\"text\": {value}}}"), "text"), Picked::Other(kind));
        }
    }

    #[test]
    fn refuses_what_is_not_json_without_quoting_it() {
        for line in [
            "secret",
            "{\"text\": \"secret",
            "[\"secret\"]",
            "\"secret\"",
            "{\"text\": \"secret\"} secret",
            "{\"text\": \"\\ud800 secret\"}",
            "{\"text\": \"secret\"",
            "3",
        ] {
            let Picked::NotJson { reason, .. } = pick_text(line, "text") else { panic!("{line}") };
            assert!(!reason.contains("secret"), "{reason}");
        }
    }
}
