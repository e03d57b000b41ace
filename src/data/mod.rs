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

use std::fs;
use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::text::{cannot_read, path as shown_path};
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
    /// Token ids [length], at least one; padding is left out.
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
    let _ = (wants, model, limit);
    fs::metadata(path).map_err(|e| cannot_read(path, &e))?;
    Err(Error::input(format!("`{}` cannot be read yet", shown_path(path))))
}
