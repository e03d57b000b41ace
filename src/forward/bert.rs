//! BERT and RoBERTa: post-norm encoders with learned positions (arXiv 1810.04805, 1907.11692).

use super::config::Config;
use super::network::{Builder, Index, Network, Sight};
use super::words;
use crate::data::Wants;
use crate::error::Result;
use crate::kernels::activate::Act;
use crate::kernels::normalize::Kind;

/// The network of `config`.
pub fn network(family: &str, config: &Config<'_>, mut net: Builder<'_>) -> Result<Network> {
    let hidden = config.size("hidden_size")?;
    let inner = config.size("intermediate_size")?;
    let layers = config.size("num_hidden_layers")?;
    let vocab = config.size("vocab_size")?;
    let table = config.size("max_position_embeddings")?;
    let types = config.maybe_size("type_vocab_size")?.unwrap_or(2);
    let eps = config.eps("layer_norm_eps", 1e-12)?;
    let act = words::act(config, "hidden_act", "gelu")?;
    let heads = words::encoder_heads(config, hidden)?;
    if config.flag("is_decoder") {
        return Err(config.bad("is_decoder", "is true, which the forward pass does not know"));
    }
    if config.word("position_embedding_type").is_some_and(|kind| kind != "absolute") {
        return Err(config.bad("position_embedding_type", "is not `absolute`"));
    }
    // RoBERTa counts positions from the one after the padding's, and does not count padding.
    let (places, positions) = match family {
        "roberta" => match config.get("pad_token_id").map_or(Some(1), |id| id.as_u64()) {
            Some(pad) if pad < u64::from(table) - 1 => (Index::PositionPast(pad as u32), table - pad as u32 - 1),
            _ => return Err(config.bad("pad_token_id", &format!("leaves no place in {table} positions"))),
        },
        _ => (Index::Position(0), table),
    };

    net.block();
    let x = net.lookup("embeddings.word_embeddings.weight", (vocab, hidden), Index::Token, None)?;
    let name = "embeddings.token_type_embeddings.weight";
    let x = net.lookup(name, (types, hidden), Index::Zero, Some(x))?;
    let name = "embeddings.position_embeddings.weight";
    let x = net.untapped(name, (table, hidden), places, x)?;
    let mut x = net.norm("embeddings.LayerNorm", Kind::Layer, eps, x)?;
    for i in 0..layers {
        net.block();
        let name = |part: &str| format!("encoder.layer.{i}.{part}");
        let q = net.linear(&name("attention.self.query"), x, hidden)?;
        let k = net.linear(&name("attention.self.key"), x, hidden)?;
        let v = net.linear(&name("attention.self.value"), x, hidden)?;
        let a = net.attention(heads, [q, k, v], Sight::All);
        let o = net.linear(&name("attention.output.dense"), a, hidden)?;
        let o = net.add(o, x);
        x = net.norm(&name("attention.output.LayerNorm"), Kind::Layer, eps, o)?;
        let h = net.linear(&name("intermediate.dense"), x, inner)?;
        let h = net.activate(act, h);
        let o = net.linear(&name("output.dense"), h, hidden)?;
        let o = net.add(o, x);
        x = net.norm(&name("output.LayerNorm"), Kind::Layer, eps, o)?;
    }
    net.block();
    let first_row = net.select(x, Index::First);
    let mut pooled = first_row;
    if net.has("pooler.dense.weight") {
        let h = net.linear("pooler.dense", first_row, hidden)?;
        pooled = net.activate(Act::Tanh, h);
    }
    net.prefix.clear();
    let whole = !net.is_for("ForTokenClassification") && !net.is_for("ForMultipleChoice");
    let mut seen = x;
    if whole && net.has("classifier.weight") {
        seen = first_row;
        let classes = net.rows("classifier.weight")?;
        net.head("classifier", pooled, classes, false)?;
    } else if whole && net.has("classifier.out_proj.weight") {
        seen = first_row;
        let h = net.linear("classifier.dense", first_row, hidden)?;
        let h = net.activate(Act::Tanh, h);
        let classes = net.rows("classifier.out_proj.weight")?;
        net.head("classifier.out_proj", h, classes, false)?;
    }
    Ok(net.finish(family, Wants::Tokens { vocab, positions }, [x, seen], None))
}
