//! How long launches take, by the device's own clock where it has one, and by the host's.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::buffers::{Kind, Lease};
use super::proof::Proof;
use super::run::{self, Bound, Launches, Program, Step};
use super::{DeviceInputs, Gpu};
use crate::error::Result;
use crate::recording::{Extent, Recording, Size};

/// Two timestamps.
const BYTES: u64 = 16;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// From the submission of the whole list to its end, by the host's clock.
    pub wall: Duration,
    /// The calls that are timed, by the device's clock; `None` where it has none, or where it stood still.
    pub gpu: Option<Duration>,
}

/// A recording that is ready to run again and again.
pub struct Timer {
    launches: Launches,
    first: usize,
    calls: usize,
    clock: Option<Clock>,
    /// Results that start at zero, and their bytes.
    zeroed: Vec<(wgpu::Buffer, u64)>,
    /// Back to the pool when the timer goes.
    _own: Vec<Option<Lease>>,
    /// Where checksums go that nobody looks at.
    _proof: Proof,
}

struct Clock {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    back: Lease,
    /// Nanoseconds of a tick.
    period: f64,
}

impl Clock {
    fn new(gpu: &Gpu) -> Result<Option<Self>> {
        if !gpu.has_timestamps() {
            return Ok(None);
        }
        let desc = wgpu::QuerySetDescriptor { label: Some("magic.clock"), ty: wgpu::QueryType::Timestamp, count: 2 };
        let set = gpu.core.device.make("timestamps", |raw| raw.create_query_set(&desc))?;
        let desc = wgpu::BufferDescriptor {
            label: Some("magic.clock"),
            size: BYTES,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        };
        let resolved = gpu.core.device.make("timestamps", |raw| raw.create_buffer(&desc))?;
        let back = gpu.pool.take(&gpu.core.device, Kind::ReadBack, BYTES, "magic.clock")?;
        Ok(Some(Self { set, resolved, back, period: f64::from(gpu.core.device.queue.get_timestamp_period()) }))
    }

    fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    /// What lies between the two, once they are mapped.
    fn read(&self, gpu: &Gpu) -> Result<Option<Duration>> {
        let mut ticks = [0u64; 2];
        {
            let view = self.back.get_mapped_range(..BYTES);
            let view = view.map_err(|e| gpu.core.device.error(format!("cannot map its timestamps: {e}")))?;
            bytemuck::cast_slice_mut(&mut ticks).copy_from_slice(&view);
        }
        self.back.unmap();
        let passed = ticks[1].saturating_sub(ticks[0]);
        Ok((passed > 0).then(|| Duration::from_nanos((passed as f64 * self.period) as u64)))
    }
}

impl Timer {
    /// See [`Gpu::timer`].
    pub(super) fn new(
        gpu: &Gpu,
        recording: &Recording,
        extent: &Extent,
        inputs: &DeviceInputs,
        first: usize,
    ) -> Result<Self> {
        gpu.core.device.check()?;
        let program = Program::new(gpu, recording, extent, first);
        let own = run::own_buffers(gpu, recording, extent, &program)?;
        let bound = run::bind(gpu, recording, extent, inputs, &[], &own)?;
        let written: Vec<Bound> =
            recording.results().map(|(buf, _)| bound[buf.0].expect("results are bound")).collect();
        let proof = Proof::new(gpu, &written)?;
        let steps: Vec<Step> = program.steps(recording, extent, &bound, &proof).collect();
        let first = steps.iter().position(|step| step.calls.start >= first).unwrap_or(steps.len());
        let launches = Launches::new(gpu, &steps)?;
        let fixed = recording.results().filter(|(_, buffer)| matches!(buffer.size, Size::Fixed(_)));
        let zeroed =
            fixed.filter_map(|(buf, _)| bound[buf.0]).map(|bound| (bound.buffer.clone(), bound.bytes)).collect();
        let calls = steps.len();
        drop(steps);
        Ok(Self { launches, first, calls, clock: Clock::new(gpu)?, zeroed, _own: own, _proof: proof })
    }

    /// Runs the calls before the first that is timed once, and those that are timed `rounds` times, in one submission.
    /// Nothing is read back but the time.
    pub fn time(&self, gpu: &Gpu, rounds: u32) -> Result<Time> {
        gpu.core.device.check()?;
        let desc = wgpu::CommandEncoderDescriptor { label: Some("magic.time") };
        let mut encoder = gpu.core.device.raw.create_command_encoder(&desc);
        for (buffer, bytes) in &self.zeroed {
            encoder.clear_buffer(buffer, 0, Some(*bytes));
        }
        let pass = |timestamp_writes| wgpu::ComputePassDescriptor { label: Some("magic.time"), timestamp_writes };
        self.launches.encode(&mut encoder.begin_compute_pass(&pass(None)), 0..self.first, |_| false);
        {
            let mut pass = encoder.begin_compute_pass(&pass(self.clock.as_ref().map(Clock::writes)));
            (0..rounds).for_each(|_| self.launches.encode(&mut pass, self.first..self.calls, |_| false));
        }
        if let Some(clock) = &self.clock {
            encoder.resolve_query_set(&clock.set, 0..2, &clock.resolved, 0);
            encoder.copy_buffer_to_buffer(&clock.resolved, 0, &clock.back, 0, BYTES);
        }
        let commands = encoder.finish();
        let started = Instant::now();
        let submission = gpu.core.device.queue.submit([commands]);
        let (done, mapped) = mpsc::sync_channel(1);
        if let Some(clock) = &self.clock {
            clock.back.map_async(wgpu::MapMode::Read, ..BYTES, move |outcome| drop(done.try_send(outcome)));
        }
        gpu.core.device.wait(submission)?;
        let wall = started.elapsed();
        let Some(clock) = &self.clock else { return Ok(Time { wall, gpu: None }) };
        if !matches!(mapped.recv_timeout(Duration::from_secs(60)), Ok(Ok(()))) {
            return Err(gpu.core.device.error("cannot map its timestamps"));
        }
        Ok(Time { wall, gpu: clock.read(gpu)? })
    }
}
