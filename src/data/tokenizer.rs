//! The model's own tokenizer: text to token ids, with the special tokens that the model was trained with.

use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{PostProcessor, Tokenizer as Inner};

use super::bounds;
use super::guard::guarded;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::text::{self, list, shown};
use crate::error::{Error, Result};

const FILE: &str = "tokenizer.json";

/// Tokenizers of other formats, from which `tokenizer.json` can be made.
const OLDER: [&str; 6] = ["vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "tekken.json"];

/// The tokenizer of a model.
pub(super) struct Tokenizer {
    inner: Inner,
    /// Path of its file, for messages.
    at: String,
}

/// Token ids of a text.
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    /// Whether some were left out.
    pub(super) cut: bool,
}

impl Tokenizer {
    /// Opens `tokenizer.json` of the model.
    ///
    /// # Errors
    /// The model is a single file or has no `tokenizer.json`, or that file cannot be used.
    pub(super) fn open(model: &Checkpoint) -> Result<Self> {
        let Some((path, bytes)) = model.side_file(FILE)? else { return Err(missing(model)) };
        let at = text::path(&path);
        let bad = |why: &str| {
            Error::input(format!("`{at}` is not a tokenizer that can be used: {why}")).hint(
                "take the file from the model's origin, or give token ids as `input_ids` in a `.safetensors` file",
            )
        };
        bounds::check(&bytes).map_err(|why| bad(&shown(&why)))?;
        let mut inner =
            guarded(|| Inner::from_bytes(&bytes)).map_err(|why| bad(&why))?.map_err(|e| bad(&shown(&e.to_string())))?;
        // What the file says about them is for batches; here every sample has its own length.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| bad(&shown(&e.to_string())))?;
        Ok(Self { inner, at })
    }

    /// Path of its file.
    pub(super) fn at(&self) -> &str {
        &self.at
    }

    /// The ids of `text` and of the special tokens around it, at most `most` of them: what does not fit is left out
    /// at the end of the text, so that the special tokens stay. `place` opens messages.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, special tokens that alone are too many.
    pub(super) fn encode(&self, text: &str, most: usize, place: &str) -> Result<Encoded> {
        let refused = |why: &str| Error::input(format!("{place} cannot be tokenized by `{}`: {why}", self.at));
        let specials = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(false));
        let Some(room) = most.checked_sub(specials).filter(|room| *room > 0) else {
            return Err(refused(&format!("it adds {specials} special tokens, and the model takes {most} in all")));
        };
        let work = || {
            let mut encoding = self.inner.encode_fast(text, false)?;
            let cut = encoding.len() > room;
            if cut {
                encoding.truncate(room, 0, TruncationDirection::Right);
                encoding.take_overflowing();
            }
            let encoding = match self.inner.get_post_processor() {
                Some(post) => post.process(encoding, None, true)?,
                None => encoding,
            };
            tokenizers::Result::Ok(Encoded { ids: encoding.get_ids().to_vec(), cut })
        };
        guarded(work).map_err(|why| refused(&why))?.map_err(|e| refused(&shown(&e.to_string())))
    }
}

fn missing(model: &Checkpoint) -> Error {
    let Some(folder) = model.folder() else {
        return Error::input(format!("text needs `{FILE}`, and `{}` is a single file", shown(model.name())))
            .hint("name the folder of the model, or give token ids as `input_ids` in a `.safetensors` file");
    };
    let at = text::path(folder);
    let error = Error::input(format!("text needs `{FILE}`, and `{at}` has none"));
    let older: Vec<&str> = OLDER.into_iter().filter(|name| folder.join(name).exists()).collect();
    match older.is_empty() {
        true => {
            error.hint("copy it from the model's origin, or give token ids as `input_ids` in a `.safetensors` file")
        }
        false => error.hint(format!(
            "it has {}; make `{FILE}` of them, in Python: \
             transformers.AutoTokenizer.from_pretrained(\"{at}\").save_pretrained(\"{at}\")",
            list(older, 4)
        )),
    }
}
