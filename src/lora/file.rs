//! Names in the single files of diffusion tools: kohya's, and those that diffusers has had.

use super::keys::Role;
use crate::checkpoint::text::shown;
use crate::error::{Error, Result};

/// How a factor's name ends: that of A, that of B.
const ENDS: [(&str, &str); 7] = [
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    ("_lora.lora_down.weight", "_lora.lora_up.weight"),
];

/// Prefixes of kohya, of diffusers, and what both are.
const PARTS: [(&str, &str); 8] = [
    ("lora_unet_", "unet"),
    ("lora_te_", "te1"),
    ("lora_te1_", "te1"),
    ("lora_te2_", "te2"),
    ("unet.", "unet"),
    ("transformer.", "unet"),
    ("text_encoder.", "te1"),
    ("text_encoder_2.", "te2"),
];

/// True for a tensor that only an adapter has.
pub fn is_part(name: &str) -> bool {
    ENDS.iter().any(|(a, b)| name.ends_with(a) || name.ends_with(b)) || foreign(name).is_some()
}

/// What `name` has that is no plain LoRA.
fn foreign(name: &str) -> Option<&'static str> {
    let kinds = [
        (".hada_", "LoHa"),
        (".lokr_", "LoKr"),
        (".lora_mid.", "LoCon with a Tucker core"),
        (".dora_scale", "DoRA"),
        (".lora_magnitude_vector", "DoRA"),
    ];
    kinds.iter().find(|(part, _)| name.contains(part)).map(|(_, kind)| *kind)
}

/// What `name` of the file `at` is. Modules keep the spelling of the file.
///
/// # Errors
/// Parts of adapters of other kinds, and names that are none of an adapter.
pub fn role(name: &str, at: &str) -> Result<Role> {
    let (tensor, at) = (shown(name), shown(at));
    if let Some(kind) = foreign(name) {
        return Err(Error::input(format!("tensor `{tensor}` of `{at}` is part of {kind}, which no B·A expresses"))
            .hint("convert it to plain LoRA first, or merge it into its model and name the result"));
    }
    for (a, b) in ENDS {
        if let Some(module) = name.strip_suffix(a) {
            return Ok(Role::Down(module.to_owned()));
        }
        if let Some(module) = name.strip_suffix(b) {
            return Ok(Role::Up(module.to_owned()));
        }
    }
    match name.strip_suffix(".alpha") {
        Some(module) => Ok(Role::Alpha(module.to_owned())),
        None => Err(Error::input(format!("tensor `{tensor}` of `{at}` is no part of a LoRA"))
            .hint("only files of LoRA factors can be merged without a base")),
    }
}

/// How the names of both factors end, and that of α, in a file with the factor `name`.
pub fn ends(name: &str) -> (&'static str, &'static str) {
    let found = ENDS.iter().find(|(a, _)| name.ends_with(a));
    *found.unwrap_or(&ENDS[0])
}

/// True for kohya's spelling, which has no points in a module.
pub fn is_kohya(module: &str) -> bool {
    module.starts_with("lora_") && !module.contains('.')
}

/// One name for a module, however it is spelled: the part of the model, and the path with `_` for points.
pub fn canonical(module: &str) -> String {
    let found = PARTS.iter().find_map(|(prefix, part)| Some((module.strip_prefix(prefix)?, *part)));
    let (rest, part) = found.unwrap_or((module, "unet"));
    // `attn1.processor.to_q_lora` of old files is `attn1.to_q`.
    let rest = rest.replace(".processor.", ".").replace('.', "_");
    let rest = if rest.ends_with("to_out") { rest + "_0" } else { rest };
    format!("{part}:{rest}")
}

/// A module of another file in kohya's spelling.
pub fn kohya(canonical: &str, wide: bool) -> String {
    let (part, rest) = canonical.split_once(':').unwrap_or(("unet", canonical));
    let prefix = match part {
        "te1" if wide => "lora_te1",
        "te1" => "lora_te",
        "te2" => "lora_te2",
        _ => "lora_unet",
    };
    format!("{prefix}_{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_module_by_all_its_names() {
        let names = [
            "lora_unet_mid_block_attentions_0_attn1_to_q.lora_down.weight",
            "unet.mid_block.attentions.0.attn1.to_q.lora.down.weight",
            "unet.mid_block.attentions.0.attn1.to_q.lora_A.weight",
            "unet.mid_block.attentions.0.attn1.processor.to_q_lora.down.weight",
            "mid_block.attentions.0.attn1.processor.to_q_lora.down.weight",
        ];
        for name in names {
            let Ok(Role::Down(module)) = role(name, "x") else { panic!("{name}") };
            assert_eq!(canonical(&module), "unet:mid_block_attentions_0_attn1_to_q", "{name}");
        }
        let out = ["lora_unet_a_to_out_0", "unet.a.to_out.0", "unet.a.processor.to_out"].map(canonical);
        assert!(out.iter().all(|name| name == "unet:a_to_out_0"));
        assert_eq!(kohya("te1:text_model_q", false), "lora_te_text_model_q");
        for bad in ["x.hada_w1_a", "x.lokr_w1", "x.lora_mid.weight", "x.dora_scale", "x.weight"] {
            assert!(role(bad, "x").is_err(), "{bad}");
        }
    }
}
