//! Where a tensor lies along the depth of its network: what a gradient is read at.

use std::collections::HashMap;

/// The number of layers under each prefix, read from tensor names alone.
///
/// A layer index is the first all-digit component of a name that has something before it: `model.layers.7.mlp…` is
/// layer 7 under `model.layers`.
#[derive(Clone, Debug, Default)]
pub struct Depth {
    layers: HashMap<String, u32>,
}

impl Depth {
    /// Counts the layers of a model by its tensor names.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut layers = HashMap::new();
        for (prefix, index) in names.filter_map(layer) {
            match layers.get_mut(prefix) {
                Some(last) => *last = index.max(*last),
                None => drop(layers.insert(prefix.to_owned(), index)),
            }
        }
        Self { layers }
    }

    /// The position of `name` in 0..=1. As in mergekit, what lies outside the layers (embeddings, final norm, output
    /// head) is at 0, and a lone layer is at 1.
    pub fn t(&self, name: &str) -> f64 {
        let Some((prefix, index)) = layer(name) else { return 0.0 };
        match self.layers.get(prefix) {
            None => 0.0,
            Some(0) => 1.0,
            Some(&last) => f64::from(index.min(last)) / f64::from(last),
        }
    }
}

/// The prefix and the layer index of a tensor name.
fn layer(name: &str) -> Option<(&str, u32)> {
    let mut start = 0;
    for part in name.split('.') {
        if start > 0 && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            return Some((&name[..start - 1], part.parse().ok()?));
        }
        start += part.len() + 1;
    }
    None
}
