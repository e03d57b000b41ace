//! How far a merge has come, and the way to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Kind, Result};

/// How far a merge has come, for whoever watches; and the way to stop it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Tensors finished.
    pub tensors: AtomicU64,
    /// Bytes read for the last time, and written.
    pub bytes: AtomicU64,
    /// Leaves that a pass through the network has run, on whatever track.
    pub leaves: AtomicU64,
    /// Leaves that it will run; 0 where there is no pass.
    pub all_leaves: AtomicU64,
    /// Set from outside to end the run with [`Kind::Interrupted`].
    pub stop: AtomicBool,
}

impl Progress {
    /// An error if the run was stopped.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::new(Kind::Interrupted, "interrupted")) } else { Ok(()) }
    }
}
