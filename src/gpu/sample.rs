//! A sample of every block is computed a second time, by the twins from the host's own bytes: a launch that never ran,
//! or ran over bytes that never arrived, leaves a checksum in order and the values wrong.

use std::ops::Range;

use super::buffers::Lease;
use super::peek::{Piece, peek};
use super::{DeviceInputs, Gpu};
use crate::checkpoint::Dtype;
use crate::error::Result;
use crate::kernels::{Access, convert};
use crate::recording::{Extent, GROUP_ROWS, Recording, Results, Role, Size};

/// Bytes that are kept in each of two places, of the model with the smallest elements.
const PLACE: usize = 256 << 10;

/// Elements that are computed again in each place, and at least a row.
const ELEMENTS: usize = 16 << 10;

/// Relative distance, as Euclidean norms, that is still put down to rounding; rare elections may go the other way.
const TOLERANCE: f64 = 1e-2;

/// The same against how far the merge moves the weights. An election that goes the other way moves the factor of its row,
/// and so all of that; a launch that never ran leaves nothing of it.
const MOVED: f64 = 0.25;

/// Relative rounding of f32 arithmetic over a few steps.
const ROUNDING: f32 = 2e-6;

/// The host's bytes of two places of a block.
pub struct Sample {
    /// Bytes of the model with the smallest elements.
    smallest: usize,
    /// The places, in that model.
    places: [Range<usize>; 2],
    models: Vec<Model>,
}

struct Model {
    /// How much larger this model's elements are.
    scale: usize,
    kept: [Vec<u8>; 2],
}

impl Sample {
    /// Chooses places in models of these sizes: the beginning, and one that depends on `seed`.
    pub fn new(bytes: &[usize], seed: u32) -> Self {
        let smallest = bytes.iter().copied().min().unwrap_or(0);
        let alike = |&len: &usize| len % smallest == 0 && matches!(len / smallest, 1 | 2 | 4 | 8);
        if smallest == 0 || !bytes.iter().all(alike) {
            return Self { smallest: 0, places: [0..0, 0..0], models: Vec::new() };
        }
        let mut places = [0..smallest.min(2 * PLACE), 0..0];
        if smallest > 2 * PLACE {
            let slots = (smallest - 2 * PLACE) / 8 + 1;
            let random = u64::from(seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
            let start = PLACE + 8 * (random as usize % slots);
            places = [0..PLACE, start..start + PLACE];
        }
        let model = |&len: &usize| {
            let scale = len / smallest;
            Model { scale, kept: [0, 1].map(|i: usize| Vec::with_capacity(places[i].len() * scale)) }
        };
        Self { smallest, models: bytes.iter().map(model).collect(), places }
    }

    /// Keeps what belongs to the places of `piece`, which starts at byte `offset` of `model`, where the piece before ended.
    pub fn keep(&mut self, model: usize, offset: usize, piece: &[u8]) {
        let Some(Model { scale, kept }) = self.models.get_mut(model) else { return };
        for (place, kept) in self.places.iter().zip(kept) {
            let (start, end) = (place.start * *scale, place.end * *scale);
            let (from, to) = (start.max(offset), end.min(offset + piece.len()));
            if from < to {
                kept.extend_from_slice(&piece[from - offset..to - offset]);
            }
        }
    }

    /// Whole rows inside `place`: the first one, the block they make, and every model's words of it.
    fn rows(&self, place: usize, extent: &Extent, grouped: bool) -> Option<(usize, Extent, Vec<Vec<u32>>)> {
        let (n, row_len) = (extent.n as usize, extent.row_len as usize);
        if n == 0 || self.smallest == 0 || !self.smallest.is_multiple_of(n) {
            return None;
        }
        let size = self.smallest / n;
        let range = &self.places[place];
        let align = if grouped { GROUP_ROWS as usize } else { 1 };
        let first = range.start.div_ceil(size).div_ceil(row_len).next_multiple_of(align);
        let end = range.end / size;
        let last = if end == n { extent.rows as usize } else { end / row_len };
        let mut rows = last.saturating_sub(first).min(ELEMENTS.div_ceil(row_len).next_multiple_of(align));
        if first + rows < extent.rows as usize {
            rows -= rows % align;
        }
        if rows == 0 {
            return None;
        }
        let start = first * row_len;
        let elements = (rows * row_len).min(n - start);
        let words = |model: &Model| {
            let size = size * model.scale;
            let bytes = &model.kept[place][start * size - range.start * model.scale..][..elements * size];
            let mut words = vec![0u32; bytes.len().div_ceil(4)];
            bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
            words
        };
        let part = Extent {
            first_row: extent.first_row + first as u64,
            rows: rows as u32,
            row_len: extent.row_len,
            n: elements as u32,
        };
        Some((first, part, self.models.iter().map(words).collect()))
    }
}

/// An error if the twins do not confirm a sample of `results`.
pub fn check(
    gpu: &Gpu,
    recording: &Recording,
    extent: &Extent,
    inputs: &DeviceInputs,
    results: &Results,
) -> Result<()> {
    if !samples(recording, extent, inputs) {
        return Ok(());
    }
    let grouped = recording.buffers.iter().any(|b| matches!(b.size, Size::Groups(_)));
    let mut again = Results::default();
    for place in 0..2 {
        let Some((first, part, words)) = inputs.sample.rows(place, extent, grouped) else { continue };
        gpu.cpu.run(recording, &part, &words, &mut again);
        let given = Given::new(recording, &words, part.n as usize);
        for (i, (_, buffer)) in recording.results().enumerate() {
            if !confirms(buffer.size, &given, first, extent, &part, &again.buffers[i], &results.buffers[i]) {
                let rows = part.first_row..part.first_row + u64::from(part.rows);
                let message = format!("computed `{}` wrongly in rows {}..{}", buffer.label, rows.start, rows.end);
                return Err(gpu.core.device.error(message));
            }
        }
    }
    Ok(())
}

/// The same for a list that fills buffers which live from run to run; nothing where it has no inputs.
pub fn check_kept(
    gpu: &Gpu,
    recording: &Recording,
    extent: &Extent,
    inputs: &DeviceInputs,
    kept: &[Option<Lease>],
) -> Result<()> {
    if inputs.bytes.is_empty() || !loaded(recording, extent, inputs) {
        return Ok(());
    }
    let filled: Vec<usize> = recording
        .buffers
        .iter()
        .filter_map(|buffer| match (&buffer.role, buffer.size) {
            (Role::Kept(id), Size::Planes(1) | Size::Stored(Dtype::F32)) => Some(*id),
            _ => None,
        })
        .collect();
    let mut host = vec![Vec::new(); kept.len()];
    for place in 0..2 {
        let Some((first, part, words)) = inputs.sample.rows(place, extent, false) else { continue };
        let (from, len) = (first * extent.row_len as usize, part.n as usize);
        filled.iter().for_each(|&id| host[id].resize(len, 0));
        gpu.cpu.run_kept(recording, &part, &words, &mut host, &mut Results::default());
        let buffer = |&id: &usize| kept[id].as_ref().expect("in use");
        let pieces: Vec<Piece> = filled.iter().map(|id| Piece { buffer: buffer(id), from, words: len }).collect();
        let given = Given::new(recording, &words, len);
        for (found, id) in peek(gpu, &pieces)?.iter().zip(&filled) {
            let (again, found) = (bytemuck::cast_slice(&host[*id][..len]), bytemuck::cast_slice(found));
            if !(same(Dtype::F32, &given, again, found) && near(again, found)) {
                let rows = part.first_row..part.first_row + u64::from(part.rows);
                let message = format!("computed parameters wrongly in rows {}..{}", rows.start, rows.end);
                return Err(gpu.core.device.error(message));
            }
        }
    }
    Ok(())
}

/// True where all inputs were loaded as the list wants them.
fn loaded(recording: &Recording, extent: &Extent, inputs: &DeviceInputs) -> bool {
    recording.buffers.iter().all(|b| match (&b.role, b.size) {
        (Role::Input(model), Size::Stored(dtype)) => {
            inputs.bytes.get(*model) == Some(&(extent.n as usize * dtype.size()))
        }
        _ => true,
    })
}

/// True where some rows can be computed without the others.
fn samples(recording: &Recording, extent: &Extent, inputs: &DeviceInputs) -> bool {
    // What is summed over rows can be handed back, but nothing may be made of it in the same list.
    let summed = |buf: &crate::recording::Buf| {
        let buffer = &recording.buffers[buf.0];
        matches!(buffer.size, Size::Fixed(_) | Size::Groups(_)) && !matches!(buffer.role, Role::Constant(_))
    };
    let apart = recording.calls.iter().all(|call| {
        let read = call.args.iter().zip(call.kernel.bindings).filter(|(_, access)| **access == Access::Read);
        !read.map(|(buf, _)| buf).any(summed)
    });
    // Sums over all rows cannot be told from a few.
    let shown = recording.results().any(|(_, b)| !matches!(b.size, Size::Fixed(_)));
    loaded(recording, extent, inputs) && apart && shown
}

/// True if `found`, of all rows, has what `again` has, of the rows of `part` alone.
fn confirms(
    size: Size,
    given: &Given,
    first: usize,
    extent: &Extent,
    part: &Extent,
    again: &[u32],
    found: &[u32],
) -> bool {
    let (n, len, start) = (extent.n as usize, part.n as usize, first * extent.row_len as usize);
    match size {
        Size::Stored(dtype) => {
            let widen = |words: &[u32], start: usize| {
                let mut values = vec![0f32; len];
                convert::widen(dtype, bytemuck::cast_slice(words), start, &mut values);
                values
            };
            let (again, found) = (widen(again, 0), widen(found, start));
            same(dtype, given, &again, &found) && near(&again, &found)
        }
        Size::Planes(count) => (0..count as usize).all(|plane| {
            let again = &again[plane * len..][..len];
            near(bytemuck::cast_slice(again), bytemuck::cast_slice(&found[plane * n + start..][..len]))
        }),
        Size::Rows(width) => {
            let found = &found[first * width as usize..][..again.len()];
            near(bytemuck::cast_slice(again), bytemuck::cast_slice(found))
        }
        Size::Groups(width) => {
            let group = extent.row_len as usize * width as usize;
            let found = &found[first / GROUP_ROWS as usize * group..][..again.len()];
            near(bytemuck::cast_slice(again), bytemuck::cast_slice(found))
        }
        Size::Fixed(_) => true,
    }
}

/// True if all but a few stored elements are the same, up to f32 rounding at the inputs' scale, or else differ by little
/// of what the merge moves them. It may move weights by little more than their own rounding, so that the distance alone
/// would not tell a merged tensor from its base.
fn same(dtype: Dtype, given: &Given, again: &[f32], found: &[f32]) -> bool {
    let relative = if matches!(dtype, Dtype::F32 | Dtype::F64) { ROUNDING } else { 0.0 };
    let differ = |(a, b): &(&f32, &f32)| {
        let (a, b) = (**a, **b);
        if !a.is_finite() || !b.is_finite() {
            return a != b && !(a.is_nan() && b.is_nan());
        }
        (a - b).abs() > relative * a.abs().max(b.abs()) + ROUNDING * given.scale + f32::MIN_POSITIVE
    };
    // Where large values all but cancel, rounding tips some low-precision results over.
    let few = again.iter().zip(found).filter(differ).count() <= again.len() / 20 + usize::from(again.len() > 8);
    few || given.first.len() == again.len() && {
        let by = |of: &[f32]| of.iter().zip(&given.first).map(|(x, from)| x - from).collect::<Vec<_>>();
        apart(&by(again), &by(found)).is_some_and(|(distance, norm)| distance <= MOVED * norm)
    }
}

/// What a sample was computed from.
struct Given {
    /// Root mean square of the largest input's finite elements.
    scale: f32,
    /// The elements of the first input, which is the base.
    first: Vec<f32>,
}

impl Given {
    fn new(recording: &Recording, words: &[Vec<u32>], n: usize) -> Self {
        let (mut first, mut largest) = (Vec::new(), 0f64);
        for buffer in &recording.buffers {
            let (Role::Input(model), Size::Stored(dtype)) = (&buffer.role, buffer.size) else { continue };
            let mut values = vec![0f32; n];
            convert::widen(dtype, bytemuck::cast_slice(&words[*model]), 0, &mut values);
            let finite = values.iter().filter(|x| x.is_finite());
            largest = largest.max(finite.map(|x| f64::from(*x).powi(2)).sum());
            if *model == 0 {
                first = values;
            }
        }
        Self { scale: (largest / n as f64).sqrt() as f32, first }
    }
}

/// True if the distance is small against the norm.
fn near(again: &[f32], found: &[f32]) -> bool {
    // One value can be the small difference of large ones; many cannot all be.
    let tolerance = TOLERANCE.max(0.5 / again.len().max(1) as f64);
    let flushed = f64::from(f32::MIN_POSITIVE) * (again.len() as f64).sqrt();
    apart(again, found).is_some_and(|(distance, norm)| distance <= tolerance * norm + flushed)
}

/// ‖again − found‖ and ‖again‖ over what is finite; `None` if more than a few are finite in one alone.
fn apart(again: &[f32], found: &[f32]) -> Option<(f64, f64)> {
    let (mut norm, mut distance, mut lost) = (0f64, 0f64, 0usize);
    for (&a, &b) in again.iter().zip(found) {
        if a.is_finite() != b.is_finite() {
            lost += 1;
        } else if a.is_finite() {
            let (a, b) = (f64::from(a), f64::from(b));
            norm += a * a;
            distance += (a - b) * (a - b);
        }
    }
    (lost <= allowed(again.len())).then(|| (distance.sqrt(), norm.sqrt()))
}

/// Elements out of `n` that may come out otherwise: where signs or thresholds are within rounding of each other.
fn allowed(n: usize) -> usize {
    n / 50 + usize::from(n > 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_whole_rows_of_the_right_bytes() {
        // Two models of 300 000 elements, of 2 and 4 bytes, given in pieces.
        let n = 300_000usize;
        let small: Vec<u8> = (0..n as u32 * 2).map(|i| (i % 251) as u8).collect();
        let large: Vec<u8> = (0..n as u32 * 4).map(|i| (i % 241) as u8).collect();
        for seed in 0..20 {
            let mut sample = Sample::new(&[small.len(), large.len()], seed);
            for (model, bytes) in [&small, &large].into_iter().enumerate() {
                for (i, piece) in bytes.chunks(100_000).enumerate() {
                    sample.keep(model, i * 100_000, piece);
                }
            }
            for (row_len, grouped) in [(1000, false), (1000, true), (4096, false), (7, false)] {
                let rows = (n as u32).div_ceil(row_len);
                let extent = Extent { first_row: 32, rows, row_len, n: n as u32 };
                for place in 0..2 {
                    let (first, part, words) = sample.rows(place, &extent, grouped).expect("room for a row");
                    assert_eq!(part.first_row, 32 + first as u64);
                    assert!(!grouped || first % 16 == 0 && part.rows % 16 == 0);
                    let start = first * row_len as usize;
                    for (words, (bytes, size)) in words.iter().zip([(&small, 2), (&large, 4)]) {
                        let wanted = &bytes[start * size..(start + part.n as usize) * size];
                        assert_eq!(&bytemuck::cast_slice::<u32, u8>(words)[..wanted.len()], wanted);
                    }
                }
            }
        }
    }

    #[test]
    fn small_and_odd_blocks() {
        let mut sample = Sample::new(&[10, 20], 0);
        sample.keep(0, 0, &[1; 10]);
        sample.keep(1, 0, &[2; 20]);
        // Five elements in rows of three: the last one is short.
        let extent = Extent { first_row: 0, rows: 2, row_len: 3, n: 5 };
        let (first, part, words) = sample.rows(0, &extent, false).unwrap();
        assert_eq!((first, part), (0, extent));
        assert_eq!((words[0].len(), words[1].len()), (3, 5));
        assert!(sample.rows(1, &extent, false).is_none());
        // Not the same number of elements: nothing to say.
        assert!(Sample::new(&[10, 30], 0).rows(0, &extent, false).is_none());
        assert!(Sample::new(&[], 0).rows(0, &extent, false).is_none());
    }

    #[test]
    fn what_is_near_and_what_is_the_same() {
        let a: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut b = a.clone();
        b[5] = -b[5];
        assert!(near(&a, &b) || a[5].abs() > 0.2);
        assert!(!near(&a, &vec![0.0; 1000]));
        assert!(near(&[0.0; 1000], &[0.0; 1000]));
        assert!(!near(&[0.0; 1000], &a));
        // A thousandth of a change is next to nothing as a distance, and not the same.
        let moved: Vec<f32> = a.iter().map(|x| x * 1.001).collect();
        let given = |scale: f32, first: &[f32]| Given { scale, first: first.to_vec() };
        for dtype in [Dtype::F32, Dtype::BF16] {
            assert!(near(&a, &moved) && !same(dtype, &given(0.7, &a), &a, &moved));
            assert!(!same(dtype, &given(0.7, &a), &moved, &a), "nothing moved");
            // But where that is a thousandth of what the merge does, it is another factor of the row.
            assert!(same(dtype, &given(0.7, &[0.0; 1000]), &a, &moved));
            assert!(!same(dtype, &given(0.7, &[]), &a, &moved), "who knows from where");
        }
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40];
        assert!(same(Dtype::F32, &given(0.0, &[0.0; 4]), &special, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0]));
        assert!(!same(Dtype::F32, &given(1.0, &[0.0; 4]), &special, &[0.0, 1.0, 2.0, 3.0]));
        assert!(!near(&special, &[0.0, 1.0, 2.0, 3.0]));
    }
}
