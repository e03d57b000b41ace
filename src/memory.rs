//! How the memory of host and device is shared out: blocks in work, and tensors that stay between passes.

use crate::calibrate::spectral;
use crate::checkpoint::GATHERED;
use crate::decompose::Working;
use crate::error::{Error, Result};

/// Bytes of a block on the CPU device: what stays in a core's own cache from the first call to the last.
const CACHED: u64 = 512 << 10;

/// Elements of a block on a GPU: enough to hide latencies, few enough that a slow one answers within 100 ms.
const GPU_ELEMENTS: u64 = 4 << 20;

/// What the process takes besides blocks: code, headers, driver, and what is on its way to the disk.
const OVERHEAD: u64 = (32 << 20) + GATHERED;

/// Bytes of an entry that an exact selection lists: itself, and once more while those of a plane are put in order.
pub const ENTRY: u64 = 16;

/// The least bytes of parameters that a pass loads at a time.
const LEAST_PARAMETERS: u64 = 8 << 20;

/// What the planner has to know of a device.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// False for the CPU device.
    pub gpu: bool,
    /// Blocks in work at a time.
    pub lanes: usize,
    /// How many devices, each with memory of its own, they are on.
    pub count: usize,
    /// Most bytes of one binding.
    pub binding: u64,
    /// Most bytes of all results of a block.
    pub results: u64,
}

/// Memory as it is shared out, and the peaks that follow.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Blocks in work at a time, each on its own thread.
    pub lanes: usize,
    device: Device,
    host: u64,
    vram: u64,
    /// Largest block, in host and device memory.
    block: (u64, u64),
    /// Largest tensor that stays between passes.
    resident: u64,
    /// Most bytes of host memory beside a block: of a tensor that stays, and of lists.
    held: u64,
    /// Most bytes of a decomposition, one of which is in work at a time: what it works with, and what it gives.
    whole: Working,
}

/// What one tensor takes.
pub struct Shape<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its elements.
    pub elements: u64,
    /// Elements of a row of its view.
    pub row_len: u32,
    /// Rows of a block are a multiple of this.
    pub align: u64,
    /// Bytes that one element takes in all inputs.
    pub stored: u64,
    /// Planes of the task-vector stack.
    pub planes: u64,
    /// Words besides it, for each element and for each row.
    pub beside: (u64, u64),
    /// Bytes of an output element.
    pub out: u64,
    /// How often the tensor is read.
    pub passes: u32,
    /// Whether entries are selected by their magnitude in the whole tensor.
    pub selects: bool,
}

/// What of the memory is for one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Rows of a block.
    pub block_rows: u64,
    /// Whether its inputs stay in memory between passes.
    pub resident: bool,
    /// Entries that a selection may list on the host.
    pub listed: u64,
}

impl Memory {
    /// Memory of `host` and `vram` bytes, of which nothing is taken yet.
    pub fn new(device: Device, host: u64, vram: u64) -> Self {
        Self { lanes: device.lanes, device, host, vram, block: (0, 0), resident: 0, held: 0, whole: Working::default() }
    }

    /// The same memory, untouched, for `lanes` blocks at a time; `None` for none.
    pub fn with_lanes(&self, lanes: usize) -> Option<Self> {
        (lanes > 0).then(|| Self { lanes, ..Self::new(self.device, self.host, self.vram) })
    }

    /// The share of this tensor.
    ///
    /// # Errors
    /// If not even the smallest block fits.
    pub fn share(&mut self, shape: &Shape<'_>) -> Result<Share> {
        let row = u64::from(shape.row_len);
        let lanes = self.lanes as u64;
        // Statistics and factors of a row, and partial sums of the spectral rule, besides the elements themselves.
        let per_row = 4 * (4 * shape.planes + 3 + shape.beside.1)
            + if shape.align > 1 { 4 * shape.planes * row / shape.align } else { 0 };
        let available = |total: u64| total.saturating_sub(OVERHEAD.min(total / 2));
        // Half is for blocks, half for tensors that stay.
        let (host_half, vram_half) = (available(self.host) / 2 / lanes, self.vram / 2 / self.lanes_of_one());
        let per_element = shape.stored + 4 * (shape.planes + shape.beside.0) + shape.out;
        let mut row_bytes = row * per_element + per_row;
        if self.device.gpu {
            // Results once more, to be read back; and buffers are rounded up by an eighth at most.
            row_bytes = (row_bytes + row * shape.out + per_row) * 9 / 8;
        }
        let staged = 2 * (row * (shape.stored + shape.out) + per_row); // read and mapped
        let (on_device, on_host) = if self.device.gpu {
            (vram_half / row_bytes, host_half / staged)
        } else {
            (u64::MAX, host_half / row_bytes)
        };
        let limit = on_device.min(on_host);
        let wanted = if self.device.gpu {
            let bound = (self.device.binding / (4 * shape.planes)).min(self.device.results / 2 / shape.out);
            GPU_ELEMENTS.min(bound) / row
        } else {
            CACHED / row_bytes
        };
        // A block has a row at least, and no more than there are.
        let rows = wanted.min(limit).max(1).next_multiple_of(shape.align);
        let rows = if rows > limit { rows - shape.align } else { rows }.max(shape.align);
        let rows = rows.min(shape.elements.div_ceil(row));
        if rows > limit {
            let (flag, bytes) =
                if on_device < on_host { ("--vram", row_bytes) } else { ("--memory", row_bytes.max(staged)) };
            let needed = rows * bytes * 2 * lanes + OVERHEAD;
            return Err(Error::input(format!(
                "`{}`: a block of {rows} rows of every model takes {} MB, which is more than the limit allows",
                shape.name,
                (rows * row_bytes).div_ceil(1_000_000)
            ))
            .hint(format!("raise it: `{flag} {}MB`", needed.div_ceil(1_000_000))));
        }
        if rows * row * 4 * shape.planes > self.device.binding {
            return Err(Error::device(format!(
                "`{}`: one row of every model exceeds what the GPU can bind",
                shape.name
            ))
            .hint("use `--device cpu`"));
        }
        let (host, vram) = if self.device.gpu { (rows * staged, rows * row_bytes) } else { (rows * row_bytes, 0) };
        // The spectral rule keeps directions and sums of columns on the host.
        let columns = if shape.align > 1 { (spectral::MOST as u64 + 2) * 8 * shape.planes * row } else { 0 };
        self.block = (self.block.0.max(host + columns), self.block.1.max(vram));
        let bytes = shape.elements * shape.stored;
        let room = if self.device.gpu { vram_half } else { host_half };
        // Lists are found rather than read again and again: they have a part of their own.
        let resident = shape.passes > 1 && bytes + bytes / 8 * u64::from(shape.selects) <= room;
        if resident {
            self.resident = self.resident.max(bytes);
        }
        let stays = if resident && !self.device.gpu { bytes } else { 0 };
        let most = shape.elements * (shape.planes - 1) / 16;
        let listed = if shape.selects { ((host_half - stays) / ENTRY).min(most) } else { 0 };
        self.held = self.held.max(stays + listed * ENTRY);
        Ok(Share { block_rows: rows, resident, listed })
    }

    /// Takes note of a decomposition that gives `result` bytes and works with `work`.
    pub fn decompose(&mut self, result: u64, work: Working) {
        self.whole.host = self.whole.host.max(result + work.host);
        if self.device.gpu && work.device <= self.decomposition() {
            self.whole.device = self.whole.device.max(work.device);
        }
    }

    /// Bytes that a decomposition may take on the device.
    pub fn decomposition(&self) -> u64 {
        (if self.device.gpu { self.vram } else { self.host }) / 2
    }

    /// By how many bytes decompositions exceed the limit of host memory.
    pub fn excess(&self) -> u64 {
        self.host_peak().saturating_sub(self.host) * u64::from(self.whole.host > 0)
    }

    /// Bytes of parameters that a pass through a network loads at a time.
    pub fn parameters(&self) -> u64 {
        (if self.device.gpu { self.vram } else { self.host } / 2).max(LEAST_PARAMETERS)
    }

    /// Threads to work with.
    ///
    /// # Errors
    /// The system has no more.
    pub fn pool(&self) -> Result<rayon::ThreadPool> {
        let lanes = self.lanes;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(lanes).build();
        pool.map_err(|e| Error::device(format!("cannot start {lanes} threads: {e}")))
    }

    /// Most host memory that the merge takes, in bytes.
    pub fn host_peak(&self) -> u64 {
        let blocks = self.lanes as u64 * (self.block.0 + self.held);
        OVERHEAD + blocks + self.whole.host
    }

    /// Blocks in work at a time on one device.
    fn lanes_of_one(&self) -> u64 {
        self.lanes.div_ceil(self.device.count) as u64
    }

    /// Most memory that it takes of a device, in bytes.
    pub fn device_peak(&self) -> u64 {
        let blocks = self.lanes_of_one() * (self.block.1 + self.resident);
        if self.device.gpu { blocks + self.whole.device } else { 0 }
    }
}
