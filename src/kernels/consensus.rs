//! The sum of the task vectors where enough experts hold a large share of it (TALL masks and Consensus TA,
//! arXiv 2405.07813, eq. 4 and §4).

use bytemuck::{Pod, Zeroable};

use super::combine::add_planes;
use super::convert::CHUNK;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/consensus.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    cut: f32,
    votes: u32,
    scale: f32,
}

/// Bindings: weights (one an expert), tau (planes).
pub static CONSENSUS: Kernel = Kernel {
    name: "consensus",
    wgsl: include_str!("../../shaders/consensus.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends: with `u_k = weights[k] · tau[k]` and s their sum, `tau[last]` = `scale` · s where at least `votes` experts
/// have |u_k| > `cut` · |s − u_k|, else zero.
pub fn record(list: &mut Recording, weights: Buf, cut: f32, votes: u32, scale: f32, tau: Buf) {
    list.call(&CONSENSUS, &[], &Params { cut, votes, scale }, &[weights, tau]);
}

fn emit(q: &mut dyn Quad) {
    let experts = q.planes() - 1;
    let (weights, tau) = (q.values(0, experts), q.stack(1, experts));
    let (cut, votes, scale) = (q.float(0), q.word(1), q.float(2));
    q.set(1, experts, &format!("consensus({weights}, {cut}, {votes}, {scale}, {tau})"));
}

fn twin(args: &mut Args<'_>) {
    let (n, experts) = (args.dims.n as usize, args.dims.planes as usize - 1);
    let Params { cut, votes, scale } = args.params();
    let weights = args.read::<f32>(0);
    let (tau, merged) = args.write::<f32>(1).split_at_mut(experts * n);
    let mut counts = [0u32; CHUNK];
    for (i, out) in merged[..n].chunks_mut(CHUNK).enumerate() {
        let len = out.len();
        let plane = |k: usize| &tau[k * n + i * CHUNK..][..len];
        let counts = &mut counts[..len];
        counts.fill(0);
        out.fill(0.0);
        add_planes(out, weights, plane);
        for (k, &weight) in weights.iter().enumerate() {
            count(counts, out, weight, plane(k), cut);
        }
        finish(out, counts, votes, scale);
    }
}

#[multiversion::multiversion(targets = "simd")]
fn count(counts: &mut [u32], sum: &[f32], weight: f32, plane: &[f32], cut: f32) {
    for ((count, sum), x) in counts.iter_mut().zip(sum).zip(plane) {
        let u = weight * x;
        *count += u32::from(u.abs() > cut * (sum - u).abs());
    }
}

#[multiversion::multiversion(targets = "simd")]
fn finish(merged: &mut [f32], counts: &[u32], votes: u32, scale: f32) {
    for (m, count) in merged.iter_mut().zip(counts) {
        *m = if *count >= votes { scale * *m } else { 0.0 };
    }
}
