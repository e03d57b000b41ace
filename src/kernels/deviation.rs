//! Statistics of two sets of features, row by row: what calibration in feature space measures.

use bytemuck::{Pod, Zeroable};

use super::vector::{LANES, SPAN, each_row};
use super::{Access, Args, Form, Kernel, holds, per_row};
use crate::recording::{Buf, Recording, Region};

/// Statistics of a row a and a row c; twin of the two `vec4` in `shaders/deviation.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Deviation {
    /// Σ|a|.
    pub l1_a: f32,
    /// Σ|c|.
    pub l1_c: f32,
    /// Σa².
    pub square_a: f32,
    /// Σc².
    pub square_c: f32,
    /// Σa·c.
    pub dot: f32,
    /// max|a|.
    pub largest_a: f32,
    /// max|c|.
    pub largest_c: f32,
    /// Nothing.
    pub pad: f32,
}

/// Words of a [`Deviation`].
pub const WIDTH: u32 = 8;

/// Bindings: a and c (`[rows, row_len]`), stats (`[rows]`).
pub static DEVIATION: Kernel = Kernel {
    name: "deviation",
    wgsl: include_str!("../../shaders/deviation.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Read, Access::Write],
    form: Form::Shader(per_row),
    twin,
};

/// Appends `stats[r]` = the [`Deviation`] of rows r.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), a: Buf, c: Buf, stats: Buf) {
    holds(list, a, 0, rows, row_len);
    holds(list, c, 0, rows, row_len);
    holds(list, stats, 0, rows, WIDTH);
    list.call_over((rows, row_len), &DEVIATION, &[], &(), &[a, c, stats]);
    list.sets(Region::rows(rows, WIDTH));
}

fn twin(args: &mut Args<'_>) {
    let (rows, len) = (args.dims.rows as usize, args.dims.row_len as usize);
    let (a, c) = (args.read::<f32>(0), args.read::<f32>(1));
    let stats = &mut args.write::<Deviation>(2)[..rows];
    // As many rows to a task as of the features, not of the statistics.
    let group = (SPAN / len.max(1)).max(1);
    each_row(stats, group, |i, stats| {
        for (j, stats) in stats.iter_mut().enumerate() {
            let row = (i * group + j) * len;
            *stats = deviation(&a[row..][..len], &c[row..][..len]);
        }
    });
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

fn deviation(a: &[f32], c: &[f32]) -> Deviation {
    let (mut sums, mut largest) = ([0f64; 5], [0f32; 2]);
    for (a, c) in a.chunks(SPAN).zip(c.chunks(SPAN)) {
        let (part, most) = span(a, c);
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(part));
        largest = [larger(largest[0], most[0]), larger(largest[1], most[1])];
    }
    let [l1_a, l1_c, square_a, square_c, dot] = sums.map(|sum| sum as f32);
    Deviation { l1_a, l1_c, square_a, square_c, dot, largest_a: largest[0], largest_c: largest[1], pad: 0.0 }
}

#[multiversion::multiversion(targets = "simd")]
fn span(a: &[f32], c: &[f32]) -> ([f32; 5], [f32; 2]) {
    let (mut sums, mut largest) = ([[0f32; LANES]; 5], [[0f32; LANES]; 2]);
    let (whole_a, whole_c) = (a.chunks_exact(LANES), c.chunks_exact(LANES));
    let (mut rest_a, mut rest_c) = ([0f32; LANES], [0f32; LANES]);
    rest_a[..whole_a.remainder().len()].copy_from_slice(whole_a.remainder());
    rest_c[..whole_c.remainder().len()].copy_from_slice(whole_c.remainder());
    let mut take = |a: &[f32], c: &[f32]| {
        for j in 0..LANES {
            sums[0][j] += a[j].abs();
            sums[1][j] += c[j].abs();
            sums[2][j] += a[j] * a[j];
            sums[3][j] += c[j] * c[j];
            sums[4][j] += a[j] * c[j];
            largest[0][j] = larger(largest[0][j], a[j].abs());
            largest[1][j] = larger(largest[1][j], c[j].abs());
        }
    };
    whole_a.zip(whole_c).for_each(|(a, c)| take(a, c));
    take(&rest_a, &rest_c);
    (sums.map(|lanes| lanes.iter().sum()), largest.map(|lanes| lanes.iter().fold(0.0, |a, &b| larger(a, b))))
}
