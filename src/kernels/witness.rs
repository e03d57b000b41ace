//! The first element of each row: a result that samples can check, beside counts, which they cannot.

use bytemuck::{Pod, Zeroable};

use super::{Access, Args, Form, Kernel, WORKGROUP};
use crate::recording::{Buf, Recording, Size};

/// Own parameters; twin of `Params` in `shaders/witness.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    planes: u32,
}

/// Bindings: tau (planes), out (`[rows, planes]`).
pub static WITNESS: Kernel = Kernel {
    name: "witness",
    wgsl: include_str!("../../shaders/witness.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.rows).div_ceil(u64::from(WORKGROUP))),
    twin,
};

/// Appends: `out[row]` = the first element of each row of the first planes of `tau`, as many as `out` has words a row.
pub fn record(list: &mut Recording, tau: Buf, out: Buf) {
    let Size::Rows(planes) = list.buffers[out.0].size else { unreachable!("its size goes by rows") };
    list.call(&WITNESS, &[], &Params { planes }, &[tau, out]);
}

fn twin(args: &mut Args<'_>) {
    let (n, len) = (args.dims.n as usize, args.dims.row_len as usize);
    let planes = args.params::<Params>().planes as usize;
    let (tau, out) = (args.read::<f32>(0), args.write::<f32>(1));
    for (row, out) in out[..args.dims.rows as usize * planes].chunks_mut(planes.max(1)).enumerate() {
        out.iter_mut().enumerate().for_each(|(plane, out)| *out = tau[plane * n + row * len]);
    }
}
