//! Decompositions of whole matrices on the host, by `faer`, in f64 where rounding would show.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::svd::{ComputeSvdVectors, svd_scratch};
use faer::{Mat, MatRef, Par};

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

/// The decomposition of `x` (`[rows, cols]`, row by row), with all min(rows, cols) singular values.
///
/// # Errors
/// Values that are not finite.
pub fn svd(x: &[f32], rows: usize, cols: usize) -> Result<Svd> {
    let failed = || Error::input("a decomposition failed: the matrix holds NaN or infinite numbers");
    if !x.iter().all(|x| x.is_finite()) {
        return Err(failed());
    }
    let x: MatRef<'_, f32> = MatRef::from_row_major_slice(x, rows, cols);
    faer::set_global_parallelism(Par::rayon(0));
    let parts = x.thin_svd().map_err(|_| failed())?;
    Ok(Svd {
        u: row_major(parts.U()),
        s: parts.S().column_vector().iter().copied().collect(),
        vt: row_major(parts.V().transpose()),
    })
}

/// As [`svd`], computed in f64 throughout and rounded once: for parts whose product is to be the matrix again.
///
/// # Errors
/// Values that are not finite.
pub fn svd_fine(x: &[f32], rows: usize, cols: usize) -> Result<Svd> {
    let failed = || Error::input("a decomposition failed: the matrix holds NaN or infinite numbers");
    if !x.iter().all(|x| x.is_finite()) {
        return Err(failed());
    }
    let x = Mat::from_fn(rows, cols, |i, j| f64::from(x[i * cols + j]));
    // On one thread, so that the bits do not depend on how many there are.
    let (count, par, thin) = (rows.min(cols), Par::Seq, ComputeSvdVectors::Thin);
    let (mut u, mut s, mut v) = (Mat::zeros(rows, count), Diag::zeros(count), Mat::zeros(cols, count));
    let mut memory = MemBuffer::new(svd_scratch::<f64>(rows, cols, thin, thin, par, Default::default()));
    let stack = MemStack::new(&mut memory);
    let (u_out, v_out) = (Some(u.as_mut()), Some(v.as_mut()));
    faer::linalg::svd::svd(x.as_ref(), s.as_mut(), u_out, v_out, par, stack, Default::default())
        .map_err(|_| failed())?;
    let s = s.column_vector();
    Ok(Svd {
        u: (0..rows * count).map(|i| u[(i / count, i % count)] as f32).collect(),
        s: s.iter().map(|s| *s as f32).collect(),
        vt: (0..count * cols).map(|i| v[(i % cols, i / cols)] as f32).collect(),
    })
}

fn row_major(x: MatRef<'_, f32>) -> Vec<f32> {
    let x: Mat<f32> = x.transpose().to_owned();
    x.col_iter().flat_map(|col| col.iter().copied()).collect()
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
}
