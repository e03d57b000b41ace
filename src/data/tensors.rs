//! Samples from a `.safetensors` file: ready pixels or token ids.

use std::path::Path;

use super::ints::Ints;
use super::{Sample, Samples, Wants, ids, mismatch};
use crate::checkpoint::text::{self, list, shown};
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, Result};
use crate::kernels::convert::widen;

const PIXELS: &str = "pixel_values";
const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const LABELS: &str = "labels";

/// The opened file.
struct Source<'a> {
    file: Checkpoint,
    at: String,
    model: &'a Checkpoint,
    limit: usize,
    /// Names of the tensors that are used.
    used: Vec<String>,
}

/// At most `limit` samples of the file.
pub(super) fn read(path: &Path, wants: &Wants, model: &Checkpoint, limit: usize) -> Result<Samples> {
    let at = text::path(path);
    let Some(spec) = path.to_str() else {
        return Err(Error::input(format!("the path `{at}` is not UTF-8")).hint("rename the file"));
    };
    let mut source = Source { file: Checkpoint::open(spec, &[])?, at, model, limit, used: Vec::new() };
    let (samples, all) = match *wants {
        Wants::Pixels { channels, height, width } => source.pixels(wants, [channels, height, width])?,
        Wants::Tokens { vocab, positions } => source.tokens(wants, vocab, positions)?,
    };
    let labels = source.labels(all, samples.len())?;
    let unused: Vec<&str> = source.file.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    let unused: Vec<&str> = unused.into_iter().filter(|name| !source.used.iter().any(|used| used == name)).collect();
    let warnings = match unused.is_empty() {
        true => Vec::new(),
        false => vec![format!("`{}` also holds {}, which nothing is done with", source.at, list(unused, 4))],
    };
    Ok(Samples { samples, labels, warnings, ..Samples::default() })
}

impl Source<'_> {
    /// The samples of `pixel_values`, and how many it has in all.
    fn pixels(&mut self, wants: &Wants, size: [u32; 3]) -> Result<(Vec<Sample>, u64)> {
        let Some((number, info)) = self.file.get(PIXELS) else {
            return Err(match self.has_tokens() {
                true => mismatch(&self.at, "token ids", wants, self.model),
                false => self.bad(&format!("has no `{PIXELS}`")).hint(format!("it holds {}", self.names())),
            });
        };
        let wanted = size.map(u64::from);
        let all = match info.shape[..] {
            [all, ref each @ ..] if each == wanted => all,
            ref each if each == wanted => 1,
            ref other => {
                return Err(self
                    .bad(&format!(
                        "has `{PIXELS}` of shape {other:?}, but the model `{}` takes images {wanted:?}",
                        shown(self.model.name())
                    ))
                    .hint("process the images with the model's own processor"));
            }
        };
        if !info.dtype.is_float() {
            let what = format!("has `{PIXELS}` of type {}, which is not a float", info.dtype.header_name());
            return Err(self.bad(&what).hint("save the pixels as the network takes them: normalized, as float32"));
        }
        let samples =
            (0..self.first(all)).map(|sample| self.image(number, info, all, sample)).collect::<Result<_>>()?;
        self.used.push(PIXELS.to_owned());
        Ok((samples, all))
    }

    /// Image `sample` of `all`.
    fn image(&self, number: usize, info: &TensorInfo, all: u64, sample: u64) -> Result<Sample> {
        let bytes = (info.bytes / all) as usize;
        // Words: elements are aligned.
        let mut words = vec![0u32; bytes.div_ceil(4)];
        let stored: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut words)[..bytes];
        self.file.read_at(number, sample * bytes as u64, stored)?;
        let mut pixels = vec![0.0; bytes / info.dtype.size()];
        widen(info.dtype, stored, 0, &mut pixels);
        match pixels.iter().position(|pixel| !pixel.is_finite()) {
            None => Ok(Sample::Pixels(pixels)),
            Some(at) => {
                let what = format!("has the value {} at place {at} of `{PIXELS}[{sample}]`", pixels[at]);
                Err(self.bad(&what).hint("pixels are finite numbers: make the file again"))
            }
        }
    }

    /// The samples of `input_ids` or of `input_ids.0`, …, and how many there are in all.
    fn tokens(&mut self, wants: &Wants, vocab: u32, positions: u32) -> Result<(Vec<Sample>, u64)> {
        let listed = self.listed();
        let together = self.file.get(IDS).is_some();
        match (together, listed) {
            (true, 0) => self.rows(vocab, positions),
            (false, 1..) => self.each(listed, vocab, positions),
            (true, 1..) => {
                Err(self.bad(&format!("has both `{IDS}` and `{IDS}.0` …: which are the samples?")).hint("keep one"))
            }
            (false, 0) if self.file.get(PIXELS).is_some() => Err(mismatch(&self.at, "images", wants, self.model)),
            (false, 0) => {
                Err(self.bad(&format!("has neither `{IDS}` nor `{IDS}.0`")).hint(format!("it holds {}", self.names())))
            }
        }
    }

    /// `input_ids` [samples, length], with or without `attention_mask`.
    fn rows(&mut self, vocab: u32, positions: u32) -> Result<(Vec<Sample>, u64)> {
        let values = Ints::open(&self.file, IDS, &self.at)?;
        let mask = self.file.get(MASK).map(|_| Ints::open(&self.file, MASK, &self.at)).transpose()?;
        let &[all, length] = values.shape() else {
            return Err(self.bad(&format!("has `{IDS}` of shape {:?}, not [samples, length]", values.shape())));
        };
        if let Some(mask) = mask.as_ref().filter(|mask| mask.shape() != values.shape()) {
            let (mask, ids) = (mask.shape(), values.shape());
            return Err(self.bad(&format!("has `{MASK}` of shape {mask:?} for `{IDS}` of shape {ids:?}")));
        }
        let mut samples = Vec::new();
        for sample in 0..self.first(all) {
            let place = || format!("`{IDS}[{sample}]` of `{}`", self.at);
            let mut row = values.read(sample * length, length)?;
            if let Some(mask) = &mask {
                let (begin, end) = span(&mask.read(sample * length, length)?).map_err(|why| {
                    Error::input(format!("`{MASK}[{sample}]` of `{}` {why}", self.at))
                        .hint("a mask is 1 for the tokens of a sample, which stand together, and 0 for its padding")
                })?;
                row.truncate(end);
                row.drain(..begin);
            }
            samples.push(self.sample(row, vocab, positions, place)?);
        }
        self.used.extend([IDS.to_owned(), MASK.to_owned()]);
        Ok((samples, all))
    }

    /// `input_ids.0`, `input_ids.1`, …: `count` of them, each [length] or [1, length].
    fn each(&mut self, count: u64, vocab: u32, positions: u32) -> Result<(Vec<Sample>, u64)> {
        if let Some(lost) = (0..count).find(|number| self.file.get(&format!("{IDS}.{number}")).is_none()) {
            let what = format!("has {count} samples, but none of them is `{IDS}.{lost}`");
            return Err(self.bad(&what).hint("number them from 0 on, without gaps"));
        }
        let mut samples = Vec::new();
        for number in 0..self.first(count) {
            let name = format!("{IDS}.{number}");
            let values = Ints::open(&self.file, &name, &self.at)?;
            let (&[length] | &[1, length]) = values.shape() else {
                return Err(self.bad(&format!("has `{name}` of shape {:?}, not [length]", values.shape())));
            };
            let place = || format!("`{name}` of `{}`", self.at);
            samples.push(self.sample(values.read(0, length)?, vocab, positions, place)?);
        }
        self.used.extend((0..count).map(|number| format!("{IDS}.{number}")));
        Ok((samples, count))
    }

    fn sample(&self, row: Vec<i64>, vocab: u32, positions: u32, place: impl Fn() -> String) -> Result<Sample> {
        if row.is_empty() {
            return Err(Error::input(format!("{} has no token", place())).hint("leave the sample out"));
        }
        if row.len() > positions as usize {
            let (place, length, model) = (place(), row.len(), shown(self.model.name()));
            return Err(Error::input(format!(
                "{place} has {length} tokens, but the model `{model}` takes at most {positions}"
            ))
            .hint("cut it when you make the file; tokens are not cut here, for that might cut off a special one"));
        }
        ids(row, vocab, place, self.model).map(Sample::Tokens)
    }

    /// The first `count` of `labels`, which must be there for all samples or not at all.
    fn labels(&mut self, all: u64, count: usize) -> Result<Option<Vec<u32>>> {
        if self.file.get(LABELS).is_none() {
            return Ok(None);
        }
        self.used.push(LABELS.to_owned());
        let labels = Ints::open(&self.file, LABELS, &self.at)?;
        let hint = "a label is the number of a class, one for each sample; calibration needs no labels: leave them out";
        if labels.shape() != [all] {
            let what = format!("has `{LABELS}` of shape {:?} for {all} samples", labels.shape());
            return Err(self.bad(&what).hint(hint));
        }
        let number = |(sample, label): (usize, i64)| {
            u32::try_from(label).map_err(|_| {
                self.bad(&format!("has the label {label} at `{LABELS}[{sample}]`, which numbers no class")).hint(hint)
            })
        };
        labels.read(0, count as u64)?.into_iter().enumerate().map(number).collect::<Result<_>>().map(Some)
    }

    fn first(&self, all: u64) -> u64 {
        all.min(self.limit as u64)
    }

    fn has_tokens(&self) -> bool {
        self.file.get(IDS).is_some() || self.listed() > 0
    }

    /// How many tensors are called `input_ids.` and a number.
    fn listed(&self) -> u64 {
        let numbered = |name: &str| {
            let digits = name.strip_prefix(IDS).and_then(|rest| rest.strip_prefix('.'));
            digits.is_some_and(|digits| digits.parse::<u64>().is_ok_and(|number| number.to_string() == digits))
        };
        self.file.tensors().iter().filter(|tensor| numbered(&tensor.name)).count() as u64
    }

    fn names(&self) -> String {
        match self.file.tensors() {
            [] => "no tensor".to_owned(),
            tensors => list(tensors.iter().map(|tensor| tensor.name.as_str()), 4),
        }
    }

    fn bad(&self, what: &str) -> Error {
        Error::input(format!("`{}` {what}", self.at))
    }
}

/// Where the ones of a mask begin and end, which must stand together; what is wrong with it otherwise.
fn span(mask: &[i64]) -> std::result::Result<(usize, usize), String> {
    if let Some(at) = mask.iter().position(|value| !matches!(value, 0 | 1)) {
        return Err(format!("is {} at position {at}, neither 0 nor 1", mask[at]));
    }
    let Some(begin) = mask.iter().position(|value| *value == 1) else {
        return Err("is 0 everywhere: the sample has no token".to_owned());
    };
    let end = mask.iter().rposition(|value| *value == 1).map_or(begin, |last| last + 1);
    match mask[begin..end].iter().position(|value| *value == 0) {
        Some(hole) => Err(format!("has a hole at position {}", begin + hole)),
        None => Ok((begin, end)),
    }
}
