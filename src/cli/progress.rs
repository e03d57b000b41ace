//! One bar on stderr, fed by a thread that looks at the merge from time to time.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use magic_merge::progress::Progress;

use super::args::Global;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

const TEMPLATE: &str = "{bar:24} {msg} · {decimal_bytes}/{decimal_total_bytes} · {decimal_bytes_per_sec} · {eta} left";

/// What there is to do.
#[derive(Clone, Copy, Default)]
pub struct Total {
    /// Tensors to write.
    pub tensors: u64,
    /// Bytes to read for the last time, and to write.
    pub bytes: u64,
}

/// A bar that is on the screen until it is dropped.
pub struct Bar {
    watcher: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

/// True if someone is there to see progress, and wants to.
fn watched(global: &Global) -> bool {
    let unwanted = global.quiet || global.verbose > 0 || std::env::var_os("MAGIC_NO_PROGRESS").is_some();
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !unwanted && !dumb && stderr().is_terminal()
}

/// A line that says what is being done, if someone is there to see it.
pub fn steps(global: &Global) -> ProgressBar {
    if !watched(global) {
        return ProgressBar::hidden();
    }
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    line.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is constant"));
    line.enable_steady_tick(TICK);
    line
}

impl Bar {
    /// Shows `progress`, if someone is there to see it.
    pub fn start(global: &Global, progress: &Arc<Progress>, total: Total) -> Self {
        if !watched(global) {
            return Self { watcher: None };
        }
        let (done, wait) = mpsc::channel();
        let progress = Arc::clone(progress);
        let watch = move || {
            let bar = ProgressBar::with_draw_target(Some(total.bytes), ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template(TEMPLATE).expect("the template is constant"));
            // Until the sender is dropped.
            while wait.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                bar.set_position(progress.bytes.load(Ordering::Relaxed));
                bar.set_message(message(&progress, total.tensors));
            }
            bar.finish_and_clear();
        };
        Self { watcher: Some((done, std::thread::spawn(watch))) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.watcher.take() {
            drop(done);
            let _ = thread.join(); // a bar that failed to draw is no reason to fail
        }
    }
}

fn message(progress: &Progress, tensors: u64) -> String {
    let stopping = |stop: &AtomicBool| stop.load(Ordering::Relaxed);
    let (leaves, all) = (progress.leaves.load(Ordering::Relaxed), progress.all_leaves.load(Ordering::Relaxed));
    match progress.tensors.load(Ordering::Relaxed) {
        _ if leaves < all && !stopping(&progress.stop) => format!("features of leaf {leaves}/{all}"),
        _ if stopping(&progress.stop) => "stopping".to_owned(),
        done if done == tensors => "hashing and syncing".to_owned(),
        done => format!("tensors {done}/{tensors}"),
    }
}
