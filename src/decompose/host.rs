//! Polar factors and truncated decompositions on the host, through the Gram matrix of the smaller side in f64.
//!
//! With X = UΣVᵀ, the matrix G = XXᵀ = UΣ²Uᵀ has the smaller side of X and, in f64, tells singular values down to
//! 1e-8·σ1 from zero: as far as an f32 decomposition of X does. So a cut at [`cut`] is sharp.

use rayon::prelude::*;

use super::coefficients::{Quintic, Rational, polynomials};
use super::matrix::{Matrix, unstructured};
use crate::error::Result;
use crate::linalg::{self, Cholesky, Real};

/// Singular vectors, row by row, and their values in descending order.
#[derive(Clone, Debug)]
pub struct Singular {
    /// `[count, rows]`.
    pub left: Matrix,
    /// `[count]`.
    pub values: Vec<f64>,
    /// `[count, cols]`.
    pub right: Matrix,
}

/// Side below which an eigen-decomposition is the quickest.
const SMALL: usize = 192;

/// Distance from 1 at which singular values of a polar factor are as good as 1.
const DONE: f64 = 1e-6;

/// Most poles of a rational function.
const POLES: usize = 8;

/// Condition below which a Gram matrix in f32 is good enough.
const EASY: f64 = 12.0;

/// Shift, as a part of σ1², above which a shifted Gram matrix can be inverted in f32.
const FAR: f64 = 0.03;

/// The part of σ1 below which a singular value of a matrix of these sides counts as zero: well above what rounding its
/// elements to f32 leaves of a zero (about 2⁻²³), and far below what random matrices have (1/max(rows, cols)).
pub fn cut(rows: usize, cols: usize) -> f64 {
    (rows.max(cols) as f64).sqrt().max(16.0) * f64::from(f32::EPSILON)
}

/// P = UVᵀ over all singular values above [`cut`] · σ1; zero for a zero matrix. `x` is finite and scaled to about 1.
pub fn polar(x: &Matrix) -> Result<Matrix> {
    let (short, turned) = x.short();
    let quick = if short.rows < SMALL { None } else { by_rationals(&short) };
    let found = match quick {
        Some(found) => found,
        None => by_eigen(&short)?,
    };
    Ok(if turned { found.transposed() } else { found })
}

/// P = Σ u (uᵀX) / σ.
fn by_eigen(x: &Matrix) -> Result<Matrix> {
    let (n, cols) = (x.rows, x.cols);
    let wide = x.wide();
    let linalg::Eigen { values, mut vectors } = linalg::eigen(&linalg::gram(&wide, n, cols), n)?;
    let least = values.first().map_or(0.0, |first| cut(n, cols).powi(2) * first.max(0.0));
    let live = values.iter().take_while(|value| **value > least).count();
    vectors.truncate(live * n);
    let scaled = vectors.par_chunks(n).zip(&values).flat_map_iter(|(v, s)| v.iter().map(move |v| v / s.sqrt()));
    let scaled: Vec<f64> = scaled.collect();
    let turned = transposed(&vectors, live, n);
    let out = if 2 * live < n {
        linalg::product(&turned, &linalg::product(&scaled, &wide, (live, n, cols)), (n, live, cols))
    } else {
        linalg::product(&linalg::product(&turned, &scaled, (n, live, n)), &wide, (n, n, cols))
    };
    Ok(Matrix { rows: n, cols, values: narrow(&out) })
}

/// P = h(G)·X with h(G) near G^(−1/2): a rational function, whose poles are matrices to invert, and polynomials after it
/// where few poles do not suffice. `None` where the matrix is too near a singular one, or something else is amiss.
fn by_rationals(x: &Matrix) -> Option<Matrix> {
    if x.cols >= 2 * x.rows {
        let gram: Vec<f64> = linalg::gram_f32(&x.values, x.rows, x.cols).iter().map(|x| f64::from(*x)).collect();
        let (most, least) = bounds(&gram, x.rows)?;
        if least * EASY * EASY > most {
            return rational(x, &gram, most, least, 0.0);
        }
    }
    let gram = linalg::gram(&x.wide(), x.rows, x.cols);
    let (most, least) = bounds(&gram, x.rows)?;
    (least.sqrt() > cut(x.rows, x.cols) * most.sqrt()).then(|| rational(x, &gram, most, least, FAR)).flatten()
}

/// The factor by poles that are inverted in f32 where their shift is `far` or more.
fn rational(x: &Matrix, gram: &[f64], most: f64, least: f64, far: f64) -> Option<Matrix> {
    let n = x.rows;
    // Both bounds are on the inner side of the truth, and near it.
    let (most, least) = (1.1 * most, 0.5 * least);
    let low = (least / most).sqrt();
    let quintics = |own: &Rational| polynomials(own.range.0, own.range.1, DONE);
    // In units of n³ operations in f64: a polynomial takes 2·n³ + 2·n²·cols in f32.
    let price = |own: &Rational| {
        let poles: f64 = own.poles.iter().map(|(_, shift)| if *shift >= far { 0.5 } else { 1.0 }).sum();
        poles + quintics(own).len() as f64 * (1.0 + x.cols as f64 / n as f64) * 0.75
    };
    let candidates = (1..=POLES).map(|count| Rational::best(low, count));
    let own = candidates.min_by(|a, b| price(a).total_cmp(&price(b)))?;
    let mut sum = vec![0.0; n * n];
    (0..n).for_each(|i| sum[i * n + i] = 1.0);
    // A few at a time, whatever the number of threads; the slow ones first.
    for poles in own.poles.chunks(4) {
        let invert = |(_, shift): &(f64, f64)| {
            Some(if *shift >= far {
                Inverse::Narrow(Cholesky::new(gram, n, shift * most)?.inverse())
            } else {
                Inverse::Wide(Cholesky::new(gram, n, shift * most)?.inverse())
            })
        };
        let inverses: Option<Vec<_>> = poles.par_iter().with_max_len(1).map(invert).collect();
        let inverses = inverses?;
        sum.par_chunks_mut(n).enumerate().for_each(|(j, column)| {
            for ((weight, _), inverse) in poles.iter().zip(&inverses) {
                match inverse {
                    Inverse::Wide(inverse) => add(weight * most, inverse.col_as_slice(j), column, j),
                    Inverse::Narrow(inverse) => add(weight * most, inverse.col_as_slice(j), column, j),
                }
            }
        });
    }
    let scale = own.scale / most.sqrt();
    sum.iter_mut().for_each(|x| *x *= scale);
    let mut out = if far == 0.0 {
        let mut root = Matrix { rows: n, cols: n, values: narrow(&sum) };
        linalg::mirror(&mut root.values, n);
        root.times(x)
    } else {
        // The root is as large as the smallest singular value is small: what f32 would lose of it shows.
        linalg::mirror(&mut sum, n);
        Matrix { rows: n, cols: x.cols, values: narrow(&linalg::product(&sum, &x.wide(), (n, n, x.cols))) }
    };
    for step in quintics(&own) {
        apply(&mut out, step);
    }
    is_orthogonal(&out).then_some(out)
}

/// The lower half of an inverse.
enum Inverse {
    Wide(faer::Mat<f64>),
    Narrow(faer::Mat<f32>),
}

/// out += weight · x, from element `from` on.
fn add<T: Real>(weight: f64, x: &[T], out: &mut [f64], from: usize) {
    out[from..].iter_mut().zip(&x[from..]).for_each(|(out, x)| *out += weight * x.get());
}

/// X ← (aI + bA + cA²)·X with A = XXᵀ.
fn apply(x: &mut Matrix, Quintic { a, b, c }: Quintic) {
    let n = x.rows;
    let first = linalg::gram_f32(&x.values, n, x.cols);
    let mut second = linalg::gram_f32(&first, n, n);
    second.par_iter_mut().zip(&first).with_min_len(1 << 16).for_each(|(y, x)| *y = b as f32 * x + c as f32 * *y);
    let steps = Matrix { rows: n, cols: n, values: second };
    let mut out = x.clone();
    out.values.par_iter_mut().with_min_len(1 << 16).for_each(|x| *x *= a as f32);
    steps.times_onto(x, &mut out);
    *x = out;
}

/// The largest and the smallest eigenvalue of a symmetric matrix, about, by power iterations; `None` if not positive
/// definite.
pub fn bounds(gram: &[f64], n: usize) -> Option<(f64, f64)> {
    let normalize = |x: &mut [f64]| {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter_mut().for_each(|x| *x /= norm);
        norm
    };
    let mut x = unstructured(1, n);
    let mut most = normalize(&mut x);
    for _ in 0..12 {
        x = gram.par_chunks(n).with_min_len(32).map(|row| row.iter().zip(&x).map(|(g, x)| g * x).sum()).collect();
        most = normalize(&mut x);
    }
    let factor = Cholesky::<f64>::new(gram, n, 0.0)?;
    let mut x = unstructured(1, n);
    let mut least = normalize(&mut x);
    for _ in 0..6 {
        factor.solve(&mut x);
        least = 1.0 / normalize(&mut x);
    }
    (most.is_finite() && least > 0.0).then_some((most, least))
}

/// True if the rows are orthonormal, as seen by one random combination of them.
fn is_orthogonal(x: &Matrix) -> bool {
    let weights = unstructured(1, x.rows);
    let mut sum = vec![0.0; x.cols];
    for (row, weight) in x.values.chunks(x.cols).zip(&weights) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * f64::from(*x));
    }
    let square = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
    (square(&sum) / square(&weights) - 1.0).abs() < 1e-4
}

/// The `count` largest singular values above `floor` and [`cut`] · σ1, and their vectors.
pub fn truncated(x: &Matrix, count: usize, floor: f64) -> Result<Singular> {
    let (short, turned) = x.short();
    let (n, cols) = (short.rows, short.cols);
    let wide = short.wide();
    let linalg::Eigen { values, vectors } = linalg::eigen(&linalg::gram(&wide, n, cols), n)?;
    Ok(singular(&wide, (n, cols), &values, vectors, (count, floor), turned))
}

/// Singular vectors of `x` (`[n, cols]`) from those of one side, with eigenvalues of their Gram matrix.
pub fn singular(
    x: &[f64],
    (n, cols): (usize, usize),
    values: &[f64],
    mut vectors: Vec<f64>,
    (count, floor): (usize, f64),
    turned: bool,
) -> Singular {
    let first = values.first().map_or(0.0, |first| first.max(0.0).sqrt());
    let least = floor.max(cut(n, cols) * first);
    let live = values.iter().take(count).take_while(|value| **value > least * least).count();
    vectors.truncate(live * n);
    let values: Vec<f64> = values[..live].iter().map(|value| value.sqrt()).collect();
    let mut other = linalg::product(&vectors, x, (live, n, cols));
    other.par_chunks_mut(cols).zip(&values).for_each(|(row, s)| row.iter_mut().for_each(|x| *x /= s));
    let own = Matrix { rows: live, cols: n, values: narrow(&vectors) };
    let other = Matrix { rows: live, cols, values: narrow(&other) };
    let (left, right) = if turned { (other, own) } else { (own, other) };
    Singular { left, values, right }
}

/// The transpose of `x` (`[rows, cols]`).
pub fn transposed(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; rows * cols];
    out.par_chunks_mut(rows.max(1)).with_min_len(8).enumerate().for_each(|(j, column)| {
        column.iter_mut().enumerate().for_each(|(i, out)| *out = x[i * cols + j]);
    });
    out
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.par_iter().with_min_len(1 << 16).map(|x| *x as f32).collect()
}
