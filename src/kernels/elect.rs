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
    let Params { scale, normalize, weighted } = args.params();
    let weights = args.read::<f32>(0);
    let (tau, merged) = args.write::<f32>(1).split_at_mut(experts * n);
    let (mut sum, mut divisor) = ([0f32; CHUNK], [0f32; CHUNK]);
    for (i, out) in merged[..n].chunks_mut(CHUNK).enumerate() {
        let len = out.len();
        let (sum, divisor) = (&mut sum[..len], &mut divisor[..len]);
        let plane = |k: usize| &tau[k * n + i * CHUNK..][..len];
        sum.fill(0.0);
        divisor.fill(0.0);
        out.fill(0.0);
        for (k, &weight) in weights.iter().enumerate() {
            add_scaled(sum, if weighted != 0 { weight } else { 1.0 }, plane(k));
        }
        for (k, &weight) in weights.iter().enumerate() {
            add_agreeing(out, divisor, sum, weight, plane(k));
        }
        finish(out, divisor, scale, normalize != 0);
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
fn finish(merged: &mut [f32], divisor: &[f32], scale: f32, normalize: bool) {
    for (m, &d) in merged.iter_mut().zip(divisor) {
        let divisor = if normalize && d != 0.0 { d } else { 1.0 };
        *m = scale * (*m / divisor);
    }
}
