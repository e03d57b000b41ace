//! Every kernel: a WGSL file in `shaders/`, and here, under the same stem, its declaration and its plain Rust twin.
//!
//! The twin is the oracle of the kernel's test and the engine of the CPU device.

pub mod activate;
pub mod add;
pub mod affine;
pub mod attention;
pub mod between;
pub mod blend;
pub mod canary;
pub mod checksum;
pub mod clip;
pub mod combine;
pub mod consensus;
pub mod convert;
pub mod cross;
pub mod delta;
pub mod deviation;
pub mod drop;
pub mod drop_l1;
pub mod drop_ranked;
pub mod elect;
pub mod factor;
pub mod gate;
pub mod gather;
pub mod gram;
pub mod gram_t;
pub mod histogram;
pub mod loss;
pub mod mask;
pub mod matmul;
pub mod matmul_coop;
pub mod matvec;
pub mod matvec_t;
pub mod narrow_rows;
pub mod normalize;
pub mod norms;
pub mod patches;
pub mod rank;
pub mod rescale;
pub mod residual;
pub mod rope;
pub mod scale;
pub mod transpose;
pub mod trim;
pub mod variance;
pub(crate) mod vector;
pub mod widen;
pub mod witness;

use crate::checkpoint::sha256;
pub use crate::kernel::{Access, Args, Dims, Form, Kernel, LANES, Quad, Slot, WORKGROUP};
use crate::recording::{Buf, Recording, Size};

/// Declarations and helpers that every shader starts with.
pub const COMMON: &str = include_str!("../../shaders/common.wgsl");

/// Four elements at a time: what those shaders start with that are built around [`Form::Quad`] and [`Form::Rows`].
pub const QUAD: &str = include_str!("../../shaders/quad.wgsl");

/// In front of them where the device takes numbers of 64 bits.
pub const WIDE: &str = include_str!("../../shaders/wide.wgsl");

/// All kernels; tests, benches and shader validation go through this list.
pub static ALL: &[&Kernel] = &[
    &delta::DELTA,
    &widen::WIDEN,
    &histogram::HISTOGRAM,
    &between::BETWEEN,
    &witness::WITNESS,
    &trim::TRIM,
    &drop::DROP,
    &drop_l1::DROP_L1,
    &rank::RANK,
    &drop_ranked::DROP_RANKED,
    &combine::COMBINE,
    &elect::ELECT,
    &variance::VARIANCE,
    &mask::MASK,
    &consensus::CONSENSUS,
    &clip::CLIP,
    &gram::GRAM,
    &gram::GRAM_ROWS,
    &gram_t::GRAM_T,
    &blend::BLEND,
    &norms::NORMS,
    &norms::STATISTICS,
    &cross::CROSS,
    &residual::RESIDUAL,
    &factor::FACTOR,
    &matvec::MATVEC,
    &matvec_t::MATVEC_T,
    &rescale::RESCALE,
    &scale::SCALE,
    &transpose::TRANSPOSE,
    &checksum::CHECKSUM,
    &canary::CANARY,
    &gather::GATHER,
    &patches::PATCHES,
    &normalize::NORMALIZE,
    &affine::AFFINE,
    &matmul::MATMUL,
    &matmul::MATMUL_LARGE,
    &matmul::MATMUL_SMALL,
    &matmul::MATMUL_SKINNY,
    &narrow_rows::NARROW_ROWS,
    &matmul_coop::MATMUL_COOP16,
    &matmul_coop::MATMUL_COOP8,
    &rope::ROPE,
    &attention::ATTENTION,
    &activate::ACTIVATE,
    &gate::GATE,
    &add::ADD,
    &loss::LOSS,
    &deviation::DEVIATION,
];

/// SHA-256 of the WGSL of all kernels, and of what they share.
pub fn wgsl_sha256() -> String {
    let own = ALL.iter().map(|kernel| format!("{} {}\n", kernel.name, kernel.wgsl_sha256()));
    sha256([COMMON, QUAD, WIDE].into_iter().map(str::to_owned).chain(own).collect::<String>())
}

/// The whole shader of `kernel`: [`COMMON`] before its own text, and before both what that enables.
pub fn source(kernel: &Kernel) -> String {
    let enables: usize =
        kernel.wgsl.split_inclusive('\n').take_while(|line| line.starts_with("enable ")).map(str::len).sum();
    let (enables, own) = kernel.wgsl.split_at(enables);
    [enables, COMMON, own].concat()
}

/// Workgroups for one invocation per 4 elements.
pub fn per_quad(dims: &Dims) -> u64 {
    u64::from(dims.n).div_ceil(4 * u64::from(WORKGROUP))
}

/// Workgroups for one workgroup per row.
pub fn per_row(dims: &Dims) -> u64 {
    u64::from(dims.rows)
}

/// Workgroups for one workgroup per row and plane.
pub fn per_row_and_plane(dims: &Dims) -> u64 {
    u64::from(dims.rows) * u64::from(dims.planes)
}

/// Shaders check no bounds in release builds: a buffer of known size has to hold `rows` of `row_len` words behind the
/// first `from`.
fn holds(list: &Recording, buf: Buf, from: u32, rows: u32, row_len: u32) {
    let buffer = &list.buffers[buf.0];
    let needed = u64::from(from) + u64::from(rows) * u64::from(row_len);
    if let Size::Fixed(words) = buffer.size {
        assert!(u64::from(words) >= needed, "`{}` has {words} words, and {needed} are needed", buffer.label);
    }
}
