//! `w = Aᵀ·y` for every plane of a stack, in partial sums of a few rows: the other half of a power iteration.

use super::combine::add_scaled;
use super::{Access, Args, Form, Kernel, WORKGROUP};
use crate::recording::{Buf, GROUP_ROWS, Recording};

/// Bindings: tau (planes), y (`[rows, planes]`), w (`[row groups, planes, row_len]`).
pub static MATVEC_T: Kernel = Kernel {
    name: "matvec_t",
    wgsl: include_str!("../../shaders/matvec_t.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Shader(|dims| {
        let groups = u64::from(dims.rows.div_ceil(GROUP_ROWS)) * u64::from(dims.planes);
        groups * u64::from(dims.row_len.div_ceil(WORKGROUP))
    }),
    twin,
};

/// Appends: `w[group, plane]` = Σ over the group's rows of `y[row, plane]` times that row of `tau[plane]`.
pub fn record(list: &mut Recording, tau: Buf, y: Buf, w: Buf) {
    list.call(&MATVEC_T, &[], &(), &[tau, y, w]);
}

fn twin(args: &mut Args<'_>) {
    let (n, planes, len) = (args.dims.n as usize, args.dims.planes as usize, args.dims.row_len as usize);
    let rows = args.dims.rows as usize;
    let (tau, y) = (args.read::<f32>(0), args.read::<f32>(1));
    for (at, sum) in args.write::<f32>(2).chunks_mut(len).enumerate() {
        let (first, plane) = (at / planes * GROUP_ROWS as usize, at % planes);
        sum.fill(0.0);
        for row in first..rows.min(first + GROUP_ROWS as usize) {
            add_scaled(sum, y[row * planes + plane], &tau[plane * n + row * len..][..len]);
        }
    }
}
