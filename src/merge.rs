//! The main path: for each tensor, read, sparsify, combine, calibrate, write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::calibrate::wsc::{self, Xi};
use crate::checkpoint::Writer;
use crate::error::{Error, Result};
use crate::kernels::norms::Stats;
use crate::kernels::rescale::{self, Counts};
use crate::methods::combine::Combination;
use crate::methods::merged::Merged;
use crate::methods::sparsify;
use crate::plan::{Action, Plan, Tensor};
use crate::recording::{Results, Size};
use crate::report::TensorReport;
use crate::stream::{Engine, Stream};

/// Bytes copied at a time.
const COPY: usize = 4 << 20;

/// A merge that is ready to run.
pub struct Merge<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// Where tensors come from and what runs the lists of calls.
    pub engine: Engine<'a>,
    /// Where the results go.
    pub writer: &'a Writer,
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
                self.engine.progress.tensors.fetch_add(1, Ordering::Relaxed);
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
            self.engine.progress.check()?;
            let piece = &mut buffer[..COPY.min((tensor.bytes - offset) as usize)];
            self.engine.checkpoints[source.checkpoint].read_at(source.tensor, offset, piece)?;
            self.writer.write_at(index, offset, piece)?;
            offset += piece.len() as u64;
            self.engine.progress.bytes.fetch_add(2 * piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn merge(&self, index: usize, tensor: &Tensor) -> Result<TensorReport> {
        let started = Instant::now();
        let stream = Stream::new(&self.engine, tensor);
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
            self.engine.progress.bytes.fetch_add(stream.bytes(extent) + bytes.len() as u64, Ordering::Relaxed);
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
