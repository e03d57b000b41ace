//! Merge fine-tuned checkpoints on any GPU, and put back the magnitudes that merging loses.

pub mod checkpoint;
pub mod cpu;
pub mod error;
pub mod executor;
pub mod gpu;
pub mod kernels;
pub mod recording;

pub use error::{Error, Result};
