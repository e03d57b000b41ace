//! What a kernel is: one declaration for both executors, and what its twin is called with.

use bytemuck::Pod;

use crate::checkpoint::sha256;

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
    /// A number that no other run has, for checksums; zero where there are none.
    pub epoch: u32,
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
            epoch: 0,
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

/// What the WGSL text of a kernel is.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// A whole shader with the entry point `main`: binding 0 is the uniform with [`Dims`] and the parameters, the buffers
    /// follow at 1, and the constants are pipeline-overridable. The function gives the workgroups for a block; the executor
    /// folds them into two dimensions.
    Shader(fn(&Dims) -> u64),
    /// Functions of four elements at a time, which stay in registers from call to call. The executor builds shaders around
    /// as many of them as follow each other; this function says what a call of them is.
    Quad(fn(&mut dyn Quad)),
    /// The same for sums over each row, and for values of rows. What comes after them and reads them goes over the row once
    /// more, in the same shader.
    Rows(fn(&mut dyn Quad)),
}

/// A shader in the making, as a [`Form::Quad`] or [`Form::Rows`] kernel sees it: what its call's buffers and parameters
/// are called there. Buffers and parameters go by their place in the call.
///
/// Lines may use `p.dims`; `i`, the first of the four elements, and `at`, all four or the last that there is; and, with
/// sums over rows, `row`.
pub trait Quad {
    /// Value of constant `i`.
    fn constant(&self, i: usize) -> u32;
    /// Parameter word `i`, known when the shader is made.
    fn fixed(&self, i: usize) -> u32;
    /// Planes of the stack.
    fn planes(&self) -> u32;
    /// Parameter word `i`: a `u32`.
    fn word(&mut self, i: usize) -> String;
    /// Parameter word `i`: an `f32`.
    fn float(&mut self, i: usize) -> String;
    /// Stored elements as bits of `f32`: a `vec4<u32>`.
    fn bits(&mut self, binding: usize) -> String;
    /// Stored elements as they are, low bits first: `count` values of `vec4<u32>`, two for f64 and else one.
    fn stored(&mut self, binding: usize) -> Vec<String>;
    /// Plane `plane`: a `vec4<f32>`.
    fn plane(&mut self, binding: usize, plane: u32) -> String;
    /// A plane of words: a `vec4<u32>`.
    fn words(&mut self, binding: usize) -> String;
    /// The whole stack, of which the planes before `read` are read: a `ptr<function, Stack>`.
    fn stack(&mut self, binding: usize, read: u32) -> String;
    /// Sets plane `plane` to a `vec4<f32>`.
    fn set(&mut self, binding: usize, plane: u32, value: &str);
    /// Notes that a function with a pointer to the stack has set plane `plane`.
    fn changed(&mut self, binding: usize, plane: u32);
    /// Sets stored elements: as many values as [`Quad::stored`] gives.
    fn store(&mut self, binding: usize, values: &[String]);
    /// The first `count` values, the same for all elements: an `array<f32, max(count, 1)>`.
    fn values(&mut self, binding: usize, count: u32) -> String;
    /// A value for each row, or one for all: a `vec4<f32>`.
    fn of_row(&mut self, binding: usize) -> String;
    /// Values at these places of a buffer, the same for all four elements if `alike`: a `vec4<f32>`.
    fn at(&mut self, binding: usize, place: &str, alike: bool) -> String;
    /// True if the first of the four elements is always at a multiple of four, and rows are multiples of four long.
    fn aligned(&self) -> bool;
    /// Which of the four elements exist: a `vec4<bool>`.
    fn exist(&self) -> &'static str;
    /// Appends a line, once for each quad.
    fn line(&mut self, text: &str);
    /// Appends a line before the first quad.
    fn before(&mut self, text: &str);
    /// Adds the invocation's `value`, a variable of type `vec3<u32>` that [`Quad::before`] declared, to the first three words.
    fn count(&mut self, binding: usize, value: &str);
    /// A name for a variable of the call.
    fn name(&mut self, stem: &str) -> String;
    /// Joins what the invocations of a row have in `value`, a variable of type `array<vec4<f32>, count>`, by the function
    /// `join`, and stores `width` words of each result (1, 2 or 4), one after the other, with the row's own.
    fn join(&mut self, binding: usize, value: &str, count: u32, join: &str, width: u32);
    /// A value that the row has in a buffer of rows, at `place`: an `f32`, or a `vec4<f32>` if `wide`.
    fn row_value(&mut self, binding: usize, place: &str, wide: bool) -> String;
    /// Sets the row's own value, an `f32`, before the first quad.
    fn set_row(&mut self, binding: usize, value: &str);
}

/// A compute kernel, declared once for both executors.
#[derive(Debug)]
pub struct Kernel {
    /// Stem of the shader and host file, and GPU label.
    pub name: &'static str,
    /// The WGSL text without the parts that are put in front of it.
    pub wgsl: &'static str,
    /// What that text is.
    pub form: Form,
    /// Names of the constants that [`crate::recording::Call::constants`] gives values to, in that order.
    pub constants: &'static [&'static str],
    /// Storage buffers, in the order of the arguments of a call.
    pub bindings: &'static [Access],
    /// The same arithmetic in plain Rust.
    pub twin: fn(&mut Args<'_>),
}

impl Kernel {
    /// SHA-256 of its own text.
    pub fn wgsl_sha256(&self) -> String {
        sha256(self.wgsl)
    }
}

/// Invocations of a workgroup, in every kernel.
pub const WORKGROUP: u32 = 256;

/// The constant that no call knows: the most invocations of a subgroup. Executors put the device's own value there.
pub const LANES: &str = "LANES";

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
