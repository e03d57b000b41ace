//! What looks like a mistake in a merge of adapters, and is none for certain.

use std::collections::HashSet;
use std::sync::Arc;

use super::adapter::Form;
use super::layer::Layer;
use super::target::Out;
use crate::checkpoint::text::shown;

/// Parts of Stability AI's names of blocks.
const BLOCKS: [&str; 3] = ["input_blocks_", "output_blocks_", "middle_block_"];

/// Warnings about the adapters `layers`, and about the adapter `out` if the result is one.
pub fn warnings(layers: &[Option<Arc<Layer>>], out: Option<&Out>) -> Vec<String> {
    let layers: Vec<&Layer> = layers.iter().flatten().map(|layer| &**layer).collect();
    [bases(&layers), strangers(&layers), out.and_then(renamed)].into_iter().flatten().collect()
}

/// Whether two names of a base end in the same part.
pub fn same_base(one: &str, other: &str) -> bool {
    last(one) == last(other)
}

fn last(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Adapters that were trained on different bases, as they say themselves.
fn bases(layers: &[&Layer]) -> Option<String> {
    let named =
        layers.iter().filter_map(|layer| Some((layer.adapter.raw.name(), layer.adapter.config.as_ref()?.base()?)));
    let mut all = named.filter(|(_, base)| !base.is_empty());
    let (first, base) = all.next()?;
    let (other, another) = all.find(|(_, another)| !same_base(base, another))?;
    let [first, base, other, another] = [first, base, other, another].map(shown);
    Some(format!(
        "`{first}` was trained on `{base}`, and `{other}` on `{another}`: task vectors of different bases do not add up"
    ))
}

/// Two adapters without a module that both change.
fn strangers(layers: &[&Layer]) -> Option<String> {
    let touched: Vec<HashSet<&str>> = layers.iter().map(|layer| layer.touched().collect()).collect();
    let mut two = (0..layers.len()).flat_map(|i| (0..i).map(move |j| (j, i)));
    let (one, other) = two.find(|(one, other)| touched[*one].is_disjoint(&touched[*other]))?;
    let [a, b] = [one, other].map(|i| shown(layers[i].adapter.raw.name()));
    let modules = [one, other].map(|i| layers[i].touched().next().unwrap_or_default());
    let stable = [one, other].map(|i| layers[i].touched().any(|name| BLOCKS.iter().any(|part| name.contains(part))));
    let [first, second] = modules.map(|name| shown(name.strip_suffix(".weight").unwrap_or(name)));
    let what =
        format!("`{a}` and `{b}` share no module, `{first}` being one of the former and `{second}` of the latter");
    Some(match stable[0] != stable[1] {
        true => format!("{what}: names of Stability AI's blocks are not translated to those of diffusers"),
        false => format!("{what}: each stands alone in the result"),
    })
}

/// Names that newer versions of transformers do not have.
fn renamed(out: &Out) -> Option<String> {
    let old = |module: &str| {
        let numbered = module.split_once("encoder.layer.").and_then(|(_, rest)| rest.split_once('.'));
        numbered.is_some_and(|(_, rest)| rest.starts_with("attention.attention."))
    };
    let found = out.targets.iter().find(|target| out.form == Form::Peft && old(&target.module))?;
    Some(format!(
        "modules are named as in transformers 4 (`{}`): transformers 5 names them differently, and PEFT on it ignores the \
         adapter without a word; load it with transformers 4",
        shown(&found.module)
    ))
}
