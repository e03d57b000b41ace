//! LayerNorm and RMSNorm without their weights: every row to mean zero and variance one, or to mean square one.

use bytemuck::{Pod, Zeroable};

use super::vector::{each_row, sum};
use super::{Access, Args, Form, Kernel, holds, per_row};
use crate::recording::{Buf, Recording};

/// What a row is divided by, and what is taken from it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Less the mean, by √(variance + eps).
    Layer,
    /// By √(mean square + eps).
    Rms,
}

/// Own parameters; twin of `Params` in `shaders/normalize.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    eps: f32,
}

/// Bindings: x (`[rows, row_len]`), out (the same). Constant: 1 if the mean is taken off.
pub static NORMALIZE: Kernel = Kernel {
    name: "normalize",
    wgsl: include_str!("../../shaders/normalize.wgsl"),
    constants: &["CENTRE"],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(per_row),
    twin,
};

/// Appends `out` = the rows of `x`, normalized.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), kind: Kind, eps: f32, x: Buf, out: Buf) {
    holds(list, x, 0, rows, row_len);
    holds(list, out, 0, rows, row_len);
    let centre = u32::from(kind == Kind::Layer);
    list.call_over((rows, row_len), &NORMALIZE, &[centre], &Params { eps }, &[x, out]);
}

fn twin(args: &mut Args<'_>) {
    let (n, len) = (args.dims.n as usize, args.dims.row_len as usize);
    let (centre, eps) = (args.constants[0] != 0, args.params::<Params>().eps);
    let x = args.read::<f32>(0);
    each_row(&mut args.write::<f32>(1)[..n], len, |r, out| normalize(&x[r * len..][..len], centre, eps, out));
}

#[multiversion::multiversion(targets = "simd")]
fn normalize(x: &[f32], centre: bool, eps: f32, out: &mut [f32]) {
    let len = x.len() as f64;
    let mean = if centre { (sum(x, |x| x) / len) as f32 } else { 0.0 };
    let square = sum(x, |x| (x - mean) * (x - mean)) / len;
    let factor = (1.0 / (square + f64::from(eps)).sqrt()) as f32;
    for (y, x) in out.iter_mut().zip(x) {
        *y = (x - mean) * factor;
    }
}
