//! A stored model as f32: `tau[plane] = model`.

use bytemuck::{Pod, Zeroable};

use super::convert::{dtype, widen};
use super::vector::each_large;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/widen.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    plane: u32,
}

/// Bindings: model (stored), tau (planes). Constant: the element type.
pub static WIDEN: Kernel = Kernel {
    name: "widen",
    wgsl: include_str!("../../shaders/widen.wgsl"),
    constants: &["MODEL"],
    bindings: &[Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends `tau[plane] = model`.
pub fn record(list: &mut Recording, model: Buf, tau: Buf, plane: u32) {
    let constants = [list.dtype(model).code()];
    list.call(&WIDEN, &constants, &Params { plane }, &[model, tau]);
}

fn emit(q: &mut dyn Quad) {
    let model = q.bits(0);
    q.set(1, q.fixed(0), &format!("widen({model})"));
}

fn twin(args: &mut Args<'_>) {
    let n = args.dims.n as usize;
    let plane = args.params::<Params>().plane as usize;
    let model = args.read::<u8>(0);
    let dtype = dtype(args.constants[0]);
    each_large(&mut args.write::<f32>(1)[plane * n..][..n], 1, |start, out| widen(dtype, model, start, out));
}
