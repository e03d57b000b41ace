//! The CPU device: runs a recording's twins over one block, on the calling thread.
//!
//! A block is small enough to stay in the core's cache from the first call to the last.

use std::cell::RefCell;
use std::sync::Mutex;

use crate::error::Result;
use crate::kernels::{Access, Args, Slot};
use crate::recording::{Call, Dims, Extent, Read, Recording, Results, Role, Size};

/// Executor on the CPU.
#[derive(Default)]
pub struct Cpu {
    /// Input buffers between two blocks.
    free: Mutex<Vec<Vec<u32>>>,
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
            let mut words = self.free.lock().expect("no panic while held").pop().unwrap_or_default();
            words.resize(len.div_ceil(4), 0);
            read(model, 0, &mut bytemuck::cast_slice_mut(&mut words)[..len])?;
            inputs.push(words);
        }
        Ok(inputs)
    }

    /// See [`crate::executor::Executor::unload`].
    pub fn unload(&self, inputs: Vec<Vec<u32>>) {
        self.free.lock().expect("no panic while held").extend(inputs);
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
        // Taken, not borrowed: while a twin waits for its threads, this one may run another list.
        let mut arena = ARENA.take();
        arena.resize_with(arena.len().max(recording.buffers.len()), Vec::new);
        results.buffers.resize_with(recording.results().count(), Vec::new);
        let mut next_result = 0;
        for (buffer, own) in recording.buffers.iter().zip(arena.iter_mut()) {
            match buffer.role {
                Role::Scratch => own.resize(buffer.size.words(extent), 0),
                Role::Result => {
                    *own = std::mem::take(&mut results.buffers[next_result]);
                    next_result += 1;
                    own.resize(buffer.size.words(extent), 0);
                    if matches!(buffer.size, Size::Fixed(_)) {
                        own.fill(0);
                    }
                }
                Role::Kept(id) => *own = std::mem::take(&mut kept[id]),
                Role::Input(_) | Role::Constant(_) => {}
            }
        }
        for call in &recording.calls {
            let dims = Dims::new(call.grid.as_ref().unwrap_or(extent), recording.planes);
            launch(call, dims, recording, inputs, &mut arena);
        }
        for (buffer, own) in recording.buffers.iter().zip(arena.iter_mut()) {
            if let Role::Kept(id) = buffer.role {
                kept[id] = std::mem::take(own);
            }
        }
        for (result, (buf, _)) in results.buffers.iter_mut().zip(recording.results()) {
            *result = std::mem::take(&mut arena[buf.0]);
        }
        ARENA.set(arena);
    }
}

fn launch(call: &Call, dims: Dims, recording: &Recording, inputs: &[Vec<u32>], arena: &mut [Vec<u32>]) {
    let bound = || call.args.iter().zip(call.kernel.bindings);
    let mut written: Vec<Vec<u32>> =
        bound().filter(|(_, access)| **access == Access::Write).map(|(b, _)| std::mem::take(&mut arena[b.0])).collect();
    let mut writable = written.iter_mut();
    let slots = bound().map(|(buf, access)| match access {
        Access::Write => {
            Slot::Write(bytemuck::cast_slice_mut(writable.next().expect("one taken for each written binding")))
        }
        Access::Read => Slot::Read(bytemuck::cast_slice(match &recording.buffers[buf.0].role {
            Role::Input(model) => &inputs[*model],
            Role::Constant(words) => words,
            Role::Scratch | Role::Result | Role::Kept(_) => &arena[buf.0],
        })),
    });
    let slots = slots.collect();
    (call.kernel.twin)(&mut Args { dims, constants: &call.constants, params: &call.params, slots });
    for ((buf, _), words) in bound().filter(|(_, access)| **access == Access::Write).zip(written) {
        arena[buf.0] = words;
    }
}
