//! Merge fine-tuned checkpoints on any GPU, and put back the magnitudes that merging loses.

pub mod calibrate;
pub mod card;
pub mod checkpoint;
pub mod cpu;
pub mod device;
pub mod error;
pub mod executor;
pub mod gpu;
pub mod job;
pub mod kernel;
pub mod kernels;
pub mod memory;
pub mod merge;
pub mod methods;
pub mod plan;
pub mod progress;
pub mod recipe;
pub mod recording;
pub mod report;
pub mod stack;
pub mod stream;

pub use error::{Error, Result};
