//! `*.safetensors.index.json` or `pytorch_model.bin.index.json`: which shard holds which tensor. Its values come from
//! whoever made the folder, so each must be one plain file name: anything that could lead elsewhere is an error, not a
//! path.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::files::read_small;
use super::json::Strings;
use super::text::{self, shown};
use crate::error::{Error, Result};

/// Longest index: a million tensors and more.
const MAX_INDEX: u64 = 64 << 20;

/// A checked index.
pub(super) struct Index {
    /// The shards, by name.
    pub(super) shards: Vec<String>,
    /// Which of them holds a tensor.
    pub(super) map: HashMap<String, usize>,
}

/// The keys that matter. That of `metadata` is often wrong by a little and decides nothing.
#[derive(Deserialize)]
struct Document {
    #[serde(default, rename = "metadata")]
    _metadata: IgnoredAny,
    weight_map: Strings,
}

/// Reads the index at `path`, whose shards' names end with `end`.
pub(super) fn read(path: &Path, end: &str) -> Result<Index> {
    let bad = |what: String| Error::input(format!("`{}` is not an index of shards: {what}", text::path(path)));
    let bytes = read_small(path, MAX_INDEX)?;
    let document: Document = serde_json::from_slice(&bytes).map_err(|e| bad(shown(&e.to_string())))?;
    let weights = document.weight_map.0;
    let shards: BTreeSet<&str> = weights.values().map(String::as_str).collect();
    for shard in &shards {
        let wrong = match plain_name(shard) {
            Ok(()) if shard.ends_with(end) => continue,
            Ok(()) => format!("is no `{end}` file"),
            Err(why) => why.to_owned(),
        };
        return Err(bad(format!("the shard `{}` {wrong}", shown(shard)))
            .hint("an index names files beside it; one that does not may be an attack: do not use it"));
    }
    if shards.is_empty() {
        return Err(bad("it names no shard".into()));
    }
    let number: HashMap<&str, usize> = shards.iter().enumerate().map(|(i, shard)| (*shard, i)).collect();
    let map = weights.iter().map(|(tensor, shard)| (tensor.clone(), number[shard.as_str()])).collect();
    Ok(Index { shards: shards.into_iter().map(str::to_owned).collect(), map })
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
