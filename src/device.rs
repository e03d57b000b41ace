//! Which device does the work, and how much memory it may take.

use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::fast_gemm;
use crate::gpu::{self, Choice, Gpu, Matrices};
use crate::memory::{Device, Memory};

/// Host memory if the user names none.
pub const HOST: u64 = 384 << 20;

/// Device memory if the user names none.
pub const VRAM: u64 = 1 << 30;

/// The least of either with which anything can be done.
const LEAST: u64 = 16 << 20;

/// The most threads of the CPU device: more than machines have cores, fewer than systems give.
const MOST_THREADS: usize = 1024;

/// Blocks in work at a time on a GPU: one is read, one computed, one written.
const GPU_LANES: usize = 3;

/// Which device is to do the work, and how much memory it may take.
///
/// By default that is the best hardware GPU, else the CPU, with 384 MiB of host memory and 1 GiB of the device's. The
/// bytes of a merge depend on neither limit.
///
/// ```
/// use magic_merge::Wanted;
///
/// let wanted = Wanted { memory: Some(2 << 30), threads: Some(4), ..Wanted::on("cpu") };
/// assert_eq!(wanted.device, "cpu");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `auto`, `cpu`, `gpu`, a number or a part of a name; empty means `auto`.
    pub device: String,
    /// Limit of host memory in bytes, from 16 MiB.
    pub memory: Option<u64>,
    /// Limit of device memory in bytes, from 16 MiB.
    pub vram: Option<u64>,
    /// Threads of the CPU device, 1 to 1024; one for each core if not given.
    pub threads: Option<usize>,
    /// Whether the CPU computes what the GPU fails at, instead of an error.
    pub fallback: bool,
    /// Whether products of the forward pass take the adapter's cooperative matrices.
    pub fast_gemm: bool,
}

impl Wanted {
    /// The device of this name: `auto`, `cpu`, `gpu` (a software driver too, where there is nothing else), a number or a
    /// part of a name from `magic devices`.
    pub fn on(device: impl Into<String>) -> Self {
        Self { device: device.into(), ..Self::default() }
    }
}

/// An executor, its name, and the memory it works in.
pub struct Opened {
    /// What runs recordings.
    pub executor: Executor,
    /// As a person knows it.
    pub name: String,
    /// Nothing of it is taken yet.
    pub memory: Memory,
}

/// Opens the device that is wanted. `auto` is the best hardware GPU, else the CPU.
pub fn open(wanted: &Wanted) -> Result<Opened> {
    open_as(wanted, true)
}

/// The same, with a device of its own: one that other work uses may be failing.
pub fn open_anew(wanted: &Wanted) -> Result<Opened> {
    open_as(wanted, false)
}

fn open_as(wanted: &Wanted, shared: bool) -> Result<Opened> {
    let host = limit("--memory", wanted.memory, HOST)?;
    let vram = limit("--vram", wanted.vram, VRAM)?;
    if wanted.threads.is_some_and(|threads| !(1..=MOST_THREADS).contains(&threads)) {
        let what = format!("`--threads` must be at least 1 and at most {MOST_THREADS}");
        return Err(Error::usage(what).hint("without it, all cores are used"));
    }
    if wanted.device != "cpu" {
        let choice = if wanted.device.is_empty() { Choice::Auto } else { Choice::parse(&wanted.device) };
        let matrices = if wanted.fast_gemm { Matrices::Required } else { Matrices::Unused };
        let options = gpu::Options { vram, shared, matrices, ..gpu::Options::default() };
        if let Some(gpu) = Gpu::open(&choice, &options)? {
            return Ok(on_gpu(gpu, host, vram));
        }
    }
    if wanted.fast_gemm {
        return Err(fast_gemm::missing("the CPU device"));
    }
    let lanes = wanted.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let device = Device { gpu: false, lanes, binding: u64::MAX, results: u64::MAX };
    let threads = if lanes == 1 { "thread" } else { "threads" };
    Ok(Opened {
        executor: Executor::Cpu(Cpu::default()),
        name: format!("CPU, {lanes} {threads}"),
        memory: Memory::new(device, host, vram),
    })
}

fn on_gpu(gpu: Gpu, host: u64, vram: u64) -> Opened {
    let limits = gpu.limits();
    let name = format!("{} ({})", gpu.adapter().name, gpu.adapter().backend);
    let device =
        Device { gpu: true, lanes: GPU_LANES, binding: limits.max_binding_bytes, results: limits.max_results_bytes };
    Opened { executor: Executor::Gpu(Box::new(gpu)), name, memory: Memory::new(device, host, vram) }
}

fn limit(flag: &str, given: Option<u64>, default: u64) -> Result<u64> {
    match given {
        Some(bytes) if bytes < LEAST => {
            Err(Error::usage(format!("`{flag}` is below {} MB", LEAST.div_ceil(1_000_000)))
                .hint(format!("give it more room, for instance `{flag} 64MB`")))
        }
        Some(bytes) => Ok(bytes),
        None => Ok(default),
    }
}
