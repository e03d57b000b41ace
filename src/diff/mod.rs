//! How two checkpoints differ, tensor by tensor, read once in bounded pieces.

mod piece;

use std::sync::atomic::Ordering;

use bytemuck::cast_slice_mut;
use rayon::prelude::*;
use serde::Serialize;

use crate::checkpoint::{Checkpoint, Dtype, TensorInfo};
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::plan::patterns;
use crate::progress::Progress;
use piece::{Sums, compare, unit};

/// Name and version of the document.
pub const SCHEMA: &str = "magic-diff/1";

/// Most bytes of either side that are read at a time, and the fewest.
const PIECE: (u64, u64) = (1 << 20, 64 << 10);

/// Which tensors are compared.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Globs over names; none stands for all.
    pub include: Vec<String>,
    /// Globs over names that are left out.
    pub exclude: Vec<String>,
}

/// How checkpoint B differs from checkpoint A.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Name of A.
    pub a: String,
    /// Name of B.
    pub b: String,
    /// Whether both have the same tensors, of the same types, shapes and bits.
    pub same: bool,
    /// Over all tensors that are compared.
    pub total: Measures,
    /// Tensors that both have, in the order of A.
    pub tensors: Vec<TensorDiff>,
    /// Tensors that A alone has.
    pub only_a: Vec<Alone>,
    /// Tensors that B alone has.
    pub only_b: Vec<Alone>,
}

/// A tensor of both.
#[derive(Clone, Debug, Serialize)]
pub struct TensorDiff {
    /// Its name.
    pub name: String,
    /// Element types in A and B.
    pub dtypes: [&'static str; 2],
    /// Shapes in A and B.
    pub shapes: [Vec<u64>; 2],
    /// Whether type, shape and bits are the same.
    pub same: bool,
    /// What was measured; nothing where shapes differ, or types of which one is no float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measures: Option<Measures>,
    /// The element that differs most; none where no float does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<Largest>,
}

/// Distances of elements, of one tensor or of many.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Measures {
    /// Elements; of types of less than a byte, or of unknown size, bytes.
    pub elements: u64,
    /// Elements whose bits differ; where the types do, whose values as f32 do.
    pub changed: u64,
    /// Floats that are NaN or infinite in A or B, which have no part in what follows.
    pub not_finite: u64,
    /// ‖A‖ of the floats.
    pub norm_a: f64,
    /// ‖B‖.
    pub norm_b: f64,
    /// ‖A − B‖.
    pub distance: f64,
    /// ‖A − B‖ / ‖A‖ of the floats; none without floats, infinite where A is zero and B is not.
    pub relative: Option<f64>,
    /// ⟨A, B⟩ / (‖A‖ ‖B‖); none where either is zero.
    pub cosine: Option<f64>,
}

/// The element of a tensor that differs most.
#[derive(Clone, Debug, Serialize)]
pub struct Largest {
    /// |a − b|.
    pub difference: f64,
    /// Its place, an index for each dimension.
    pub index: Vec<u64>,
}

/// A tensor that one side alone has.
#[derive(Clone, Debug, Serialize)]
pub struct Alone {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: &'static str,
    /// Shape.
    pub shape: Vec<u64>,
}

impl TensorDiff {
    /// How much it differs, for an order: by ‖A − B‖ / ‖A‖, and by the part of its elements where it has none. What
    /// cannot be compared differs most.
    pub fn weight(&self) -> f64 {
        let part = |m: &Measures| m.changed as f64 / m.elements.max(1) as f64;
        self.measures.as_ref().map_or(f64::INFINITY, |m| m.relative.unwrap_or_else(|| part(m)))
    }
}

impl Measures {
    fn new(elements: u64, floats: bool, sums: &Sums) -> Self {
        let [norm_a, norm_b, distance] = [sums.a, sums.b, sums.square].map(f64::sqrt);
        let (length, Sums { changed, not_finite, .. }) = (norm_a * norm_b, *sums);
        Self {
            elements,
            changed,
            not_finite,
            norm_a,
            norm_b,
            distance,
            relative: floats.then(|| if distance == 0.0 { 0.0 } else { distance / norm_a }),
            cosine: (length > 0.0).then(|| (sums.dot / length).clamp(-1.0, 1.0)),
        }
    }

    /// Of several tensors as one.
    pub fn together<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut elements, mut floats, mut sums) = (0, false, Sums::default());
        for part in all {
            elements += part.elements;
            floats |= part.relative.is_some();
            sums.changed += part.changed;
            sums.not_finite += part.not_finite;
            sums.a += part.norm_a.powi(2);
            sums.b += part.norm_b.powi(2);
            sums.square += part.distance.powi(2);
            sums.dot += part.cosine.map_or(0.0, |cosine| cosine * part.norm_a * part.norm_b);
        }
        Self::new(elements, floats, &sums)
    }
}

/// Places of a tensor in A and B.
struct Pair<'a> {
    places: [usize; 2],
    info: [&'a TensorInfo; 2],
}

impl Pair<'_> {
    fn dtypes(&self) -> (Dtype, Dtype) {
        (self.info[0].dtype, self.info[1].dtype)
    }

    /// Whether elements can be compared one by one.
    fn comparable(&self) -> bool {
        let ([a, b], (of_a, of_b)) = (self.info, self.dtypes());
        // Types that are not known may have any size.
        let alike = of_a == of_b && a.bytes == b.bytes || of_a.is_float() && of_b.is_float();
        a.shape == b.shape && alike
    }

    /// Elements of a piece of at most `bytes` bytes on either side.
    fn step(&self, bytes: u64) -> u64 {
        let (a, b) = self.dtypes();
        bytes / unit(a).max(unit(b)) as u64
    }

    /// Elements, as they are compared.
    fn elements(&self) -> u64 {
        self.info[0].bytes / unit(self.info[0].dtype) as u64
    }

    fn result(&self, sums: &Sums) -> TensorDiff {
        let [a, b] = self.info;
        let comparable = self.comparable();
        TensorDiff {
            name: a.name.clone(),
            dtypes: [a, b].map(|info| info.dtype.header_name()),
            shapes: [a, b].map(|info| info.shape.clone()),
            same: comparable && a.dtype == b.dtype && sums.changed == 0,
            measures: comparable.then(|| Measures::new(self.elements(), a.dtype.is_float(), sums)),
            largest: (sums.largest > 0.0)
                .then(|| Largest { difference: sums.largest, index: unravel(sums.at, &a.shape) }),
        }
    }
}

/// The index in each dimension of element number `at`.
fn unravel(mut at: u64, shape: &[u64]) -> Vec<u64> {
    let mut index: Vec<u64> = shape.iter().rev().map(|&dim| (at % dim, at /= dim).0).collect();
    index.reverse();
    index
}

/// What the elements of each pair add up to. Pieces are read in any order, and added in theirs.
fn measure(models: [&Checkpoint; 2], pairs: &[Pair<'_>], memory: &Memory, progress: &Progress) -> Result<Vec<Sums>> {
    let bytes = (memory.parameters() / 4 / memory.lanes as u64).clamp(PIECE.1, PIECE.0);
    let mut pieces = Vec::new();
    for (number, pair) in pairs.iter().enumerate().filter(|(_, pair)| pair.comparable()) {
        let step = pair.step(bytes);
        pieces.extend((0..pair.elements()).step_by(step as usize).map(|first| (number, first, step)));
    }
    // Words, so that elements are aligned.
    let buffers = || [(); 2].map(|()| vec![0u32; bytes.div_ceil(4) as usize]);
    let piece = |buffers: &mut [Vec<u32>; 2], &(number, first, step): &(usize, u64, u64)| {
        progress.check()?;
        let pair = &pairs[number];
        let count = step.min(pair.elements() - first);
        let mut stored = buffers.each_mut().map(|buffer| cast_slice_mut::<u32, u8>(buffer));
        for side in 0..2 {
            let size = unit(pair.info[side].dtype) as u64;
            let bytes = std::mem::take(&mut stored[side]);
            stored[side] = &mut bytes[..(count * size) as usize];
            models[side].read_at(pair.places[side], first * size, stored[side])?;
            progress.bytes.fetch_add(count * size, Ordering::Relaxed);
        }
        Ok(compare(pair.dtypes(), stored[0], stored[1]))
    };
    let parts: Vec<Sums> = pieces.par_iter().map_init(buffers, piece).collect::<Result<_>>()?;
    let mut sums = vec![Sums::default(); pairs.len()];
    for ((number, first, _), part) in pieces.iter().zip(&parts) {
        sums[*number].add(part, *first);
    }
    Ok(sums)
}

/// Compares the tensors of `a` and `b` that are selected, in pieces that `memory` has room for.
///
/// # Errors
/// A pattern that is none, nothing selected, a failed read, an interrupt.
pub fn diff([a, b]: [&Checkpoint; 2], selection: &Selection, memory: &Memory, progress: &Progress) -> Result<Diff> {
    let include = patterns("include", &selection.include)?;
    let exclude = patterns("exclude", &selection.exclude)?;
    let wanted = |info: &&TensorInfo| {
        (selection.include.is_empty() || include.is_match(&info.name)) && !exclude.is_match(&info.name)
    };
    if !a.tensors().iter().chain(b.tensors()).any(|info| wanted(&info)) {
        return Err(Error::usage("no tensor is left to compare")
            .hint("`--include` and `--exclude` take globs over tensor names, such as '*.mlp.*'"));
    }
    let numbered = a.tensors().iter().enumerate().filter(|(_, info)| wanted(info));
    let pair = |(place, info): (usize, _)| {
        let info: &TensorInfo = info;
        let (other, in_b) = b.get(&info.name)?;
        Some(Pair { places: [place, other], info: [info, in_b] })
    };
    let pairs: Vec<Pair<'_>> = numbered.filter_map(pair).collect();
    let alone = |own: &Checkpoint, other: &Checkpoint| {
        let missing = own.tensors().iter().filter(wanted).filter(|info| other.get(&info.name).is_none());
        let entry = |info: &TensorInfo| Alone {
            name: info.name.clone(),
            dtype: info.dtype.header_name(),
            shape: info.shape.clone(),
        };
        missing.map(entry).collect::<Vec<_>>()
    };
    let sums = memory.pool()?.install(|| measure([a, b], &pairs, memory, progress))?;
    let tensors: Vec<TensorDiff> = pairs.iter().zip(&sums).map(|(pair, sums)| pair.result(sums)).collect();
    let (only_a, only_b) = (alone(a, b), alone(b, a));
    Ok(Diff {
        schema: SCHEMA,
        a: a.name().to_owned(),
        b: b.name().to_owned(),
        same: only_a.is_empty() && only_b.is_empty() && tensors.iter().all(|tensor| tensor.same),
        total: Measures::together(tensors.iter().filter_map(|tensor| tensor.measures.as_ref())),
        tensors,
        only_a,
        only_b,
    })
}
