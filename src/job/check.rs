//! What a recipe asks for that cannot be, found before anything is opened; and the files it names besides models.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::methods::{Combine, Method};
use crate::recipe::{Recipe, Sensitive, Space, resolve};

/// Places in the recipe of the models that take part. The base takes part in methods that merge task vectors only if
/// nothing else does: its own is zero.
pub(super) fn experts(recipe: &Recipe, method: &Method) -> Vec<usize> {
    let all = 0..recipe.models.len();
    if !method.merges_task_vectors(recipe) {
        return all.collect();
    }
    let others: Vec<usize> = recipe.experts().collect();
    match method.experts {
        _ if !others.is_empty() => others,
        Some(count) => all.rev().take(count).collect(),
        None => all.collect(),
    }
}

pub(super) fn check_calibration(recipe: &Recipe, method: &Method) -> Result<()> {
    let space = recipe.calibrate.space;
    if space == Space::None {
        return Ok(());
    }
    if method.combine == Combine::Scale {
        return Err(Error::usage(format!("`{}` merges nothing, so there is nothing to calibrate", method.name))
            .hint("leave `calibrate` out"));
    }
    if recipe.base.is_none() {
        return Err(Error::usage("calibration compares task vectors, which needs a base model")
            .hint("add `base_model:` to the recipe, or `--base PATH`"));
    }
    if space != Space::Wsc && recipe.calibrate.samples == 0 {
        return Err(Error::usage("`samples` is 0: feature space needs at least one sample of each expert")
            .hint("leave it out: 10 of each are taken"));
    }
    Ok(())
}

/// Whether the result can be an adapter, if it is to be one.
pub(super) fn check_adapter(recipe: &Recipe, method: &Method, alone: bool) -> Result<()> {
    let space = recipe.calibrate.space;
    if alone && !matches!(space, Space::None | Space::Wsc) {
        return Err(Error::usage(format!("`{space}` calibration runs the network, and adapters alone are none"))
            .hint("name the model that they were trained on: `--base PATH`"));
    }
    if recipe.lora_out.is_none() {
        return Ok(());
    }
    if method.combine == Combine::Scale {
        return Err(Error::usage(format!("`{}` merges nothing, so no adapter comes of it", method.name))
            .hint("leave `--lora-out` out"));
    }
    if recipe.base.is_none() && !alone {
        return Err(Error::usage("an adapter is what is added to a base, and none is named")
            .hint("add `base_model:` to the recipe, or `--base PATH`"));
    }
    Ok(())
}

/// Files and folders that the recipe names besides the models.
pub(super) fn others(recipe: &Recipe, folder: Option<&Path>) -> Vec<PathBuf> {
    let list = match &recipe.calibrate.sensitive {
        Sensitive::File(file) => Some(file),
        Sensitive::None | Sensitive::Names(_) => None,
    };
    let samples = recipe.models.iter().filter_map(|entry| entry.data.as_ref()).chain(&recipe.calibrate.data);
    list.into_iter().chain(samples).map(|path| resolve(path, folder)).collect()
}

/// The names of the sensitive list: a JSON list, or an object with such a list under `sensitive`.
pub(super) fn sensitive(given: &Sensitive, folder: Option<&Path>) -> Result<Option<HashSet<String>>> {
    let file = match given {
        Sensitive::None => return Ok(None),
        Sensitive::Names(names) => return Ok(Some(names.iter().cloned().collect())),
        Sensitive::File(file) => resolve(file, folder),
    };
    std::fs::metadata(&file).map_err(|e| Error::read(&file, &e))?;
    let bytes = crate::checkpoint::files::read_small(&file, 64 << 20)?;
    let shape = || {
        Error::input(format!("`{}` holds no list of tensor names", file.display()))
            .hint("it should be `[\"name\", …]`, or an object with such a list under `sensitive`")
    };
    let document: Value = serde_json::from_slice(&bytes).map_err(|_| shape())?;
    let list = document.get("sensitive").unwrap_or(&document).as_array().ok_or_else(shape)?;
    list.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(shape)).collect::<Result<_>>().map(Some)
}
