//! JSON objects from strings to strings in which no key may appear twice: `__metadata__`, `weight_map`.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::text::shown;

/// Most pairs of [`Texts`].
const MOST_TEXTS: usize = 1 << 16;

/// An object that is checked and not kept.
pub(super) struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_map(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, _)) = map.next_entry::<String, String>()? {
            if keys.len() == MOST_TEXTS {
                return Err(A::Error::custom(format!("more than {MOST_TEXTS} keys")));
            }
            if keys.contains(&key) {
                return Err(twice(&key));
            }
            keys.insert(key);
        }
        Ok(Texts)
    }
}

/// The error about a key that was there before.
pub(super) fn twice<E: serde::de::Error>(key: &str) -> E {
    E::custom(format!("`{}` appears twice", shown(key)))
}
