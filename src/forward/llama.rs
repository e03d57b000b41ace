//! Llama, Mistral, Qwen2 and Qwen3: decoders with RMSNorm, rotary positions, grouped queries and gated MLPs
//! (Llama 2, arXiv 2307.09288; Mistral, arXiv 2310.06825; Qwen3, arXiv 2505.09388).

use super::config::Config;
use super::network::{Builder, Index, Network, Sight};
use super::rope::Rope;
use super::words;
use crate::data::Wants;
use crate::error::Result;
use crate::kernels::attention::Heads;
use crate::kernels::normalize::Kind;

/// The network of `config`.
pub fn network(family: &str, config: &Config<'_>, mut net: Builder<'_>) -> Result<Network> {
    let hidden = config.size("hidden_size")?;
    let inner = config.size("intermediate_size")?;
    let layers = config.size("num_hidden_layers")?;
    let vocab = config.size("vocab_size")?;
    let heads = config.size("num_attention_heads")?;
    let kv_heads = config.maybe_size("num_key_value_heads")?.unwrap_or(heads);
    let dim = match config.maybe_size("head_dim")? {
        Some(dim) => dim,
        None if family == "qwen3" && !config.has("head_dim") => 128,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(config.bad("num_attention_heads", &format!("is {heads}, which does not divide {hidden}"))),
    };
    let eps = config.eps("rms_norm_eps", 1e-6)?;
    let act = words::act(config, "hidden_act", "silu")?;
    let rope = Rope::new(config, dim)?;
    let shape = words::heads(config, Heads { heads, kv_heads, dim, scale: (f64::from(dim).powf(-0.5)) as f32 })?;

    net.block();
    let mut x = net.lookup("embed_tokens.weight", (vocab, hidden), Index::Token, None)?;
    for i in 0..layers {
        net.block();
        let name = |part: &str| format!("layers.{i}.{part}");
        let h = net.norm(&name("input_layernorm"), Kind::Rms, eps, x)?;
        let mut q = net.linear(&name("self_attn.q_proj"), h, heads * dim)?;
        let mut k = net.linear(&name("self_attn.k_proj"), h, kv_heads * dim)?;
        let v = net.linear(&name("self_attn.v_proj"), h, kv_heads * dim)?;
        if net.has(&name("self_attn.q_norm.weight")) {
            q = net.head_norm(&name("self_attn.q_norm"), Kind::Rms, eps, dim, q)?;
            k = net.head_norm(&name("self_attn.k_norm"), Kind::Rms, eps, dim, k)?;
        }
        let (q, k) = (net.rope(heads, dim, q), net.rope(kv_heads, dim, k));
        let a = net.attention(shape, [q, k, v], Sight::Causal { window: window(family, config, i)? });
        let o = net.linear(&name("self_attn.o_proj"), a, hidden)?;
        x = net.add(x, o);

        let h = net.norm(&name("post_attention_layernorm"), Kind::Rms, eps, x)?;
        let gate = net.linear(&name("mlp.gate_proj"), h, inner)?;
        let up = net.linear(&name("mlp.up_proj"), h, inner)?;
        let h = net.gate(act, gate, up);
        let o = net.linear(&name("mlp.down_proj"), h, hidden)?;
        x = net.add(x, o);
    }
    net.block();
    let x = net.norm("norm", Kind::Rms, eps, x)?;
    net.prefix.clear();
    if net.has("score.weight") && !net.has("lm_head.weight") {
        // A classifier by the last token, of which the forward pass knows no more than the states.
    } else if config.flag("tie_word_embeddings") || !net.has("lm_head.weight") {
        net.tied_head("lm_head.weight", x);
    } else {
        net.head("lm_head", x, vocab, true)?;
    }
    let positions = rope.longest();
    Ok(net.finish(family, Wants::Tokens { vocab, positions }, [x, x], Some(rope)))
}

/// The sliding window of layer `i`.
fn window(family: &str, config: &Config<'_>, i: u32) -> Result<u32> {
    let window = match config.has("sliding_window") {
        true => config.maybe_size("sliding_window")?.unwrap_or(u32::MAX),
        false => 4096,
    };
    let types = config.get("layer_types").and_then(|types| types.as_array());
    let kind = types.and_then(|types| types.get(i as usize)).and_then(|kind| kind.as_str());
    let slides = match (family, kind) {
        ("llama", _) => false,
        ("mistral", _) => true,
        _ if !config.flag("use_sliding_window") => false,
        (_, Some(kind)) => kind == "sliding_attention",
        (_, None) => {
            let first = config.get("max_window_layers").and_then(|n| n.as_u64()).unwrap_or(28);
            u64::from(i) >= first
        }
    };
    Ok(if slides { window } else { u32::MAX })
}
