//! Inner products of all pairs of planes along columns, in partial sums of a few rows.

use super::gram::pairs;
use super::{Access, Args, Form, Kernel, WORKGROUP};
use crate::recording::{Buf, GROUP_ROWS, Recording};

/// Bindings: tau (planes), gram (`[row groups, pairs, row_len]`).
pub static GRAM_T: Kernel = Kernel {
    name: "gram_t",
    wgsl: include_str!("../../shaders/gram_t.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.rows.div_ceil(GROUP_ROWS)) * u64::from(dims.row_len.div_ceil(WORKGROUP))),
    twin,
};

/// Appends: `gram[group, pair]` = Σ over the group's rows of the products of that pair of planes, for each column.
pub fn record(list: &mut Recording, tau: Buf, gram: Buf) {
    list.call(&GRAM_T, &[], &(), &[tau, gram]);
}

fn twin(args: &mut Args<'_>) {
    let (n, planes, len) = (args.dims.n as usize, args.dims.planes as usize, args.dims.row_len as usize);
    let rows = args.dims.rows as usize;
    let tau = args.read::<f32>(0);
    let groups = args.write::<f32>(1).chunks_mut(pairs(planes as u32) as usize * len);
    for (group, gram) in groups.enumerate() {
        let first = group * GROUP_ROWS as usize;
        let all = (0..planes).flat_map(|i| (i..planes).map(move |j| (i, j)));
        for (sum, (i, j)) in gram.chunks_mut(len).zip(all) {
            sum.fill(0.0);
            for row in first..rows.min(first + GROUP_ROWS as usize) {
                let plane = |k: usize| &tau[k * n + row * len..][..len];
                add_product(sum, plane(i), plane(j));
            }
        }
    }
}

#[multiversion::multiversion(targets = "simd")]
fn add_product(sum: &mut [f32], x: &[f32], y: &[f32]) {
    for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
        *sum += x * y;
    }
}
