//! Hands what was written to the disk while the rest is computed: the sync at the end then finds little left to do.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Bytes between two syncs.
const STEP: u64 = 64 << 20;

/// A file's number, and the sync of it that is in work.
type Sync = (usize, JoinHandle<io::Result<()>>);

/// One sync at a time, on a thread of its own. A disk that cannot follow is asked less often.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// Bytes since the last one began.
    pending: AtomicU64,
    sync: Mutex<Option<Sync>>,
}

impl Flush {
    /// Takes note of `bytes` that were written to file `number`.
    ///
    /// # Errors
    /// What an earlier sync ran into, and in which file: the system reports that once, and not again at the end.
    pub(super) fn wrote(&self, number: usize, file: &Arc<File>, bytes: u64) -> Result<(), (usize, io::Error)> {
        if self.pending.fetch_add(bytes, Ordering::Relaxed) + bytes < STEP {
            return Ok(());
        }
        let Ok(mut sync) = self.sync.try_lock() else { return Ok(()) };
        if sync.as_ref().is_some_and(|(_, thread)| !thread.is_finished()) {
            return Ok(());
        }
        outcome(sync.take())?;
        self.pending.store(0, Ordering::Relaxed);
        let file = file.clone();
        // Without a thread the sync at the end does it all.
        let thread = Builder::new().name("sync".into()).spawn(move || file.sync_data());
        *sync = thread.ok().map(|thread| (number, thread));
        Ok(())
    }

    /// Waits for the sync that is in work.
    ///
    /// # Errors
    /// As for [`wrote`](Self::wrote).
    pub(super) fn wait(&self) -> Result<(), (usize, io::Error)> {
        outcome(self.sync.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

fn outcome(sync: Option<Sync>) -> Result<(), (usize, io::Error)> {
    let Some((number, thread)) = sync else { return Ok(()) };
    thread.join().expect("a sync does not panic").map_err(|e| (number, e))
}

impl Drop for Flush {
    fn drop(&mut self) {
        // The output is given up: what its disk says does not matter any more.
        let _ = self.wait();
    }
}
