//! The top level of a CoreNet file without its `_anchor_...` keys, which hold values for YAML aliases and say nothing themselves.
//!
//! What must stay true: the key is looked at while the YAML reader stands on it, so that an unknown key is reported at its own
//! line and not at the start of the file.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, IgnoredAny, IntoDeserializer, MapAccess, Visitor};

/// What CoreNet's own reader passes over as well.
const ANCHOR: &str = "_anchor_";

/// A mapping that hides its anchor keys from the visitor behind it.
pub(super) struct WithoutAnchors<A>(pub A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithoutAnchors<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, mut seed: K) -> Result<Option<K::Value>, A::Error> {
        loop {
            match self.0.next_key_seed(UnlessAnchor(seed))? {
                None => return Ok(None),
                Some(Key::Plain(value)) => return Ok(Some(value)),
                Some(Key::Anchor(unused)) => {
                    self.0.next_value::<IgnoredAny>()?;
                    seed = unused;
                }
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

enum Key<K, V> {
    Plain(V),
    /// The seed comes back unused, for the next key.
    Anchor(K),
}

struct UnlessAnchor<K>(K);

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for UnlessAnchor<K> {
    type Value = Key<K, K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for UnlessAnchor<K> {
    type Value = Key<K, K::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section of a CoreNet file")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        if key.starts_with(ANCHOR) {
            return Ok(Key::Anchor(self.0));
        }
        self.0.deserialize(key.into_deserializer()).map(Key::Plain)
    }
}
