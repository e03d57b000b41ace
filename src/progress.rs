//! How far a merge has come, and the way to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Kind, Result};

/// How far a merge has come, for whoever watches; and the way to stop it.
///
/// Its counters may be read, and `stop` set, by any thread at any time.
///
/// ```
/// use std::sync::atomic::Ordering;
///
/// use magic_merge::{Job, Kind, Output, Progress, Quick, Wanted};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let recipe = Quick::new("linear").model("assets/demo/base").model("assets/demo/expert_digits");
/// let job = Job::new(recipe.exclude("classifier.*").recipe()?, None, &Wanted::on("cpu"))?;
/// let progress = Progress::default();
/// progress.stop.store(true, Ordering::Relaxed); // as Ctrl-C would do, from another thread
/// let error = job.run(&Output::new(folder.path().join("merged")), &progress).unwrap_err();
/// assert_eq!(error.kind(), Kind::Interrupted);
/// # Ok(())
/// # }
/// ```
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
    ///
    /// # Errors
    /// [`Kind::Interrupted`], once `stop` is set.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::new(Kind::Interrupted, "interrupted")) } else { Ok(()) }
    }
}
