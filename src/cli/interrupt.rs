//! Ctrl-C: the first stops the merge cleanly, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use magic_merge::progress::Progress;
use magic_merge::{Error, Result};

/// Lets Ctrl-C, and a request to terminate, stop whoever watches `progress`.
pub fn stops(progress: &Arc<Progress>) -> Result<()> {
    let progress = Arc::clone(progress);
    let handler = move || {
        if progress.stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Error::output(format!("cannot watch for Ctrl-C: {e}")))
}
