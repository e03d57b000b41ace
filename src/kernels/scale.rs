//! The merged task vector alone: `out = xi · tau[last]`.

use bytemuck::{Pod, Zeroable};

use super::vector::each_large;
use super::{Access, Args, Form, Kernel, Quad};
use crate::recording::{Buf, Recording, Size};

/// Own parameters; twin of `Params` in `shaders/scale.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    stride: u32,
}

/// Bindings: tau (planes), xi (`[rows]` or one), out (`[n]`).
pub static SCALE: Kernel = Kernel {
    name: "scale",
    wgsl: include_str!("../../shaders/scale.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Quad(emit),
    twin,
};

/// Appends `out = xi · tau[last]`; `xi` holds a factor for each row, or one for all.
pub fn record(list: &mut Recording, tau: Buf, xi: Buf, out: Buf) {
    let stride = u32::from(matches!(list.buffers[xi.0].size, Size::Rows(_)));
    list.call(&SCALE, &[], &Params { stride }, &[tau, xi, out]);
}

fn emit(q: &mut dyn Quad) {
    let (x, xi) = (q.plane(0, q.planes() - 1), q.of_row(1));
    q.set(2, 0, &format!("scale({xi}, {x})"));
}

fn twin(args: &mut Args<'_>) {
    let (n, len) = (args.dims.n as usize, args.dims.row_len as usize);
    let stride = args.params::<Params>().stride as usize;
    let (tau, xi) = (&args.read::<f32>(0)[(args.dims.planes as usize - 1) * n..][..n], args.read::<f32>(1));
    each_large(&mut args.write::<f32>(2)[..n], len, |first, part| {
        for (row, (out, tau)) in part.chunks_mut(len).zip(tau[first..].chunks(len)).enumerate() {
            let factor = xi[(first / len + row) * stride];
            out.iter_mut().zip(tau).for_each(|(out, t)| *out = factor * t);
        }
    });
}
