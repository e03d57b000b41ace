//! `out = a·x + b·y`, element by element: residual streams and their scales.

use bytemuck::{Pod, Zeroable};

use super::vector::each_part;
use super::{Access, Args, Form, Kernel, holds, per_quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/add.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    a: f32,
    b: f32,
}

/// Bindings: x and y (`[rows, row_len]`), out (the same).
pub static ADD: Kernel = Kernel {
    name: "add",
    wgsl: include_str!("../../shaders/add.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Shader(per_quad),
    twin,
};

/// Appends `out = a·x + b·y`.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), a: f32, x: Buf, b: f32, y: Buf, out: Buf) {
    [x, y, out].iter().for_each(|buf| holds(list, *buf, 0, rows, row_len));
    list.call_over((rows, row_len), &ADD, &[], &Params { a, b }, &[x, y, out]);
}

fn twin(args: &mut Args<'_>) {
    let n = args.dims.n as usize;
    let Params { a, b } = args.params();
    let (x, y) = (args.read::<f32>(0), args.read::<f32>(1));
    each_part(&mut args.write::<f32>(2)[..n], |at, out| add(a, &x[at..][..out.len()], b, &y[at..][..out.len()], out));
}

#[multiversion::multiversion(targets = "simd")]
fn add(a: f32, x: &[f32], b: f32, y: &[f32], out: &mut [f32]) {
    for (out, (x, y)) in out.iter_mut().zip(x.iter().zip(y)) {
        *out = a * x + b * y;
    }
}
