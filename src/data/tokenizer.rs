//! The model's own tokenizer: text to token ids, with the special tokens that the model was trained with.

use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{NormalizedString, Normalizer, PostProcessor, Tokenizer as Inner};

use super::bounds;
use super::guard::guarded;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::text::{self, list, shown};
use crate::error::{Error, Result};

const FILE: &str = "tokenizer.json";

/// Tokenizers of other formats, from which `tokenizer.json` can be made.
const OLDER: [&str; 6] = ["vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "tekken.json"];

/// Bytes of a text that are read for each token that is kept: usual are 4.
const BYTES_PER_TOKEN: usize = 64;
/// Bytes of a text that are always read.
const LEAST_BYTES: usize = 16 << 10;
/// How many times longer a text may really become.
const GROWN: usize = 16;
/// Bytes of a text whose growth is looked at together.
const PIECE: usize = 256;

const ELSEWHERE: &str =
    "take the file from the model's origin, or give token ids as `input_ids` in a `.safetensors` file";

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
        let bad =
            |why: &str| Error::input(format!("`{at}` is not a tokenizer that can be used: {why}")).hint(ELSEWHERE);
        bounds::check(&bytes).map_err(|why| bad(&shown(&why)))?;
        let inner = guarded(|| Inner::from_bytes(&bytes)).map_err(|why| broken(&at, &why))?;
        let mut inner = inner.map_err(|e| bad(&shown(&e.to_string())))?;
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
    /// at the end of the text, so that the special tokens stay. No more of the text is read than 64 bytes for each of
    /// them, or 16 KiB if that is more. `place` opens messages.
    ///
    /// # Errors
    /// A text that the tokenizer refuses or makes much longer, special tokens that alone are too many.
    pub(super) fn encode(&self, text: &str, most: usize, place: &str) -> Result<Encoded> {
        let refused = |why: &str| Error::input(format!("{place} cannot be tokenized by `{}`: {why}", self.at));
        let specials = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(false));
        let Some(room) = most.checked_sub(specials).filter(|room| *room > 0) else {
            return Err(refused(&format!("it adds {specials} special tokens, and the model takes {most} in all")));
        };
        let (text, beyond) = split(text, room.saturating_mul(BYTES_PER_TOKEN).max(LEAST_BYTES));
        let work = || {
            self.check_growth(text)?;
            let mut encoding = self.inner.encode_fast(text, false)?;
            let more = encoding.len() > room;
            if more {
                encoding.truncate(room, 0, TruncationDirection::Right);
                encoding.take_overflowing();
            }
            let encoding = match self.inner.get_post_processor() {
                Some(post) => post.process(encoding, None, true)?,
                None => encoding,
            };
            tokenizers::Result::Ok(Encoded { ids: encoding.get_ids().to_vec(), cut: more || !beyond.is_empty() })
        };
        let done = guarded(work).map_err(|why| broken(&self.at, &format!("{why}, at {place}")))?;
        done.map_err(|e| refused(&shown(&e.to_string())))
    }

    /// Refuses a text that becomes much longer, before it does: piece by piece.
    fn check_growth(&self, text: &str) -> tokenizers::Result<()> {
        let Some(normalizer) = self.inner.get_normalizer() else { return Ok(()) };
        let (mut rest, mut long) = (text, 0);
        while !rest.is_empty() {
            let (piece, beyond) = split(rest, PIECE);
            let mut normal = NormalizedString::from(piece);
            normalizer.normalize(&mut normal)?;
            (rest, long) = (beyond, long + normal.len());
            if long > GROWN * text.len().max(LEAST_BYTES) {
                return Err(format!("its normalizer makes it more than {GROWN} times as long").into());
            }
        }
        Ok(())
    }
}

/// The first `most` bytes of a text, or as many as end with a character, and the rest.
fn split(text: &str, most: usize) -> (&str, &str) {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.split_at(end.unwrap_or(0))
}

/// The tokenizer `at` makes its library panic.
fn broken(at: &str, why: &str) -> Error {
    Error::input(format!("its tokenizer is broken: `{at}`: {why}")).hint(ELSEWHERE)
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
