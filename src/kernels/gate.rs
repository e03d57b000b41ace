//! `out = act(x) · up`: the middle of a gated feed-forward layer.

use super::activate::{Act, activate};
use super::vector::each_part;
use super::{Access, Args, Form, Kernel, holds, per_quad};
use crate::recording::{Buf, Recording};

/// Bindings: x and up (`[rows, row_len]`), out (the same). Constant: the function.
pub static GATE: Kernel = Kernel {
    name: "gate",
    wgsl: concat!(include_str!("../../shaders/activation.wgsl"), include_str!("../../shaders/gate.wgsl")),
    constants: &["ACT"],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Shader(per_quad),
    twin,
};

/// Appends `out = act(x) · up`.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), act: Act, x: Buf, up: Buf, out: Buf) {
    [x, up, out].iter().for_each(|buf| holds(list, *buf, 0, rows, row_len));
    list.call_over((rows, row_len), &GATE, &[act.code()], &(), &[x, up, out]);
}

fn twin(args: &mut Args<'_>) {
    let n = args.dims.n as usize;
    let act = Act::ALL[args.constants[0] as usize];
    let (x, up) = (args.read::<f32>(0), args.read::<f32>(1));
    each_part(&mut args.write::<f32>(2)[..n], |at, out| {
        activate(act, &x[at..][..out.len()], out);
        scale(out, &up[at..][..out.len()]);
    });
}

#[multiversion::multiversion(targets = "simd")]
fn scale(out: &mut [f32], up: &[f32]) {
    for (y, u) in out.iter_mut().zip(up) {
        *y *= u;
    }
}
