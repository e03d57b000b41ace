//! The files beside the weights: which of them a merge takes over from its base.

use std::path::PathBuf;

use serde_json::Value;

use super::dtype::Dtype;
use super::files::read_small;
use super::reader::Checkpoint;
use crate::error::Result;

/// Largest file that is taken over.
const MAX_SIDE: u64 = 64 << 20;

/// Files that are taken over, besides `tokenizer*.json` and the models of sentencepiece. Nothing that a loader
/// would run.
const ALLOWED: [&str; 17] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
    "open_clip_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "bpe.codes",
    "tekken.json",
    "chat_template.json",
    "chat_template.jinja",
];

/// True for a file that is taken over.
pub(super) fn is_side(name: &str) -> bool {
    ALLOWED.contains(&name)
        || name.starts_with("tokenizer") && name.ends_with(".json")
        || name.ends_with(".model") && name.len() > ".model".len() && !name.starts_with('.')
}

/// Configuration and tokenizer files of `base`, by name, ready to be given to a writer. None for a single file.
///
/// # Errors
/// One of them is no regular file, is larger than 64 MiB, leads out of the folder or cannot be read.
pub fn side_files(base: &Checkpoint) -> Result<Vec<(String, Vec<u8>)>> {
    let Some(folder) = base.model_folder() else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for name in folder.names()?.into_iter().filter(|name| is_side(name)) {
        if let Some(path) = folder.file(&name)? {
            files.push((name, read_small(&path, MAX_SIDE)?));
        }
    }
    Ok(files)
}

impl Checkpoint {
    /// Path and bytes of file `name` of the folder; `None` if there is no folder or no such file.
    ///
    /// # Errors
    /// As for [`side_files`].
    pub(crate) fn side_file(&self, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>> {
        let Some(folder) = self.model_folder() else { return Ok(None) };
        let Some(path) = folder.file(name)? else { return Ok(None) };
        read_small(&path, MAX_SIDE).map(|bytes| Some((path, bytes)))
    }
}

/// `config` with the element type `dtype`: in `torch_dtype` and `dtype`, whichever there is (`torch_dtype` if
/// neither), and in the parts of a model of several parts that name one. As it was for a type that PyTorch
/// configurations do not name.
pub fn with_dtype(mut config: Value, dtype: Dtype) -> Value {
    let Some(name) = dtype.torch_name() else { return config };
    if !set(&mut config, name)
        && let Some(keys) = config.as_object_mut()
    {
        keys.insert("torch_dtype".into(), name.into());
    }
    for part in ["text_config", "vision_config"] {
        if let Some(part) = config.get_mut(part) {
            set(part, name);
        }
    }
    config
}

/// Sets the keys that are there; false if there is none.
fn set(config: &mut Value, name: &str) -> bool {
    let mut any = false;
    for key in ["torch_dtype", "dtype"] {
        if let Some(value) = config.get_mut(key) {
            *value = name.into();
            any = true;
        }
    }
    any
}
