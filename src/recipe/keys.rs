//! The keys of a recipe, and what to say about any other.

use super::{PARAMS, Param, listed, near};
use crate::Error;

pub(super) const TOP: &[&str] = &[
    "merge_method",
    "base_model",
    "models",
    "parameters",
    "dtype",
    "out_dtype",
    "calibrate",
    "seed",
    "exclude",
    "non_finite",
    "lora_out",
];
pub(super) const MODEL: &[&str] = &["model", "parameters", "data"];
pub(super) const CALIBRATE: &[&str] = &["space", "manifold", "norm", "feature", "data", "sensitive", "exclude"];
pub(super) const FEATURE: &[&str] = &["fit", "norm", "samples", "propagate"];
pub(super) const FILTER: &[&str] = &["filter", "value"];

/// What mergekit has and magic does not, and what to do instead.
const MERGEKIT_ONLY: &[(&str, &str)] = &[
    ("slices", "magic merges whole models: list them under `models`"),
    ("sources", "magic merges whole models: list them under `models`"),
    ("layer_range", "magic merges whole models: leave it out"),
    ("modules", "magic merges whole models: list them under `models`"),
    ("tokenizer", "the tokenizer files of the base are copied: leave it out"),
    ("tokenizer_source", "the tokenizer files of the base are copied: leave it out"),
    ("chat_template", "the chat template of the base is copied: leave it out"),
];

/// The error for key `text`, unknown where `place` says; `known` are the keys of that place.
pub(super) fn unknown<'k>(text: &str, place: &str, known: impl Iterator<Item = &'k str> + Clone) -> Error {
    let instead = MERGEKIT_ONLY.iter().find(|(key, _)| *key == text).map(|(_, instead)| *instead);
    let instead = instead.or(text.starts_with("override").then_some("magic asks for no architecture: leave it out"));
    if let Some(instead) = instead {
        return Error::usage(format!("`{text}` {place} is a key of mergekit that magic does not have")).hint(instead);
    }
    let beside_params = known.clone().any(|key| key == "parameters");
    let near_param = || near(text, PARAMS.iter().map(|param| param.name)).filter(|_| beside_params);
    let hint = if beside_params && Param::find(text).is_some() {
        "it is a parameter: put it under `parameters`".to_owned()
    } else if let Some(name) = near(text, known.clone()) {
        format!("did you mean `{name}`?")
    } else if TOP.contains(&text) {
        "it belongs at the top level of the recipe".to_owned()
    } else if let Some(name) = near_param() {
        format!("did you mean `{name}`, under `parameters`?")
    } else {
        format!("known are {}", listed(known))
    };
    Error::usage(format!("unknown key `{text}` {place}")).hint(hint)
}
