//! The main path: for each tensor, read, sparsify, combine, calibrate, write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::calibrate::wsc::{self, Xi};
use crate::checkpoint::{Checkpoint, Writer};
use crate::error::{Error, Kind, Result};
use crate::executor::Executor;
use crate::kernels::norms::Stats;
use crate::kernels::rescale::{self, Counts};
use crate::methods::combine::Combination;
use crate::methods::sparsify::{self, Mask};
use crate::plan::{Action, Plan, Tensor};
use crate::recording::{Recording, Results, Size};
use crate::report::TensorReport;
use crate::stack::Stack;
use crate::stream::Stream;

/// Bytes copied at a time.
const COPY: usize = 4 << 20;

/// How far a merge has come, for whoever watches; and the way to stop it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Tensors finished.
    pub tensors: AtomicU64,
    /// Bytes read for the last time, and written.
    pub bytes: AtomicU64,
    /// Set from outside to end the run with [`Kind::Interrupted`].
    pub stop: AtomicBool,
}

impl Progress {
    /// An error if the run was stopped.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::new(Kind::Interrupted, "interrupted")) } else { Ok(()) }
    }
}

/// Everything that the tensors of one merge share.
pub struct Merge<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// The base, then the experts, as the plan numbers them.
    pub checkpoints: &'a [Checkpoint],
    /// What runs the lists of calls.
    pub executor: &'a Executor,
    /// Where the results go.
    pub writer: &'a Writer,
    /// How far it has come.
    pub progress: &'a Progress,
}

impl Merge<'_> {
    /// Merges all tensors, several at a time, each in blocks. Reports come in the plan's order.
    pub fn run(&self) -> Result<Vec<TensorReport>> {
        let lanes = self.plan.memory.lanes;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(lanes)
            .build()
            .map_err(|e| Error::device(format!("cannot start {lanes} threads: {e}")))?;
        let next = AtomicU64::new(0);
        let failed = AtomicBool::new(false);
        // Each thread takes the next tensor; while it waits for the blocks of its own, it works on those of others.
        let work = |_: rayon::BroadcastContext<'_>| {
            let mut reports = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed) as usize;
                let Some(tensor) = self.plan.tensors.get(index).filter(|_| !failed.load(Ordering::Relaxed)) else {
                    return Ok(reports);
                };
                match self.tensor(index, tensor) {
                    Ok(report) => reports.push((index, report)),
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
                self.progress.tensors.fetch_add(1, Ordering::Relaxed);
            }
        };
        let mut reports = Vec::new();
        for part in pool.broadcast(work) {
            reports.extend(part?);
        }
        reports.sort_by_key(|(index, _)| *index);
        Ok(reports.into_iter().map(|(_, report)| report).collect())
    }

    fn tensor(&self, index: usize, tensor: &Tensor) -> Result<TensorReport> {
        match &tensor.action {
            Action::Copy(_) => self.copy(index, tensor).map(|()| TensorReport::copied(tensor)),
            Action::Merge => self.merge(index, tensor),
        }
    }

    fn copy(&self, index: usize, tensor: &Tensor) -> Result<()> {
        let source = &tensor.sources[0];
        let mut buffer = vec![0; COPY.min(tensor.bytes as usize)];
        let mut offset = 0;
        while offset < tensor.bytes {
            self.progress.check()?;
            let piece = &mut buffer[..COPY.min((tensor.bytes - offset) as usize)];
            self.checkpoints[source.checkpoint].read_at(source.tensor, offset, piece)?;
            self.writer.write_at(index, offset, piece)?;
            offset += piece.len() as u64;
            self.progress.bytes.fetch_add(2 * piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn merge(&self, index: usize, tensor: &Tensor) -> Result<TensorReport> {
        let started = Instant::now();
        let stream = Stream::new(self, tensor);
        let method = self.plan.method;
        let masks = sparsify::masks(&stream, method.sparsify, &tensor.settings, self.plan.seed)?;
        let combination = Combination::new(&stream, method.combine, &tensor.settings)?;
        let merged = Merged { masks, combination };
        let xi = wsc::xi(&stream, &merged, tensor.calibration)?;

        let (mut list, stack) = merged.record(tensor);
        let out = list.result("out", Size::Stored(tensor.out_dtype));
        let counts = list.result("counts", Size::Fixed(rescale::COUNTS));
        let (_, factors) = wsc::record(&mut list, &stack, xi);
        rescale::record(&mut list, stack.base, stack.tau, factors, out, counts);
        let blocks = stream.map(&list, |extent, results| {
            let at = extent.first_row * u64::from(extent.row_len) * tensor.out_dtype.size() as u64;
            let bytes = results.bytes(0, extent.n as usize * tensor.out_dtype.size());
            self.writer.write_at(index, at, bytes)?;
            self.progress.bytes.fetch_add(stream.bytes(extent) + bytes.len() as u64, Ordering::Relaxed);
            Ok(block_report(results, tensor, xi))
        })?;
        let mut report = TensorReport::merged(tensor);
        blocks.iter().for_each(|block| report.add(block));
        report.finish(started.elapsed());
        Ok(report)
    }
}

/// Sums over a block of the last pass.
fn block_report(results: &Results, tensor: &Tensor, xi: Xi) -> TensorReport {
    let planes = tensor.experts() + 1;
    let stats: &[Stats] = bytemuck::cast_slice(results.words(2));
    let mut report = TensorReport::merged(tensor);
    report.counts(bytemuck::cast_slice::<u32, Counts>(results.words(1))[0]);
    for (row, stats) in stats.chunks(planes).enumerate() {
        let factor = match xi {
            Xi::One(factor) => factor,
            Xi::Rows(..) => results.floats(3)[row],
        };
        report.row(stats, factor);
    }
    report
}

/// How the merged task vector of one tensor comes about, all numbers known.
pub struct Merged {
    /// What of each expert takes part.
    pub masks: Vec<Mask>,
    /// How the parts become one.
    pub combination: Combination,
}

impl Merged {
    /// A list that leaves the experts' own task vectors in the first planes and the merged one in the last.
    pub fn record(&self, tensor: &Tensor) -> (Recording, Stack) {
        let mut list = Recording::new(tensor.experts() as u32 + 1);
        let stack = Stack::record(&mut list, tensor, tensor.experts());
        for (k, mask) in self.masks.iter().enumerate() {
            mask.record(&mut list, stack.tau, k as u32);
        }
        self.combination.record(&mut list, &stack);
        if !self.masks.iter().all(Mask::is_identity) {
            stack.differences(&mut list); // calibration compares with what the experts learned, not with what was kept
        }
        (list, stack)
    }
}
