//! The forward pass: what feature-space calibration and evaluation need to know of architectures. It does not know that
//! merging exists.
//!
//! A family's file (`llama.rs`, `bert.rs`, `vit.rs`, `clip.rs`) turns a configuration into a [`Network`], a flat list of
//! operations; [`Pass`] runs such a list on either executor, and asks its caller for the parameters.

pub mod batch;
pub mod network;
pub mod pass;

mod bert;
mod clip;
mod config;
mod llama;
mod rope;
mod vit;
mod words;

use serde_json::{Value, json};

pub use batch::Batch;
pub use network::Network;
pub use pass::Pass;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::text::shown;
use crate::error::{Error, Result};
use config::Config;
use network::Builder;

type Family = fn(&str, &Config<'_>, Builder<'_>) -> Result<Network>;

/// Families by `model_type`: the function, and a tensor by which the prefix of all names is found.
const FAMILIES: &[(&str, Family, &str)] = &[
    ("llama", llama::network, "embed_tokens.weight"),
    ("mistral", llama::network, "embed_tokens.weight"),
    ("qwen2", llama::network, "embed_tokens.weight"),
    ("qwen3", llama::network, "embed_tokens.weight"),
    ("bert", bert::network, "embeddings.word_embeddings.weight"),
    ("roberta", bert::network, "embeddings.word_embeddings.weight"),
    ("vit", vit::network, "embeddings.patch_embeddings.projection.weight"),
    ("clip", clip::network, "embeddings.patch_embedding.weight"),
    ("clip_vision_model", clip::network, "embeddings.patch_embedding.weight"),
];

/// A tensor that only open_clip's vision tower has.
const OPEN_CLIP: &str = "transformer.resblocks.0.attn.in_proj_weight";

/// True for tensors of a classifier, which is an expert's own.
pub fn is_head(name: &str) -> bool {
    name.starts_with("classifier.")
}

/// The network of a checkpoint, by its configuration and the names of its tensors.
///
/// # Errors
/// An architecture that is not known, a configuration and tensors that do not fit each other.
pub fn network(checkpoint: &Checkpoint) -> Result<Network> {
    network_with(checkpoint, None)
}

/// [`network()`] with the classifier of `head`, if it has one.
pub fn network_with(checkpoint: &Checkpoint, head: Option<&Checkpoint>) -> Result<Network> {
    let model = checkpoint.name();
    let shapes = |name: &str| {
        let head = head.filter(|_| is_head(name)).and_then(|head| head.get(name));
        Some(head.or_else(|| checkpoint.get(name))?.1.shape.clone())
    };
    let prefix = |anchor: &str| {
        let names = checkpoint.tensors().iter().filter_map(|tensor| tensor.name.strip_suffix(anchor));
        // `visual.` before `text.`, should both have one.
        names.min_by_key(|prefix| (!prefix.contains("vis"), prefix.len())).map(str::to_owned)
    };
    if let Some(prefix) = prefix(OPEN_CLIP).filter(|prefix| shapes(&format!("{prefix}conv1.weight")).is_some()) {
        let config = checkpoint.json("open_clip_config.json")?.unwrap_or_else(|| json!({}));
        let config = Config::of("open_clip_config.json", model, &config);
        return clip::open_clip(&config, Builder::new(model, &shapes, prefix));
    }
    let known = || FAMILIES.iter().map(|(name, ..)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let Some(config) = checkpoint.config()? else {
        return Err(Error::input(format!(
            "`{model}` has no `config.json`, by which the forward pass knows what it is"
        ))
        .hint("put it beside the weights; weight-space calibration needs none: `--calibrate wsc`"));
    };
    let family = config.get("model_type").and_then(Value::as_str).unwrap_or("");
    let Some((name, network, anchor)) = FAMILIES.iter().find(|(name, ..)| *name == family) else {
        let what = format!("`config.json` of `{model}`: no forward pass for `model_type` `{}`", shown(family));
        return Err(Error::input(what)
            .hint(format!("it knows {}", known()))
            .hint("weight-space calibration works on any architecture: `--calibrate wsc`"));
    };
    let prefix = prefix(anchor).ok_or_else(|| {
        Error::input(format!("`{model}` has no tensor that ends in `{anchor}`, as its `model_type` `{family}` says"))
            .hint("weight-space calibration works on any architecture: `--calibrate wsc`")
    })?;
    let mut net = Builder::new(model, &shapes, prefix);
    let of_head = head.map(Checkpoint::config).transpose()?.flatten();
    let classes = of_head.as_ref().unwrap_or(&config).get("architectures").and_then(Value::as_array);
    net.classes = classes.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    network(name, &Config::new(model, &config), net)
}
