//! Sign election and disjoint merge: the combination step of TIES (arXiv 2306.01708, §3).

use bytemuck::{Pod, Zeroable};

use super::combine::add_scaled;
use super::convert::CHUNK;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/elect.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    scale: f32,
    normalize: u32,
    weighted: u32,
}

/// Bindings: weights (one an expert), tau (planes).
pub static ELECT: Kernel = Kernel {
    name: "elect",
    wgsl: include_str!("../../shaders/elect.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends: `tau[last] = scale ·` the sum of the weighted entries that agree with the elected sign, divided by the
/// weights that took part if `normalize` (a divisor of zero counts as one). Votes count by weight if `weighted`.
pub fn record(list: &mut Recording, weights: Buf, scale: f32, normalize: bool, weighted: bool, tau: Buf) {
    let params = Params { scale, normalize: normalize.into(), weighted: weighted.into() };
    list.call(&ELECT, &[], &params, &[weights, tau]);
}

fn emit(q: &mut dyn Quad) {
    let experts = q.planes() - 1;
    let (weights, tau) = (q.values(0, experts), q.stack(1, experts));
    let (scale, normalize, weighted) = (q.float(0), q.word(1), q.word(2));
    q.set(1, experts, &format!("elect({weights}, {scale}, {normalize}, {weighted}, {tau})"));
}

fn twin(args: &mut Args<'_>) {
    let (n, experts) = (args.dims.n as usize, args.dims.planes as usize - 1);
    let p: Params = args.params();
    let weights = &args.read::<f32>(0)[..experts];
    let (tau, merged) = args.write::<f32>(1).split_at_mut(experts * n);
    let merged = &mut merged[..n];
    match experts {
        2 => few::<2>(merged, tau, weights, p),
        3 => few::<3>(merged, tau, weights, p),
        4 => few::<4>(merged, tau, weights, p),
        5 => few::<5>(merged, tau, weights, p),
        6 => few::<6>(merged, tau, weights, p),
        _ => many(merged, tau, weights, p),
    }
}

/// In one pass, of which compilers make vectors where they know the number of experts.
#[multiversion::multiversion(targets = "simd")]
fn few<const K: usize>(merged: &mut [f32], tau: &[f32], weights: &[f32], p: Params) {
    let n = merged.len();
    let planes: [&[f32]; K] = std::array::from_fn(|k| &tau[k * n..][..n]);
    let weights: [f32; K] = std::array::from_fn(|k| weights[k]);
    let votes = if p.weighted != 0 { weights } else { [1.0; K] };
    for (i, merged) in merged.iter_mut().enumerate() {
        let mut sum = 0.0;
        for k in 0..K {
            sum += votes[k] * planes[k][i];
        }
        let sign = if sum >= 0.0 { 1.0 } else { -1.0 };
        let (mut m, mut d) = (0.0, 0.0);
        for k in 0..K {
            let u = weights[k] * planes[k][i];
            let agrees = u * sign > 0.0;
            m += if agrees { u } else { 0.0 };
            d += if agrees { weights[k] } else { 0.0 };
        }
        *merged = finished(m, d, p);
    }
}

/// Pass by pass, over parts that stay in the innermost cache.
fn many(merged: &mut [f32], tau: &[f32], weights: &[f32], p: Params) {
    let n = merged.len();
    let (mut sum, mut divisor) = ([0f32; CHUNK], [0f32; CHUNK]);
    for (i, out) in merged.chunks_mut(CHUNK).enumerate() {
        let (sum, divisor) = (&mut sum[..out.len()], &mut divisor[..out.len()]);
        let planes = weights.iter().enumerate().map(|(k, &weight)| (weight, &tau[k * n + i * CHUNK..]));
        sum.fill(0.0);
        divisor.fill(0.0);
        out.fill(0.0);
        for (weight, plane) in planes.clone() {
            add_scaled(sum, if p.weighted != 0 { weight } else { 1.0 }, plane);
        }
        for (weight, plane) in planes {
            add_agreeing(out, divisor, sum, weight, plane);
        }
        finish(out, divisor, p);
    }
}

#[multiversion::multiversion(targets = "simd")]
fn add_agreeing(merged: &mut [f32], divisor: &mut [f32], sum: &[f32], weight: f32, plane: &[f32]) {
    for (((m, d), s), x) in merged.iter_mut().zip(divisor).zip(sum).zip(plane) {
        let u = weight * x;
        let agrees = u * (if *s >= 0.0 { 1.0 } else { -1.0 }) > 0.0;
        *m += if agrees { u } else { 0.0 };
        *d += if agrees { weight } else { 0.0 };
    }
}

#[multiversion::multiversion(targets = "simd")]
fn finish(merged: &mut [f32], divisor: &[f32], p: Params) {
    for (m, &d) in merged.iter_mut().zip(divisor) {
        *m = finished(*m, d, p);
    }
}

/// From the sum of what agrees and of its weights.
#[inline(always)]
fn finished(merged: f32, divisor: f32, p: Params) -> f32 {
    p.scale * (merged / if p.normalize != 0 && divisor != 0.0 { divisor } else { 1.0 })
}
