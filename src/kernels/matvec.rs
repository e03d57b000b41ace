//! `y = A·v` for every plane of a stack, seen as matrices: one half of a power iteration.

use super::vector::dot;
use super::{Access, Args, Form, Kernel, per_row_and_plane};
use crate::recording::{Buf, Recording};

/// Bindings: tau (planes), v (`[planes, row_len]`), y (`[rows, planes]`).
pub static MATVEC: Kernel = Kernel {
    name: "matvec",
    wgsl: include_str!("../../shaders/matvec.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Shader(per_row_and_plane),
    twin,
};

/// Appends: `y[row, plane]` = the product of that row of `tau[plane]` with `v[plane]`.
pub fn record(list: &mut Recording, tau: Buf, v: Buf, y: Buf) {
    list.call(&MATVEC, &[], &(), &[tau, v, y]);
}

fn twin(args: &mut Args<'_>) {
    let (n, planes, len) = (args.dims.n as usize, args.dims.planes as usize, args.dims.row_len as usize);
    let (tau, v) = (args.read::<f32>(0), args.read::<f32>(1));
    for (at, y) in args.write::<f32>(2).iter_mut().enumerate() {
        let (row, plane) = (at / planes, at % planes);
        *y = dot(&tau[plane * n + row * len..][..len], &v[plane * len..][..len]);
    }
}
