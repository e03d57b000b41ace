//! Keeps the largest magnitudes of a task vector: the sparsification of TIES (arXiv 2306.01708, §3).

use bytemuck::{Pod, Zeroable};

use super::{Access, Args, Kernel, per_quad};
use crate::recording::{Buf, Recording};

/// What stays: every entry whose magnitude has bits above `key`, and the first ties in the order of the tensor.
/// Twin of the own parameters in `shaders/trim.wgsl`, after the plane.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Threshold {
    /// Bits of the magnitude at the cut.
    pub key: u32,
    /// Ties in rows before this one stay, ties after it go.
    pub tie_row: u32,
    /// Ties that stay in that row.
    pub tie_quota: u32,
}

impl Threshold {
    /// Nothing stays.
    pub const NOTHING: Self = Self { key: u32::MAX, tie_row: 0, tie_quota: 0 };
}

/// Own parameters; twin of `Params` in `shaders/trim.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
    threshold: Threshold,
}

/// Binding: tau (planes).
pub static TRIM: Kernel = Kernel {
    name: "trim",
    wgsl: include_str!("../../shaders/trim.wgsl"),
    entry: "main",
    constants: &[],
    bindings: &[Access::Write],
    groups: per_quad,
    twin,
};

/// Appends: entries of `tau[plane]` below the threshold become zero. Rows are those of the block's extent.
pub fn record(list: &mut Recording, tau: Buf, plane: u32, threshold: Threshold) {
    list.call(&TRIM, &[], &Params { plane, threshold }, &[tau]);
}

fn twin(args: &mut Args<'_>) {
    let dims = args.dims;
    let Params { plane, threshold } = args.params();
    let tau = &mut args.write::<f32>(0)[plane as usize * dims.n as usize..][..dims.n as usize];
    for (row, values) in (dims.first_row..).zip(tau.chunks_mut(dims.row_len as usize)) {
        if row == threshold.tie_row {
            keep_with_quota(values, threshold);
        } else {
            keep(values, threshold.key, row < threshold.tie_row);
        }
    }
}

#[multiversion::multiversion(targets = "simd")]
fn keep(values: &mut [f32], key: u32, ties: bool) {
    for x in values {
        let own = x.to_bits() & 0x7fff_ffff;
        *x = if own > key || (ties && own == key) { *x } else { 0.0 };
    }
}

fn keep_with_quota(values: &mut [f32], threshold: Threshold) {
    let mut left = threshold.tie_quota;
    for x in values {
        let own = x.to_bits() & 0x7fff_ffff;
        if own == threshold.key && left > 0 {
            left -= 1;
        } else if own <= threshold.key {
            *x = 0.0;
        }
    }
}
