//! Variance over the experts at each element: where they differ (SCE, arXiv 2408.07990, §3).

use super::convert::CHUNK;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Bindings: tau (planes), out (`[n]`).
pub static VARIANCE: Kernel = Kernel {
    name: "variance",
    wgsl: include_str!("../../shaders/variance.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends: `out` = population variance over all planes of `tau` but the last.
pub fn record(list: &mut Recording, tau: Buf, out: Buf) {
    list.call(&VARIANCE, &[], &(), &[tau, out]);
}

fn emit(q: &mut dyn Quad) {
    let tau = q.stack(0, q.planes() - 1);
    q.set(1, 0, &format!("variance(p.dims, {tau})"));
}

fn twin(args: &mut Args<'_>) {
    let (n, experts) = (args.dims.n as usize, args.dims.planes as usize - 1);
    let tau = args.read::<f32>(0);
    let out = &mut args.write::<f32>(1)[..n];
    let mut mean = [0f32; CHUNK];
    for (i, out) in out.chunks_mut(CHUNK).enumerate() {
        let len = out.len();
        let mean = &mut mean[..len];
        let plane = |k: usize| &tau[k * n + i * CHUNK..][..len];
        let first = plane(0);
        mean.fill(0.0);
        (1..experts).for_each(|k| add_difference(mean, plane(k), first));
        begin(out, mean, 1.0 / experts as f32);
        (1..experts).for_each(|k| add_square(out, plane(k), first, mean));
        scale(out, 1.0 / experts as f32);
    }
}

#[multiversion::multiversion(targets = "simd")]
fn add_difference(mean: &mut [f32], x: &[f32], first: &[f32]) {
    for ((mean, x), first) in mean.iter_mut().zip(x).zip(first) {
        *mean += x - first;
    }
}

#[multiversion::multiversion(targets = "simd")]
fn begin(out: &mut [f32], mean: &mut [f32], share: f32) {
    for (out, mean) in out.iter_mut().zip(mean) {
        *mean *= share;
        *out = *mean * *mean;
    }
}

#[multiversion::multiversion(targets = "simd")]
fn add_square(out: &mut [f32], x: &[f32], first: &[f32], mean: &[f32]) {
    for (((out, x), first), mean) in out.iter_mut().zip(x).zip(first).zip(mean) {
        let d = (x - first) - mean;
        *out += d * d;
    }
}

#[multiversion::multiversion(targets = "simd")]
fn scale(out: &mut [f32], share: f32) {
    out.iter_mut().for_each(|out| *out *= share);
}
