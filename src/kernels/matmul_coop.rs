//! The product of [`super::matmul`] by an adapter's cooperative matrices: f16 inputs, f32 sums. `--fast-gemm` alone runs it.

use super::matmul::{Params, Place, Shape, Weight};
use super::vector::{Matrix, each_row, product};
use super::{Access, Args, Form, Kernel, LANES, narrow_rows};
use crate::recording::{Buf, Recording};

/// The shader for matrices of one side.
macro_rules! wgsl {
    ($matrix:literal, $side:literal) => {
        concat!(
            "enable f16;\nenable wgpu_cooperative_matrix;\n",
            concat!("alias Left = ", $matrix, "<f16, A>;\n"),
            concat!("alias Right = ", $matrix, "<f16, B>;\n"),
            concat!("alias Sum = ", $matrix, "<f32, C>;\n"),
            concat!("const SIDE = ", $side, "u;\n"),
            include_str!("../../shaders/tiles.wgsl"),
            include_str!("../../shaders/matmul_coop.wgsl"),
        )
    };
}

/// Bindings: x and w (f16, `[rows, depth]` and `[cols, depth]` as [`narrow_rows`] makes them), bias (`[cols]` from an
/// offset), the scales of x and of w, out (`[rows, cols]` of wider rows). Matrices of 16 × 16.
pub static MATMUL_COOP16: Kernel = Kernel {
    name: "matmul_coop16",
    wgsl: wgsl!("coop_mat16x16", "16"),
    constants: &[LANES],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
    form: Form::Shader(|dims| super::matmul::tiles(dims, 128)),
    twin,
};

/// [`MATMUL_COOP16`] with matrices of 8 × 8.
pub static MATMUL_COOP8: Kernel = Kernel {
    name: "matmul_coop8",
    wgsl: wgsl!("coop_mat8x8", "8"),
    form: Form::Shader(|dims| super::matmul::tiles(dims, 64)),
    ..MATMUL_COOP16
};

/// Side of the matrices of the kernel `name`, if it is one of the two.
pub fn side(name: &str) -> Option<u32> {
    [(&MATMUL_COOP16, 16), (&MATMUL_COOP8, 8)].into_iter().find(|(kernel, _)| kernel.name == name).map(|(_, side)| side)
}

/// Appends `out[r, column + c] = Σ_k x[r, k] · w[c, k] + bias[c]` by one of the two kernels, and before it what makes its
/// inputs f16.
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
    let params = Params { depth: narrow_rows::pitch(depth) / WORDS, from: 0, ..params };
    let mut narrow = |rows, buf, from| {
        let [narrow, scales] = narrow_rows::sizes(rows, depth);
        let made = [list.scratch("narrow", narrow), list.scratch("scales", scales)];
        narrow_rows::record(list, (rows, depth), buf, from, made);
        made
    };
    let ([x, of_x], [w, of_w]) = (narrow(rows, x, 0), narrow(cols, w.buf, w.from));
    list.call_over((rows, cols), kernel, &[0], &params, &[x, w, bias, of_x, of_w, out.buf]);
    list.sets(out.region(rows, cols));
}

/// Words of the eight elements that the shader loads at a time.
const WORDS: u32 = 4;

fn twin(args: &mut Args<'_>) {
    let Params { depth, bias, bias_from, stride, column, .. } = args.params();
    let (rows, cols, depth) = (args.dims.rows as usize, args.dims.row_len as usize, 8 * depth as usize);
    let (stride, column) = (stride as usize, column as usize);
    let wide = |i, rows| wide(&args.read::<u16>(i)[..rows * depth]);
    let (x, w, biases) = (wide(0, rows), wide(1, cols), args.read::<f32>(2));
    let (of_x, of_w) = (args.read::<[f32; 2]>(3), args.read::<[f32; 2]>(4));
    let out = &mut args.write::<f32>(5)[..rows * stride];
    let (x, w) = (Matrix { values: &x, down: depth, right: 1 }, Matrix { values: &w, down: 1, right: depth });
    product((rows, cols, depth), x, w, (&mut out[column..], stride, false), true);
    each_row(out, stride, |r, row| {
        for (c, y) in row[column..][..cols].iter_mut().enumerate() {
            *y = *y * of_x[r][1] * of_w[c][1] + if bias != 0 { biases[bias_from as usize + c] } else { 0.0 };
        }
    });
}

/// f16 as f32.
fn wide(x: &[u16]) -> Vec<f32> {
    x.iter().map(|&bits| half::f16::from_bits(bits).to_f32()).collect()
}
