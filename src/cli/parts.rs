//! Parts of a network, as tensor names tell them: by kind, and by layer.

use std::collections::BTreeMap;

use magic_merge::part::{Depth, Part};

/// Most rows for the layers of a network.
const RANGES: u32 = 8;

/// `items` by kind, then by layers in order, a few together where there are many; each group with its name.
pub fn groups<'a, T>(items: &'a [T], name: impl Fn(&T) -> &str) -> Vec<(String, Vec<&'a T>)> {
    let kind = |part: Part| {
        (part.as_str().to_owned(), items.iter().filter(|item| Part::of(name(item)) == part).collect::<Vec<_>>())
    };
    let mut groups: Vec<_> = Part::ALL.map(kind).into_iter().filter(|(_, members)| !members.is_empty()).collect();
    let mut stacks: BTreeMap<&str, BTreeMap<u32, Vec<&'a T>>> = BTreeMap::new();
    for item in items {
        if let Some(Depth { stack, layer }) = Depth::of(name(item)) {
            stacks.entry(stack).or_default().entry(layer).or_default().push(item);
        }
    }
    let several = stacks.len() > 1;
    // A list of blocks within layers, or of experts, is no depth.
    for (stack, layers) in stacks.into_iter().filter(|(_, layers)| layers.len() > 1) {
        let last = layers.keys().next_back().copied().unwrap_or_default();
        let step = (last + 1).div_ceil(RANGES);
        let mut ranges: BTreeMap<u32, Vec<&'a T>> = BTreeMap::new();
        for (index, members) in layers {
            ranges.entry(index / step).or_default().extend(members);
        }
        for (range, members) in ranges {
            let (from, to) = (range * step, last.min((range + 1) * step - 1));
            let numbers = if from == to { format!("layer {from}") } else { format!("layers {from}–{to}") };
            groups.push((if several { format!("{stack}: {numbers}") } else { numbers }, members));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_put_together_where_there_are_many() {
        let names: Vec<String> = (0..24).map(|i| format!("model.layers.{i}.mlp.up_proj.weight")).collect();
        let groups = groups(&names, String::as_str);
        let found: Vec<(&str, usize)> = groups.iter().map(|(name, members)| (name.as_str(), members.len())).collect();
        assert_eq!(
            (found.len(), found[0], found[1], found[8]),
            (9, ("MLP", 24), ("layers 0–2", 3), ("layers 21–23", 3))
        );
    }
}
