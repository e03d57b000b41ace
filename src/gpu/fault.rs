//! Failures that tests inject, to show that each is found and what becomes of it.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Gpu;
use crate::error::Result;

/// A failure for tests to inject into every `load` and `run` until told otherwise.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    None,
    /// The host's bytes do not reach the device.
    SkipUpload,
    /// This call of the recording does not run.
    SkipCall(u8),
    /// All of what is read back is zero.
    ZeroReadBack,
    /// The end of the largest result is read back as zero.
    ZeroTail,
    /// What is read back is what the buffer held before.
    StaleReadBack,
}

impl Fault {
    fn code(self) -> u32 {
        match self {
            Self::None => 0,
            Self::SkipUpload => 1,
            Self::ZeroReadBack => 2,
            Self::ZeroTail => 3,
            Self::StaleReadBack => 4,
            Self::SkipCall(call) => 256 + u32::from(call),
        }
    }
}

/// What `MAGIC_TEST_GPU_FAULT=WHAT:RUN` or `WHAT:RUN+` asks for: a failure at that run of the process, or from it on. Of
/// `skip`, a number says which call.
struct Script {
    what: What,
    run: u32,
    stays: bool,
}

#[derive(Clone, Copy)]
enum What {
    /// The device goes.
    Lost,
    /// It has no memory left.
    Memory,
    /// A fault of the run.
    Fault(Fault),
}

fn script() -> Option<&'static Script> {
    static SCRIPT: OnceLock<Option<Script>> = OnceLock::new();
    let read = || {
        let text = std::env::var("MAGIC_TEST_GPU_FAULT").ok()?;
        let (what, run) = text.split_once(':')?;
        let what = match what {
            "lost" => What::Lost,
            "memory" => What::Memory,
            "zero" => What::Fault(Fault::ZeroReadBack),
            "tail" => What::Fault(Fault::ZeroTail),
            "stale" => What::Fault(Fault::StaleReadBack),
            _ => What::Fault(Fault::SkipCall(what.strip_prefix("skip")?.parse().ok()?)),
        };
        Some(Script { what, run: run.trim_end_matches('+').parse().ok()?, stays: run.ends_with('+') })
    };
    SCRIPT.get_or_init(read).as_ref()
}

thread_local! {
    /// The script's fault of this thread's run.
    static SCRIPTED: Cell<Fault> = const { Cell::new(Fault::None) };
}

impl Gpu {
    /// Injects a failure.
    #[doc(hidden)]
    pub fn inject(&self, fault: Fault) {
        self.fault.store(fault.code(), Ordering::SeqCst);
    }

    /// Takes the device away.
    #[doc(hidden)]
    pub fn destroy(&self) {
        self.core.device.raw.destroy();
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.fault.load(Ordering::Relaxed) == fault.code() || SCRIPTED.get() == fault
    }

    /// Does `run`, with the failure that the script has for it.
    pub(super) fn with_script(&self, run: impl FnOnce() -> Result<()>) -> Result<()> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let Some(script) = script() else { return run() };
        let number = RUNS.fetch_add(1, Ordering::SeqCst);
        if number != script.run && !(script.stays && number > script.run) {
            return run();
        }
        match script.what {
            What::Lost => self.destroy(),
            What::Memory => return Err(self.core.device.error("has no memory left for what a test asks")),
            What::Fault(fault) => SCRIPTED.set(fault),
        }
        let done = run();
        SCRIPTED.set(Fault::None);
        done
    }
}
