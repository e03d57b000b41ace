//! Largest singular values of all task vectors of a tensor at once, by power iteration on the device.
//!
//! The device computes AᵀA·v; the host keeps the directions seen so far orthogonal (Lanczos), so that some tens of
//! iterations give what plain power iteration needs thousands for where the leading singular values lie close together.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::error::Result;
use crate::kernels::{matvec, matvec_t};
use crate::methods::merged::Merged;
use crate::recording::Size;
use crate::stream::Stream;

/// Most directions that are kept.
pub const MOST: usize = 64;

/// The search ends when the largest eigenvalue of AᵀA grows by less than this, relative to itself, twice in a row.
const STALL: f64 = 1e-8;

/// σ₁ of every expert's task vector and, last, of the merged one. Zero for a zero matrix.
pub fn largest_singular_values(stream: &Stream<'_>, merged: &Merged) -> Result<Vec<f64>> {
    let mut planes: Vec<Lanczos> =
        merged.totals(stream)?.iter().map(|plane| Lanczos::new(plane.square, stream)).collect();
    let cols = stream.tensor.row_len as usize;
    while planes.iter().any(|plane| !plane.done) {
        let (mut list, stack) = merged.record(stream.tensor);
        let directions = planes.iter().flat_map(|plane| plane.direction()).collect::<Vec<_>>();
        let v = list.floats("v", &directions);
        let y = list.scratch("y", Size::Rows(list.planes));
        let w = list.result("w", Size::Groups(list.planes));
        matvec::record(&mut list, stack.tau, v, y);
        matvec_t::record(&mut list, stack.tau, y, w);
        let sums: Vec<Vec<AtomicI64>> = planes.iter().map(|_| (0..cols).map(|_| AtomicI64::new(0)).collect()).collect();
        stream.map(&list, 0..stream.tensor.blocks(), |_, results| {
            for (at, part) in results.floats(0).chunks(cols).enumerate() {
                let plane = at % planes.len();
                planes[plane].add(part, &sums[plane]);
            }
            Ok(())
        })?;
        for (plane, sums) in planes.iter_mut().zip(sums) {
            plane.advance(sums);
        }
    }
    Ok(planes.iter().map(|plane| plane.eigenvalue.sqrt()).collect())
}

/// The search for one matrix.
struct Lanczos {
    /// Orthonormal directions, the newest last.
    basis: Vec<Vec<f64>>,
    /// Diagonal and off-diagonal of AᵀA in that basis.
    diagonal: Vec<f64>,
    beside: Vec<f64>,
    eigenvalue: f64,
    stalled: u32,
    done: bool,
    /// Partial sums are added as multiples of a fixed quantum, so that their order does not matter.
    quantum: f64,
    most: usize,
}

impl Lanczos {
    fn new(square: f64, stream: &Stream<'_>) -> Self {
        let cols = stream.tensor.row_len as usize;
        let rows = (stream.tensor.elements / cols as u64) as usize;
        // A fixed direction without symmetry: a matrix orthogonal to it is not to be met.
        let mut start: Vec<f64> = (0..cols).map(|c| 1.0 + 0.5 * ((c + 1) as f64 * 0.618_033_988_75).fract()).collect();
        normalize(&mut start);
        Self {
            basis: vec![start],
            diagonal: Vec::new(),
            beside: Vec::new(),
            // What is no number is handed on, so that nothing is calibrated by it.
            eigenvalue: if square.is_finite() { 0.0 } else { f64::NAN },
            stalled: 0,
            done: !(square > 0.0 && square.is_finite()),
            // No column sum exceeds ‖A‖².
            quantum: square / (1u64 << 60) as f64,
            // The start has a part that A does not see: one direction more than the rank.
            most: MOST.min(cols).min(rows + 1),
        }
    }

    fn direction(&self) -> impl Iterator<Item = f32> + '_ {
        self.basis[self.basis.len() - 1].iter().map(|&x| x as f32)
    }

    fn add(&self, part: &[f32], sums: &[AtomicI64]) {
        if !self.done {
            for (sum, &x) in sums.iter().zip(part) {
                sum.fetch_add((f64::from(x) / self.quantum).round() as i64, Ordering::Relaxed);
            }
        }
    }

    /// Takes AᵀA times the newest direction.
    fn advance(&mut self, sums: Vec<AtomicI64>) {
        if self.done {
            return;
        }
        let mut w: Vec<f64> = sums.into_iter().map(|sum| sum.into_inner() as f64 * self.quantum).collect();
        let newest = &self.basis[self.basis.len() - 1];
        self.diagonal.push(dot(&w, newest));
        // Twice is enough for orthogonality to rounding (Parlett, The Symmetric Eigenvalue Problem, §6.9).
        for _ in 0..2 {
            for direction in &self.basis {
                let along = dot(&w, direction);
                w.iter_mut().zip(direction).for_each(|(w, d)| *w -= along * d);
            }
        }
        let rest = normalize(&mut w);
        let eigenvalue = largest_eigenvalue(&self.diagonal, &self.beside).max(0.0);
        let grown = eigenvalue - self.eigenvalue;
        self.stalled = if grown <= STALL * eigenvalue { self.stalled + 1 } else { 0 };
        self.eigenvalue = eigenvalue;
        // What is left over is rounding when it is this small beside the leading direction.
        self.done = self.stalled == 2 || self.diagonal.len() == self.most || rest <= 1e-7 * eigenvalue;
        self.beside.push(rest);
        self.basis.push(w);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Scales to unit length and returns the length it had.
fn normalize(x: &mut [f64]) -> f64 {
    let length = dot(x, x).sqrt();
    if length > 0.0 {
        x.iter_mut().for_each(|x| *x /= length);
    }
    length
}

/// The largest eigenvalue of a symmetric tridiagonal matrix, by bisection on the count of eigenvalues below a point.
fn largest_eigenvalue(diagonal: &[f64], beside: &[f64]) -> f64 {
    let off = |i: usize| beside.get(i).copied().unwrap_or(0.0);
    let radius = |i: usize| if i == 0 { 0.0 } else { off(i - 1) } + if i + 1 < diagonal.len() { off(i) } else { 0.0 };
    let bound = |sign: f64| diagonal.iter().enumerate().map(move |(i, d)| d + sign * radius(i));
    let mut low = bound(-1.0).fold(f64::INFINITY, f64::min);
    let mut high = bound(1.0).fold(f64::NEG_INFINITY, f64::max);
    let all_below = |x: f64| {
        let mut pivot = 1.0;
        diagonal.iter().enumerate().all(|(i, d)| {
            let coupling = if i == 0 { 0.0 } else { off(i - 1) * off(i - 1) / pivot };
            pivot = d - x - coupling;
            pivot < 0.0
        })
    };
    while high - low > 1e-14 * high.abs().max(low.abs()) {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if all_below(middle) { high = middle } else { low = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::largest_eigenvalue;

    #[test]
    fn eigenvalue_of_the_second_difference_matrix() {
        // Known: 2 + 2 cos(π / (n + 1)).
        for n in [1usize, 2, 7, 40] {
            let found = largest_eigenvalue(&vec![2.0; n], &vec![1.0; n - 1]);
            let known = 2.0 + 2.0 * (std::f64::consts::PI / (n as f64 + 1.0)).cos();
            assert!((found - known).abs() < 1e-12, "{n}: {found} {known}");
        }
    }
}
