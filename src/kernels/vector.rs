//! What the twins of a forward pass share: rows on all threads, functions that the compiler turns into vectors, and
//! matrix products.

use gemm_common::Parallelism;
use rayon::prelude::*;

/// Elements that are worth a task of their own.
const TASK: usize = 16 << 10;

/// Calls `row` with the number and the elements of every row of `out`, on all threads.
pub fn each_row<T: Send>(out: &mut [T], row_len: usize, row: impl Fn(usize, &mut [T]) + Sync) {
    if row_len == 0 {
        return;
    }
    let rows = (TASK / row_len).max(1);
    let task = |(i, part): (usize, &mut [T])| {
        part.chunks_mut(row_len).enumerate().for_each(|(j, values)| row(i * rows + j, values));
    };
    if out.len() <= rows * row_len {
        return task((0, out));
    }
    out.par_chunks_mut(rows * row_len).enumerate().for_each(task);
}

/// Calls `part` with the place of its first element and the elements of every part of `out`, on all threads.
pub fn each_part<T: Send>(out: &mut [T], part: impl Fn(usize, &mut [T]) + Sync) {
    each_row(out, TASK, |i, values| part(i * TASK, values));
}

/// Elements of a block that are worth sharing out. Blocks of a merge are smaller, one to a thread.
pub const LARGE: usize = 64 << 10;

/// Calls `part` with the place of its first element and the elements of every part of `out`, whole rows of `row_len`; on
/// all threads if the block is [`LARGE`].
pub fn each_large<T: Send>(out: &mut [T], row_len: usize, part: impl Fn(usize, &mut [T]) + Sync) {
    let size = (LARGE / row_len.max(1)).max(1) * row_len.max(1);
    if out.len() <= size {
        return part(0, out);
    }
    out.par_chunks_mut(size).enumerate().for_each(|(i, values)| part(i * size, values));
}

/// Partial sums side by side, so that the compiler can use vectors of any width with the same result.
pub const LANES: usize = 16;

/// Elements summed in f32 before their sum goes on in f64.
pub const SPAN: usize = 4096;

/// Σ f(x), within a few roundings of f32.
#[inline(always)]
pub fn sum(x: &[f32], f: impl Fn(f32) -> f32 + Copy) -> f64 {
    let span = |x: &[f32]| {
        let mut lanes = [0f32; LANES];
        let chunks = x.chunks_exact(LANES);
        for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane = f(*x);
        }
        for x in chunks {
            for j in 0..LANES {
                lanes[j] += f(x[j]);
            }
        }
        lanes.iter().sum::<f32>()
    };
    x.chunks(SPAN).map(|x| f64::from(span(x))).sum()
}

/// Σ x·y, in f32 throughout.
#[multiversion::multiversion(targets = "simd")]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    for (lane, (x, y)) in lanes.iter_mut().zip(xs.remainder().iter().zip(ys.remainder())) {
        *lane += x * y;
    }
    for (x, y) in xs.zip(ys) {
        for j in 0..LANES {
            lanes[j] += x[j] * y[j];
        }
    }
    lanes.iter().sum()
}

/// The largest of `x`; what NaN among them does is not specified.
#[inline(always)]
pub fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = *x;
    }
    for x in chunks {
        for j in 0..LANES {
            lanes[j] = if x[j] > lanes[j] { x[j] } else { lanes[j] };
        }
    }
    lanes.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// e^x within 2 units in the last place up to x = 88; 0 below the least normal number. After Cephes' `expf`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding this rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut y = 1.987_569_1e-4f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 5e-1] {
        y = y * r + c;
    }
    let y = (y * r * r + r) + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { y * scale }
}

/// The error function within 1.5 units in the last place: minimax polynomials by Norbert Juffa.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let (t, s) = (x.abs().min(4.0), x * x);
    let mut near = -5.967_617e-4f32;
    for c in [4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1] {
        near = near * s + c;
    }
    let mut far = -1.728_534_7e-5f32;
    for c in [3.831_971_3e-4, -3.883_964_4e-3, 2.425_462_2e-2, -1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1] {
        far = far * t + c;
    }
    let far = (1.0 - exp(far * t - t)).copysign(x);
    if x.abs() > 0.927_734_4 { far } else { near * x + x }
}

/// The hyperbolic tangent, after Cephes' `tanhf`.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let (t, s) = (x.abs().min(20.0), x * x);
    let mut near = -5.704_988_7e-3f32;
    for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        near = near * s + c;
    }
    let far = (1.0 - 2.0 / (exp(2.0 * t) + 1.0)).copysign(x);
    if x.abs() > 0.625 { far } else { near * s * x + x }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp((-x).clamp(-87.0, 87.0)))
}

/// A matrix in a slice: element (i, j) is at `i * down + j * right`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The elements.
    pub values: &'a [f32],
    /// From row to row.
    pub down: usize,
    /// From column to column.
    pub right: usize,
}

impl Matrix<'_> {
    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.down + (cols - 1) * self.right < self.values.len()
    }
}

/// `out = x · y`, or `out += x · y`, with x of `m` × `k`, y of `k` × `n`, and rows of `out` that are `stride` apart.
///
/// Each element is summed in an order that does not depend on the number of threads: those share out rows and columns.
pub fn product(
    (m, n, k): (usize, usize, usize),
    x: Matrix<'_>,
    y: Matrix<'_>,
    (out, stride, add): (&mut [f32], usize, bool),
    threads: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(x.holds(m, k) && y.holds(k, n) && (m - 1) * stride + n <= out.len() && n <= stride, "a product's shapes");
    let parallelism = if threads { Parallelism::Rayon(0) } else { Parallelism::None };
    let (keep, one) = (if add { 1.0 } else { 0.0 }, 1.0f32);
    // SAFETY: the slices hold matrices of these shapes, as was just checked, and `out` is borrowed alone.
    unsafe {
        // The kernels prefer columns to rows: outᵀ = yᵀ · xᵀ.
        gemm_f32::gemm::f32::get_gemm_fn()(
            n,
            m,
            k,
            out.as_mut_ptr(),
            stride as isize,
            1,
            add,
            y.values.as_ptr(),
            y.down as isize,
            y.right as isize,
            x.values.as_ptr(),
            x.down as isize,
            x.right as isize,
            keep,
            one,
            false,
            false,
            false,
            parallelism,
        );
    }
}
