//! What is no number: NaN and infinities of models and results, counted and found, and what is said of them.
//!
//! The way of all blocks only notices that there is something ([`noticed`]); a second look finds it.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Dtype;
use crate::error::{Error, Result};
use crate::kernels::convert::{CHUNK, widen};
use crate::kernels::norms::Stats;
use crate::kernels::rescale::Counts;
use crate::plan::Tensor;
use crate::recording::Extent;
use crate::stream::Stream;

/// Elements that are looked at at a time.
const PIECE: usize = 64 << 10;

/// Numbers that are none, of one tensor of one model; a difference beyond f32 counts as infinite.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Lost {
    /// NaN.
    pub nan: u64,
    /// Infinite.
    pub infinite: u64,
    /// Place of the first, counted over the whole tensor.
    pub first: Option<u64>,
}

impl Lost {
    fn count(&mut self, value: f32, at: u64) {
        self.nan += u64::from(value.is_nan());
        self.infinite += u64::from(!value.is_nan());
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
    }

    fn add(&mut self, other: &Self) {
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.first = self.first.into_iter().chain(other.first).min();
    }
}

/// All of them, of one tensor of a merge.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    /// Those of the base, then of each model.
    pub inputs: Vec<Lost>,
    /// Of these, where the model differs from the base: what a merge would have to compute with.
    pub changed: Vec<Lost>,
    /// Those of the result that are not the base's own.
    pub results: Lost,
    /// Those of the result that are.
    pub kept: Lost,
}

impl Findings {
    /// Adds those of another part of the tensor.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in [(&mut self.inputs, &other.inputs), (&mut self.changed, &other.changed)] {
            own.resize(own.len().max(other.len()), Lost::default());
            own.iter_mut().zip(other).for_each(|(own, other)| own.add(other));
        }
        self.results.add(&other.results);
        self.kept.add(&other.kept);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inputs.iter().chain([&self.results, &self.kept]).all(|lost| lost.first.is_none())
    }

    /// The error that `non_finite: error` asks for; `models` are the names of the base and the models.
    ///
    /// # Errors
    /// A number that is none and that is not the base's own.
    pub fn check(&self, tensor: &Tensor, models: &[&str]) -> Result<()> {
        let changed = self.changed.iter().zip(models).enumerate();
        let changed = changed.filter_map(|(k, (lost, model))| Some((k, lost, *model, lost.first?))).next();
        if let Some((k, lost, model, first)) = changed {
            let finite = |k: usize| self.inputs.get(k).is_none_or(|lost| lost.first.is_none());
            // Of numbers that all are finite, the differences need not be.
            let differences = if finite(0) && finite(k) { "differences from the base, " } else { "" };
            let said = said(lost, first, &tensor.shape);
            let what = format!("`{model}` cannot be merged in `{}`: {differences}{said}", tensor.name);
            return Err(Error::input(what)
                .hint("`--non-finite base` takes the base's own element there")
                .hint("`--non-finite propagate` computes with them; `--exclude` copies the tensor from the base"));
        }
        let Some(first) = self.results.first else { return Ok(()) };
        let dtype = tensor.out_dtype.header_name();
        let what = said(&self.results, first, &tensor.shape);
        let error =
            Error::input(format!("the merge of `{}` gives numbers that {dtype} cannot hold: {what}", tensor.name));
        let error = match tensor.out_dtype {
            Dtype::F16 | Dtype::F8E4M3 | Dtype::F8E5M2 => {
                error.hint("`--dtype bfloat16` or `float32` holds larger numbers")
            }
            _ => error.hint("sums or lengths of such large weights are beyond f32"),
        };
        Err(error.hint("`--non-finite base` takes the base's own element there"))
    }
}

/// `2 NaN and 1 infinite, the first at [3, 17]`.
fn said(lost: &Lost, first: u64, shape: &[u64]) -> String {
    let counts = [(lost.nan, "NaN"), (lost.infinite, "infinite")];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    format!("{}, the first at {:?}", counts.collect::<Vec<_>>().join(" and "), place(first, shape))
}

/// Indices of element `at` of a tensor.
fn place(mut at: u64, shape: &[u64]) -> Vec<u64> {
    let mut place: Vec<u64> = shape
        .iter()
        .rev()
        .map(|&size| {
            let index = at % size.max(1);
            at /= size.max(1);
            index
        })
        .collect();
    place.reverse();
    place
}

/// Whether what a block tells of itself speaks of a number that is none.
pub fn noticed(stats: &[Stats], counts: &Counts) -> bool {
    *counts != Counts::default() || stats.iter().any(|stats| !stats.largest.is_finite())
}

/// How many NaN and how many infinite numbers of type `dtype` are in `stored`, read as they are: none in what is no float.
pub fn count(dtype: Dtype, stored: &[u8]) -> (u64, u64) {
    fn sum<const N: usize>(stored: &[u8], of: impl Fn([u8; N]) -> (bool, bool)) -> (u64, u64) {
        let add = |(nan, infinite): (u64, u64), (a, b): (bool, bool)| (nan + u64::from(a), infinite + u64::from(b));
        // A look at some at a time, which takes all lanes, as there hardly ever is one: copying is not to wait for it.
        let any = |part: &&[[u8; N]]| part.iter().fold(false, |any, bytes| any | of(*bytes).0 | of(*bytes).1);
        let found = stored.as_chunks().0.chunks(CHUNK).filter(any);
        found.flatten().map(|bytes| of(*bytes)).fold((0, 0), add)
    }
    // NaN is what lies above infinity but for the sign.
    let half = |bytes: [u8; 2], infinity: u16| {
        let bits = u16::from_le_bytes(bytes) & 0x7fff;
        (bits > infinity, bits == infinity)
    };
    match dtype {
        Dtype::F64 => {
            sum(stored, |bytes| (f64::from_le_bytes(bytes).is_nan(), f64::from_le_bytes(bytes).is_infinite()))
        }
        Dtype::F32 => {
            sum(stored, |bytes| (f32::from_le_bytes(bytes).is_nan(), f32::from_le_bytes(bytes).is_infinite()))
        }
        Dtype::BF16 => sum(stored, |bytes| half(bytes, 0x7f80)),
        Dtype::F16 => sum(stored, |bytes| half(bytes, 0x7c00)),
        Dtype::F8E5M2 => sum(stored, |[byte]| (byte & 0x7f > 0x7c, byte & 0x7f == 0x7c)),
        Dtype::F8E4M3 => sum(stored, |[byte]| (byte & 0x7f == 0x7f, false)),
        Dtype::Other { .. } => (0, 0),
    }
}

/// Looks at all numbers of a block: those of the models, and those of its result, if that is there.
///
/// # Errors
/// A failed read.
pub fn look(stream: &Stream<'_>, extent: &Extent, out: Option<&[u8]>) -> Result<Findings> {
    let tensor = stream.tensor;
    let sources = tensor.sources.len();
    let mut findings = Findings {
        inputs: vec![Lost::default(); sources],
        changed: vec![Lost::default(); sources],
        ..Findings::default()
    };
    let first = extent.first_row * u64::from(extent.row_len);
    let (mut base, mut own) = (vec![0f32; PIECE], vec![0f32; PIECE]);
    let mut bytes = vec![0u64; PIECE]; // aligned for every type
    // Where the base is to blame already: it is one element, however many models differ from it.
    let mut blamed = vec![false; PIECE];
    for start in (0..extent.n as usize).step_by(PIECE) {
        let (len, at) = (PIECE.min(extent.n as usize - start), first + start as u64);
        let mut read = |source: usize, values: &mut [f32]| {
            let dtype = tensor.sources[source].dtype;
            let bytes = &mut bytemuck::cast_slice_mut(&mut bytes)[..len * dtype.size()];
            stream.read(source, at, bytes)?;
            widen(dtype, bytes, 0, values);
            Ok::<_, Error>(())
        };
        let base = &mut base[..len];
        let own = &mut own[..len];
        read(0, base)?;
        blamed.fill(false);
        for (i, value) in base.iter().enumerate().filter(|(_, value)| !value.is_finite()) {
            findings.inputs[0].count(*value, at + i as u64);
        }
        for source in 1..sources {
            read(source, own)?;
            for (i, (&value, &base)) in own.iter().zip(&*base).enumerate() {
                let changed = value.to_bits() != base.to_bits();
                if !value.is_finite() {
                    findings.inputs[source].count(value, at + i as u64);
                }
                if changed && !(value - base).is_finite() {
                    // Where the model is sound, the base is to blame.
                    if !value.is_finite() || base.is_finite() {
                        findings.changed[source].count(value, at + i as u64);
                    } else if !std::mem::replace(&mut blamed[i], true) {
                        findings.changed[0].count(base, at + i as u64);
                    }
                }
            }
        }
        if let Some(out) = out {
            let size = tensor.out_dtype.size();
            let stored: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut bytes)[..len * size];
            stored.copy_from_slice(&out[start * size..][..len * size]);
            widen(tensor.out_dtype, stored, 0, own);
            for (i, (&value, &base)) in own.iter().zip(&*base).enumerate().filter(|(_, (value, _))| !value.is_finite())
            {
                let kept = value.to_bits() == base.to_bits() || value.is_nan() && base.is_nan();
                let lost = if kept { &mut findings.kept } else { &mut findings.results };
                lost.count(value, at + i as u64);
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_numbers_are_counted_as_conversion_widens_them() {
        for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F8E4M3, Dtype::F8E5M2] {
            // All that two bytes can be, in the upper ones.
            let numbers = (0..=u16::MAX).map(|bits| u32::from(bits) << 16);
            let stored: Vec<u8> = match dtype.size() {
                4 => numbers.flat_map(u32::to_le_bytes).collect(),
                2 => (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
                _ => (0..=u8::MAX).collect(),
            };
            let mut aligned = vec![0u64; stored.len().div_ceil(8)];
            let bytes = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut aligned)[..stored.len()];
            bytes.copy_from_slice(&stored);
            let mut values = vec![0f32; stored.len() / dtype.size()];
            widen(dtype, bytes, 0, &mut values);
            let of = |what: fn(&&f32) -> bool| values.iter().filter(what).count() as u64;
            let wanted = (of(|x| x.is_nan()), of(|x| x.is_infinite()));
            assert_eq!(count(dtype, &stored), wanted, "{dtype:?}");
            assert!(wanted.0 > 0, "{dtype:?}");
        }
        // Beyond f32 is not beyond f64.
        let stored: Vec<u8> =
            [1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(count(Dtype::F64, &stored), (1, 2));
    }
}
