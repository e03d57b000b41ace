//! Seeded random drop whose chances grow with the rank in the row: the sparsification of DELLA (arXiv 2406.11617, §3.1).

use bytemuck::{Pod, Zeroable};

use super::drop::with_words;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/drop_ranked.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
    key: [u32; 2],
    low: u32,
    step: [u32; 2],
    scale: f32,
}

/// Bindings: ranks (`[n]`), tau (planes).
pub static DROP_RANKED: Kernel = Kernel {
    name: "drop_ranked",
    wgsl: include_str!("../../shaders/drop_ranked.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Probabilities of a row: from `density − epsilon` for its least magnitude to `density + epsilon` for its largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chances {
    /// Their mean.
    pub density: f64,
    /// Half of their range.
    pub epsilon: f64,
    /// Elements of a row.
    pub row_len: u32,
}

/// Appends: each element of `tau[plane]` is multiplied by `scale` with a probability that is linear in its rank in its
/// row, else zeroed. A lone element has the mean probability.
pub fn record(list: &mut Recording, ranks: Buf, tau: Buf, plane: u32, key: [u32; 2], chances: Chances, scale: f32) {
    let Chances { density, epsilon, row_len } = chances;
    let of = |chance: f64| (chance.clamp(0.0, 1.0) * 4_294_967_296.0).round() as u64;
    let (low, high) =
        if row_len > 1 { (of(density - epsilon), of(density + epsilon)) } else { (of(density), of(density)) };
    // A step from nothing to everything would be 2⁶⁴.
    let span = (u128::from(high - low) << 32).saturating_sub(1) as u64;
    let step = span / u64::from(row_len.max(2) - 1);
    let low = low.min(u64::from(u32::MAX)) as u32;
    let params = Params { plane, key, low, step: [step as u32, (step >> 32) as u32], scale };
    list.call(&DROP_RANKED, &[], &params, &[ranks, tau]);
}

fn emit(q: &mut dyn Quad) {
    let plane = q.fixed(0);
    let (x, ranks) = (q.plane(1, plane), q.words(0));
    let (key, low, step) = ([q.word(1), q.word(2)].join(", "), q.word(3), [q.word(4), q.word(5)].join(", "));
    let scale = q.float(6);
    let call = format!("drop_ranked(p.dims, i, {x}, {ranks}, vec2<u32>({key}), {low}, vec2<u32>({step}), {scale})");
    q.set(1, plane, &call);
}

fn twin(args: &mut Args<'_>) {
    let n = args.dims.n as usize;
    let Params { plane, key, low, step, scale } = args.params();
    let step = u64::from(step[1]) << 32 | u64::from(step[0]);
    let ranks = &args.read::<u32>(0)[..n];
    let tau = &mut args.write::<f32>(1)[plane as usize * n..][..n];
    with_words(args.dims.first(), key, n, |part, words| {
        apply(&mut tau[part.clone()], words, &ranks[part], (low, step), scale);
    });
}

#[multiversion::multiversion(targets = "simd")]
fn apply(piece: &mut [f32], words: &[u32], ranks: &[u32], (low, step): (u32, u64), scale: f32) {
    for ((x, &word), &rank) in piece.iter_mut().zip(words).zip(ranks) {
        let chance = u64::from(low) + (step.wrapping_mul(u64::from(rank)) >> 32);
        *x = if u64::from(word) < chance { *x * scale } else { 0.0 };
    }
}
