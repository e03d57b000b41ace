//! A matrix as a product of two thin ones: the best of a rank, by singular values.
//!
//! Small matrices are decomposed whole. Of a large one only the range matters: a random sketch finds it, and a few rounds
//! of subspace iteration sharpen it (Halko, Martinsson, Tropp, arXiv 0909.4061). For a matrix whose rank is no more than
//! that of the sketch, which merged adapters mostly are, the sketch alone is exact.

use rayon::prelude::*;

use super::adapter::rounded;
use crate::checkpoint::Dtype;
use crate::error::Result;
use crate::kernels::vector::{Matrix, product};
use crate::linalg::svd;

/// A matrix with fewer rows or columns is decomposed whole.
const SMALL: usize = 192;
/// What is left out, in parts of the whole, counts as rounding.
const ROUNDING: f64 = 1e-6;
/// Rounds of subspace iteration where the range is not exact.
const ROUNDS: usize = 4;
/// Rows of the residual at a time.
const ROWS: usize = 256;

/// `x ≈ up · down`.
#[derive(Clone, Debug)]
pub struct Factored {
    /// r.
    pub rank: usize,
    /// B, `[rows, r]`, and how it is stored.
    pub up: Vec<u8>,
    /// A, `[r, cols]`.
    pub down: Vec<u8>,
    /// ‖x‖.
    pub norm: f64,
    /// ‖x − up · down‖, factors as they are stored.
    pub residual: f64,
}

/// The best factors of `x` (`[rows, cols]`) of at most rank `most`, as `dtype`. No rank is spent on rounding errors.
///
/// # Errors
/// Values that are not finite.
pub fn factor(x: &[f32], (rows, cols): (usize, usize), most: usize, dtype: Dtype) -> Result<Factored> {
    let norm = square(x).sqrt();
    let most = most.min(rows).min(cols);
    if norm == 0.0 || most == 0 {
        return Ok(Factored { rank: 0, up: Vec::new(), down: Vec::new(), norm, residual: norm });
    }
    let sketch = most + (most / 2).max(16);
    let least = rows.min(cols);
    let (u, s, vt) = if least <= SMALL || 2 * sketch >= least {
        let parts = svd(x, rows, cols)?;
        (parts.u, parts.s, parts.vt)
    } else {
        let basis = range(x, rows, cols, sketch)?;
        let mut small = vec![0.0; sketch * cols]; // basisᵀ · x
        let tall = Matrix { values: &basis, down: 1, right: sketch };
        product((sketch, cols, rows), tall, plain(x, cols), (&mut small, cols, false), true);
        let parts = svd(&small, sketch, cols)?;
        let mut u = vec![0.0; rows * sketch];
        product((rows, sketch, sketch), plain(&basis, sketch), plain(&parts.u, sketch), (&mut u, sketch, false), true);
        (u, parts.s, parts.vt)
    };
    let all = s.len();
    let bound = (ROUNDING * norm).powi(2);
    let mut rank = most.min(all);
    let mut tail: f64 = s[rank..].iter().map(|s| f64::from(*s).powi(2)).sum();
    while rank > 1 && tail + f64::from(s[rank - 1]).powi(2) <= bound {
        rank -= 1;
        tail += f64::from(s[rank]).powi(2);
    }
    let root: Vec<f32> = s[..rank].iter().map(|s| s.max(0.0).sqrt()).collect();
    let mut up: Vec<f32> = (0..rows * rank).map(|i| u[i / rank * all + i % rank] * root[i % rank]).collect();
    let mut down: Vec<f32> = (0..rank * cols).map(|i| vt[i] * root[i / cols]).collect();
    let (stored_up, stored_down) = (rounded(dtype, &mut up), rounded(dtype, &mut down));
    let residual = |(i, piece): (usize, &[f32])| {
        let (mut rest, tall) = (vec![0.0; piece.len()], piece.len() / cols);
        let part = &up[i * ROWS * rank..][..tall * rank];
        product((tall, cols, rank), plain(part, rank), plain(&down, cols), (&mut rest, cols, false), false);
        rest.iter_mut().zip(piece).for_each(|(rest, x)| *rest -= x);
        square(&rest)
    };
    let residuals: Vec<f64> = x.par_chunks(ROWS * cols).enumerate().map(residual).collect();
    Ok(Factored { rank, up: stored_up, down: stored_down, norm, residual: residuals.iter().sum::<f64>().sqrt() })
}

/// An orthonormal basis, `[rows, count]`, of the part of the range of `x` that matters most.
fn range(x: &[f32], rows: usize, cols: usize, count: usize) -> Result<Vec<f32>> {
    let mut basis = vec![0.0; rows * count];
    let random: Vec<f32> = noise().take(cols * count).collect();
    product((rows, count, cols), plain(x, cols), plain(&random, count), (&mut basis, count, false), true);
    basis = svd(&basis, rows, count)?.u;
    for _ in 0..ROUNDS {
        let mut other = vec![0.0; cols * count]; // xᵀ · basis
        let turned = Matrix { values: x, down: 1, right: cols };
        product((cols, count, rows), turned, plain(&basis, count), (&mut other, count, false), true);
        // Where x has no more directions than that, nothing is left to sharpen.
        let caught = square(&other);
        let exact = caught >= (1.0 - 1e-9) * square(x);
        other = svd(&other, cols, count)?.u;
        product((rows, count, cols), plain(x, cols), plain(&other, count), (&mut basis, count, false), true);
        basis = svd(&basis, rows, count)?.u;
        if exact {
            break;
        }
    }
    Ok(basis)
}

fn plain(values: &[f32], cols: usize) -> Matrix<'_> {
    Matrix { values, down: cols, right: 1 }
}

fn square(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum()
}

/// The same numbers in −1..1 every time (splitmix64).
fn noise() -> impl Iterator<Item = f32> {
    let mut state = 0u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// The factors of `xᵀ` from those of `x`, `[rows, cols]`.
pub fn turned(mut factored: Factored, dtype: Dtype, (rows, cols): (usize, usize)) -> Factored {
    let size = dtype.size();
    let turn = |bytes: &[u8], rows: usize, cols: usize| -> Vec<u8> {
        let places = (0..rows * cols).map(|i| i % rows * cols + i / rows);
        places.flat_map(|place| bytes[place * size..][..size].iter().copied()).collect()
    };
    let rank = factored.rank;
    let (up, down) = (turn(&factored.down, rank, cols), turn(&factored.up, rows, rank));
    (factored.up, factored.down) = (up, down);
    factored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn low(rows: usize, cols: usize, rank: usize) -> Vec<f32> {
        let (left, right): (Vec<f32>, Vec<f32>) =
            (noise().take(rows * rank).collect(), noise().skip(99).take(rank * cols).collect());
        let mut x = vec![0.0; rows * cols];
        product((rows, cols, rank), plain(&left, rank), plain(&right, cols), (&mut x, cols, false), false);
        x
    }

    #[test]
    fn what_has_the_rank_comes_back() {
        for (rows, cols) in [(30, 20), (20, 30), (300, 500), (500, 300)] {
            let x = low(rows, cols, 7);
            for most in [7, 12] {
                let factored = factor(&x, (rows, cols), most, Dtype::F32).unwrap();
                assert_eq!(factored.rank, 7, "{rows} {cols} {most}");
                assert!(factored.residual < 2e-6 * factored.norm, "{}", factored.residual / factored.norm);
            }
            let less = factor(&x, (rows, cols), 6, Dtype::F32).unwrap();
            let all = svd(&x, rows, cols).unwrap().s;
            assert!((less.residual / f64::from(all[6]) - 1.0).abs() < 1e-3, "{}", less.residual / f64::from(all[6]));
        }
    }

    #[test]
    fn a_sketch_is_nearly_the_best() {
        let x: Vec<f32> = noise().take(400 * 300).collect();
        let factored = factor(&x, (400, 300), 20, Dtype::F32).unwrap();
        let all = svd(&x, 400, 300).unwrap().s;
        let best = all[20..].iter().map(|s| f64::from(*s).powi(2)).sum::<f64>().sqrt();
        assert!(factored.residual < 1.003 * best, "{}", factored.residual / best);
    }

    #[test]
    fn zero_has_no_rank() {
        assert_eq!(factor(&[0.0; 12], (3, 4), 2, Dtype::F32).unwrap().rank, 0);
        assert!(factor(&[f32::NAN; 12], (3, 4), 2, Dtype::F32).is_err());
    }
}
