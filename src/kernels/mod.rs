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

use bytemuck::Pod;

use crate::recording::Dims;

/// How a kernel uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

/// A compute kernel, declared once for both executors.
#[derive(Debug)]
pub struct Kernel {
    /// Stem of the shader and host file, and GPU label.
    pub name: &'static str,
    /// The WGSL text without `common.wgsl`, which is put in front of it.
    pub wgsl: &'static str,
    /// The compute entry point.
    pub entry: &'static str,
    /// Names of the pipeline-overridable constants, in the order of [`crate::recording::Call::constants`].
    pub constants: &'static [&'static str],
    /// Storage buffers at `@group(0) @binding(1..)`; binding 0 is the uniform with [`Dims`] and the parameters.
    pub bindings: &'static [Access],
    /// Workgroups for a block; the executor folds them into two dimensions.
    pub groups: fn(&Dims) -> u64,
    /// The same arithmetic in plain Rust.
    pub twin: fn(&mut Args<'_>),
}

/// Declarations and helpers that every shader starts with.
pub const COMMON: &str = include_str!("../../shaders/common.wgsl");

/// Invocations of a workgroup, in every kernel.
pub const WORKGROUP: u32 = 256;

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

/// A buffer as a twin sees it.
#[derive(Default)]
pub enum Slot<'a> {
    /// Bound read only.
    Read(&'a [u8]),
    /// Bound for writing, not yet taken.
    Write(&'a mut [u8]),
    /// Taken by [`Args::write`].
    #[default]
    Taken,
}

/// What a twin is called with.
pub struct Args<'a> {
    /// The block.
    pub dims: Dims,
    /// Values of the pipeline constants.
    pub constants: &'a [u32],
    /// The kernel's own parameter words.
    pub params: &'a [u32],
    /// One slot a binding.
    pub slots: Vec<Slot<'a>>,
}

impl<'a> Args<'a> {
    /// The kernel's own parameters.
    pub fn params<P: Pod>(&self) -> P {
        bytemuck::pod_read_unaligned(bytemuck::cast_slice(self.params))
    }

    /// Binding `i` for reading, whole.
    pub fn read<T: Pod>(&self, i: usize) -> &'a [T] {
        match &self.slots[i] {
            Slot::Read(bytes) => bytemuck::cast_slice(bytes),
            _ => unreachable!("binding {i} is not read only"),
        }
    }

    /// Binding `i` for writing, whole; can be taken once.
    pub fn write<T: Pod>(&mut self, i: usize) -> &'a mut [T] {
        match std::mem::take(&mut self.slots[i]) {
            Slot::Write(bytes) => bytemuck::cast_slice_mut(bytes),
            _ => unreachable!("binding {i} is not writable, or was taken before"),
        }
    }
}
