//! The GPU device: wgpu, and nothing outside this folder and `kernels/` knows of it.
//!
//! A block is loaded into shared memory or through small staging buffers, a recording is encoded into one submission, and
//! what comes back is proved before it is trusted. Every call waits for its own work alone, so that several threads keep
//! the device busy.

pub mod adapter;
mod buffers;
mod device;
mod fault;
mod peek;
mod pipeline;
mod proof;
mod run;
mod sample;
mod staging;
mod time;
mod upload;
mod watch;

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};

pub use adapter::{Adapter, Choice, Class};
pub use buffers::{Lease as DeviceBuffer, class_bytes};
#[doc(hidden)]
pub use fault::Fault;
pub use time::{Time, Timer};

use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::fast_gemm::{self, FastGemm};
use crate::recording::Read;
use crate::recording::{Extent, Recording, Results};

/// Largest buffer that a kernel sees in a merge, on any device: what every adapter can do.
pub const MAX_BINDING: u64 = 128 << 20;

/// How to open a device.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of device memory beyond which idle buffers are forgotten; `--vram`.
    pub vram: u64,
    /// Have the driver check every index too.
    pub checks: bool,
    /// Use the device, and the pipelines it has compiled, that this process opened before in the same way.
    pub shared: bool,
    /// Ask for the device's own clock, where it has one; only [`Gpu::timer`] reads it.
    pub timestamps: bool,
    /// Whether to open its cooperative matrices.
    pub matrices: Matrices,
    /// Copy inputs to the device even where it shares the host's memory.
    pub staged: bool,
}

/// Use of an adapter's cooperative matrices of f16 inputs and f32 sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matrices {
    /// None.
    #[default]
    Unused,
    /// Kernels that want them can run where the adapter has them.
    IfThere,
    /// Products of the forward pass take them; `--fast-gemm`. An adapter without them is an error.
    Required,
}

impl Default for Options {
    /// 4 GiB; checks in debug builds, or where `MAGIC_GPU_CHECKS` is `1`; a device of its own.
    fn default() -> Self {
        let asked = std::env::var_os("MAGIC_GPU_CHECKS").is_some_and(|value| value == "1");
        Self {
            vram: 4 << 30,
            checks: cfg!(debug_assertions) || asked,
            shared: false,
            timestamps: false,
            staged: false,
            matrices: Matrices::Unused,
        }
    }
}

/// What a planner must know of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest buffer of a recording, in bytes.
    pub max_binding_bytes: u64,
    /// All results of a recording together, in bytes.
    pub max_results_bytes: u64,
    /// Host memory that uploads take, in bytes.
    pub staging_bytes: u64,
    /// The device computes on the CPU and in its memory.
    pub software: bool,
    /// The device has no memory of its own.
    pub shared_memory: bool,
}

/// A device, and what it has compiled.
struct Core {
    adapter: Adapter,
    device: device::Device,
    pipelines: pipeline::Pipelines,
    /// Whether kernels may use cooperative matrices.
    matrices: bool,
}

/// What tells one way to open a device from another.
type Way = (Choice, bool, Matrices);

/// Devices that several jobs of a process use, by how they were opened.
static SHARED: Mutex<Vec<(Way, Arc<Core>)>> = Mutex::new(Vec::new());

/// Executor on a GPU.
pub struct Gpu {
    core: Arc<Core>,
    pool: Arc<buffers::Pool>,
    /// Inputs are copied.
    staged: bool,
    staging: staging::Staging,
    /// Computes products of the forward pass, if it was opened for that.
    fast: Option<FastGemm>,
    /// Recomputes samples.
    cpu: Cpu,
    /// Runs so far.
    runs: AtomicU32,
    fault: AtomicU32,
}

/// A loaded block in device memory; dropping it gives the memory back.
pub struct DeviceInputs {
    /// One buffer for each model.
    buffers: Vec<buffers::Lease>,
    /// Bytes of each model.
    bytes: Vec<usize>,
    sample: sample::Sample,
}

impl Core {
    fn open(choice: &Choice, options: &Options) -> Result<Option<Self>> {
        let (adapters, mut handles): (Vec<_>, Vec<_>) = adapter::enumerate().into_iter().unzip();
        let Some(index) = adapter::choose(&adapters, choice)? else { return Ok(None) };
        let adapter = adapters[index].clone();
        let there = !adapter.cooperative.is_empty();
        if options.matrices == Matrices::Required && !there {
            return Err(fast_gemm::missing(&format!("`{}`", adapter.name)));
        }
        let matrices = options.matrices != Matrices::Unused && there;
        let device = device::Device::open(&handles.swap_remove(index), &adapter.name, options.timestamps, matrices)?;
        log::info!("device: {} ({}, {}, {})", adapter.name, adapter.backend, adapter.class.name(), adapter.driver);
        let pipelines = pipeline::Pipelines::new(options.checks, adapter.subgroup[1]);
        Ok(Some(Self { adapter, device, pipelines, matrices }))
    }
}

impl Gpu {
    /// Opens the adapter that `choice` means. `None` only for [`Choice::Auto`] where there is no hardware.
    pub fn open(choice: &Choice, options: &Options) -> Result<Option<Self>> {
        if *choice == Choice::Auto && !adapter::hardware_is_possible() {
            return Ok(None);
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has failed is not used again.
        shared.retain(|(_, core)| core.device.check().is_ok());
        let way = (choice.clone(), options.checks, options.matrices);
        let known = shared.iter().find(|(known, _)| *known == way);
        let core = match known.filter(|_| options.shared) {
            Some((_, core)) => core.clone(),
            None => {
                let Some(core) = Core::open(choice, options)? else { return Ok(None) };
                let core = Arc::new(core);
                if options.shared {
                    shared.push((way, core.clone()));
                }
                core
            }
        };
        Ok(Some(Self {
            pool: buffers::Pool::new(options.vram, core.adapter.max_buffer_bytes),
            staged: options.staged || !core.device.shares_memory(),
            staging: staging::Staging::default(),
            fast: (options.matrices == Matrices::Required).then(|| FastGemm::new(core.adapter.cooperative[0])),
            cpu: Cpu::default(),
            runs: AtomicU32::new(0),
            fault: AtomicU32::new(0),
            core,
        }))
    }

    /// The adapter behind the device.
    pub fn adapter(&self) -> &Adapter {
        &self.core.adapter
    }

    /// Sides of the cooperative matrices that kernels may use.
    pub fn cooperative(&self) -> &[u32] {
        if self.core.matrices { &self.core.adapter.cooperative } else { &[] }
    }

    /// What computes products of the forward pass, if it was opened for that.
    pub fn fast_gemm(&self) -> Option<&FastGemm> {
        self.fast.as_ref()
    }

    /// What a planner must know.
    pub fn limits(&self) -> Limits {
        Limits {
            max_binding_bytes: self.core.adapter.max_binding_bytes.min(MAX_BINDING),
            max_results_bytes: self.core.adapter.max_buffer_bytes,
            staging_bytes: (staging::STAGE * staging::STAGES) as u64,
            software: self.core.adapter.is_software(),
            shared_memory: matches!(self.core.adapter.class, Class::Integrated | Class::Software),
        }
    }

    /// Bytes of device buffers: in use, idle, and the most that both ever were together.
    pub fn device_bytes(&self) -> [u64; 3] {
        self.pool.bytes()
    }

    /// See [`crate::executor::Executor::load`].
    pub fn load(&self, bytes: &[usize], read: &mut Read<'_>) -> Result<DeviceInputs> {
        upload::load(self, bytes, read)
    }

    /// See [`crate::executor::Executor::unload`].
    pub fn unload(&self, inputs: DeviceInputs) {
        drop(inputs);
    }

    /// See [`crate::executor::Executor::run`].
    pub fn run(
        &self,
        recording: &Recording,
        extent: &Extent,
        inputs: &DeviceInputs,
        results: &mut Results,
    ) -> Result<()> {
        self.with_script(|| {
            run::run(self, recording, extent, inputs, &[], results)?;
            sample::check(self, recording, extent, inputs, results)
        })
    }

    /// [`Gpu::run`] for a list that uses buffers which live from run to run. Where it fills them from inputs, a sample is
    /// computed again; where not, what each launch was to set is watched.
    pub fn run_kept(
        &self,
        recording: &Recording,
        extent: &Extent,
        inputs: &DeviceInputs,
        kept: &[Option<DeviceBuffer>],
        results: &mut Results,
    ) -> Result<()> {
        self.with_script(|| {
            run::run(self, recording, extent, inputs, kept, results)?;
            sample::check_kept(self, recording, extent, inputs, kept)
        })
    }

    /// Makes everything ready to run `recording` again and again, and to time its calls from `first` on.
    pub fn timer(&self, recording: &Recording, extent: &Extent, inputs: &DeviceInputs, first: usize) -> Result<Timer> {
        Timer::new(self, recording, extent, inputs, first)
    }

    /// True if the device's own clock was asked for, and there is one.
    pub fn has_timestamps(&self) -> bool {
        self.core.device.raw.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// A buffer of `words` words that lives until it is dropped.
    pub fn keep(&self, words: usize) -> Result<DeviceBuffer> {
        let bytes = 4 * words.max(1) as u64;
        self.check_binding("activations", bytes)?;
        self.pool.take(&self.core.device, buffers::Kind::Storage, bytes, "magic.kept")
    }

    /// An error if a buffer called `label` of `bytes` is more than a kernel can see.
    fn check_binding(&self, label: &str, bytes: u64) -> Result<()> {
        let most = self.core.adapter.max_binding_bytes;
        if bytes <= most {
            return Ok(());
        }
        let message = format!("takes buffers of at most {most} bytes, and `{label}` has {bytes}");
        Err(Error::device(format!("`{}` {message}", self.core.adapter.name)).hint("try a smaller `--vram`"))
    }
}
