//! The vision tower of CLIP (arXiv 2103.00020), by the names of Hugging Face and of open_clip.

use serde_json::json;

use super::config::Config;
use super::network::{Builder, Index, Network, Sight};
use super::words::{self, PreNorm};
use crate::data::Wants;
use crate::error::{Error, Result};
use crate::kernels::activate::Act;
use crate::kernels::attention::Heads;
use crate::kernels::normalize::Kind;
use crate::kernels::patches::Image;

/// The network of `config`, in Hugging Face's names.
pub fn network(family: &str, config: &Config<'_>, mut net: Builder<'_>) -> Result<Network> {
    // Of a nested configuration, transformers writes what differs from its defaults: those of a ViT-B/32.
    let full = config.inner("vision_config").over(&json!({
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 32,
    }));
    let config = &config.with(&full);
    let hidden = config.size("hidden_size")?;
    let layers = config.size("num_hidden_layers")?;
    let (image, patches) = words::image(config)?;
    let layer = PreNorm {
        heads: words::encoder_heads(config, hidden)?,
        inner: config.size("intermediate_size")?,
        act: words::act(config, "hidden_act", "quick_gelu")?,
        eps: config.eps("layer_norm_eps", 1e-5)?,
        norm1: "layer_norm1",
        qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        out: "self_attn.out_proj",
        norm2: "layer_norm2",
        mlp: ["mlp.fc1", "mlp.fc2"],
    };

    net.block();
    let x = net.patches(image);
    let x = net.linear("embeddings.patch_embedding", x, hidden)?;
    let x = net.select(x, Index::PatchRow);
    let x = net.untapped("embeddings.class_embedding", (1, hidden), Index::ClassRow, x)?;
    let rows = (patches + 1, hidden);
    let x = net.untapped("embeddings.position_embedding.weight", rows, Index::Position(0), x)?;
    let mut x = net.norm("pre_layrnorm", Kind::Layer, layer.eps, x)?;
    for i in 0..layers {
        net.block();
        x = layer.append(&mut net, &format!("encoder.layers.{i}."), x)?;
    }
    net.block();
    let first = net.select(x, Index::First);
    let mut pooled = net.norm("post_layernorm", Kind::Layer, layer.eps, first)?;
    net.prefix.clear();
    if net.has("visual_projection.weight") {
        let width = net.rows("visual_projection.weight")?;
        pooled = net.linear("visual_projection", pooled, width)?;
    }
    if net.is_for("ForImageClassification") {
        pooled = net.mean(layer.heads, x);
    }
    if net.has("classifier.weight") {
        let classes = net.rows("classifier.weight")?;
        net.head("classifier", pooled, classes, false)?;
    }
    let wants = Wants::Pixels { channels: image.channels, height: image.height, width: image.width };
    Ok(net.finish(family, wants, [x, pooled], None))
}

/// Width of a head where `open_clip_config.json` names none.
const HEAD: u32 = 64;

/// The network that open_clip's names and shapes tell of. `config` is `open_clip_config.json`, or empty; what is in
/// neither is as in OpenAI's models: heads of 64 and the quick GELU.
pub fn open_clip(config: &Config<'_>, mut net: Builder<'_>) -> Result<Network> {
    let model = config.inner("model_cfg");
    let vision = model.inner("vision_cfg");
    let wsc = "weight-space calibration knows no architecture: `--calibrate wsc`";
    let hidden = net.rows("conv1.weight")?;
    let size = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let (channels, patch) = match net.shape("conv1.weight")?[..] {
        [_, channels, height, width] if height == width => (size(channels), size(height)),
        _ => return Err(Error::input(format!("`{}conv1.weight` is no square convolution", net.prefix)).hint(wsc)),
    };
    let rows = net.rows("positional_embedding")?;
    let side = f64::from(rows.saturating_sub(1)).sqrt() as u32;
    if side * side + 1 != rows {
        return Err(Error::input(format!("`{}positional_embedding` is of no square image", net.prefix)).hint(wsc));
    }
    if net.has("transformer.resblocks.0.ls_1.gamma") {
        let what = format!("`{}transformer.resblocks.0.ls_1.gamma`: layers are scaled", net.prefix);
        return Err(Error::input(format!("{what}, which the forward pass does not know")).hint(wsc));
    }
    let side = side.saturating_mul(patch);
    let image = Image { channels, height: side, width: side, patch };
    words::patches(config, image)?;
    let dim = vision.maybe_size("head_width")?.unwrap_or(HEAD.min(hidden));
    if hidden % dim != 0 {
        return Err(config.bad("head_width", &format!("is {dim}, which does not divide {hidden}")));
    }
    let quick = model.get("quick_gelu").and_then(|quick| quick.as_bool()).unwrap_or(model.get("vision_cfg").is_none());
    let approximate = vision.inner("act_kwargs").word("approximate") == Some("tanh");
    let heads = Heads { heads: hidden / dim, kv_heads: hidden / dim, dim, scale: f64::from(dim).powf(-0.5) as f32 };
    let heads = words::heads(config, heads)?;
    let inner = net.rows("transformer.resblocks.0.mlp.c_fc.weight")?;
    let layer = PreNorm {
        heads,
        inner,
        act: match (quick, approximate) {
            (true, _) => Act::QuickGelu,
            (false, true) => Act::GeluTanh,
            (false, false) => Act::Gelu,
        },
        eps: vision.inner("norm_kwargs").eps("eps", 1e-5)?,
        norm1: "ln_1",
        qkv: ["", "", ""],
        out: "attn.out_proj",
        norm2: "ln_2",
        mlp: ["mlp.c_fc", "mlp.c_proj"],
    };

    net.block();
    let x = net.patches(image);
    let x = net.linear("conv1", x, hidden)?;
    let x = net.select(x, Index::PatchRow);
    let x = net.untapped("class_embedding", (1, hidden), Index::ClassRow, x)?;
    let x = net.untapped("positional_embedding", (rows, hidden), Index::Position(0), x)?;
    let mut x = net.norm("ln_pre", Kind::Layer, layer.eps, x)?;
    for i in 0.. {
        let name = |part: &str| format!("transformer.resblocks.{i}.{part}");
        if !net.has(&name("attn.in_proj_weight")) {
            break;
        }
        net.block();
        let h = net.norm(&name("ln_1"), Kind::Layer, layer.eps, x)?;
        let (weight, bias) = (name("attn.in_proj_weight"), name("attn.in_proj_bias"));
        let qkv = net.linear_of(&name("attn.in_proj"), &weight, &bias, h, 3 * hidden)?;
        let a = net.attention_at(heads, [(qkv, 0), (qkv, hidden), (qkv, 2 * hidden)], Sight::All);
        let o = net.linear(&name("attn.out_proj"), a, hidden)?;
        x = net.add(x, o);
        x = layer.mlp(&mut net, &name(""), x, hidden)?;
    }
    net.block();
    let first = net.select(x, Index::First);
    let pooled = net.norm("ln_post", Kind::Layer, layer.eps, first)?;
    let wants = Wants::Pixels { channels, height: image.height, width: image.width };
    Ok(net.finish("open_clip", wants, [x, pooled], None))
}
