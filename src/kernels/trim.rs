//! Keeps the largest magnitudes of a task vector (TIES, arXiv 2306.01708, §3), without the very largest where those go
//! too (Model Breadcrumbs, arXiv 2312.06795).

use bytemuck::{Pod, Zeroable};

use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// The largest magnitudes of a tensor: those with bits above `key`, and of those that equal it the ones that come first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Threshold {
    /// Bits of the magnitude at the cut.
    key: u32,
    /// Ties before this element of the tensor are in the set.
    ties: [u32; 2],
}

impl Threshold {
    /// No entry.
    pub const NOTHING: Self = Self { key: u32::MAX, ties: [0; 2] };
    /// All entries.
    pub const EVERYTHING: Self = Self { key: 0, ties: [u32::MAX; 2] };

    /// Entries above `key`, and those that equal it before element `ties` of the tensor.
    pub fn new(key: u32, ties: u64) -> Self {
        Self { key, ties: [ties as u32, (ties >> 32) as u32] }
    }
}

/// Own parameters; twin of `Params` in `shaders/trim.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
    keep: Threshold,
    top: Threshold,
}

/// Binding: tau (planes).
pub static TRIM: Kernel = Kernel {
    name: "trim",
    wgsl: include_str!("../../shaders/trim.wgsl"),
    constants: &[],
    bindings: &[Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends: entries of `tau[plane]` that are not in `keep`, or are in `top`, become zero.
pub fn record(list: &mut Recording, tau: Buf, plane: u32, keep: Threshold, top: Threshold) {
    list.call(&TRIM, &[], &Params { plane, keep, top }, &[tau]);
}

/// True if element `at` of the tensor, of magnitude bits `key`, is in the set. Twin of `stays` in `shaders/common.wgsl`.
#[inline(always)]
pub fn stays(threshold: Threshold, at: u64, key: u32) -> bool {
    let ties = u64::from(threshold.ties[1]) << 32 | u64::from(threshold.ties[0]);
    key > threshold.key || key == threshold.key && at < ties
}

fn emit(q: &mut dyn Quad) {
    let plane = q.fixed(0);
    let (x, [keep, top]) = (q.plane(0, plane), [1, 4].map(|first| threshold(q, first)));
    q.set(0, plane, &format!("trim(p.dims, i, {x}, {keep}, {top})"));
}

/// The [`Threshold`] that begins at parameter word `first`.
pub(super) fn threshold(q: &mut dyn Quad, first: usize) -> String {
    format!("vec3<u32>({}, {}, {})", q.word(first), q.word(first + 1), q.word(first + 2))
}

fn twin(args: &mut Args<'_>) {
    let n = args.dims.n as usize;
    let Params { plane, keep, top } = args.params();
    let first = args.dims.first();
    let mut rest = &mut args.write::<f32>(0)[plane as usize * n..][..n];
    // Between the two places where ties change their fate, all are treated alike.
    let end = |threshold: Threshold| {
        let ties = u64::from(threshold.ties[1]) << 32 | u64::from(threshold.ties[0]);
        ties.saturating_sub(first).min(n as u64) as usize
    };
    let (mut start, mut cuts) = (0, [end(keep), end(top), n]);
    cuts.sort_unstable();
    for cut in cuts {
        let (part, after) = rest.split_at_mut(cut - start);
        let ties = |threshold: Threshold| start < end(threshold);
        keep_between(part, (keep.key, ties(keep)), (top.key, ties(top)));
        (start, rest) = (cut, after);
    }
}

#[multiversion::multiversion(targets = "simd")]
fn keep_between(values: &mut [f32], keep: (u32, bool), top: (u32, bool)) {
    for x in values {
        let own = x.to_bits() & 0x7fff_ffff;
        let kept = own > keep.0 || keep.1 && own == keep.0;
        let gone = own > top.0 || top.1 && own == top.0;
        *x = if kept && !gone { *x } else { 0.0 };
    }
}
