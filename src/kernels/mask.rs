//! One selection for all experts: their entries go where another plane's is not among its largest (SCE).

use super::trim::{Threshold, stays, threshold};
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Bindings: by (`[n]`), tau (planes).
pub static MASK: Kernel = Kernel {
    name: "mask",
    wgsl: include_str!("../../shaders/mask.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends: all planes of `tau` but the last are zeroed where `by` is not in the set of `threshold`.
pub fn record(list: &mut Recording, by: Buf, threshold: Threshold, tau: Buf) {
    list.call(&MASK, &[], &threshold, &[by, tau]);
}

fn emit(q: &mut dyn Quad) {
    let experts = q.planes() - 1;
    let (by, tau, threshold) = (q.plane(0, 0), q.stack(1, experts), threshold(q, 0));
    q.line(&format!("mask(p.dims, i, {by}, {threshold}, {tau});"));
    (0..experts).for_each(|plane| q.changed(1, plane));
}

fn twin(args: &mut Args<'_>) {
    let (n, planes) = (args.dims.n as usize, args.dims.planes as usize);
    let threshold: Threshold = args.params();
    let first = args.dims.first();
    let by = &args.read::<f32>(0)[..n];
    for plane in args.write::<f32>(1)[..(planes - 1) * n].chunks_mut(n) {
        for ((at, x), by) in (first..).zip(plane).zip(by) {
            *x = if stays(threshold, at, by.to_bits() & 0x7fff_ffff) { *x } else { 0.0 };
        }
    }
}
