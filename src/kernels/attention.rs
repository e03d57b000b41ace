//! Softmax attention over a range of keys for each row, a block of keys at a time: no matrix of scores is ever whole.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

pub use super::matmul::Place as Column;
use super::vector::{Matrix, exp, largest, product, sum};
use super::{Access, Args, Form, Kernel, holds};
use crate::recording::{Buf, Recording, Region};

/// Shape of the heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values, a divisor of those of queries: head h looks at `h · kv_heads / heads`.
    pub kv_heads: u32,
    /// Elements of a head, at most [`MOST_DIM`].
    pub dim: u32,
    /// What products of queries and keys are multiplied with.
    pub scale: f32,
}

/// Own parameters; twin of `Params` in `shaders/attention.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    kv_heads: u32,
    dim: u32,
    scale: f32,
    q_stride: u32,
    q_column: u32,
    k_stride: u32,
    k_column: u32,
    v_stride: u32,
    v_column: u32,
}

/// Most elements of a head.
pub const MOST_DIM: u32 = 256;

/// Rows of queries that a workgroup takes.
const ROWS: u32 = 32;

/// Bindings: q (`[rows, heads · dim]` of wider rows), k and v (`[keys, kv_heads · dim]` of wider rows), ranges
/// (`[rows, 2]`), out (`[rows, heads · dim]`). The shape of a call is `[rows, heads]`.
pub static ATTENTION: Kernel = Kernel {
    name: "attention",
    wgsl: include_str!("../../shaders/attention.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.rows.div_ceil(ROWS)) * u64::from(dims.row_len)),
    twin,
};

/// Appends `out[r, h] = Σ_s softmax_s(scale · ⟨q[r, h], k[s, h']⟩) · v[s, h']`, over the keys `s` from the first up to
/// the second number of `ranges[r]`; zeros where there are none.
///
/// Rows are taken together: what lies between the first and the last key of neighbouring rows has to be finite.
#[allow(clippy::too_many_arguments, reason = "each is a buffer of its own")]
pub fn record(list: &mut Recording, rows: u32, heads: Heads, q: Column, k: Column, v: Column, ranges: Buf, out: Buf) {
    let Heads { heads, kv_heads, dim, scale } = heads;
    debug_assert!(dim <= MOST_DIM && heads.is_multiple_of(kv_heads), "{heads} heads of {dim}, {kv_heads} of keys");
    holds(list, q.buf, 0, rows, q.stride);
    holds(list, ranges, 0, rows, 2);
    holds(list, out, 0, rows, heads * dim);
    let params = Params {
        kv_heads,
        dim,
        scale,
        q_stride: q.stride,
        q_column: q.column,
        k_stride: k.stride,
        k_column: k.column,
        v_stride: v.stride,
        v_column: v.column,
    };
    list.call_over((rows, heads), &ATTENTION, &[], &params, &[q.buf, k.buf, v.buf, ranges, out]);
    list.sets(Region::rows(rows, heads * dim));
}

/// Rows of queries, and keys, that the twin takes at a time.
const BLOCK: usize = 64;
const KEYS: usize = 256;

fn twin(args: &mut Args<'_>) {
    let p: Params = args.params();
    let (rows, heads, dim) = (args.dims.rows as usize, args.dims.row_len as usize, p.dim as usize);
    let columns = |values, stride: u32, column: u32, head: usize| {
        let from = column as usize + head * dim;
        (values, stride as usize, from)
    };
    let (q, k, v) = (args.read::<f32>(0), args.read::<f32>(1), args.read::<f32>(2));
    let ranges = &args.read::<[u32; 2]>(3)[..rows];
    let out = &mut args.write::<f32>(4)[..rows * heads * dim];
    if out.is_empty() {
        return;
    }
    out.par_chunks_mut(BLOCK * heads * dim).enumerate().for_each(|(block, out)| {
        let first = block * BLOCK;
        let ranges = &ranges[first..rows.min(first + BLOCK)];
        let head = |head: usize| {
            let kv = head * p.kv_heads as usize / heads;
            let (q, stride, from) = columns(q, p.q_stride, p.q_column, head);
            let q = (&q[first * stride..], stride, from);
            let (k, v) = (columns(k, p.k_stride, p.k_column, kv), columns(v, p.v_stride, p.v_column, kv));
            attend(dim, p.scale, ranges, q, k, v)
        };
        let found: Vec<Vec<f32>> = (0..heads).into_par_iter().map(head).collect();
        for (head, found) in found.iter().enumerate() {
            for (row, found) in out.chunks_exact_mut(heads * dim).zip(found.chunks_exact(dim)) {
                row[head * dim..][..dim].copy_from_slice(found);
            }
        }
    });
}

/// The values, elements of a row, and the column where a head begins.
type Head<'a> = (&'a [f32], usize, usize);

/// One head of a block of rows.
fn attend(dim: usize, scale: f32, ranges: &[[u32; 2]], q: Head<'_>, k: Head<'_>, v: Head<'_>) -> Vec<f32> {
    let rows = ranges.len();
    let mut out = vec![0f32; rows * dim];
    let some = ranges.iter().filter(|[start, end]| start < end);
    let first = some.clone().map(|range| range[0] as usize).min().unwrap_or(0);
    let last = some.map(|range| range[1] as usize).max().unwrap_or(0);
    let mut scores = vec![0f32; rows * KEYS];
    let mut state = vec![(f32::NEG_INFINITY, 0f32); rows];
    for start in (first..last).step_by(KEYS) {
        let keys = KEYS.min(last - start);
        let (queries, stride, from) = q;
        let queries = Matrix { values: &queries[from..], down: stride, right: 1 };
        let (matrix, stride, from) = k;
        let transposed = Matrix { values: &matrix[start * stride + from..], down: 1, right: stride };
        product((rows, keys, dim), queries, transposed, (&mut scores, KEYS, false), false);
        for (row, [from, to]) in ranges.iter().enumerate() {
            let clip = |key: u32| (key as usize).clamp(start, start + keys) - start;
            let (from, to) = (clip(*from), clip(*to));
            let scores = &mut scores[row * KEYS..][..keys];
            soften(scale, scores, from..to.max(from), &mut state[row], &mut out[row * dim..][..dim]);
        }
        let (matrix, stride, from) = v;
        let weights = Matrix { values: &scores, down: KEYS, right: 1 };
        let values = Matrix { values: &matrix[start * stride + from..], down: stride, right: 1 };
        product((rows, dim, keys), weights, values, (&mut out, dim, true), false);
    }
    for (row, (_, total)) in out.chunks_exact_mut(dim).zip(&state) {
        let factor = if *total == 0.0 { 0.0 } else { 1.0 / total };
        row.iter_mut().for_each(|x| *x *= factor);
    }
    out
}

/// Scores to weights relative to the largest so far, zero outside `range`; what was summed before follows suit.
#[multiversion::multiversion(targets = "simd")]
fn soften(scale: f32, scores: &mut [f32], range: Range<usize>, state: &mut (f32, f32), out: &mut [f32]) {
    scores[..range.start].fill(0.0);
    scores[range.end..].fill(0.0);
    let scores = &mut scores[range];
    if scores.is_empty() {
        return;
    }
    scores.iter_mut().for_each(|x| *x *= scale);
    let most = largest(scores);
    let (before, total) = *state;
    let most = if most > before { most } else { before };
    scores.iter_mut().for_each(|x| *x = exp(*x - most));
    let factor = if before == f32::NEG_INFINITY { 0.0 } else { exp(before - most) };
    *state = (most, total * factor + sum(scores, |x| x) as f32);
    if factor != 1.0 {
        out.iter_mut().for_each(|x| *x *= factor);
    }
}
