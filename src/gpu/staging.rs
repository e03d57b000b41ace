//! Upload: a ring of small host buffers that the device copies from.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::device::Device;
use crate::error::Result;

/// Bytes of one staging buffer.
pub const STAGE: usize = 2 << 20;

/// Staging buffers at most: what bounds the host memory of uploads.
pub const STAGES: usize = 8;

#[derive(Default)]
struct State {
    /// Mapped and free.
    ready: Vec<wgpu::Buffer>,
    /// Being copied from, by number.
    pending: Vec<(u64, wgpu::SubmissionIndex)>,
    made: usize,
    next: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    freed: Condvar,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ring.
#[derive(Default)]
pub struct Staging {
    shared: Arc<Shared>,
}

impl Staging {
    /// A mapped buffer of [`STAGE`] bytes; waits for one where all are in use.
    pub fn take(&self, device: &Device) -> Result<wgpu::Buffer> {
        let mut state = self.shared.state();
        loop {
            device.check()?;
            if let Some(buffer) = state.ready.pop() {
                return Ok(buffer);
            }
            if state.made < STAGES {
                state.made += 1;
                drop(state);
                let desc = wgpu::BufferDescriptor {
                    label: Some("magic.upload"),
                    size: STAGE as u64,
                    usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: true,
                };
                let made = device.make("an upload buffer", |raw| raw.create_buffer(&desc));
                return made.inspect_err(|_| self.lose());
            }
            if let Some((_, oldest)) = state.pending.first().cloned() {
                drop(state);
                device.wait(oldest)?;
                state = self.shared.state();
            }
            // Its callback may be running in another thread, or all buffers are being filled.
            if state.ready.is_empty() {
                let freed = self.shared.freed.wait_timeout(state, Duration::from_millis(10));
                state = freed.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Hands `buffer` back once `submission`, which copies from it, is done.
    pub fn recycle(&self, buffer: wgpu::Buffer, submission: wgpu::SubmissionIndex) {
        let number = {
            let mut state = self.shared.state();
            let number = state.next;
            state.next += 1;
            state.pending.push((number, submission));
            number
        };
        let (shared, mapped) = (self.shared.clone(), buffer.clone());
        buffer.map_async(wgpu::MapMode::Write, .., move |outcome| {
            let mut state = shared.state();
            state.pending.retain(|(n, _)| *n != number);
            match outcome {
                Ok(()) => state.ready.push(mapped),
                Err(_) => state.made -= 1,
            }
            drop(state);
            shared.freed.notify_one();
        });
    }

    /// A buffer that was taken will not come back.
    pub fn lose(&self) {
        self.shared.state().made -= 1;
        self.shared.freed.notify_one();
    }
}
