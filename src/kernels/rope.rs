//! Rotary positions: pairs (i, i + dim/2) of every head turned by an angle of the row, as Hugging Face's
//! `rotate_half` does.

use bytemuck::{Pod, Zeroable};

use super::vector::each_row;
use super::{Access, Args, Form, Kernel, WORKGROUP, holds};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/rope.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    half: u32,
}

/// Bindings: table (`[rows, dim]`: half cosines, half sines), x and out (`[rows, heads · dim]`). An invocation for each pair.
pub static ROPE: Kernel = Kernel {
    name: "rope",
    wgsl: include_str!("../../shaders/rope.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.n / 2).div_ceil(u64::from(WORKGROUP))),
    twin,
};

/// Appends `out` = the rotation of `x`, whose heads have an even `dim`.
pub fn record(list: &mut Recording, rows: u32, heads: u32, dim: u32, table: Buf, x: Buf, out: Buf) {
    debug_assert!(dim.is_multiple_of(2), "pairs in heads of {dim}");
    holds(list, table, 0, rows, dim);
    [x, out].iter().for_each(|buf| holds(list, *buf, 0, rows, heads * dim));
    list.call_over((rows, heads * dim), &ROPE, &[], &Params { half: dim / 2 }, &[table, x, out]);
}

fn twin(args: &mut Args<'_>) {
    let (n, len) = (args.dims.n as usize, args.dims.row_len as usize);
    let half = args.params::<Params>().half as usize;
    let (table, x) = (args.read::<f32>(0), args.read::<f32>(1));
    each_row(&mut args.write::<f32>(2)[..n], len, |r, out| {
        let (cos, sin) = table[r * 2 * half..][..2 * half].split_at(half);
        let heads = x[r * len..][..len].chunks_exact(2 * half);
        out.chunks_exact_mut(2 * half).zip(heads).for_each(|(out, head)| turn(head, cos, sin, out));
    });
}

#[multiversion::multiversion(targets = "simd")]
fn turn(head: &[f32], cos: &[f32], sin: &[f32], out: &mut [f32]) {
    let (first, second) = head.split_at(cos.len());
    let (near, far) = out.split_at_mut(cos.len());
    for (((x, y), (c, s)), (near, far)) in
        first.iter().zip(second).zip(cos.iter().zip(sin)).zip(near.iter_mut().zip(far))
    {
        (*near, *far) = (x * c - y * s, y * c + x * s);
    }
}
