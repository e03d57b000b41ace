//! The model card: `README.md` of the output folder.

use crate::methods::{GIVEN, Method};
use crate::recipe::{Recipe, Space};
use crate::report::Report;

/// The card, with the front matter that model hubs read.
pub fn text(recipe: &Recipe, method: &Method, report: &Report) -> String {
    let mut models: Vec<&str> = recipe.base.iter().map(String::as_str).collect();
    models.extend(
        recipe.models.iter().map(|entry| entry.model.as_str()).filter(|model| recipe.base.as_deref() != Some(model)),
    );
    let quoted = |model: &&str| format!("- {}\n", serde_json::Value::from(*model));
    let list: String = models.iter().map(quoted).collect();
    let lines: String = models.iter().map(|model| format!("* `{model}`\n")).collect();
    let calibration = match recipe.calibrate.space {
        Space::None => String::new(),
        space => format!(", with {space} calibration (MAGIC, arXiv 2512.19320)"),
    };
    let (title, tag) = if report.lora.is_some() { ("adapter", "- lora\n") } else { ("model", "") };
    let hashed = report.inputs.iter().flat_map(|input| &input.files).all(|file| file.record.sha256.is_some());
    let inputs = if hashed { "sizes and hashes" } else { "sizes" };
    let (done, recipe) = match method.name == GIVEN.name {
        true => {
            (format!("Calibrated with `magic` {}, after a merge by another program", report.version), String::new())
        }
        false => (
            format!("Merged with `magic` {} by `{}` ({})", report.version, method.name, method.paper),
            format!("## Recipe\n\n```yaml\n{}```\n\n", recipe.to_yaml()),
        ),
    };
    format!(
        "---\nbase_model:\n{list}tags:\n- merge\n- magic-merge\n{tag}---\n# Merged {title}\n\n\
         {done}{calibration}.\n\n    {formula}\n\n\
         ## Models\n\n{lines}\n{recipe}\
         Every tensor's norms and factors, and {inputs} of all inputs, are in `magic.json`.\n",
        formula = method.formula,
    )
}
