//! `*.safetensors.index.json` or `pytorch_model.bin.index.json`: which shard holds which tensor. Its values come from
//! whoever made the folder, so each must be one plain file name: anything that could lead elsewhere is an error, not a
//! path.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::files::read_small;
use super::json::twice;
use super::text::{self, shown};
use crate::error::{Error, Result};

/// Longest index, with room for 300,000 tensors of usual names.
const MAX_INDEX: u64 = 32 << 20;
/// Most tensors: twice those of the largest mixtures of experts.
const MAX_TENSORS: usize = 1 << 18;

/// A checked index.
pub(super) struct Index {
    /// Names of the shards, sorted.
    pub(super) shards: Vec<String>,
    /// The place among them of the one that holds a tensor.
    pub(super) map: HashMap<String, usize>,
}

/// The keys that matter. That of `metadata` is often wrong by a little and decides nothing.
#[derive(Deserialize)]
struct Document {
    #[serde(default, rename = "metadata")]
    _metadata: IgnoredAny,
    weight_map: Index,
}

/// Reads the index at `path`, whose shards' names end with `end`.
pub(super) fn read(path: &Path, end: &str) -> Result<Index> {
    parse(&read_small(path, MAX_INDEX)?, &text::path(path), end)
}

/// Parses and checks an index; `file` is a name for messages.
pub(super) fn parse(bytes: &[u8], file: &str, end: &str) -> Result<Index> {
    let bad = |what: String| Error::input(format!("`{file}` is not an index of shards: {what}"));
    let document: Document = serde_json::from_slice(bytes).map_err(|e| bad(shown(&e.to_string())))?;
    let index = document.weight_map;
    for shard in &index.shards {
        let wrong = match plain_name(shard) {
            Ok(()) if shard.ends_with(end) => continue,
            Ok(()) => format!("is no `{end}` file"),
            Err(why) => why.to_owned(),
        };
        return Err(bad(format!("the shard `{}` {wrong}", shown(shard)))
            .hint("an index names files beside it; one that does not may be an attack: do not use it"));
    }
    match index.shards.is_empty() {
        true => Err(bad("it names no shard".into())),
        false => Ok(index),
    }
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<Self, D::Error> {
        source.deserialize_map(IndexVisitor)
    }
}

struct IndexVisitor;

impl<'de> Visitor<'de> for IndexVisitor {
    type Value = Index;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> std::result::Result<Index, A::Error> {
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut map = HashMap::new();
        while let Some((tensor, shard)) = pairs.next_entry::<String, String>()? {
            if map.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            let next = numbers.len();
            let number = *numbers.entry(shard).or_insert(next);
            match map.entry(tensor) {
                Entry::Vacant(free) => free.insert(number),
                Entry::Occupied(taken) => return Err(twice(taken.key())),
            };
        }
        // Shards are numbered by name, not as they come.
        let mut shards: Vec<(String, usize)> = numbers.into_iter().collect();
        shards.sort_unstable();
        let mut places = vec![0; shards.len()];
        shards.iter().enumerate().for_each(|(place, (_, number))| places[*number] = place);
        map.values_mut().for_each(|number| *number = places[*number]);
        Ok(Index { shards: shards.into_iter().map(|(name, _)| name).collect(), map })
    }
}

/// Why `name` is not the plain name of a file in its folder, on any of the systems.
pub(super) fn plain_name(name: &str) -> std::result::Result<(), &'static str> {
    const DEVICES: [&str; 4] = ["con", "nul", "prn", "aux"];
    let stem = name.split('.').next().unwrap_or("").trim_end().to_ascii_lowercase();
    let port = stem.strip_prefix("com").or(stem.strip_prefix("lpt"));
    let is_digit = |port: &str| port.len() == 1 && port.as_bytes()[0].is_ascii_digit();
    match name {
        "" => Err("has no name"),
        "." | ".." => Err("leads out of the folder"),
        _ if name.contains(['/', '\\']) => Err("is a path, not a file name"),
        _ if name.contains(':') => Err("names a drive or a stream"),
        _ if name.contains(text::is_hostile) => Err("has control characters in its name"),
        _ if name.len() > 255 => Err("has too long a name"),
        _ if name.ends_with(['.', ' ']) => Err("ends in a dot or a space"),
        _ if DEVICES.contains(&&*stem) || port.is_some_and(is_digit) => Err("is the name of a device"),
        _ => Ok(()),
    }
}
