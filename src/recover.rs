//! What becomes of work whose device failed: once more on the device, opened anew if it is lost, in blocks half as large;
//! then on the CPU, if that is allowed. A tensor is such work, and so is a pass through a network.

use serde::{Deserialize, Serialize};

use crate::cpu::Cpu;
use crate::device::{self, Wanted};
use crate::error::{Error, Kind, Result};
use crate::executor::Executor;
use crate::plan::Tensor;
use crate::stream::Engine;

/// How a tensor, or what was measured, came about after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recovered {
    /// In blocks half as large.
    #[serde(rename = "in blocks half as large")]
    Halved,
    /// On the CPU.
    #[serde(rename = "on the CPU")]
    OnCpu,
}

impl Recovered {
    /// As reports have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Halved => "in blocks half as large",
            Self::OnCpu => "on the CPU",
        }
    }
}

/// Does `work` on a tensor, and again if the device fails; `wanted` says which device to open again, and whether the CPU may
/// take its place.
///
/// # Errors
/// Those of `work`; the device's own when all has been tried.
pub fn tensor<T>(
    wanted: &Wanted,
    tensor: &Tensor,
    engine: &Engine<'_>,
    work: impl Fn(&Tensor, &Engine<'_>) -> Result<T>,
) -> Result<(T, Option<Recovered>)> {
    attempt(wanted, &format!("`{}`", tensor.name), engine, |engine, again| match again {
        true => work(&halved(tensor), engine),
        false => work(tensor, engine),
    })
}

/// The same for `what`, which is no single tensor; `work` is told whether to take less at a time.
///
/// # Errors
/// As [`tensor`].
pub fn attempt<T>(
    wanted: &Wanted,
    what: &str,
    engine: &Engine<'_>,
    work: impl Fn(&Engine<'_>, bool) -> Result<T>,
) -> Result<(T, Option<Recovered>)> {
    let failed = match work(engine, false) {
        Err(error) if error.kind() == Kind::Device && matches!(engine.executor, Executor::Gpu(_)) => error,
        done => return done.map(|value| (value, None)),
    };
    log::warn!("{what}: {failed}: again, in blocks half as large");
    let again = |executor: &Executor| work(&Engine { executor, ..*engine }, true);
    let failed = match device::open_anew(wanted, engine.executor).and_then(|opened| again(&opened.executor)) {
        Err(error) if error.kind() == Kind::Device => error,
        done => return done.map(|value| (value, Some(Recovered::Halved))),
    };
    if !wanted.fallback {
        return Err(told(failed));
    }
    log::warn!("{what}: {failed}: again, on the CPU");
    again(&Executor::Cpu(Cpu::default())).map(|value| (value, Some(Recovered::OnCpu)))
}

fn told(error: Error) -> Error {
    error.hint("`--fallback cpu` computes on the CPU what the device fails at")
}

/// The same tensor in blocks half as large, of which none stays in memory.
fn halved(tensor: &Tensor) -> Tensor {
    // One block of the whole tensor may have any number of rows; its halves may not.
    let block_rows = tensor.block_rows.div_ceil(2).next_multiple_of(tensor.align()).min(tensor.block_rows);
    Tensor { block_rows, resident: false, ..tensor.clone() }
}
