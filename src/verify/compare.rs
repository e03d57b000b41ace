//! Compares tensors with those of an output, piece by piece, while they are computed. Nothing is kept but what differs.

use std::sync::Mutex;

use bytemuck::{cast_slice, cast_slice_mut};
use serde::Serialize;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Dtype, Sink};
use crate::error::Result;
use crate::kernels::convert::{CHUNK, widen};
use crate::plan::Tensor;
use crate::progress::Progress;

/// Part of a tensor's task vector that devices may differ by.
const AGREE: f64 = 1e-5;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// An element that is not what it should be, of a tensor in which there may be more.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Name of the tensor.
    pub tensor: String,
    /// Elements of it that differ.
    pub different: u64,
    /// Place of the first of them.
    pub index: u64,
    /// What is in the output.
    pub found: Element,
    /// What was computed.
    pub expected: Element,
}

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Element {
    /// Its value, if it is a float that can be computed with.
    pub value: Option<f32>,
    /// Its bits.
    pub bits: u64,
}

/// The output, as a place where a merge puts its tensors.
pub struct Comparison<'a> {
    output: &'a Checkpoint,
    tensors: &'a [Tensor],
    progress: &'a Progress,
    /// For each tensor to be compared its place in the output.
    places: Vec<Option<usize>>,
    found: Vec<Mutex<Found>>,
}

/// What differs in a tensor.
#[derive(Clone, Copy, Default)]
struct Found {
    different: u64,
    first: Option<First>,
    /// Sum of squares of what one rounding does not explain.
    excess: f64,
    first_excess: Option<First>,
}

#[derive(Clone, Copy)]
struct First {
    index: u64,
    found: Element,
    expected: Element,
}

impl<'a> Comparison<'a> {
    /// With `output`, of those tensors of the plan that are `chosen`; all of them must be there as they are planned.
    pub fn new(output: &'a Checkpoint, tensors: &'a [Tensor], chosen: &[bool], progress: &'a Progress) -> Self {
        let place = |(tensor, chosen): (&Tensor, &bool)| {
            let found = output.get(&tensor.name).filter(|_| *chosen);
            found.map(|(place, _)| place)
        };
        let places = tensors.iter().zip(chosen).map(place).collect();
        let found = tensors.iter().map(|_| Mutex::default()).collect();
        Self { output, tensors, progress, places, found }
    }

    /// How tensor number `tensor` differs: in any bit if it has to be `exact`, else in more than one rounding of its type
    /// and a part of `norm`, the length of its task vector, can explain.
    pub fn difference(&self, tensor: usize, exact: bool, norm: f64) -> Option<Difference> {
        let found = *self.found[tensor].lock().expect("no panic while held");
        let first = match exact {
            true => found.first?,
            false if found.excess.sqrt() <= AGREE * norm => return None,
            false => found.first_excess?,
        };
        let First { index, found: here, expected } = first;
        let (tensor, different) = (self.tensors[tensor].name.clone(), found.different);
        Some(Difference { tensor, different, index, found: here, expected })
    }

    /// Looks for what differs in a piece that begins at element `first`.
    fn compare(&self, tensor: usize, first: u64, found: &[u8], expected: &[u8]) {
        let dtype = self.tensors[tensor].out_dtype;
        let size = dtype.size().max(1);
        let (eps, least) = rounding(dtype);
        let mut sum = Found::default();
        for (chunk, (found, expected)) in found.chunks(CHUNK * size).zip(expected.chunks(CHUNK * size)).enumerate() {
            if found == expected {
                continue;
            }
            let (a, b) = (floats(dtype, found), floats(dtype, expected));
            for (i, (left, right)) in found.chunks(size).zip(expected.chunks(size)).enumerate() {
                if left == right {
                    continue;
                }
                let value = |values: &[f32]| dtype.is_float().then(|| values[i]);
                let element = |bytes: &[u8], value| Element { value, bits: bits(bytes) };
                let here = First {
                    index: first + (chunk * CHUNK + i) as u64,
                    found: element(left, value(&a)),
                    expected: element(right, value(&b)),
                };
                sum.different += 1;
                sum.first = sum.first.or(Some(here));
                let (a, b) = (f64::from(a[i]), f64::from(b[i]));
                let excess = match a.is_nan() && b.is_nan() {
                    true => 0.0,
                    false => (a - b).abs() - (eps * a.abs().max(b.abs())).max(least),
                };
                // What is no number here, and one there, is beyond all bounds.
                let excess = if excess.is_finite() { excess.max(0.0) } else { f64::INFINITY };
                if excess > 0.0 {
                    sum.excess += excess * excess;
                    sum.first_excess = sum.first_excess.or(Some(here));
                }
            }
        }
        if sum.different > 0 {
            let mut all = self.found[tensor].lock().expect("no panic while held");
            all.different += sum.different;
            all.excess += sum.excess;
            all.first = earlier(all.first, sum.first);
            all.first_excess = earlier(all.first_excess, sum.first_excess);
        }
    }
}

impl Sink for Comparison<'_> {
    fn wants(&self, tensor: usize) -> bool {
        self.places[tensor].is_some()
    }

    fn write_at(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(place) = self.places[tensor] else { return Ok(()) };
        let size = self.tensors[tensor].out_dtype.size().max(1) as u64;
        let mut piece = vec![0; PIECE.min(bytes.len())];
        for (number, expected) in bytes.chunks(PIECE).enumerate() {
            self.progress.check()?;
            let (found, at) = (&mut piece[..expected.len()], offset + (number * PIECE) as u64);
            self.output.read_at(place, at, found)?;
            if found != expected {
                self.compare(tensor, at / size, found, expected);
            }
        }
        Ok(())
    }

    fn complete(&self, _tensor: usize, _report: &dyn Fn() -> Value) -> Result<()> {
        Ok(())
    }
}

fn earlier(a: Option<First>, b: Option<First>) -> Option<First> {
    a.into_iter().chain(b).min_by_key(|first| first.index)
}

/// Elements as f32; zeros where they are no floats.
fn floats(dtype: Dtype, stored: &[u8]) -> [f32; CHUNK] {
    let (mut words, mut out) = ([0u32; 2 * CHUNK], [0.0; CHUNK]);
    if dtype.is_float() {
        // Aligned as the conversion takes them.
        cast_slice_mut::<u32, u8>(&mut words)[..stored.len()].copy_from_slice(stored);
        widen(dtype, cast_slice(&words), 0, &mut out[..stored.len() / dtype.size()]);
    }
    out
}

fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// One rounding: the distance of neighbouring numbers as a part of their size, and that of the smallest.
fn rounding(dtype: Dtype) -> (f64, f64) {
    let (mantissa, least) = match dtype {
        Dtype::BF16 => (7, -133),
        Dtype::F16 => (10, -24),
        Dtype::F8E4M3 => (3, -9),
        Dtype::F8E5M2 => (2, -16),
        // What is computed is f32, whatever it is stored as.
        Dtype::F32 | Dtype::F64 | Dtype::Other { .. } => (23, -149),
    };
    (f64::powi(2.0, -mantissa), f64::powi(2.0, least))
}
