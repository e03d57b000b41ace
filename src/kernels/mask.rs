//! One selection for all experts: their entries go where another plane's is not among its largest (SCE).

use super::trim::{Threshold, stays};
use super::{Access, Args, Kernel, per_quad};
use crate::recording::{Buf, Recording};

/// Bindings: by (`[n]`), tau (planes).
pub static MASK: Kernel = Kernel {
    name: "mask",
    wgsl: include_str!("../../shaders/mask.wgsl"),
    entry: "main",
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    groups: per_quad,
    twin,
};

/// Appends: all planes of `tau` but the last are zeroed where `by` is not in the set of `threshold`.
pub fn record(list: &mut Recording, by: Buf, threshold: Threshold, tau: Buf) {
    list.call(&MASK, &[], &threshold, &[by, tau]);
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
