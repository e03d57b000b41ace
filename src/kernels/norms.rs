//! Row statistics of every plane: the sums behind norms, projections and the report.

use bytemuck::{Pod, Zeroable};

use super::vector::{LANES, SPAN, sum};
use super::{Access, Args, Form, Kernel, Quad, per_row_and_plane};
use crate::recording::{Buf, Recording, Size};

/// Statistics of one row of one plane; twin of the `vec4` in `shaders/norms.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Stats {
    /// Σ|x|.
    pub l1: f32,
    /// Σx².
    pub square: f32,
    /// max|x|, by its bits: NaN or infinite if any x is.
    pub largest: f32,
    /// Σx·m, with m the last plane's entries.
    pub dot: f32,
}

/// Words of a [`Stats`].
pub const WIDTH: u32 = 4;

/// Bindings: tau (planes), stats (`[rows, planes]`). Constant: whether Σ|x| is all that is asked for.
pub static NORMS: Kernel = Kernel {
    name: "norms",
    wgsl: include_str!("../../shaders/norms.wgsl"),
    constants: &["ONLY_L1"],
    bindings: &[Access::Read, Access::Write],
    form: Form::Rows(emit),
    twin,
};

/// The same for more planes than invocations can hold sums of.
pub static STATISTICS: Kernel = Kernel {
    name: "statistics",
    wgsl: include_str!("../../shaders/statistics.wgsl"),
    constants: &["ONLY_L1"],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(per_row_and_plane),
    twin,
};

/// Planes that invocations can hold sums of, and drivers compile in no time.
const FEW: u32 = 17;

/// Size of the statistics of a stack of `planes`.
pub fn size(planes: u32) -> Size {
    Size::Rows(WIDTH * planes)
}

/// Appends: `stats[row, plane]` = [`Stats`] of `tau[plane]`'s row.
pub fn record(list: &mut Recording, tau: Buf, stats: Buf) {
    call(list, tau, stats, false);
}

/// The same with Σ|x| alone; the other sums are zero.
pub fn record_l1(list: &mut Recording, tau: Buf, stats: Buf) {
    call(list, tau, stats, true);
}

fn call(list: &mut Recording, tau: Buf, stats: Buf, only_l1: bool) {
    let kernel = if list.planes <= FEW { &NORMS } else { &STATISTICS };
    list.call(kernel, &[only_l1.into()], &(), &[tau, stats]);
}

fn emit(q: &mut dyn Quad) {
    let (planes, sums) = (q.planes(), q.name("sums"));
    q.before(&format!("var {sums}: Stack;"));
    let (tau, exist) = (q.stack(0, planes), q.exist());
    let function = if q.constant(0) != 0 { "l1_of" } else { "norms_of" };
    q.line(&format!("{function}({tau}, &{sums}, {exist});"));
    q.join(1, &sums, planes, "join_norms", WIDTH);
}

fn twin(args: &mut Args<'_>) {
    let (dims, only_l1) = (args.dims, args.constants[0] != 0);
    let (n, planes, len) = (dims.n as usize, dims.planes as usize, dims.row_len as usize);
    let tau = args.read::<f32>(0);
    let stats = args.write::<Stats>(1);
    let last = &tau[(planes - 1) * n..][..n];
    for (row, m) in last.chunks(len).enumerate() {
        for plane in 0..planes {
            let x = &tau[plane * n + row * len..][..m.len()];
            stats[row * planes + plane] =
                if only_l1 { Stats { l1: l1(x), ..Stats::default() } } else { row_stats(x, m) };
        }
    }
}

#[multiversion::multiversion(targets = "simd")]
fn l1(x: &[f32]) -> f32 {
    sum(x, f32::abs) as f32
}

fn row_stats(x: &[f32], m: &[f32]) -> Stats {
    if x.len() < LANES {
        return short_stats(x, m);
    }
    let (mut l1, mut square, mut largest, mut dot) = (0f64, 0f64, 0f32, 0f64);
    for (x, m) in x.chunks(SPAN).zip(m.chunks(SPAN)) {
        let part = span_stats(x, m);
        l1 += f64::from(part.l1);
        square += f64::from(part.square);
        largest = larger(largest, part.largest);
        dot += f64::from(part.dot);
    }
    Stats { l1: l1 as f32, square: square as f32, largest, dot: dot as f32 }
}

/// The larger of two magnitudes by their bits, of which those of NaN and infinity are the largest.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    f32::from_bits(a.to_bits().max(b.to_bits()))
}

/// [`span_stats`] where no lane has more than one element: the same sums, without the lanes.
#[inline]
fn short_stats(x: &[f32], m: &[f32]) -> Stats {
    let mut stats = Stats::default();
    for (x, m) in x.iter().zip(m) {
        stats.l1 += x.abs();
        stats.square += x * x;
        stats.largest = larger(stats.largest, x.abs());
        stats.dot += x * m;
    }
    stats
}

#[multiversion::multiversion(targets = "simd")]
fn span_stats(x: &[f32], m: &[f32]) -> Stats {
    let (mut l1, mut square, mut largest, mut dot) = ([0f32; LANES], [0f32; LANES], [0f32; LANES], [0f32; LANES]);
    let (xs, ms) = (x.chunks_exact(LANES), m.chunks_exact(LANES));
    let rest = xs.remainder().iter().zip(ms.remainder());
    for (x, m) in xs.zip(ms) {
        for j in 0..LANES {
            l1[j] += x[j].abs();
            square[j] += x[j] * x[j];
            largest[j] = larger(largest[j], x[j].abs());
            dot[j] += x[j] * m[j];
        }
    }
    for (j, (x, m)) in rest.enumerate() {
        l1[j] += x.abs();
        square[j] += x * x;
        largest[j] = larger(largest[j], x.abs());
        dot[j] += x * m;
    }
    Stats {
        l1: l1.iter().sum(),
        square: square.iter().sum(),
        largest: largest.into_iter().fold(0.0, larger),
        dot: dot.iter().sum(),
    }
}
