//! The product of [`super::matmul`] by an adapter's cooperative matrices: f16 inputs, f32 sums. `--fast-gemm` alone runs it.

use super::matmul::{Params, Place, Shape, Weight};
use super::vector::{Matrix, each_row, product};
use super::{Access, Args, Form, Kernel, row_scale};
use crate::recording::{Buf, Recording, Size};

/// The shader for matrices of one side.
macro_rules! wgsl {
    ($matrix:literal, $side:literal) => {
        concat!(
            "enable f16;\nenable wgpu_cooperative_matrix;\n",
            concat!("alias Left = ", $matrix, "<f16, A>;\n"),
            concat!("alias Right = ", $matrix, "<f16, B>;\n"),
            concat!("alias Sum = ", $matrix, "<f32, C>;\n"),
            concat!("const SIDE = ", $side, "u;\n"),
            include_str!("../../shaders/matmul_coop.wgsl"),
        )
    };
}

/// Bindings: x (`[rows, depth]`), w (`[cols, depth]` from an offset), bias (`[cols]` from an offset), the scales of x and
/// of w, out (`[rows, cols]` of wider rows). Matrices of 16 × 16.
pub static MATMUL_COOP16: Kernel = Kernel {
    name: "matmul_coop16",
    wgsl: wgsl!("coop_mat16x16", "16"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.rows.div_ceil(64)) * u64::from(dims.row_len.div_ceil(128))),
    twin,
};

/// [`MATMUL_COOP16`] with matrices of 8 × 8.
pub static MATMUL_COOP8: Kernel = Kernel { name: "matmul_coop8", wgsl: wgsl!("coop_mat8x8", "8"), ..MATMUL_COOP16 };

/// Side of the matrices of the kernel `name`, if it is one of the two.
pub fn side(name: &str) -> Option<u32> {
    [(&MATMUL_COOP16, 16), (&MATMUL_COOP8, 8)].into_iter().find(|(kernel, _)| kernel.name == name).map(|(_, side)| side)
}

/// Appends `out[r, column + c] = Σ_k x[r, k] · w[c, k] + bias[c]` by one of the two kernels, and before it the scales.
pub fn record(
    list: &mut Recording,
    kernel: &'static Kernel,
    shape: Shape,
    x: Buf,
    w: Weight,
    bias: Option<Weight>,
    out: Place,
) {
    let Shape { rows, cols, depth } = shape;
    let (params, bias) = Params::new(list, shape, x, w, bias, out);
    let [of_x, of_w] = [rows, cols].map(|n| list.scratch("scales", Size::Fixed(n * row_scale::WIDTH)));
    row_scale::record(list, (rows, depth), x, 0, of_x);
    row_scale::record(list, (cols, depth), w.buf, w.from, of_w);
    list.call_over((rows, cols), kernel, &[], &params, &[x, w.buf, bias, of_x, of_w, out.buf]);
    list.sets(out.region(rows, cols));
}

fn twin(args: &mut Args<'_>) {
    let Params { depth, from, bias, bias_from, stride, column } = args.params();
    let (rows, cols, depth) = (args.dims.rows as usize, args.dims.row_len as usize, depth as usize);
    let (stride, column) = (stride as usize, column as usize);
    let (x, w, biases) = (args.read::<f32>(0), args.read::<f32>(1), args.read::<f32>(2));
    let (of_x, of_w) = (args.read::<[f32; 2]>(3), args.read::<[f32; 2]>(4));
    let out = &mut args.write::<f32>(5)[..rows * stride];
    let x = rounded(&x[..rows * depth], depth, of_x);
    let w = rounded(&w[from as usize..][..cols * depth], depth, of_w);
    let (x, w) = (Matrix { values: &x, down: depth, right: 1 }, Matrix { values: &w, down: 1, right: depth });
    product((rows, cols, depth), x, w, (&mut out[column..], stride, false), true);
    each_row(out, stride, |r, row| {
        for (c, y) in row[column..][..cols].iter_mut().enumerate() {
            *y = *y * of_x[r][1] * of_w[c][1] + if bias != 0 { biases[bias_from as usize + c] } else { 0.0 };
        }
    });
}

/// What f16 holds of rows of `len`, scaled.
fn rounded(x: &[f32], len: usize, scales: &[[f32; 2]]) -> Vec<f32> {
    let mut rounded = x.to_vec();
    each_row(&mut rounded, len, |row, values| {
        values.iter_mut().for_each(|x| *x = half::f16::from_f32(*x * scales[row][0]).to_f32());
    });
    rounded
}
