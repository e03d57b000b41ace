//! What several families say in the same words.

use super::config::Config;
use super::network::{Builder, Sight, Value};
use crate::error::Result;
use crate::kernels::activate::Act;
use crate::kernels::attention::Heads;
use crate::kernels::normalize::Kind;
use crate::kernels::patches::Image;

/// The activation function under `key`.
pub fn act(config: &Config<'_>, key: &str, default: &str) -> Result<Act> {
    let name = config.word(key).unwrap_or(default);
    Ok(match name {
        "gelu" | "gelu_python" => Act::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => Act::GeluTanh,
        "quick_gelu" => Act::QuickGelu,
        "silu" | "swish" => Act::Silu,
        "relu" => Act::Relu,
        "tanh" => Act::Tanh,
        _ => return Err(config.bad(key, &format!("is `{name}`, which the forward pass does not know"))),
    })
}

/// Largest head that the kernels take.
const MAX_HEAD: u32 = 256;
/// Most heads: a row of all of them is counted in 32 bits.
const MAX_HEADS: u32 = 1 << 16;
/// Most rows and columns of an image.
const MAX_SIDE: u32 = 1 << 14;

/// `heads` if they can be computed with.
pub fn heads(config: &Config<'_>, heads: Heads) -> Result<Heads> {
    if heads.kv_heads == 0 || !heads.heads.is_multiple_of(heads.kv_heads) {
        let what = format!("is {}, which {} heads cannot share", heads.kv_heads, heads.heads);
        return Err(config.bad("num_key_value_heads", &what));
    }
    if heads.heads > MAX_HEADS {
        return Err(config.bad("num_attention_heads", &format!("is {}, more than {MAX_HEADS}", heads.heads)));
    }
    if heads.dim == 0 || heads.dim > MAX_HEAD {
        return Err(config.bad("num_attention_heads", &format!("makes heads of {}, not 1 to {MAX_HEAD}", heads.dim)));
    }
    Ok(heads)
}

/// The heads of an encoder: all alike.
pub fn encoder_heads(config: &Config<'_>, hidden: u32) -> Result<Heads> {
    let count = config.size("num_attention_heads")?;
    if !hidden.is_multiple_of(count) {
        return Err(config.bad("num_attention_heads", &format!("is {count}, which does not divide {hidden}")));
    }
    let dim = hidden / count;
    heads(config, Heads { heads: count, kv_heads: count, dim, scale: f64::from(dim).powf(-0.5) as f32 })
}

/// The square or rectangular image of a vision transformer, and its number of patches.
pub fn image(config: &Config<'_>) -> Result<(Image, u32)> {
    let channels = config.maybe_size("num_channels")?.unwrap_or(3);
    let patch = config.size("patch_size")?;
    let (height, width) = match config.get("image_size").and_then(|size| size.as_array()) {
        Some(pair) => {
            let side = |i: usize| pair.get(i).and_then(|n| n.as_u64()).and_then(|n| u32::try_from(n).ok());
            match (side(0), side(1)) {
                (Some(height), Some(width)) if pair.len() == 2 => (height, width),
                _ => return Err(config.bad("image_size", "is neither a size nor a pair of sizes")),
            }
        }
        None => (config.size("image_size")?, config.size("image_size")?),
    };
    let image = Image { channels, height, width, patch };
    patches(config, image).map(|count| (image, count))
}

/// The number of patches of `image`, if it can be computed with.
pub fn patches(config: &Config<'_>, image: Image) -> Result<u32> {
    let Image { channels, height, width, patch } = image;
    let sides = patch > 0 && [height, width].iter().all(|side| (patch..=MAX_SIDE).contains(side));
    if !sides || u64::from(channels) * u64::from(patch).pow(2) >= 1 << 28 {
        let what = format!("is {height} by {width} with {channels} channels and patches of {patch}");
        return Err(config.bad("image_size", &format!("{what}, beyond what the forward pass takes")));
    }
    Ok((height / patch) * (width / patch))
}

/// One layer of a pre-norm vision transformer: its shape, and the names of its parts.
pub struct PreNorm<'a> {
    /// Heads and scale.
    pub heads: Heads,
    /// Width of the MLP.
    pub inner: u32,
    /// Its activation.
    pub act: Act,
    /// Added to variances.
    pub eps: f32,
    /// Normalisation before the attention.
    pub norm1: &'a str,
    /// Queries, keys and values.
    pub qkv: [&'a str; 3],
    /// Output projection.
    pub out: &'a str,
    /// Normalisation before the MLP.
    pub norm2: &'a str,
    /// The MLP.
    pub mlp: [&'a str; 2],
}

impl PreNorm<'_> {
    /// Appends the layer whose names begin with `layer`.
    pub fn append(&self, net: &mut Builder<'_>, layer: &str, x: Value) -> Result<Value> {
        let name = |part: &str| format!("{layer}{part}");
        let width = self.heads.heads * self.heads.dim;
        let h = net.norm(&name(self.norm1), Kind::Layer, self.eps, x)?;
        let [q, k, v] = self.qkv;
        let q = net.linear(&name(q), h, width)?;
        let k = net.linear(&name(k), h, width)?;
        let v = net.linear(&name(v), h, width)?;
        let a = net.attention(self.heads, [q, k, v], Sight::All);
        let o = net.linear(&name(self.out), a, width)?;
        let x = net.add(x, o);
        self.mlp(net, layer, x, width)
    }

    /// Appends the second half of the layer.
    pub fn mlp(&self, net: &mut Builder<'_>, layer: &str, x: Value, width: u32) -> Result<Value> {
        let h = net.norm(&format!("{layer}{}", self.norm2), Kind::Layer, self.eps, x)?;
        let h = net.linear(&format!("{layer}{}", self.mlp[0]), h, self.inner)?;
        let h = net.activate(self.act, h);
        let o = net.linear(&format!("{layer}{}", self.mlp[1]), h, width)?;
        Ok(net.add(x, o))
    }
}
