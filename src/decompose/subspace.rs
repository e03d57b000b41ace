//! The largest singular values and their vectors by block power iterations: Q ← Q·X·Xᵀ on the device, orthonormalised and
//! turned to Ritz vectors on the host (Rayleigh–Ritz; Halko, Martinsson and Tropp, "Finding structure with randomness",
//! 2011). The last projection is done in f64, and accepted only if it solves the problem.

use super::device::Device;
use super::host::{Singular, cut, singular, transposed};
use super::matrix::{Matrix, unstructured};
use crate::error::Result;
use crate::linalg::{self, Cholesky, Eigen};

/// Most rounds, and those between looks at the progress.
const ROUNDS: usize = 40;
const LOOK: usize = 5;

/// ‖Xv − σu‖ / σ1 down to which products in f32 lead.
const RESIDUAL: f64 = 3e-6;

/// The same over the distance between the last value that is wanted and the next, about twice the angle to the true
/// space, at which the space is accepted; and the rounds in f64 that it may take.
const ANGLE: f64 = 4e-6;
const LAST: usize = 24;

/// True if so few of `rank` directions are wanted that iterating may pay.
pub fn is_for(rank: usize, count: usize) -> bool {
    rank > 64 && 4 * count <= rank
}

/// Directions that are iterated to get `count`.
fn block(rank: usize, count: usize) -> usize {
    (count + (count / 4).max(8)).min(rank)
}

/// Bytes on the device: the matrix, its transpose, and blocks.
pub fn bytes(rows: usize, cols: usize, count: usize) -> u64 {
    let (rank, long) = (rows.min(cols), rows.max(cols));
    4 * (2 * rows * cols + block(rank, count) * (2 * rank + long)) as u64
}

/// The `count` largest singular values of `x` (scaled to about 1) above `floor`; nothing where they do not stand out
/// enough for as many rounds as are worth it.
///
/// # Errors
/// What the device fails at.
pub fn truncated(device: &mut Device<'_>, x: &Matrix, count: usize, floor: f64) -> Result<Option<Singular>> {
    let (short, turned) = x.short();
    let (n, cols) = (short.rows, short.cols);
    let size = block(n, count);
    let (down, across) = (device.load(&short)?, device.load(&short.transposed())?);
    let (block, through) = (device.make(size, n)?, device.make(size, cols)?);
    let back = device.make(size, n)?;
    let Some(mut q) = orthonormal(&unstructured(7, size * n), size, n) else { return Ok(None) };
    let mut seen = f64::INFINITY;
    for round in 1..=ROUNDS {
        device.load_into(&Matrix { rows: size, cols: n, values: q.iter().map(|x| *x as f32).collect() }, block)?;
        device.product(block, across, through)?;
        device.product(through, down, back)?;
        let image = device.read(back)?.wide();
        // Ritz values of G = XXᵀ, and how far their vectors are from being eigenvectors.
        let small = linalg::product(&q, &transposed(&image, size, n), (size, n, size));
        let Eigen { values, vectors } = linalg::eigen(&small, size)?;
        let image = linalg::product(&vectors, &image, (size, size, n));
        let ritz = linalg::product(&vectors, &q, (size, size, n));
        let most = values[0].max(f64::MIN_POSITIVE);
        let away = (0..count)
            .map(|i| {
                let rows = image[i * n..][..n].iter().zip(&ritz[i * n..][..n]);
                let square: f64 = rows.map(|(g, x)| (g - values[i] * x).powi(2)).sum();
                square.sqrt() / (most * values[i].max(0.0)).sqrt().max(f64::MIN_POSITIVE)
            })
            .fold(0.0, f64::max);
        // Values that f32 cannot tell from zero: a matter of low rank.
        if values[count - 1] < 1e-6 * most {
            return Ok(None);
        }
        let scaled: Vec<f64> = image
            .chunks(n)
            .zip(&values)
            .flat_map(|(row, value)| row.iter().map(move |x| x / value.abs().max(1e-9 * most)))
            .collect();
        let Some(next) = orthonormal(&scaled, size, n) else { return Ok(None) };
        q = next;
        if away < RESIDUAL / 2.0 {
            break;
        }
        if round % LOOK == 0 {
            // At this pace: is there a chance?
            let pace = (away / seen).min(1.0).ln() / LOOK as f64;
            let left = (RESIDUAL / away).ln() / pace;
            if seen.is_finite() && (pace == 0.0 || left > (ROUNDS - round) as f64) {
                return Ok(None);
            }
            seen = away;
        }
    }
    project(&short, q, size, (count, floor), turned)
}

/// Rayleigh–Ritz in f64, with some rounds more until the space is so near the true one as its distance from the next
/// direction asks for.
fn project(
    x: &Matrix,
    mut q: Vec<f64>,
    size: usize,
    (count, floor): (usize, f64),
    turned: bool,
) -> Result<Option<Singular>> {
    let (n, cols) = (x.rows, x.cols);
    let wide = x.wide();
    let narrow = transposed(&wide, n, cols);
    for _ in 0..LAST {
        let through = linalg::product(&q, &wide, (size, n, cols));
        let Eigen { values, vectors } = linalg::eigen(&linalg::gram(&through, size, cols), size)?;
        let left = linalg::product(&vectors, &q, (size, size, n));
        let image = linalg::product(&linalg::product(&vectors, &through, (size, size, cols)), &narrow, (size, cols, n));
        let sigma = |i: usize| values.get(i).map_or(0.0, |value| value.max(0.0).sqrt());
        let (most, apart) = (sigma(0), (sigma(count - 1) - sigma(count)) / sigma(0).max(f64::MIN_POSITIVE));
        if sigma(count - 1) <= cut(n, cols) * most {
            return Ok(None);
        }
        let away = |i: usize| {
            let rows = image[i * n..][..n].iter().zip(&left[i * n..][..n]);
            rows.map(|(g, u)| (g - values[i] * u).powi(2)).sum::<f64>().sqrt() / (most * sigma(i))
        };
        if (0..count).map(away).fold(0.0, f64::max) <= ANGLE * apart {
            let left = left[..count * n].to_vec();
            return Ok(Some(singular(&wide, (n, cols), &values[..count], left, (count, floor), turned)));
        }
        let scaled = image.chunks(n).zip(&values);
        let scaled: Vec<f64> = scaled.flat_map(|(row, v)| row.iter().map(move |x| x / v.max(1e-12 * most))).collect();
        let Some(next) = orthonormal(&scaled, size, n) else { return Ok(None) };
        q = next;
    }
    Ok(None)
}

/// An orthonormal basis of the rows, by Cholesky's factor of their Gram matrix, twice; `None` if they are dependent.
fn orthonormal(x: &[f64], size: usize, n: usize) -> Option<Vec<f64>> {
    let mut x = x.to_vec();
    for _ in 0..2 {
        let factor = Cholesky::<f64>::new(&linalg::gram(&x, size, n), size, 0.0)?;
        factor.divide(&mut x, n);
    }
    Some(x)
}
