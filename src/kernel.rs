//! What a kernel is: one declaration for both executors, and what its twin is called with.

use bytemuck::Pod;

/// A run of whole rows of a tensor seen as rows of `row_len` elements; what one execution works on.
///
/// Row-wise work sees a tensor as [out, everything else]; work that knows no rows sees it as rows of
/// [`crate::recording::FLAT_ROW`] elements, the last one shorter. Sums are taken row by row in a fixed order, so that no result
/// depends on how many rows a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Index of the first row in the tensor.
    pub first_row: u64,
    /// Rows in this block.
    pub rows: u32,
    /// Elements of a row.
    pub row_len: u32,
    /// Elements in this block: `rows * row_len`, or less where the last row is short.
    pub n: u32,
}

/// The head of every kernel's parameters; twin of `struct Dims` in `shaders/common.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Dims {
    /// Elements in the block.
    pub n: u32,
    /// Rows in the block.
    pub rows: u32,
    /// Elements of a row.
    pub row_len: u32,
    /// Planes of the task-vector stack: one per expert, then the merged one.
    pub planes: u32,
    /// Low half of the tensor-wide index of the block's first element.
    pub first_lo: u32,
    /// High half of it.
    pub first_hi: u32,
    /// Tensor-wide index of the block's first row.
    pub first_row: u32,
    /// Keeps the size a multiple of 16 bytes.
    pub pad: u32,
}

impl Dims {
    /// The dimensions of `extent`, for a stack of `planes` planes.
    pub fn new(extent: &Extent, planes: u32) -> Self {
        let first = extent.first_row * u64::from(extent.row_len);
        Self {
            n: extent.n,
            rows: extent.rows,
            row_len: extent.row_len,
            planes,
            first_lo: first as u32,
            first_hi: (first >> 32) as u32,
            first_row: extent.first_row as u32,
            pad: 0,
        }
    }
}

impl Dims {
    /// Tensor-wide index of the block's first element.
    pub fn first(&self) -> u64 {
        u64::from(self.first_hi) << 32 | u64::from(self.first_lo)
    }
}

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

/// Invocations of a workgroup, in every kernel.
pub const WORKGROUP: u32 = 256;

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
