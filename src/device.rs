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
    /// `auto`, `cpu`, `gpu`, `all`, a number or a part of a name; empty means `auto`.
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
    /// The device of this name: `auto`, `cpu`, `gpu` (a software driver too, where there is nothing else), `all` (that, and
    /// all others of its kind), a number or a part of a name from `magic devices`.
    pub fn on(device: impl Into<String>) -> Self {
        Self { device: device.into(), ..Self::default() }
    }
}

/// `--device` for all GPUs of a kind.
const ALL: &str = "all";

/// An executor, its name, and the memory it works in.
pub struct Opened {
    /// What runs recordings.
    pub executor: Executor,
    /// Devices of the same kind that merge tensors too.
    pub others: Vec<Executor>,
    /// As a person knows it, and where it is one of several, as each.
    pub name: String,
    /// Nothing of it is taken yet.
    pub memory: Memory,
}

impl Opened {
    /// All devices, as a person knows them.
    pub fn title(&self) -> String {
        match self.others.len() {
            0 => self.name.clone(),
            others => format!("{} × {}", 1 + others, self.name),
        }
    }
}

/// What each of several devices is, of what [`Opened::title`] gives; `title` itself for one.
pub fn one_of(title: &str) -> &str {
    match title.split_once(" × ") {
        Some((count, name)) if count.parse::<usize>().is_ok() => name,
        _ => title,
    }
}

/// Opens the device that is wanted. `auto` is the best hardware GPU, else the CPU.
pub fn open(wanted: &Wanted) -> Result<Opened> {
    open_as(wanted, true)
}

/// The one of the wanted devices that `failed` is on, with a device of its own: others may be using what fails.
pub fn open_anew(wanted: &Wanted, failed: &Executor) -> Result<Opened> {
    match (&*wanted.device, failed) {
        (ALL, Executor::Gpu(gpu)) => {
            open_as(&Wanted { device: gpu.adapter().index.to_string(), ..wanted.clone() }, false)
        }
        _ => open_as(wanted, false),
    }
}

fn open_as(wanted: &Wanted, shared: bool) -> Result<Opened> {
    let host = limit("--memory", wanted.memory, HOST)?;
    let vram = limit("--vram", wanted.vram, VRAM)?;
    if wanted.threads.is_some_and(|threads| !(1..=MOST_THREADS).contains(&threads)) {
        let what = format!("`--threads` must be at least 1 and at most {MOST_THREADS}");
        return Err(Error::usage(what).hint("without it, all cores are used"));
    }
    if wanted.device != "cpu" {
        let choices = match &*wanted.device {
            "" => vec![Choice::Auto],
            ALL => gpu::adapter::alike(&gpu::adapter::list())?.into_iter().map(Choice::Index).collect(),
            text => vec![Choice::parse(text)],
        };
        let matrices = if wanted.fast_gemm { Matrices::Required } else { Matrices::Unused };
        let options = gpu::Options { vram, shared, matrices, ..gpu::Options::default() };
        let gpus: Option<Vec<Gpu>> = choices.iter().map(|choice| Gpu::open(choice, &options)).collect::<Result<_>>()?;
        if let Some(gpus) = gpus {
            return Ok(on_gpus(gpus, host, vram));
        }
    }
    if wanted.fast_gemm {
        return Err(fast_gemm::missing("the CPU device"));
    }
    let lanes = wanted.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let device = Device { gpu: false, lanes, count: 1, binding: u64::MAX, results: u64::MAX };
    let threads = if lanes == 1 { "thread" } else { "threads" };
    Ok(Opened {
        executor: Executor::Cpu(Cpu::default()),
        others: Vec::new(),
        name: format!("CPU, {lanes} {threads}"),
        memory: Memory::new(device, host, vram),
    })
}

/// GPUs that are all alike, at least one.
fn on_gpus(gpus: Vec<Gpu>, host: u64, vram: u64) -> Opened {
    let (limits, count) = (gpus[0].limits(), gpus.len());
    let name = format!("{} ({})", gpus[0].adapter().name, gpus[0].adapter().backend);
    let (binding, results) = (limits.max_binding_bytes, limits.max_results_bytes);
    let device = Device { gpu: true, lanes: GPU_LANES * count, count, binding, results };
    let mut executors = gpus.into_iter().map(|gpu| Executor::Gpu(Box::new(gpu)));
    let executor = executors.next().expect("one at least");
    Opened { executor, others: executors.collect(), name, memory: Memory::new(device, host, vram) }
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
