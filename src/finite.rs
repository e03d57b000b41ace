//! What is no number: NaN and infinities of models and results, counted and found, and what is said of them.
//!
//! The way of all blocks only notices that there is something ([`noticed`]); a second look finds it.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Dtype;
use crate::error::{Error, Result};
use crate::kernels::convert::widen;
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
        let changed = self.changed.iter().zip(models).find_map(|(lost, model)| Some((lost, *model, lost.first?)));
        if let Some((lost, model, first)) = changed {
            let what = format!("`{model}` cannot be merged in `{}`: {}", tensor.name, said(lost, first, &tensor.shape));
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
                    let (whose, value) =
                        if value.is_finite() && !base.is_finite() { (0, base) } else { (source, value) };
                    findings.changed[whose].count(value, at + i as u64);
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
