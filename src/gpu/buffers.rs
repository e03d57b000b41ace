//! Device buffers that are used again: the driver zero-fills every new one, which costs as much as a kernel.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use super::device::Device;
use crate::error::Result;

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Read and written by kernels.
    Storage,
    /// Written by the host, in memory that both share, and read by kernels. New ones are mapped.
    Input,
    /// Dimensions and parameters.
    Uniform,
    /// Copied to, then mapped by the host.
    ReadBack,
}

impl Kind {
    fn usage(self) -> wgpu::BufferUsages {
        use wgpu::BufferUsages as U;
        match self {
            Self::Storage => U::STORAGE | U::COPY_SRC | U::COPY_DST,
            Self::Input => U::STORAGE | U::MAP_WRITE,
            Self::Uniform => U::UNIFORM | U::COPY_DST,
            Self::ReadBack => U::MAP_READ | U::COPY_DST,
        }
    }
}

/// Bytes of the buffer that a request for `bytes` gets: at most an eighth more.
pub fn class_bytes(bytes: u64) -> u64 {
    let step = (bytes.max(1024).next_power_of_two() / 16).max(256);
    bytes.max(1).next_multiple_of(step)
}

#[derive(Default)]
struct State {
    idle: HashMap<(Kind, u64), Vec<(u64, wgpu::Buffer)>>,
    idle_bytes: u64,
    used_bytes: u64,
    peak_bytes: u64,
    clock: u64,
}

impl State {
    /// Forgets the buffer that has been idle longest.
    fn evict(&mut self) {
        let oldest = self.idle.iter().filter_map(|(key, list)| list.first().map(|(age, _)| (*age, *key))).min();
        if let Some((_, key)) = oldest {
            self.idle.get_mut(&key).expect("just seen").remove(0);
            self.idle_bytes -= key.1;
        }
    }
}

/// All device buffers, in use or idle; idle ones are forgotten where the budget would be exceeded.
pub struct Pool {
    budget: u64,
    largest: u64,
    state: Mutex<State>,
}

impl Pool {
    /// A pool that keeps buffers of up to `largest` bytes, of `budget` bytes together.
    pub fn new(budget: u64, largest: u64) -> Arc<Self> {
        Arc::new(Self { budget, largest, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of at least `bytes`; its contents are those of its last use.
    pub fn take(self: &Arc<Self>, device: &Device, kind: Kind, bytes: u64, label: &str) -> Result<Lease> {
        let class = class_bytes(bytes).min(self.largest.max(bytes));
        let lease = |buffer, fresh| Lease { buffer: Some(buffer), kind, class, fresh, pool: self.clone() };
        {
            let mut state = self.state();
            let found = state.idle.get_mut(&(kind, class)).and_then(Vec::pop);
            state.idle_bytes -= if found.is_some() { class } else { 0 };
            while found.is_none() && state.idle_bytes > 0 && state.idle_bytes + state.used_bytes + class > self.budget {
                state.evict();
            }
            state.used_bytes += class;
            state.peak_bytes = state.peak_bytes.max(state.used_bytes + state.idle_bytes);
            if let Some((_, buffer)) = found {
                return Ok(lease(buffer, false));
            }
        }
        let mapped_at_creation = kind == Kind::Input;
        let desc = wgpu::BufferDescriptor { label: Some(label), size: class, usage: kind.usage(), mapped_at_creation };
        let what = || format!("`{label}` ({} MiB)", class.div_ceil(1 << 20));
        device
            .make(&what(), |raw| raw.create_buffer(&desc))
            .map(|buffer| lease(buffer, true))
            .inspect_err(|_| self.state().used_bytes -= class)
    }

    /// Bytes in use, idle, and the most that both ever were together.
    pub fn bytes(&self) -> [u64; 3] {
        let state = self.state();
        [state.used_bytes, state.idle_bytes, state.peak_bytes]
    }
}

/// A buffer of the pool; dropping it gives it back.
pub struct Lease {
    buffer: Option<wgpu::Buffer>,
    kind: Kind,
    class: u64,
    /// It was made for this lease.
    pub fresh: bool,
    pool: Arc<Pool>,
}

impl Lease {
    /// Keeps the buffer from being used again: the state it is in is not known.
    pub fn discard(mut self) {
        self.buffer = None;
    }
}

impl Deref for Lease {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        self.buffer.as_ref().expect("held until the lease ends")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.used_bytes -= self.class;
        let Some(buffer) = self.buffer.take() else { return };
        state.clock += 1;
        let now = state.clock;
        state.idle_bytes += self.class;
        state.idle.entry((self.kind, self.class)).or_default().push((now, buffer));
        while state.idle_bytes > 0 && state.idle_bytes + state.used_bytes > self.pool.budget {
            state.evict();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::class_bytes;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in (1..5000).chain([1 << 20, (1 << 20) + 1, (3 << 20) + 5, 100 << 20, (1 << 27) - 4, 1 << 27]) {
            let class = class_bytes(bytes);
            assert!(class >= bytes && class.is_multiple_of(256), "{bytes} {class}");
            assert!(class <= (bytes + bytes / 8).max(bytes + 256), "{bytes} {class}");
            assert_eq!(class_bytes(class), class, "{bytes}");
        }
    }
}
