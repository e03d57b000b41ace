//! What is said about a run, and kept of it: schema `magic-bench/1`.

use serde::{Deserialize, Serialize};

use super::host::Host;
use super::time::Figures;
use crate::error::{Error, Result};
use crate::gpu::{Adapter, Gpu};

/// Of [`Report`].
pub const SCHEMA: &str = "magic-bench/1";

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of this package.
    pub magic: String,
    /// Version of wgpu.
    #[serde(default)]
    pub wgpu: String,
    /// When it began, UTC.
    pub time: String,
    /// True for a build whose figures say little.
    pub debug: bool,
    /// `--quick`.
    pub quick: bool,
    /// The machine.
    pub host: Host,
    /// Hardware first, software adapters last.
    pub devices: Vec<Device>,
    /// What the rows' `change` is measured by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

/// An earlier run that this one is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Where it is kept.
    pub file: String,
    /// The version that made it.
    pub magic: String,
    /// When.
    pub time: String,
    /// Which device was compared with which, by their titles: ours, the earlier one.
    pub devices: Vec<[String; 2]>,
}

/// A device, and what it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Name that the driver gives.
    pub name: String,
    /// `cpu`, `discrete`, `integrated`, `virtual`, `other` or `software`.
    pub kind: String,
    /// `Rust`, `Vulkan`, `Metal` or `DX12`.
    pub backend: String,
    /// Threads, where it is the CPU.
    pub threads: Option<usize>,
    /// What a GPU is.
    pub adapter: Option<Details>,
    /// Why there are no rows, where it could not be opened.
    pub error: Option<String>,
    /// A row for each case and size.
    pub results: Vec<Row>,
}

/// What the driver tells of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// Driver and its version.
    pub driver: String,
    /// As hexadecimal digits.
    pub vendor_id: String,
    /// As hexadecimal digits.
    pub device_id: String,
    /// The device has a clock that kernels can be timed by.
    pub timestamps: bool,
    /// Largest buffer a kernel can see.
    pub max_binding_bytes: u64,
    /// Largest buffer at all.
    pub max_buffer_bytes: u64,
    /// Memory that a workgroup shares.
    pub workgroup_bytes: u32,
    /// Fewest and most invocations that run in step.
    pub subgroup: [u32; 2],
    /// Abilities.
    pub features: Vec<String>,
}

/// How a row came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Checked, then timed.
    Ok,
    /// The check failed; not timed.
    Wrong,
    /// It could not be run.
    Error,
    /// Not run, for a reason.
    Skipped,
}

/// A case on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The kernel.
    pub kernel: String,
    /// SHA-256 of its WGSL text, without what all shaders share; nothing where a row is of many kernels.
    #[serde(default)]
    pub wgsl_sha256: String,
    /// What is special about it, or nothing.
    pub case: String,
    /// Elements of a plane that is timed.
    pub n: u32,
    /// Elements of a plane that was checked, the same values; 0 where none was.
    #[serde(default)]
    pub checked: u32,
    /// Blocks of that size in work at a time.
    pub blocks: usize,
    /// Elements of a row.
    pub row_len: u32,
    /// How it came out.
    pub status: Status,
    /// Why, where that is not `ok`.
    pub reason: String,
    /// How near the results had to be to the twin's.
    pub check: String,
    /// Bytes that a round must read and write, all blocks together.
    pub bytes: Option<f64>,
    /// Floating point operations of a round, where those say more.
    pub flop: Option<f64>,
    /// Rounds in a sample.
    pub rounds: u32,
    /// `gpu` or `wall`: the clock of the rates.
    pub timer: String,
    /// Useful bytes.
    pub gb_per_s: Option<f64>,
    /// The same of the copy, measured in turn with this row.
    pub copy_gb_per_s: Option<f64>,
    /// One as a part of the other.
    pub percent_of_copy: Option<f64>,
    /// Operations.
    pub gflop_per_s: Option<f64>,
    /// By the device's clock.
    pub gpu: Option<Figures>,
    /// By the host's clock; on a GPU the difference between many rounds and one.
    pub wall: Option<Figures>,
    /// ‖a − b‖ / ‖b‖ of its results and those in f32, where it rounds its inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_f32: Option<f64>,
    /// Against an earlier run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

/// A row against the same one of an earlier run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// `gpu` or `wall`: the clock that both have.
    pub timer: String,
    /// How many times as fast it is now.
    pub speed: f64,
    /// True if the difference is more than noise.
    pub beyond_noise: bool,
}

impl Row {
    /// Times by the clock of the rates.
    pub fn figures(&self) -> Option<&Figures> {
        if self.timer == "gpu" { self.gpu.as_ref() } else { self.wall.as_ref() }
    }
}

impl Device {
    /// The CPU.
    pub fn cpu(host: &Host, threads: usize) -> Self {
        let name = if host.cpu.is_empty() { "CPU".to_owned() } else { host.cpu.clone() };
        let (kind, backend) = ("cpu".to_owned(), "Rust".to_owned());
        Self { name, kind, backend, threads: Some(threads), adapter: None, error: None, results: Vec::new() }
    }

    /// An adapter that could not be opened.
    pub fn closed(adapter: &Adapter, error: &Error) -> Self {
        Self { error: Some(error.to_string()), ..Self::new(adapter, false) }
    }

    /// A GPU.
    pub fn gpu(gpu: &Gpu) -> Self {
        Self::new(gpu.adapter(), gpu.has_timestamps())
    }

    fn new(adapter: &Adapter, timestamps: bool) -> Self {
        let details = Details {
            driver: adapter.driver.clone(),
            vendor_id: format!("{:#06x}", adapter.vendor_id),
            device_id: format!("{:#06x}", adapter.device_id),
            timestamps,
            max_binding_bytes: adapter.max_binding_bytes,
            max_buffer_bytes: adapter.max_buffer_bytes,
            workgroup_bytes: adapter.workgroup_bytes,
            subgroup: adapter.subgroup,
            features: adapter.features.iter().map(|&name| name.to_owned()).collect(),
        };
        Self {
            name: adapter.name.clone(),
            kind: adapter.class.name().to_owned(),
            backend: adapter.backend.to_owned(),
            threads: None,
            adapter: Some(details),
            error: None,
            results: Vec::new(),
        }
    }

    /// Name, backend or threads.
    pub fn title(&self) -> String {
        match self.threads {
            Some(1) => format!("{}, 1 thread", self.name),
            Some(threads) => format!("{}, {threads} threads", self.name),
            None => format!("{}, {}", self.name, self.backend),
        }
    }

    /// Hardware that is not the CPU.
    pub fn is_hardware(&self) -> bool {
        !matches!(self.kind.as_str(), "cpu" | "software")
    }
}

impl Report {
    /// An error if any row is wrong, or could not be run.
    pub fn verdict(&self) -> Result<()> {
        let rows = || self.devices.iter().flat_map(|device| &device.results);
        let wrong: Vec<&str> = rows().filter(|row| row.status == Status::Wrong).map(|row| &*row.kernel).collect();
        let failed = rows().filter(|row| row.status == Status::Error).count();
        let closed = self.devices.iter().filter(|device| device.error.is_some()).count();
        if !wrong.is_empty() {
            let message = format!("results differ from those of the twin: {}", wrong.join(", "));
            return Err(Error::device(message).hint("do not merge on this device; please report it with this table"));
        }
        match failed + closed {
            0 => Ok(()),
            _ => Err(Error::device(format!("{failed} rows and {closed} devices could not be measured"))),
        }
    }
}
