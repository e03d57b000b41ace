//! `out = xᵀ`, for products whose second factor comes in rows.

use super::vector::each_large;
use super::{Access, Args, Dims, Form, Kernel, holds};
use crate::recording::{Buf, Recording};

/// Side of a tile.
const SIDE: u32 = 32;

/// Bindings: x (`[rows, row_len]`), out (`[row_len, rows]`).
pub static TRANSPOSE: Kernel = Kernel {
    name: "transpose",
    wgsl: include_str!("../../shaders/transpose.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(|dims: &Dims| u64::from(dims.rows.div_ceil(SIDE)) * u64::from(dims.row_len.div_ceil(SIDE))),
    twin,
};

/// Appends `out[j, i] = x[i, j]` for `x` of `rows` × `row_len`.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), x: Buf, out: Buf) {
    holds(list, x, 0, rows, row_len);
    holds(list, out, 0, row_len, rows);
    list.call_over((rows, row_len), &TRANSPOSE, &[], &[0u32; 0], &[x, out]);
}

fn twin(args: &mut Args<'_>) {
    let (rows, cols) = (args.dims.rows as usize, args.dims.row_len as usize);
    let x = args.read::<f32>(0);
    each_large(&mut args.write::<f32>(1)[..rows * cols], rows, |first, part| {
        for (j, column) in part.chunks_mut(rows).enumerate() {
            let col = first / rows + j;
            column.iter_mut().zip(x[col..].iter().step_by(cols)).for_each(|(out, x)| *out = *x);
        }
    });
}
