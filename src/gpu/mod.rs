//! The GPU device: wgpu, and nothing outside this folder and `kernels/` knows of it.

use crate::error::Result;
use crate::executor::Read;
use crate::recording::{Extent, Recording, Results};

/// Executor on a GPU.
pub struct Gpu;

/// A loaded block in device memory.
pub struct DeviceInputs;

impl Gpu {
    /// See [`crate::executor::Executor::load`].
    pub fn load(&self, _bytes: &[usize], _read: &mut Read<'_>) -> Result<DeviceInputs> {
        Ok(DeviceInputs)
    }

    /// See [`crate::executor::Executor::unload`].
    pub fn unload(&self, _inputs: DeviceInputs) {}

    /// See [`crate::executor::Executor::run`].
    pub fn run(
        &self,
        _recording: &Recording,
        _extent: &Extent,
        _inputs: &DeviceInputs,
        _results: &mut Results,
    ) -> Result<()> {
        Ok(())
    }
}
