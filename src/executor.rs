//! The two ways to run a recording: WGSL on a GPU, or the twins on the CPU.

use std::time::Duration;

use crate::cpu::Cpu;
use crate::error::Result;
use crate::fast_gemm::FastGemm;
use crate::gpu::Gpu;
use crate::kept::{Buffers, Kept};
use crate::recording::{Extent, Read, Recording, Results};

/// What runs recordings. Safe to call from several threads at a time, each with its own block.
pub enum Executor {
    /// The plain Rust twins.
    Cpu(Cpu),
    /// WGSL through wgpu.
    Gpu(Box<Gpu>),
}

/// The stored elements of one block of every input model, where the executor wants them.
pub enum Inputs {
    /// In host memory, a vector of words for each model.
    Host(Vec<Vec<u32>>),
    /// In device memory.
    Device(crate::gpu::DeviceInputs),
}

impl Executor {
    /// Loads a block: `bytes[i]` bytes of input `i`, asked from `read` in pieces.
    pub fn load(&self, bytes: &[usize], read: &mut Read<'_>) -> Result<Inputs> {
        match self {
            Self::Cpu(cpu) => cpu.load(bytes, read).map(Inputs::Host),
            Self::Gpu(gpu) => gpu.load(bytes, read).map(Inputs::Device),
        }
    }

    /// Runs `recording` over a loaded block; `results` is resized as needed and filled.
    pub fn run(&self, recording: &Recording, extent: &Extent, inputs: &Inputs, results: &mut Results) -> Result<()> {
        match (self, inputs) {
            (Self::Cpu(cpu), Inputs::Host(inputs)) => {
                cpu.run(recording, extent, inputs, results);
                Ok(())
            }
            (Self::Gpu(gpu), Inputs::Device(inputs)) => gpu.run(recording, extent, inputs, results),
            _ => unreachable!("inputs were loaded by another executor"),
        }
    }

    /// [`Executor::run`] for a list that uses buffers which live from run to run.
    pub fn run_kept(
        &self,
        recording: &Recording,
        extent: &Extent,
        inputs: &Inputs,
        kept: &mut Kept,
        results: &mut Results,
    ) -> Result<()> {
        match (self, inputs, &mut kept.buffers) {
            (Self::Cpu(cpu), Inputs::Host(inputs), Buffers::Host(kept)) => {
                cpu.run_kept(recording, extent, inputs, kept, results);
                Ok(())
            }
            (Self::Gpu(gpu), Inputs::Device(inputs), Buffers::Device(kept)) => {
                gpu.run_kept(recording, extent, inputs, kept, results)
            }
            _ => unreachable!("inputs were loaded by another executor"),
        }
    }

    /// What computes products of the forward pass, where that is not the f32 kernels.
    pub fn fast_gemm(&self) -> Option<&FastGemm> {
        match self {
            Self::Cpu(_) => None,
            Self::Gpu(gpu) => gpu.fast_gemm(),
        }
    }

    /// Time in each kernel so far, the most first; known on the CPU, and while the log is on.
    pub fn spent(&self) -> Vec<(&'static str, Duration)> {
        match self {
            Self::Cpu(cpu) => cpu.spent(),
            Self::Gpu(_) => Vec::new(),
        }
    }

    /// Takes a block's memory back for the next one.
    pub fn unload(&self, inputs: Inputs) {
        match (self, inputs) {
            (Self::Cpu(cpu), Inputs::Host(inputs)) => cpu.unload(inputs),
            (Self::Gpu(gpu), Inputs::Device(inputs)) => gpu.unload(inputs),
            _ => unreachable!("inputs were loaded by another executor"),
        }
    }
}
