//! Ties of a magnitude threshold, counted row by row.

use bytemuck::{Pod, Zeroable};

use super::{Access, Args, Kernel, per_row};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/count.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
    key: u32,
}

/// Bindings: tau (planes), counts (`[rows, planes]`).
pub static COUNT: Kernel = Kernel {
    name: "count",
    wgsl: include_str!("../../shaders/count.wgsl"),
    entry: "main",
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    groups: per_row,
    twin,
};

/// Appends: `counts[row, plane]` = entries of the row whose magnitude has the bits `key`.
pub fn record(list: &mut Recording, tau: Buf, plane: u32, key: u32, counts: Buf) {
    list.call(&COUNT, &[], &Params { plane, key }, &[tau, counts]);
}

fn twin(args: &mut Args<'_>) {
    let dims = args.dims;
    let p = args.params::<Params>();
    let tau = &args.read::<f32>(0)[p.plane as usize * dims.n as usize..][..dims.n as usize];
    let counts = args.write::<u32>(1);
    for (row, values) in tau.chunks(dims.row_len as usize).enumerate() {
        counts[row * dims.planes as usize + p.plane as usize] = equal(values, p.key);
    }
}

#[multiversion::multiversion(targets = "simd")]
fn equal(values: &[f32], key: u32) -> u32 {
    values.iter().map(|x| u32::from(x.to_bits() & 0x7fff_ffff == key)).sum()
}
