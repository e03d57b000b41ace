//! Vision transformers with a class token (arXiv 2010.11929), as Hugging Face names them.

use super::config::Config;
use super::network::{Builder, Index, Network};
use super::words::{self, PreNorm};
use crate::data::Wants;
use crate::error::Result;
use crate::kernels::activate::Act;
use crate::kernels::normalize::Kind;

/// The network of `config`.
pub fn network(family: &str, config: &Config<'_>, mut net: Builder<'_>) -> Result<Network> {
    let hidden = config.size("hidden_size")?;
    let layers = config.size("num_hidden_layers")?;
    let (image, patches) = words::image(config)?;
    let layer = PreNorm {
        heads: words::encoder_heads(config, hidden)?,
        inner: config.size("intermediate_size")?,
        act: words::act(config, "hidden_act", "gelu")?,
        eps: config.eps("layer_norm_eps", 1e-12)?,
        norm1: "layernorm_before",
        qkv: ["attention.attention.query", "attention.attention.key", "attention.attention.value"],
        out: "attention.output.dense",
        norm2: "layernorm_after",
        mlp: ["intermediate.dense", "output.dense"],
    };

    net.block();
    let x = net.patches(image);
    let x = net.linear("embeddings.patch_embeddings.projection", x, hidden)?;
    let x = net.select(x, Index::PatchRow);
    let x = net.untapped("embeddings.cls_token", (1, hidden), Index::ClassRow, x)?;
    let rows = (patches + 1, hidden);
    let mut x = net.untapped("embeddings.position_embeddings", rows, Index::Position(0), x)?;
    for i in 0..layers {
        net.block();
        x = layer.append(&mut net, &format!("encoder.layer.{i}."), x)?;
    }
    net.block();
    let x = net.norm("layernorm", Kind::Layer, layer.eps, x)?;
    let first = net.select(x, Index::First);
    if net.has("pooler.dense.weight") {
        let h = net.linear("pooler.dense", first, hidden)?;
        net.activate(Act::Tanh, h);
    }
    net.prefix.clear();
    if net.has("classifier.weight") {
        let classes = net.rows("classifier.weight")?;
        net.head("classifier", first, classes, false)?;
    }
    let wants = Wants::Pixels { channels: image.channels, height: image.height, width: image.width };
    Ok(net.finish(family, wants, [x, first], None))
}
