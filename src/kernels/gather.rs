//! Rows of a table, by index: embeddings of tokens and positions.

use bytemuck::{Pod, Zeroable};

use super::matmul::Weight;
use super::vector::each_row;
use super::{Access, Args, Form, Kernel, holds, per_quad};
use crate::recording::{Buf, Recording};

/// Own parameters; twin of `Params` in `shaders/gather.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    from: u32,
    add: u32,
}

/// Bindings: table (rows of `row_len` from an offset), index (`[rows]`), onto and out (`[rows, row_len]`).
pub static GATHER: Kernel = Kernel {
    name: "gather",
    wgsl: include_str!("../../shaders/gather.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
    form: Form::Shader(per_quad),
    twin,
};

/// Appends `out[r, c] = table[index[r], c]`, and `onto[r, c]` with it if there is one. An index beyond the table, such as
/// [`u32::MAX`], stands for a row of zeros.
pub fn record(
    list: &mut Recording,
    (rows, row_len): (u32, u32),
    table: Weight,
    index: Buf,
    onto: Option<Buf>,
    out: Buf,
) {
    holds(list, table.buf, table.from, 0, row_len);
    holds(list, index, 0, 1, rows);
    onto.iter().chain([&out]).for_each(|buf| holds(list, *buf, 0, rows, row_len));
    let params = Params { from: table.from, add: u32::from(onto.is_some()) };
    list.call_over((rows, row_len), &GATHER, &[], &params, &[table.buf, index, onto.unwrap_or(table.buf), out]);
}

fn twin(args: &mut Args<'_>) {
    let (n, len) = (args.dims.n as usize, args.dims.row_len as usize);
    let Params { from, add } = args.params();
    let (table, index) = (&args.read::<f32>(0)[from as usize..], args.read::<u32>(1));
    let onto = args.read::<f32>(2);
    each_row(&mut args.write::<f32>(3)[..n], len, |r, out| {
        match table.chunks_exact(len).nth(index[r] as usize) {
            Some(row) => out.copy_from_slice(row),
            None => out.fill(0.0),
        }
        if add != 0 {
            out.iter_mut().zip(&onto[r * len..]).for_each(|(y, x)| *y += x);
        }
    });
}
