//! Decompositions of whole matrices on the host, by `faer`, in f64 where rounding would show.
//!
//! A matrix is a slice, row by row. What `faer` shares out among threads depends on their number in its last bits, so
//! every call into it runs on one thread, and work is shared out here, in pieces of a fixed size.

use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::matmul::matmul;
use faer::linalg::svd::{ComputeSvdVectors, svd_scratch};
use faer::linalg::{cholesky::llt, evd};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// A thin singular value decomposition, `x = u · diag(s) · vt`, singular values in descending order.
#[derive(Clone, Debug, PartialEq)]
pub struct Svd {
    /// `[rows, rank]`, row by row; columns are orthonormal.
    pub u: Vec<f32>,
    /// `[rank]`.
    pub s: Vec<f32>,
    /// `[rank, cols]`, row by row; rows are orthonormal.
    pub vt: Vec<f32>,
}

/// The decomposition of a symmetric matrix, eigenvalues in descending order.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// `[n]`.
    pub values: Vec<f64>,
    /// `[n, n]`: row i is the eigenvector of value i.
    pub vectors: Vec<f64>,
}

/// Rows of a piece of a product.
const PIECE: usize = 128;

fn failed() -> Error {
    Error::input("a decomposition failed: the matrix holds NaN or infinite numbers")
}

/// The decomposition of `x` (`[rows, cols]`), with all min(rows, cols) singular values; computed in f64 and rounded once,
/// so that the product of its parts is the matrix again.
///
/// # Errors
/// Values that are not finite.
pub fn svd(x: &[f32], rows: usize, cols: usize) -> Result<Svd> {
    if !x.iter().all(|x| x.is_finite()) {
        return Err(failed());
    }
    let x = Mat::from_fn(rows, cols, |i, j| f64::from(x[i * cols + j]));
    let (count, par, thin) = (rows.min(cols), Par::Seq, ComputeSvdVectors::Thin);
    let (mut u, mut s, mut v) = (Mat::zeros(rows, count), vec![0.0; count], Mat::zeros(cols, count));
    let mut memory = MemBuffer::new(svd_scratch::<f64>(rows, cols, thin, thin, par, Default::default()));
    let (out, stack) = ((Some(u.as_mut()), Some(v.as_mut())), MemStack::new(&mut memory));
    let diagonal = DiagMut::from_slice_mut(&mut s);
    faer::linalg::svd::svd(x.as_ref(), diagonal, out.0, out.1, par, stack, Default::default()).map_err(|_| failed())?;
    Ok(Svd {
        u: (0..rows * count).map(|i| u[(i / count, i % count)] as f32).collect(),
        s: s.iter().map(|s| *s as f32).collect(),
        vt: (0..count * cols).map(|i| v[(i % cols, i / cols)] as f32).collect(),
    })
}

/// x·xᵀ (`[rows, rows]`) of `x` (`[rows, cols]`): half of it is computed, and mirrored.
pub fn gram(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    gram_of(x, rows, cols)
}

/// [`gram`] in f32.
pub fn gram_f32(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    gram_of(x, rows, cols)
}

fn gram_of<T: Real>(x: &[T], rows: usize, cols: usize) -> Vec<T> {
    let mut out = vec![T::of(0.0); rows * rows];
    let x: MatRef<'_, T> = MatRef::from_row_major_slice(x, rows, cols);
    out.par_chunks_mut((PIECE * rows).max(1)).enumerate().for_each(|(i, out)| {
        let (first, height) = (i * PIECE, out.len() / rows);
        let out = MatMut::from_row_major_slice_mut(out, height, rows).subcols_mut(0, first + height);
        let (left, right) = (x.subrows(first, height), x.subrows(0, first + height));
        matmul(out, Accum::Replace, left, right.transpose(), T::of(1.0), Par::Seq);
    });
    mirror_of(&mut out, rows, true);
    out
}

/// Copies the upper half of a square to the lower.
pub fn mirror<T: Copy>(x: &mut [T], n: usize) {
    mirror_of(x, n, false);
}

fn mirror_of<T: Copy>(x: &mut [T], n: usize, up: bool) {
    // In tiles, so that what is read and what is written both stay in cache.
    const SIDE: usize = 32;
    for (top, left) in (0..n).step_by(SIDE).flat_map(|top| (0..=top).step_by(SIDE).map(move |left| (top, left))) {
        for i in top..(top + SIDE).min(n) {
            for j in left..(left + SIDE).min(i) {
                let (lower, upper) = (i * n + j, j * n + i);
                let (from, to) = if up { (lower, upper) } else { (upper, lower) };
                x[to] = x[from];
            }
        }
    }
}

/// x·y of `x` (`[m, k]`) and `y` (`[k, n]`).
pub fn product(x: &[f64], y: &[f64], (m, k, n): (usize, usize, usize)) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    let y: MatRef<'_, f64> = MatRef::from_row_major_slice(y, k, n);
    let pieces = out.par_chunks_mut((PIECE * n).max(1)).zip(x.par_chunks((PIECE * k).max(1)));
    pieces.for_each(|(out, x)| {
        let height = out.len() / n;
        let x = MatRef::from_row_major_slice(x, height, k);
        matmul(MatMut::from_row_major_slice_mut(out, height, n), Accum::Replace, x, y, 1.0, Par::Seq);
    });
    out
}

/// The decomposition of `x` (`[n, n]`), of which the lower half is read.
///
/// # Errors
/// Values that are not finite.
pub fn eigen(x: &[f64], n: usize) -> Result<Eigen> {
    if !x.iter().all(|x| x.is_finite()) {
        return Err(failed());
    }
    let x: MatRef<'_, f64> = MatRef::from_column_major_slice(x, n, n); // symmetric
    let mut vectors = Mat::<f64>::zeros(n, n);
    let mut values = vec![0.0; n];
    let needed = evd::self_adjoint_evd_scratch::<f64>(n, evd::ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(needed);
    let stack = MemStack::new(&mut memory);
    let diagonal = DiagMut::from_slice_mut(&mut values);
    evd::self_adjoint_evd(x, diagonal, Some(vectors.as_mut()), Par::Seq, stack, Default::default())
        .map_err(|_| failed())?;
    values.reverse();
    let vectors = vectors.col_iter().rev().flat_map(|vector| vector.iter().copied()).collect();
    Ok(Eigen { values, vectors })
}

/// A number that `faer` computes with.
pub trait Real: faer::traits::RealField + Copy + Send + Sync {
    /// The nearest to `x`.
    fn of(x: f64) -> Self;
    /// As f64.
    fn get(self) -> f64;
}

impl Real for f32 {
    fn of(x: f64) -> Self {
        x as Self
    }
    fn get(self) -> f64 {
        self.into()
    }
}

impl Real for f64 {
    fn of(x: f64) -> Self {
        x
    }
    fn get(self) -> f64 {
        self
    }
}

/// L of x + shift·I = L·Lᵀ, for a symmetric `x` (`[n, n]`).
pub struct Cholesky<T>(Mat<T>);

impl<T: Real> Cholesky<T> {
    /// `None` where the matrix is not positive definite, as far as rounding lets one see.
    pub fn new(x: &[f64], n: usize, shift: f64) -> Option<Self> {
        let mut factor = Mat::from_fn(n, n, |i, j| T::of(if i == j { x[j * n + i] + shift } else { x[j * n + i] }));
        let needed = llt::factor::cholesky_in_place_scratch::<T>(n, Par::Seq, Default::default());
        let mut memory = MemBuffer::new(needed);
        let stack = MemStack::new(&mut memory);
        let (none, params) = (Default::default(), Default::default());
        llt::factor::cholesky_in_place(factor.as_mut(), none, Par::Seq, stack, params).ok()?;
        Some(Self(factor))
    }

    /// The inverse of what was decomposed: its lower half, column by column.
    pub fn inverse(&self) -> Mat<T> {
        let n = self.0.nrows();
        let mut out = Mat::zeros(n, n);
        let mut memory = MemBuffer::new(llt::inverse::inverse_scratch::<T>(n, Par::Seq));
        llt::inverse::inverse(out.as_mut(), self.0.as_ref(), Par::Seq, MemStack::new(&mut memory));
        out
    }

    /// L⁻¹·x for `x` (`[n, cols]`), in place.
    pub fn divide(&self, x: &mut [T], cols: usize) {
        let x = MatMut::from_row_major_slice_mut(x, self.0.nrows(), cols);
        faer::linalg::triangular_solve::solve_lower_triangular_in_place(self.0.as_ref(), x, Par::Seq);
    }

    /// Solves for one right hand side, in place.
    pub fn solve(&self, x: &mut [f64]) {
        let n = self.0.nrows();
        for j in 0..n {
            let column = self.0.col(j);
            x[j] /= column[j].get();
            let own = x[j];
            for i in j + 1..n {
                x[i] -= column[i].get() * own;
            }
        }
        for j in (0..n).rev() {
            let column = self.0.col(j);
            let sum: f64 = (j + 1..n).map(|i| column[i].get() * x[i]).sum();
            x[j] = (x[j] - sum) / column[j].get();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_give_the_matrix_back() {
        let (rows, cols) = (7, 4);
        let x: Vec<f32> = (0..rows * cols).map(|i| ((i * 37 % 19) as f32).sin()).collect();
        for (rows, cols) in [(rows, cols), (cols, rows)] {
            let Svd { u, s, vt } = svd(&x, rows, cols).unwrap();
            let rank = s.len();
            assert!(s.windows(2).all(|pair| pair[0] >= pair[1]));
            for i in 0..rows {
                for j in 0..cols {
                    let sum: f32 = (0..rank).map(|k| u[i * rank + k] * s[k] * vt[k * cols + j]).sum();
                    assert!((sum - x[i * cols + j]).abs() < 1e-6);
                }
            }
        }
        assert!(svd(&[f32::NAN; 4], 2, 2).is_err());
    }

    #[test]
    fn symmetric_matrices() {
        let (rows, cols) = (150, 170);
        let x: Vec<f64> = (0..rows * cols).map(|i| ((i * 7919 % 1009) as f64).sin()).collect();
        let g = gram(&x, rows, cols);
        let Eigen { values, vectors } = eigen(&g, rows).unwrap();
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        let scaled: Vec<f64> =
            vectors.chunks(rows).zip(&values).flat_map(|(v, s)| v.iter().map(move |v| v * s)).collect();
        let turned: Vec<f64> = (0..rows * rows).map(|i| vectors[i % rows * rows + i / rows]).collect();
        let back = product(&turned, &scaled, (rows, rows, rows));
        let inverse = Cholesky::<f64>::new(&g, rows, 1.0).unwrap().inverse();
        let mut solved: Vec<f64> = (0..rows).map(|i| g[i] + if i == 0 { 1.0 } else { 0.0 }).collect();
        Cholesky::<f64>::new(&g, rows, 1.0).unwrap().solve(&mut solved);
        for i in 0..rows {
            let exact: f64 = (0..cols).map(|k| x[i * cols + k] * x[k]).sum();
            assert!((g[i * rows] - exact).abs() < 1e-9);
            assert!((solved[i] - if i == 0 { 1.0 } else { 0.0 }).abs() < 1e-9);
            for j in 0..rows {
                assert!((back[i * rows + j] - g[i * rows + j]).abs() < 1e-9);
            }
            let diagonal: f64 = (0..rows).map(|k| inverse[(i.max(k), i.min(k))] * g[i * rows + k]).sum();
            assert!((diagonal + inverse[(i, i)] - 1.0).abs() < 1e-9);
        }
        assert!(eigen(&[f64::NAN], 1).is_err());
        assert!(Cholesky::<f64>::new(&[-1.0], 1, 0.0).is_none());
    }
}
