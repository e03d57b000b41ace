//! Every kernel: a WGSL file in `shaders/`, and here, under the same stem, its declaration and its plain Rust twin.
//!
//! The twin is the oracle of the kernel's test and the engine of the CPU device.

pub mod checksum;
pub mod combine;
pub mod convert;
pub mod count;
pub mod delta;
pub mod drop;
pub mod elect;
pub mod factor;
pub mod histogram;
pub mod matvec;
pub mod matvec_t;
pub mod norms;
pub mod rescale;
pub mod residual;
pub mod trim;
pub mod widen;

pub use crate::kernel::{Access, Args, Dims, Kernel, Slot, WORKGROUP};

/// Declarations and helpers that every shader starts with.
pub const COMMON: &str = include_str!("../../shaders/common.wgsl");

/// All kernels; tests, benches and shader validation go through this list.
pub static ALL: &[&Kernel] = &[
    &delta::DELTA,
    &widen::WIDEN,
    &histogram::HISTOGRAM,
    &count::COUNT,
    &trim::TRIM,
    &drop::DROP,
    &combine::COMBINE,
    &elect::ELECT,
    &norms::NORMS,
    &residual::RESIDUAL,
    &factor::FACTOR,
    &matvec::MATVEC,
    &matvec_t::MATVEC_T,
    &rescale::RESCALE,
    &checksum::CHECKSUM,
];

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
