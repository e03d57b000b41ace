//! A few unlabelled samples for a network: token ids or pixels, from tensors, text or images.
//!
//! | path                | what it holds                                                                              |
//! | ------------------- | ------------------------------------------------------------------------------------------ |
//! | `.safetensors`      | `pixel_values`, or `input_ids` (with `attention_mask`), or `input_ids.0`, …; and `labels`  |
//! | `.txt`              | a sample on each line that is not blank                                                    |
//! | `.jsonl`            | an object on each line: `text`, and perhaps `label`                                        |
//! | a folder            | PNG and JPEG images, or a folder of them for each class                                    |
//!
//! Text needs the model's `tokenizer.json`, images its `preprocessor_config.json`. Nothing is padded: each sample has
//! its own length.
//!
//! Images are processed as Hugging Face's processors of the PIL kind do it. PNG images come out the same; JPEG images
//! differ by a few steps of 255, for decoders round differently (recorded: up to 4 before a resize, 3 after one). Not
//! as PIL does it: transparency is left out and images of 16 bits are scaled to 8, whatever the processor says. The
//! processors that use torchvision round their resize in another way, and so differ from both.

mod bounds;
mod family;
mod guard;
mod images;
mod ints;
mod labels;
mod lines;
mod picture;
mod processor;
mod resize;
mod tensors;
mod texts;
mod tokenizer;

use std::fs;
use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::text::{self, shown};
use crate::error::{Error, Result};

/// What a network takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Token ids below `vocab`, at most `positions` of them in a sample.
    Tokens {
        /// Number of tokens that the network knows.
        vocab: u32,
        /// Longest sample; `u32::MAX` where unlimited.
        positions: u32,
    },
    /// Pixels [channels, height, width].
    Pixels {
        /// 3 (red, green, blue) or 1 (grey) for images.
        channels: u32,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
    },
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Token ids `[length]`, at least one; padding is left out.
    Tokens(Vec<u32>),
    /// Pixels [channels, height, width], normalized as the network expects them, all finite.
    Pixels(Vec<f32>),
}

/// Samples in their order, with labels where the data has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Path of the data, fit for a message.
    pub name: String,
    /// The samples, at least one.
    pub samples: Vec<Sample>,
    /// A label for each sample, where the data has them.
    pub labels: Option<Vec<u32>>,
    /// Names of the label numbers where the data names them (folders, `label` strings), sorted; else empty.
    pub classes: Vec<String>,
    /// What was left out or cut short, each a line.
    pub warnings: Vec<String>,
}

/// Reads at most `limit` samples of `path`, as the network wants them. `tokenizer.json` and
/// `preprocessor_config.json` are looked for in the folder of `model`.
///
/// # Errors
/// Data that is not there, cannot be read, is empty, damaged or not what the network takes in; a file of the model
/// that is missing or malformed. The message names file and sample.
pub fn load(path: &Path, wants: &Wants, model: &Checkpoint, limit: Option<usize>) -> Result<Samples> {
    let at = text::path(path);
    let limit = limit.unwrap_or(usize::MAX);
    if limit == 0 {
        return Err(Error::usage(format!("0 samples of `{at}` are not enough")).hint("use at least 1"));
    }
    let mut samples = match (Source::of(path, &at)?, *wants) {
        (Source::Tensors, _) => tensors::read(path, wants, model, limit)?,
        (Source::Text(form), Wants::Tokens { vocab, positions }) => {
            texts::read(path, form, (vocab, positions), model, limit)?
        }
        (Source::Images, Wants::Pixels { channels, height, width }) => {
            images::read(path, [channels, height, width], model, limit)?
        }
        (Source::Text(_), Wants::Pixels { .. }) => return Err(mismatch(&at, "text", wants, model)),
        (Source::Images, Wants::Tokens { .. }) => return Err(mismatch(&at, "a folder of images", wants, model)),
    };
    if samples.samples.is_empty() {
        return Err(Error::input(format!("`{at}` has no sample")).hint("give at least one"));
    }
    samples.name = at;
    Ok(samples)
}

/// What a path holds, as far as that shows from outside.
enum Source {
    Tensors,
    Text(texts::Form),
    Images,
}

impl Source {
    fn of(path: &Path, at: &str) -> Result<Self> {
        const KINDS: &str = "data is a .safetensors, .txt or .jsonl file, or a folder of images";
        let metadata = fs::metadata(path).map_err(|e| Error::read(path, &e).hint(KINDS))?;
        if metadata.is_dir() {
            return Ok(Self::Images);
        }
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
        match end.as_str() {
            "safetensors" => Ok(Self::Tensors),
            "txt" => Ok(Self::Text(texts::Form::Plain)),
            "jsonl" => Ok(Self::Text(texts::Form::Json)),
            _ => {
                let hint = match end.as_str() {
                    "json" | "ndjson" => "with one JSON object on each line its name ends in .jsonl",
                    "png" | "jpg" | "jpeg" => "put the image into a folder and name the folder",
                    _ => KINDS,
                };
                Err(Error::input(format!("`{at}` is not of a kind that samples are read from")).hint(hint))
            }
        }
    }
}

/// The data `at` is not what the network takes in.
fn mismatch(at: &str, has: &str, wants: &Wants, model: &Checkpoint) -> Error {
    let (takes, hint) = match wants {
        Wants::Tokens { .. } => {
            ("tokens".to_owned(), "give a .txt or .jsonl file, or a .safetensors file with `input_ids`")
        }
        Wants::Pixels { channels, height, width } => (
            format!("images [{channels}, {height}, {width}]"),
            "give a folder of images, or a .safetensors file with `pixel_values`",
        ),
    };
    Error::input(format!("`{at}` is {has}, but the model `{}` takes {takes}", shown(model.name()))).hint(hint)
}

/// `values` as token ids, which must be below `vocab`. `place` opens the message.
fn ids(
    values: impl IntoIterator<Item = i64>,
    vocab: u32,
    place: impl Fn() -> String,
    model: &Checkpoint,
) -> Result<Vec<u32>> {
    let id = |value: i64| {
        u32::try_from(value).ok().filter(|id| *id < vocab).ok_or_else(|| {
            let (place, model) = (place(), shown(model.name()));
            Error::input(format!(
                "{place} has the token {value}, but those of the model `{model}` are 0 to {}",
                i64::from(vocab) - 1
            ))
            .hint("use the tokenizer that the model was trained with")
        })
    };
    values.into_iter().map(id).collect()
}
