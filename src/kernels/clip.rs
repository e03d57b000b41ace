//! No entry moves further than a limit: the combination of NearSwap.

use bytemuck::{Pod, Zeroable};

use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/clip.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    limit: f32,
}

/// Binding: tau (planes).
pub static CLIP: Kernel = Kernel {
    name: "clip",
    wgsl: include_str!("../../shaders/clip.wgsl"),
    constants: &[],
    bindings: &[Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends `tau[last] = clamp(tau[0], −limit, limit)`, for a limit from zero. NaN stays NaN.
pub fn record(list: &mut Recording, tau: Buf, limit: f32) {
    list.call(&CLIP, &[], &Params { limit: limit.max(0.0) }, &[tau]);
}

fn emit(q: &mut dyn Quad) {
    let (x, limit) = (q.plane(0, 0), q.float(0));
    q.set(0, q.planes() - 1, &format!("clip({x}, {limit})"));
}

fn twin(args: &mut Args<'_>) {
    let (n, planes) = (args.dims.n as usize, args.dims.planes as usize);
    let limit = args.params::<Params>().limit;
    let (tau, last) = args.write::<f32>(0).split_at_mut((planes - 1) * n);
    clip(&mut last[..n], &tau[..n], limit);
}

#[multiversion::multiversion(targets = "simd")]
fn clip(out: &mut [f32], x: &[f32], limit: f32) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = x.clamp(-limit, limit);
    }
}
