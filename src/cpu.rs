//! The CPU device: runs a recording's twins over one block, on the calling thread.
//!
//! A block is small enough to stay in the core's cache from the first call to the last.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::kernels::{Access, Args, Slot};
use crate::recording::{Call, Dims, Extent, Read, Recording, Results, Role, Size, rows_of};

/// Executor on the CPU.
#[derive(Default)]
pub struct Cpu {
    /// Input buffers between two blocks, by their capacity: tensors that stayed leave many.
    free: Mutex<BTreeMap<usize, Vec<Vec<u32>>>>,
    /// Time in each kernel, while the log is on.
    spent: Mutex<Vec<(&'static str, Duration)>>,
}

thread_local! {
    /// Scratch buffers of this thread, by their place in the recording.
    static ARENA: RefCell<Vec<Vec<u32>>> = const { RefCell::new(Vec::new()) };
}

impl Cpu {
    /// See [`crate::executor::Executor::load`].
    pub fn load(&self, bytes: &[usize], read: &mut Read<'_>) -> Result<Vec<Vec<u32>>> {
        let mut inputs = Vec::with_capacity(bytes.len());
        for (model, &len) in bytes.iter().enumerate() {
            let mut words = self.buffer(len.div_ceil(4));
            grow(&mut words, len.div_ceil(4));
            read(model, 0, &mut bytemuck::cast_slice_mut(&mut words)[..len])?;
            inputs.push(words);
        }
        Ok(inputs)
    }

    /// The smallest free buffer that holds `words`, or else the largest.
    fn buffer(&self, words: usize) -> Vec<u32> {
        let mut free = self.free.lock().expect("no panic while held");
        let enough = free.range(words..).next().or_else(|| free.last_key_value());
        let Some(capacity) = enough.map(|(capacity, _)| *capacity) else { return Vec::new() };
        let alike = free.get_mut(&capacity).expect("just found");
        let mut buffer = alike.pop().expect("none is kept empty");
        if alike.is_empty() {
            free.remove(&capacity);
        }
        if capacity < words {
            buffer.clear(); // nothing to be moved along when it grows
        }
        buffer
    }

    /// Time in each kernel so far, the most first, summed over threads; nothing if the log is off.
    pub fn spent(&self) -> Vec<(&'static str, Duration)> {
        let mut spent = self.spent.lock().expect("no panic while held").clone();
        spent.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        spent
    }

    fn spend(&self, kernel: &'static str, time: Duration) {
        let mut spent = self.spent.lock().expect("no panic while held");
        match spent.iter_mut().find(|(name, _)| *name == kernel) {
            Some((_, sum)) => *sum += time,
            None => spent.push((kernel, time)),
        }
    }

    /// See [`crate::executor::Executor::unload`].
    pub fn unload(&self, inputs: Vec<Vec<u32>>) {
        let mut free = self.free.lock().expect("no panic while held");
        inputs.into_iter().for_each(|buffer| free.entry(buffer.capacity()).or_default().push(buffer));
    }

    /// See [`crate::executor::Executor::run`]. It cannot fail.
    pub fn run(&self, recording: &Recording, extent: &Extent, inputs: &[Vec<u32>], results: &mut Results) {
        self.run_kept(recording, extent, inputs, &mut [], results);
    }

    /// [`Cpu::run`] for a list that uses buffers which live from run to run.
    pub fn run_kept(
        &self,
        recording: &Recording,
        extent: &Extent,
        inputs: &[Vec<u32>],
        kept: &mut [Vec<u32>],
        results: &mut Results,
    ) {
        self.run_parts(recording, extent, inputs, kept, results, |launch| launch(0..recording.calls.len()));
    }

    /// [`Cpu::run`] that does the calls from `first` on `rounds` times, and returns when the first of these began and the
    /// last ended. Between the other calls and these it calls `ready`, which may wait for other threads.
    pub fn time(
        &self,
        recording: &Recording,
        extent: &Extent,
        inputs: &[Vec<u32>],
        results: &mut Results,
        (first, rounds): (usize, u32),
        ready: impl FnOnce(),
    ) -> [Instant; 2] {
        let mut span = [Instant::now(); 2];
        self.run_parts(recording, extent, inputs, &mut [], results, |launch| {
            launch(0..first);
            ready();
            span[0] = Instant::now();
            (0..rounds).for_each(|_| launch(first..recording.calls.len()));
            span[1] = Instant::now();
        });
        span
    }

    /// Binds all buffers, and lets `work` launch calls.
    fn run_parts(
        &self,
        recording: &Recording,
        extent: &Extent,
        inputs: &[Vec<u32>],
        kept: &mut [Vec<u32>],
        results: &mut Results,
        work: impl FnOnce(&mut dyn FnMut(Range<usize>)),
    ) {
        // Taken, not borrowed: while a twin waits for its threads, this one may run another list.
        let mut arena = ARENA.take();
        arena.resize_with(arena.len().max(recording.buffers.len()), Vec::new);
        results.buffers.resize_with(recording.results().count(), Vec::new);
        let mut next_result = 0;
        // What comes from elsewhere changes places with this thread's own, which waits there.
        for (buffer, own) in recording.buffers.iter().zip(arena.iter_mut()) {
            match buffer.role {
                Role::Scratch => grow(own, buffer.size.words(extent)),
                Role::Result => {
                    std::mem::swap(own, &mut results.buffers[next_result]);
                    next_result += 1;
                    own.resize(buffer.size.words(extent), 0);
                    if matches!(buffer.size, Size::Fixed(_)) {
                        own.fill(0);
                    }
                }
                Role::Kept(id) => std::mem::swap(own, &mut kept[id]),
                Role::Input(_) | Role::Constant(_) | Role::Table(_) => {}
            }
        }
        work(&mut |calls| {
            for call in &recording.calls[calls] {
                let dims = Dims::new(call.grid.as_ref().unwrap_or(extent), recording.planes);
                let started = log::log_enabled!(log::Level::Info).then(Instant::now);
                launch(call, dims, recording, extent, inputs, &mut arena);
                if let Some(started) = started {
                    self.spend(call.kernel.name, started.elapsed());
                }
            }
        });
        for (buffer, own) in recording.buffers.iter().zip(arena.iter_mut()) {
            if let Role::Kept(id) = buffer.role {
                std::mem::swap(&mut kept[id], own);
            }
        }
        for (result, (buf, _)) in results.buffers.iter_mut().zip(recording.results()) {
            std::mem::swap(result, &mut arena[buf.0]);
        }
        ARENA.set(arena);
    }
}

/// Makes a buffer of any contents hold `words`. One that is longer stays so: to cut and lengthen it would clear it.
fn grow(buffer: &mut Vec<u32>, words: usize) {
    if buffer.len() < words {
        buffer.resize(words, 0);
    }
}

fn launch(
    call: &Call,
    dims: Dims,
    recording: &Recording,
    extent: &Extent,
    inputs: &[Vec<u32>],
    arena: &mut [Vec<u32>],
) {
    // Of what may be longer, a twin sees what was declared.
    let words = |buf: usize| recording.buffers[buf].size.words(extent);
    let bound = || call.args.iter().zip(call.kernel.bindings);
    let mut written: Vec<Vec<u32>> =
        bound().filter(|(_, access)| **access == Access::Write).map(|(b, _)| std::mem::take(&mut arena[b.0])).collect();
    let mut writable = written.iter_mut();
    let slots = bound().map(|(buf, access)| match access {
        Access::Write => {
            let own = writable.next().expect("one taken for each written binding");
            let len = if matches!(recording.buffers[buf.0].role, Role::Scratch) { words(buf.0) } else { own.len() };
            Slot::Write(bytemuck::cast_slice_mut(&mut own[..len]))
        }
        Access::Read => Slot::Read(bytemuck::cast_slice(match &recording.buffers[buf.0].role {
            Role::Input(model) => &inputs[*model][..words(buf.0)],
            Role::Constant(words) => words,
            Role::Table(words) => rows_of(words, recording.buffers[buf.0].size, extent),
            Role::Scratch => &arena[buf.0][..words(buf.0)],
            Role::Result | Role::Kept(_) => &arena[buf.0],
        })),
    });
    let slots = slots.collect();
    (call.kernel.twin)(&mut Args { dims, constants: &call.constants, params: &call.params, slots });
    for ((buf, _), words) in bound().filter(|(_, access)| **access == Access::Write).zip(written) {
        arena[buf.0] = words;
    }
}
