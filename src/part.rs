//! Where in a network a tensor is, as far as its name tells: in which part, and how deep.

/// A part of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Projections of attention.
    Attention,
    /// Feed-forward layers.
    Mlp,
    /// Normalisations.
    Norms,
    /// Embeddings, of positions and patches too, and output heads.
    Embeddings,
    /// All else.
    Others,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 5] = [Self::Attention, Self::Mlp, Self::Norms, Self::Embeddings, Self::Others];

    /// As people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Mlp => "MLP",
            Self::Norms => "norms",
            Self::Embeddings => "embeddings",
            Self::Others => "others",
        }
    }

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
            [(NORMS, Self::Norms), (EMBEDDINGS, Self::Embeddings), (ATTENTION, Self::Attention), (MLP, Self::Mlp)];
        let found = lists.iter().find(|(words, _)| words.iter().any(|word| name.contains(word)));
        found.map_or(Self::Others, |(_, part)| *part)
    }
}

/// Whether a tensor of this shape has rows. What vectors (biases, norms, a token alone) have learned is little, and their
/// angles are mostly chance.
pub fn is_matrix(shape: &[u64]) -> bool {
    shape.iter().filter(|size| **size > 1).count() > 1
}

/// A layer of a stack of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth<'a> {
    /// What the stack is called: `model.layers`.
    pub stack: &'a str,
    /// Number of the layer in it.
    pub layer: u32,
}

impl<'a> Depth<'a> {
    /// The layer that a tensor's name tells: its first component that is a number, of up to four digits. `None` outside
    /// of any stack.
    pub fn of(name: &'a str) -> Option<Self> {
        let mut start = 0;
        for component in name.split('.') {
            if (1..=4).contains(&component.len()) && component.bytes().all(|byte| byte.is_ascii_digit()) {
                let stack = name[..start].trim_end_matches('.');
                return Some(Self { stack, layer: component.parse().ok()? });
            }
            start += component.len() + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_told_apart_by_name() {
        let cases = [
            ("model.layers.0.self_attn.q_proj.weight", Part::Attention),
            ("model.layers.0.self_attn.q_norm.weight", Part::Norms),
            ("model.layers.0.mlp.down_proj.weight", Part::Mlp),
            ("model.layers.0.block_sparse_moe.experts.1.w1.weight", Part::Mlp),
            ("model.layers.0.post_attention_layernorm.weight", Part::Norms),
            ("model.embed_tokens.weight", Part::Embeddings),
            ("lm_head.weight", Part::Embeddings),
            ("transformer.h.3.attn.c_attn.weight", Part::Attention),
            ("transformer.h.3.mlp.c_proj.weight", Part::Mlp),
            ("transformer.wpe.weight", Part::Embeddings),
            ("bert.encoder.layer.1.attention.output.dense.weight", Part::Attention),
            ("bert.encoder.layer.1.output.dense.bias", Part::Mlp),
            ("bert.encoder.layer.1.intermediate.dense.weight", Part::Mlp),
            ("bert.embeddings.LayerNorm.weight", Part::Norms),
            ("vit.embeddings.patch_embeddings.projection.weight", Part::Embeddings),
            ("visual.transformer.resblocks.0.attn.in_proj_weight", Part::Attention),
            ("visual.transformer.resblocks.0.ln_1.weight", Part::Norms),
            ("classifier.weight", Part::Others),
        ];
        for (name, part) in cases {
            assert_eq!(Part::of(name), part, "{name}");
        }
    }

    #[test]
    fn matrices_have_rows() {
        let yes: [&[u64]; 3] = [&[8, 8], &[1, 17, 64], &[64, 3, 4, 4]];
        let no: [&[u64]; 4] = [&[], &[64], &[1, 1, 64], &[64, 1]];
        assert!(yes.into_iter().all(is_matrix) && !no.into_iter().any(is_matrix));
    }

    #[test]
    fn the_first_number_of_a_name_is_its_layer() {
        let of = |name: &'static str| Depth::of(name).map(|depth| (depth.stack, depth.layer));
        assert_eq!(of("model.layers.17.mlp.experts.3.w1.weight"), Some(("model.layers", 17)));
        assert_eq!(of("transformer.h.0.ln_1.bias"), Some(("transformer.h", 0)));
        assert_eq!(of("0.weight"), Some(("", 0)));
        assert_eq!(of("a..9999"), Some(("a", 9999)));
        assert_eq!(of("blocks.0012"), Some(("blocks", 12)));
        for none in ["", ".", "model.norm.weight", "layer1.conv2.weight", "a.12345.b", "a.-1.b", "a.١.b", "a.+3.b"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
