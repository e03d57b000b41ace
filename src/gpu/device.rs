//! The opened device: every wgpu failure becomes an [`Error`], and stays one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use wgpu::DeviceType;

use super::adapter::COOPERATIVE;
use crate::error::{Error, Result};

/// The first failure that did not belong to a call; once there is one, the device is not used again.
#[derive(Default)]
struct Health(Mutex<Option<String>>);

impl Health {
    fn fail(&self, message: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
    }

    fn failure(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// After which a device that does not answer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The host writes what kernels read, without a copy in between.
const SHARED: wgpu::Features = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;

/// A wgpu device and its queue.
pub struct Device {
    /// Makes buffers and pipelines; through [`Device::make`], which reports errors.
    pub raw: wgpu::Device,
    /// Takes work.
    pub queue: wgpu::Queue,
    name: String,
    health: Arc<Health>,
}

impl Device {
    /// Opens `adapter` with its own limits, with its clock if it has one and `timestamps` are wanted, and with its
    /// `cooperative` matrices.
    pub fn open(adapter: &wgpu::Adapter, name: &str, timestamps: bool, cooperative: bool) -> Result<Self> {
        let clock = if timestamps { wgpu::Features::TIMESTAMP_QUERY } else { wgpu::Features::empty() };
        let (matrices, experimental_features) = if cooperative {
            // SAFETY: the only experimental feature is that of matmul_coop.wgsl, which keeps its matrices within
            // arrays of fixed size, in uniform control flow.
            (COOPERATIVE, unsafe { wgpu::ExperimentalFeatures::enabled() })
        } else {
            (wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled())
        };
        let own = match adapter.get_info().device_type {
            DeviceType::Cpu => SHARED | wgpu::Features::SHADER_INT64,
            DeviceType::IntegratedGpu => SHARED,
            _ => wgpu::Features::empty(), // such buffers are slow
        };
        let desc = wgpu::DeviceDescriptor {
            label: Some("magic"),
            required_features: adapter.features() & (clock | own) | matrices,
            required_limits: adapter.limits(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        // A driver that offers matrices and then refuses them makes wgpu panic.
        let opened = catch_unwind(AssertUnwindSafe(|| pollster::block_on(adapter.request_device(&desc))))
            .map_err(|_| Error::device(format!("cannot open `{name}`: it refuses what it offers")))?;
        let (raw, queue) = opened.map_err(|e| Error::device(format!("cannot open `{name}`: {e}")))?;
        let health = Arc::new(Health::default());
        let (lost, uncaught) = (health.clone(), health.clone());
        raw.set_device_lost_callback(move |reason, message| lost.fail(format!("lost ({reason:?}) {message}")));
        raw.on_uncaptured_error(Arc::new(move |error| uncaught.fail(tell(&error))));
        Ok(Self { raw, queue, name: name.to_owned(), health })
    }

    /// True if the host can write what kernels read.
    pub fn shares_memory(&self) -> bool {
        self.raw.features().contains(SHARED)
    }

    /// Maps `buffer`, which no work uses any more, for writing.
    pub fn map(&self, buffer: &wgpu::Buffer) -> Result<()> {
        let (done, mapped) = mpsc::sync_channel(1);
        buffer.map_async(wgpu::MapMode::Write, .., move |outcome| drop(done.try_send(outcome)));
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            self.check()?;
            // Its callback may be running in another thread.
            drop(self.raw.poll(wgpu::PollType::Poll));
            match mapped.recv_timeout(Duration::from_millis(1)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
        Err(self.error("cannot map a buffer"))
    }

    /// An error if the device has failed before.
    pub fn check(&self) -> Result<()> {
        match self.health.failure() {
            None => Ok(()),
            Some(message) => Err(self.error(format!("failed: {}", message.trim()))),
        }
    }

    /// An error of this device.
    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::device(format!("`{}` {message}", self.name))
            .hint("try a smaller `--vram`, another `--device`, or `--device cpu`")
    }

    /// Makes a resource; `what` names it in the error.
    pub fn make<T>(&self, what: &str, make: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
        self.check()?;
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory];
        let scopes = filters.map(|filter| self.raw.push_error_scope(filter));
        let made = make(&self.raw);
        let mut error = None;
        for scope in scopes.into_iter().rev() {
            error = error.or(pollster::block_on(scope.pop()));
        }
        self.check()?;
        match error {
            None => Ok(made),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(self.error(format!("has no memory left for {what}"))),
            Some(error) => Err(self.error(format!("cannot make {what}: {}", tell(&error)))),
        }
    }

    /// Waits until `submission` is done and the callbacks due by then have been taken up by some thread.
    pub fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
        // A device lost during the wait makes wgpu panic.
        match catch_unwind(AssertUnwindSafe(|| self.raw.poll(wait))) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.health.fail(format!("waiting for its work: {error}")),
            Err(_) => self.health.fail("lost while it was working".to_owned()),
        }
        self.check()
    }
}

fn tell(error: &wgpu::Error) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
