//! What a tensor of a PEFT adapter is, by its name.

use crate::checkpoint::text::shown;
use crate::error::{Error, Result};

/// What a tensor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A, `[r, in]`, of a module.
    Down(String),
    /// B, `[out, r]`, of a module.
    Up(String),
    /// A, `[r, rows]`, of an embedding.
    EmbeddingDown(String),
    /// B, `[width, r]`, of an embedding.
    EmbeddingUp(String),
    /// α of a module.
    Alpha(String),
    /// A tensor of the model, whole: it takes the place of the base's.
    Whole(String),
    /// What was there before training.
    Unused,
}

/// What PEFT calls `name`, in the adapter `at`.
///
/// # Errors
/// Parts of adapters of other kinds.
pub fn peft(name: &str, at: &str) -> Result<Role> {
    let rest = name.strip_prefix("base_model.model.").unwrap_or(name);
    let refused = |what: &str| {
        Err(Error::input(format!("tensor `{}` of `{}` is {what}, which no B·A expresses", shown(name), shown(at)))
            .hint("merge it into its base with PEFT (`merge_and_unload`), and name the result as a model"))
    };
    if rest.contains("lora_magnitude_vector") {
        return refused("part of DoRA");
    }
    if rest.contains(".token_adapter.") || rest.contains("trainable_tokens_") {
        return refused("part of single trained tokens");
    }
    if let Some(kind) =
        ["hada_", "lokr_", "ia3_", "oft_", "vera_"].iter().find(|kind| rest.contains(&format!(".{kind}")))
    {
        return refused(&format!("part of another kind of adapter ({})", kind.trim_end_matches('_')));
    }
    for (marker, role) in [
        (".lora_A.", Role::Down as fn(String) -> Role),
        (".lora_B.", Role::Up),
        (".lora_embedding_A", Role::EmbeddingDown),
        (".lora_embedding_B", Role::EmbeddingUp),
    ] {
        let Some((module, end)) = rest.split_once(marker) else { continue };
        if marker.ends_with('.') && end.rsplit('.').next() == Some("bias") {
            return refused("a bias of a factor (`lora_bias`)");
        }
        // Perhaps with the adapter's name before it.
        let ends = if marker.ends_with('.') { end.rsplit('.').next() == Some("weight") } else { true };
        if ends && end.matches('.').count() <= 1 {
            return Ok(role(module.to_owned()));
        }
    }
    if rest.contains(".lora_") {
        return refused("a part of LoRA that is not known");
    }
    if rest.contains(".original_module.") {
        return Ok(Role::Unused);
    }
    if let Some((module, end)) = rest.split_once(".modules_to_save.") {
        let end = end.rsplit_once('.').map_or(end, |(_, last)| last);
        return Ok(Role::Whole(format!("{module}.{end}")));
    }
    Ok(Role::Whole(rest.replace(".base_layer.", ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let of = |name: &str| peft(name, "x");
        let at = "base_model.model.model.layers.0.q_proj";
        let module = || "model.layers.0.q_proj".to_owned();
        assert_eq!(of(&format!("{at}.lora_A.weight")).unwrap(), Role::Down(module()));
        assert_eq!(of(&format!("{at}.lora_B.default.weight")).unwrap(), Role::Up(module()));
        assert_eq!(of(&format!("{at}.lora_embedding_A")).unwrap(), Role::EmbeddingDown(module()));
        assert_eq!(of(&format!("{at}.lora_embedding_B.default")).unwrap(), Role::EmbeddingUp(module()));
        assert_eq!(of(&format!("{at}.base_layer.bias")).unwrap(), Role::Whole(format!("{}.bias", module())));
        assert_eq!(of("base_model.model.score.modules_to_save.default.weight").unwrap(), {
            Role::Whole("score.weight".into())
        });
        for bad in ["lora_B.bias", "lora_magnitude_vector", "lora_C.weight", "hada_w1_a", "lora_A.a.b.weight"] {
            assert!(of(&format!("{at}.{bad}")).is_err(), "{bad}");
        }
    }
}
