//! `out = x · w + b`, column by column: what follows a normalization, and layer scales.

use bytemuck::{Pod, Zeroable};

use super::matmul::Weight;
use super::vector::each_row;
use super::{Access, Args, Form, Kernel, holds, per_quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/affine.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    from: u32,
    bias: u32,
    bias_from: u32,
}

/// Bindings: x (`[rows, row_len]`), w and bias (`[row_len]` from an offset), out (as x).
pub static AFFINE: Kernel = Kernel {
    name: "affine",
    wgsl: include_str!("../../shaders/affine.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
    form: Form::Shader(per_quad),
    twin,
};

/// Appends `out[r, c] = x[r, c] · w[c] + bias[c]`.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), x: Buf, w: Weight, bias: Option<Weight>, out: Buf) {
    holds(list, x, 0, rows, row_len);
    holds(list, w.buf, w.from, 1, row_len);
    holds(list, out, 0, rows, row_len);
    if let Some(bias) = bias {
        holds(list, bias.buf, bias.from, 1, row_len);
    }
    let bias_from = bias.map_or(0, |bias| bias.from);
    let params = Params { from: w.from, bias: u32::from(bias.is_some()), bias_from };
    let bias = bias.map_or(w.buf, |bias| bias.buf);
    list.call_over((rows, row_len), &AFFINE, &[], &params, &[x, w.buf, bias, out]);
}

fn twin(args: &mut Args<'_>) {
    let (n, len) = (args.dims.n as usize, args.dims.row_len as usize);
    let Params { from, bias, bias_from } = args.params();
    let (x, w) = (args.read::<f32>(0), &args.read::<f32>(1)[from as usize..][..len]);
    let bias = (bias != 0).then(|| &args.read::<f32>(2)[bias_from as usize..][..len]);
    each_row(&mut args.write::<f32>(3)[..n], len, |r, out| affine(&x[r * len..][..len], w, bias, out));
}

#[multiversion::multiversion(targets = "simd")]
fn affine(x: &[f32], w: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let scaled = out.iter_mut().zip(x.iter().zip(w));
    match bias {
        Some(bias) => scaled.zip(bias).for_each(|((y, (x, w)), b)| *y = x * w + b),
        None => scaled.for_each(|(y, (x, w))| *y = x * w),
    }
}
