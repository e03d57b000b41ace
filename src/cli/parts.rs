//! Parts of a network, as tensor names tell them: by kind, and by layer.

use std::collections::BTreeMap;

use magic_merge::recipe::layer;

/// Most rows for the layers of a network.
const RANGES: u32 = 8;

/// A part of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Projections of attention.
    Attention,
    /// Feed-forward layers.
    Mlp,
    /// Embeddings, of positions and patches too, and output heads.
    Embeddings,
    /// Norms and all else.
    Others,
}

impl Group {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Attention, "attention"),
        (Self::Mlp, "MLP"),
        (Self::Embeddings, "embeddings"),
        (Self::Others, "others"),
    ];

    /// The part that a tensor's name tells. The first list with a matching word decides.
    pub fn of(name: &str) -> Self {
        const NORMS: &[&str] = &["norm", "ln_", ".ln", "ln1", "ln2"];
        const EMBEDDINGS: &[&str] = &["embed", "wte", "wpe", "lm_head", "patch", "shared."];
        const ATTENTION: &[&str] = &["attn", "attention", "q_proj", "k_proj", "v_proj", "o_proj", "qkv"];
        const MLP: &[&str] = &[
            "mlp",
            "ffn",
            "feed_forward",
            "fc1",
            "fc2",
            "c_fc",
            "intermediate",
            "output.dense",
            "relu",
            "gate_proj",
            "up_proj",
            "down_proj",
            "moe",
            "expert",
        ];
        let name = name.to_lowercase();
        let lists =
            [(NORMS, Self::Others), (EMBEDDINGS, Self::Embeddings), (ATTENTION, Self::Attention), (MLP, Self::Mlp)];
        let found = lists.iter().find(|(words, _)| words.iter().any(|word| name.contains(word)));
        found.map_or(Self::Others, |(_, group)| *group)
    }
}

/// `items` by kind, then by layers in order, a few together where there are many; each group with its name.
pub fn groups<'a, T>(items: &'a [T], name: impl Fn(&T) -> &str) -> Vec<(String, Vec<&'a T>)> {
    let kind = |(kind, title): (Group, &str)| {
        (title.to_owned(), items.iter().filter(|item| Group::of(name(item)) == kind).collect::<Vec<_>>())
    };
    let mut groups: Vec<_> = Group::ALL.map(kind).into_iter().filter(|(_, members)| !members.is_empty()).collect();
    let mut stacks: BTreeMap<&str, BTreeMap<u32, Vec<&'a T>>> = BTreeMap::new();
    for item in items {
        if let Some((stack, index)) = layer(name(item)) {
            stacks.entry(stack).or_default().entry(index).or_default().push(item);
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
    fn tensors_are_told_apart_by_name() {
        let cases = [
            ("model.layers.0.self_attn.q_proj.weight", Group::Attention),
            ("model.layers.0.self_attn.q_norm.weight", Group::Others),
            ("model.layers.0.mlp.down_proj.weight", Group::Mlp),
            ("model.layers.0.block_sparse_moe.experts.1.w1.weight", Group::Mlp),
            ("model.layers.0.post_attention_layernorm.weight", Group::Others),
            ("model.embed_tokens.weight", Group::Embeddings),
            ("lm_head.weight", Group::Embeddings),
            ("transformer.h.3.attn.c_attn.weight", Group::Attention),
            ("transformer.h.3.mlp.c_proj.weight", Group::Mlp),
            ("transformer.wpe.weight", Group::Embeddings),
            ("bert.encoder.layer.1.attention.output.dense.weight", Group::Attention),
            ("bert.encoder.layer.1.output.dense.bias", Group::Mlp),
            ("bert.encoder.layer.1.intermediate.dense.weight", Group::Mlp),
            ("bert.embeddings.LayerNorm.weight", Group::Others),
            ("vit.embeddings.patch_embeddings.projection.weight", Group::Embeddings),
            ("visual.transformer.resblocks.0.attn.in_proj_weight", Group::Attention),
            ("visual.transformer.resblocks.0.ln_1.weight", Group::Others),
            ("classifier.weight", Group::Others),
        ];
        for (name, group) in cases {
            assert_eq!(Group::of(name), group, "{name}");
        }
    }

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
