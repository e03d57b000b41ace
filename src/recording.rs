//! Work is described first and run second: a [`Recording`] is a flat list of kernel calls over buffers.
//!
//! It names no device. An executor runs it over one block of a tensor: `gpu` with WGSL, `cpu` with the twins.

use std::sync::Arc;

use crate::checkpoint::Dtype;
use crate::error::Result;
use crate::kernel::Kernel;
pub use crate::kernel::{Dims, Extent};

/// Row length of work that knows no rows.
pub const FLAT_ROW: u32 = 4096;

/// Rows that [`Size::Groups`] sums into one partial result; blocks of such work start at multiples of it.
pub const GROUP_ROWS: u32 = 16;

/// Reads bytes of input `model`, from `offset` within its part of the block, into the slice.
pub type Read<'a> = dyn FnMut(usize, u64, &mut [u8]) -> Result<()> + 'a;

/// A buffer of a recording, by its place in [`Recording::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Buf(pub usize);

/// How large a buffer is, as a function of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// `n` stored elements, packed as in the file, padded to a whole word.
    Stored(Dtype),
    /// `count` planes of `n` f32 values each.
    Planes(u32),
    /// `width` words for each row.
    Rows(u32),
    /// `width` words for each column and each group of [`GROUP_ROWS`] rows.
    Groups(u32),
    /// This many words, whatever the block.
    Fixed(u32),
}

/// The words of a [`Role::Table`] of `width` words a row that belong to a block.
pub fn rows_of<'a>(table: &'a [u32], size: Size, extent: &Extent) -> &'a [u32] {
    let words = size.words(extent);
    let first = extent.first_row as usize * (words / (extent.rows as usize).max(1));
    &table[first..first + words]
}

impl Size {
    /// Words of 4 bytes for a block.
    pub fn words(self, extent: &Extent) -> usize {
        let (n, rows, cols) = (extent.n as usize, extent.rows as usize, extent.row_len as usize);
        match self {
            Self::Stored(dtype) => (n * dtype.size()).div_ceil(4),
            Self::Planes(count) => n * count as usize,
            Self::Rows(width) => rows * width as usize,
            Self::Groups(width) => rows.div_ceil(GROUP_ROWS as usize) * cols * width as usize,
            Self::Fixed(words) => words as usize,
        }
    }
}

/// Where a buffer's contents come from and go to.
#[derive(Clone, Debug)]
pub enum Role {
    /// The stored elements of input model `0..`, loaded before the run. Read only.
    Input(usize),
    /// Filled here, once, and read only.
    Constant(Arc<[u32]>),
    /// The same for each row of the whole tensor; a block sees its own rows.
    Table(Arc<[u32]>),
    /// Neither known before nor needed after.
    Scratch,
    /// Handed back after the run. [`Size::Fixed`] results start at zero; all others are wholly written by a kernel.
    Result,
    /// Lives from run to run: buffer `0..` of [`crate::kept::Kept`].
    Kept(usize),
}

/// A buffer as a recording declares it.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Its size.
    pub size: Size,
    /// Its use.
    pub role: Role,
    /// Name for GPU labels and error messages.
    pub label: &'static str,
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Call {
    /// What runs.
    pub kernel: &'static Kernel,
    /// Values of the kernel's pipeline constants, in its order.
    pub constants: Vec<u32>,
    /// The kernel's own parameter words; they follow [`Dims`] in the uniform.
    pub params: Vec<u32>,
    /// One buffer for each binding; one that is written is bound once.
    pub args: Vec<Buf>,
    /// Rows and columns of what it computes, where that is not the block.
    pub grid: Option<Extent>,
    /// What it sets of the buffer that it writes, whatever was there; known where `grid` is.
    pub sets: Option<Region>,
}

/// Words of a buffer: `width` of every `stride`, `rows` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first.
    pub from: u32,
    /// From one row to the next.
    pub stride: u32,
    /// Words of a row.
    pub width: u32,
    /// Rows.
    pub rows: u32,
}

impl Region {
    /// Whole rows at the beginning.
    pub fn rows(rows: u32, width: u32) -> Self {
        Self { from: 0, stride: width, width, rows }
    }
}

/// A list of kernel calls over declared buffers.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Planes of the task-vector stack, for [`Dims`].
    pub planes: u32,
    /// All buffers.
    pub buffers: Vec<Buffer>,
    /// All calls, in order; each sees what those before it wrote.
    pub calls: Vec<Call>,
}

impl Recording {
    /// An empty list for a stack of `planes` planes.
    pub fn new(planes: u32) -> Self {
        Self { planes, ..Self::default() }
    }

    fn buffer(&mut self, label: &'static str, size: Size, role: Role) -> Buf {
        self.buffers.push(Buffer { size, role, label });
        Buf(self.buffers.len() - 1)
    }

    /// The stored elements of input `model`.
    pub fn input(&mut self, label: &'static str, model: usize, dtype: Dtype) -> Buf {
        self.buffer(label, Size::Stored(dtype), Role::Input(model))
    }

    /// A table of words that does not depend on the block.
    pub fn constant(&mut self, label: &'static str, words: &[u32]) -> Buf {
        self.buffer(label, Size::Fixed(words.len() as u32), Role::Constant(words.into()))
    }

    /// [`Recording::constant`] for f32 values.
    pub fn floats(&mut self, label: &'static str, values: &[f32]) -> Buf {
        self.constant(label, bytemuck::cast_slice(values))
    }

    /// A buffer for values between calls.
    pub fn scratch(&mut self, label: &'static str, size: Size) -> Buf {
        self.buffer(label, size, Role::Scratch)
    }

    /// A buffer whose contents the caller wants back.
    pub fn result(&mut self, label: &'static str, size: Size) -> Buf {
        self.buffer(label, size, Role::Result)
    }

    /// Buffer `id` of those that live from run to run; declared once for each of them.
    pub fn kept(&mut self, label: &'static str, id: usize, size: Size) -> Buf {
        let there = self.buffers.iter().position(|b| matches!(b.role, Role::Kept(other) if other == id));
        there.map_or_else(|| self.buffer(label, size, Role::Kept(id)), Buf)
    }

    /// `width` f32 values for each row of the tensor.
    pub fn table(&mut self, label: &'static str, width: u32, values: &[f32]) -> Buf {
        self.buffer(label, Size::Rows(width), Role::Table(bytemuck::cast_slice(values).into()))
    }

    /// The element type of a [`Size::Stored`] buffer.
    pub fn dtype(&self, buf: Buf) -> Dtype {
        match self.buffers[buf.0].size {
            Size::Stored(dtype) => dtype,
            _ => unreachable!("`{}` holds no stored elements", self.buffers[buf.0].label),
        }
    }

    /// Appends a launch; `params` is the kernel's own part of the uniform.
    pub fn call(&mut self, kernel: &'static Kernel, constants: &[u32], params: &impl bytemuck::NoUninit, args: &[Buf]) {
        debug_assert_eq!(kernel.bindings.len(), args.len(), "{}", kernel.name);
        debug_assert_eq!(kernel.constants.len(), constants.len(), "{}", kernel.name);
        self.calls.push(Call {
            kernel,
            constants: constants.to_vec(),
            params: bytemuck::pod_collect_to_vec(bytemuck::bytes_of(params)),
            args: args.to_vec(),
            grid: None,
            sets: None,
        });
    }

    /// [`Recording::call`] with a shape of its own, `rows` of `row_len` elements, whatever the block.
    pub fn call_over(
        &mut self,
        (rows, row_len): (u32, u32),
        kernel: &'static Kernel,
        constants: &[u32],
        params: &impl bytemuck::NoUninit,
        args: &[Buf],
    ) {
        self.call(kernel, constants, params, args);
        let last = self.calls.last_mut().expect("just pushed");
        last.grid = Some(Extent { first_row: 0, rows, row_len, n: rows * row_len });
        last.sets = Some(Region::rows(rows, row_len));
    }

    /// Says what the last call sets, where that is not a word for each element of its shape.
    pub fn sets(&mut self, region: Region) {
        self.calls.last_mut().expect("a call was appended").sets = Some(region);
    }

    /// The buffers that come back, in order of declaration.
    pub fn results(&self) -> impl Iterator<Item = (Buf, &Buffer)> {
        self.buffers.iter().enumerate().filter(|(_, b)| matches!(b.role, Role::Result)).map(|(i, b)| (Buf(i), b))
    }

    /// Words of device memory for a block: everything that is not a loaded input.
    pub fn words(&self, extent: &Extent) -> usize {
        self.buffers
            .iter()
            .filter(|b| !matches!(b.role, Role::Input(_) | Role::Kept(_)))
            .map(|b| b.size.words(extent))
            .sum()
    }
}

/// What a run hands back: one vector of words for each result, in order of declaration.
///
/// Kept by the caller and used again, so that a run allocates nothing once it is warm.
#[derive(Default)]
pub struct Results {
    /// Contents of each result.
    pub buffers: Vec<Vec<u32>>,
}

impl Results {
    /// Result `i` as f32 values.
    pub fn floats(&self, i: usize) -> &[f32] {
        bytemuck::cast_slice(&self.buffers[i])
    }

    /// Result `i` as words.
    pub fn words(&self, i: usize) -> &[u32] {
        &self.buffers[i]
    }

    /// The first `len` bytes of result `i`.
    pub fn bytes(&self, i: usize, len: usize) -> &[u8] {
        &bytemuck::cast_slice(&self.buffers[i])[..len]
    }
}
