//! `out = x · wᵀ + bias`: every linear layer, in tiles of four shapes.

use bytemuck::{Pod, Zeroable};

use super::vector::{Matrix, each_row, product};
use super::{Access, Args, Dims, Form, Kernel, holds};
use crate::recording::{Buf, Recording, Region};

/// Sides of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of x and of the result.
    pub rows: u32,
    /// Rows of the weight, columns of the result.
    pub cols: u32,
    /// Columns of x and of the weight.
    pub depth: u32,
}

/// Parameters somewhere in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The buffer.
    pub buf: Buf,
    /// Its element that is the first of the parameters.
    pub from: u32,
}

/// Columns of a wider matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The matrix.
    pub buf: Buf,
    /// Elements of one of its rows.
    pub stride: u32,
    /// The first column.
    pub column: u32,
}

impl Place {
    /// These columns of `rows` rows.
    pub(super) fn region(&self, rows: u32, cols: u32) -> Region {
        Region { from: self.column, stride: self.stride, width: cols, rows }
    }
}

/// Own parameters; twin of `Params` in `shaders/tiles.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Params {
    pub depth: u32,
    pub from: u32,
    pub bias: u32,
    pub bias_from: u32,
    pub stride: u32,
    pub column: u32,
}

impl Params {
    /// Those of a product, and what to bind as its bias. The buffers hold what they have to.
    pub fn new(list: &Recording, shape: Shape, x: Buf, w: Weight, bias: Option<Weight>, out: Place) -> (Self, Buf) {
        let Shape { rows, cols, depth } = shape;
        debug_assert!(out.column + cols <= out.stride, "columns {} and on of {}", out.column, out.stride);
        holds(list, x, 0, rows, depth);
        holds(list, w.buf, w.from, cols, depth);
        holds(list, out.buf, 0, rows, out.stride);
        if let Some(bias) = bias {
            holds(list, bias.buf, bias.from, 1, cols);
        }
        let params = Self {
            depth,
            from: w.from,
            bias: u32::from(bias.is_some()),
            bias_from: bias.map_or(0, |bias| bias.from),
            stride: out.stride,
            column: out.column,
        };
        (params, bias.map_or(w.buf, |bias| bias.buf))
    }
}

/// A shader with what all of them start with.
macro_rules! wgsl {
    ($stem:literal) => {
        concat!(
            include_str!("../../shaders/tiles.wgsl"),
            include_str!("../../shaders/product.wgsl"),
            include_str!(concat!("../../shaders/", $stem, ".wgsl")),
        )
    };
}

/// Bindings: x (`[rows, depth]`), w (`[cols, depth]` from an offset), bias (`[cols]` from an offset), out (`[rows, cols]`
/// of wider rows). A workgroup computes a tile of 64 × 64.
pub static MATMUL: Kernel = Kernel {
    name: "matmul",
    wgsl: wgsl!("matmul"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Write],
    form: Form::Shader(|dims| tiles(dims, 64)),
    twin,
};

/// [`MATMUL`] in tiles of 128 × 128, which read less for each sum, where there are enough of them for every core.
pub static MATMUL_LARGE: Kernel =
    Kernel { name: "matmul_large", wgsl: wgsl!("matmul_large"), form: Form::Shader(|dims| tiles(dims, 128)), ..MATMUL };

/// [`MATMUL`] in tiles of 32 × 32, for products that are too small to give every core a larger one.
pub static MATMUL_SMALL: Kernel =
    Kernel { name: "matmul_small", wgsl: wgsl!("matmul_small"), form: Form::Shader(|dims| tiles(dims, 32)), ..MATMUL };

/// [`MATMUL`] for at most [`SKINNY`] rows, 8 columns a workgroup.
pub static MATMUL_SKINNY: Kernel = Kernel {
    name: "matmul_skinny",
    wgsl: wgsl!("matmul_skinny"),
    form: Form::Shader(|dims| u64::from(dims.row_len).div_ceil(8)),
    ..MATMUL
};

/// Most rows that [`MATMUL_SKINNY`] takes.
pub const SKINNY: u32 = 8;

/// Tiles below which smaller ones keep more of a GPU busy.
const FEW: u64 = 96;

/// Tiles of a product.
pub(super) fn tiles(dims: &Dims, side: u32) -> u64 {
    tiles_of(dims.rows, dims.row_len, side)
}

fn tiles_of(rows: u32, cols: u32, side: u32) -> u64 {
    u64::from(rows.div_ceil(side)) * u64::from(cols.div_ceil(side))
}

/// Appends `out[r, column + c] = Σ_k x[r, k] · w[c, k] + bias[c]`.
pub fn record(list: &mut Recording, shape: Shape, x: Buf, w: Weight, bias: Option<Weight>, out: Place) {
    let enough = |side| tiles_of(shape.rows, shape.cols, side) >= FEW;
    let kernel = match shape.rows {
        0..=SKINNY => &MATMUL_SKINNY,
        _ if enough(128) => &MATMUL_LARGE,
        _ if enough(64) => &MATMUL,
        _ => &MATMUL_SMALL,
    };
    record_with(list, kernel, shape, x, w, bias, out);
}

/// [`record`] by one of the four kernels.
pub fn record_with(
    list: &mut Recording,
    kernel: &'static Kernel,
    shape: Shape,
    x: Buf,
    w: Weight,
    bias: Option<Weight>,
    out: Place,
) {
    let (params, bias) = Params::new(list, shape, x, w, bias, out);
    list.call_over((shape.rows, shape.cols), kernel, &[], &params, &[x, w.buf, bias, out.buf]);
    list.sets(out.region(shape.rows, shape.cols));
}

fn twin(args: &mut Args<'_>) {
    let Params { depth, from, bias, bias_from, stride, column } = args.params();
    let (rows, cols, depth) = (args.dims.rows as usize, args.dims.row_len as usize, depth as usize);
    let (stride, column) = (stride as usize, column as usize);
    let (x, w, biases) = (args.read::<f32>(0), args.read::<f32>(1), args.read::<f32>(2));
    let out = &mut args.write::<f32>(3)[..rows * stride];
    let x = Matrix { values: x, down: depth, right: 1 };
    let w = Matrix { values: &w[from as usize..], down: 1, right: depth };
    product((rows, cols, depth), x, w, (&mut out[column..], stride, false), true);
    if bias != 0 {
        let bias = &biases[bias_from as usize..][..cols];
        each_row(out, stride, |_, row| add(&mut row[column..][..cols], bias));
    }
}

#[multiversion::multiversion(targets = "simd")]
fn add(row: &mut [f32], bias: &[f32]) {
    for (y, b) in row.iter_mut().zip(bias) {
        *y += b;
    }
}
