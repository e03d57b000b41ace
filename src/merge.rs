//! The main path: for each tensor, read, sparsify, combine, calibrate, write.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::angles;
use crate::calibrate::wsc::{self, Xi};
use crate::checkpoint::Sink;
use crate::decompose::Route;
use crate::device::Wanted;
use crate::error::Result;
use crate::executor::Executor;
use crate::finite;
use crate::kernels::factor::Strength;
use crate::kernels::norms::Stats;
use crate::kernels::rescale::{self, Counts};
use crate::kernels::scale;
use crate::methods::combine::Combination;
use crate::methods::merged::Merged;
use crate::methods::{Combine, sparsify, whole};
use crate::plan::{Action, Plan, Source, Tensor};
use crate::recipe::NonFinite;
use crate::recording::{Extent, Results, Size};
use crate::recover;
use crate::report::TensorReport;
use crate::stack;
use crate::stream::{Engine, Stream};

/// Bytes copied at a time.
const COPY: usize = 4 << 20;

/// Blocks whose reports wait to be added up.
const BLOCKS: usize = 4096;

/// A merge that is ready to run.
pub struct Merge<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// Where tensors come from and what runs the lists of calls.
    pub engine: Engine<'a>,
    /// More devices: each merges tensors of its own, but for those that are decomposed.
    pub others: &'a [Executor],
    /// Where the results go.
    pub sink: &'a dyn Sink,
    /// What becomes of each tensor's ξ.
    pub strengths: &'a [Strength],
    /// The device, for when it fails.
    pub wanted: &'a Wanted,
}

impl Merge<'_> {
    /// Merges the tensors `which`, several at a time, each in blocks; those that are decomposed first, one at a time, on
    /// all threads. Reports come with the tensors' places.
    pub fn run(&self, which: &[usize]) -> Result<Vec<(usize, TensorReport)>> {
        let pool = self.plan.memory.pool()?;
        let whole = |index: &usize| matches!(self.plan.tensors[*index].combine, Combine::Decompose(_));
        let (whole, which): (Vec<usize>, Vec<usize>) = which.iter().partition(|index| whole(index));
        let alone = |index: usize| Ok((index, self.done(index, &self.engine)?));
        let mut reports = pool.install(|| whole.into_iter().map(alone).collect::<Result<Vec<_>>>())?;
        let next = AtomicU64::new(0);
        let failed = AtomicBool::new(false);
        let engines: Vec<Engine<'_>> = std::iter::once(self.engine.executor)
            .chain(self.others)
            .map(|executor| Engine { executor, ..self.engine })
            .collect();
        // Each thread takes the next tensor; while it waits for the blocks of its own, it works on those of others.
        let work = |thread: rayon::BroadcastContext<'_>| {
            let device = thread.index() % engines.len();
            let mut reports = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed) as usize;
                let Some(&index) = which.get(place).filter(|_| !failed.load(Ordering::Relaxed)) else {
                    log::info!("thread {} of device {device}: {} tensors", thread.index(), reports.len());
                    return Ok(reports);
                };
                match self.done(index, &engines[device]) {
                    Ok(report) => reports.push((index, report)),
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        };
        for part in pool.broadcast(work) {
            reports.extend(part?);
        }
        Ok(reports)
    }

    fn done(&self, index: usize, engine: &Engine<'_>) -> Result<TensorReport> {
        let tensor = &self.plan.tensors[index];
        let report = match &tensor.action {
            Action::Copy(_) => self.copy(index, tensor),
            Action::Merge => self.merge(index, engine),
        }?;
        self.sink.complete(index, &|| report.record())?;
        self.engine.progress.tensors.fetch_add(1, Ordering::Relaxed);
        Ok(report)
    }

    fn copy(&self, index: usize, tensor: &Tensor) -> Result<TensorReport> {
        let mut report = TensorReport::copied(tensor);
        let source = &tensor.sources[0];
        let mut buffer = vec![0; COPY.min(tensor.bytes as usize)];
        let mut offset = 0;
        while offset < tensor.bytes {
            self.engine.progress.check()?;
            let piece = &mut buffer[..COPY.min((tensor.bytes - offset) as usize)];
            self.engine.checkpoints[source.checkpoint].read_at(source.tensor, offset, piece)?;
            self.sink.write_at(index, offset, piece)?;
            report.stored(finite::count(source.dtype, piece));
            offset += piece.len() as u64;
            self.engine.progress.bytes.fetch_add(2 * piece.len() as u64, Ordering::Relaxed);
        }
        Ok(report)
    }

    fn merge(&self, index: usize, engine: &Engine<'_>) -> Result<TensorReport> {
        let strength = self.strengths[index];
        let work = |tensor: &Tensor, engine: &Engine<'_>| {
            Prepared::new(self.plan, engine, index, tensor)?.write(self.sink, strength)
        };
        let (mut report, recovered) = recover::tensor(self.wanted, &self.plan.tensors[index], engine, work)?;
        report.recovered = recovered;
        Ok(report)
    }
}

/// A tensor of a merge, everything known that takes a whole tensor to know.
pub struct Prepared<'a> {
    /// Its place in the plan.
    pub index: usize,
    /// The tensor.
    pub tensor: &'a Tensor,
    engine: &'a Engine<'a>,
    stream: Stream<'a>,
    merged: Merged,
    xi: Xi,
    route: Option<Route>,
    started: Instant,
}

/// Rows of a merged task vector, before any factor.
#[derive(Default)]
pub struct TauRows {
    /// τ_m of the rows that were asked for, one after another.
    pub tau: Vec<f32>,
    /// Their ξ in weight space; one for all where they have none of their own.
    pub xi: Vec<f32>,
    /// Statistics of each plane, of all rows.
    pub stats: Vec<Stats>,
}

impl<'a> Prepared<'a> {
    /// Reads tensor `index` of the plan as often as the method takes; `tensor` is that, or the same in other blocks.
    pub fn new(plan: &'a Plan, engine: &'a Engine<'a>, index: usize, tensor: &'a Tensor) -> Result<Self> {
        let started = Instant::now();
        let mut stream = Stream::new(engine, tensor);
        let masks = sparsify::masks(&stream, plan.method.sparsify, &tensor.settings, plan.seed)?;
        let combination = Combination::new(&stream, tensor.combine, &masks, &tensor.settings, plan.models)?;
        let route = match tensor.combine {
            Combine::Decompose(rule) => Some(whole::merge(&mut stream, rule, plan.memory.decomposition())?),
            _ => None,
        };
        let merged = Merged { masks, combination };
        let xi = wsc::xi(&stream, &merged, tensor.calibration)?;
        Ok(Self { index, tensor, engine, stream, merged, xi, route, started })
    }

    /// Merges, calibrates and writes the tensor.
    pub fn write(&self, sink: &dyn Sink, strength: Strength) -> Result<TensorReport> {
        let tensor = self.tensor;
        let (mut list, stack) = self.merged.record(tensor);
        let out = list.result("out", Size::Stored(tensor.out_dtype));
        let counts = list.result("counts", Size::Fixed(rescale::COUNTS));
        let (_, factors) = wsc::record(&mut list, &stack, self.xi, strength);
        stack::sum(&mut list, tensor.non_finite, [stack.base, stack.tau, factors, out, counts]);
        let take = |extent: &Extent, results: &Results| {
            let at = extent.first_row * u64::from(extent.row_len) * tensor.out_dtype.size() as u64;
            let bytes = results.bytes(0, extent.n as usize * tensor.out_dtype.size());
            sink.write_at(self.index, at, bytes)?;
            self.engine.progress.bytes.fetch_add(self.stream.bytes(extent) + bytes.len() as u64, Ordering::Relaxed);
            let mut report = block_report(results, tensor, self.xi, strength);
            let counts = bytemuck::cast_slice::<u32, Counts>(results.words(1))[0];
            if self.has_lost(bytemuck::cast_slice(results.words(2)), &counts) {
                report.found(&finite::look(&self.stream, extent, Some(bytes))?);
            }
            Ok(report)
        };
        let mut report = TensorReport::merged(tensor, strength);
        let blocks = tensor.blocks();
        // Some at a time: what is said of each would add up in a tensor of millions of rows.
        for first in (0..blocks).step_by(BLOCKS) {
            let part = self.stream.map(&list, first..(first + BLOCKS).min(blocks), take)?;
            part.iter().for_each(|block| report.add(block));
        }
        self.finish(report)
    }

    /// Whether numbers that are none may be in what these statistics and counts are of.
    fn has_lost(&self, stats: &[Stats], counts: &Counts) -> bool {
        // Where the base stands in for them, they leave no trace.
        self.tensor.non_finite == NonFinite::Base || finite::noticed(stats, counts)
    }

    /// Completes the report of the tensor.
    ///
    /// # Errors
    /// Numbers that are none, if that is an error.
    fn finish(&self, mut report: TensorReport) -> Result<TensorReport> {
        report.between = angles::between(&self.stream)?;
        report.finish(self.route.as_ref(), self.started.elapsed());
        if let (Some(findings), NonFinite::Error) = (&report.not_finite, self.tensor.non_finite) {
            let name = |source: &Source| self.engine.checkpoints[source.checkpoint].name();
            findings.check(self.tensor, &self.tensor.sources.iter().map(name).collect::<Vec<_>>())?;
        }
        Ok(report)
    }

    /// The merged task vector of blocks `blocks`: all of their rows, or those for which `keep` holds.
    pub fn rows(&self, blocks: Range<usize>, keep: Option<&(dyn Fn(u64) -> bool + Sync)>) -> Result<TauRows> {
        let (mut list, stack) = self.merged.record(self.tensor);
        let (_, factors) = wsc::record(&mut list, &stack, self.xi, Strength::FULL);
        let (one, tau) = (list.floats("one", &[1.0]), list.result("tau", Size::Planes(1)));
        scale::record(&mut list, stack.tau, one, tau);
        let last = list.results().count() - 1;
        let own = matches!(self.xi, Xi::Rows(..)).then(|| list.results().position(|(buf, _)| buf == factors));
        let own = own.map(|place| place.expect("factors of rows are a result"));
        let lens: Vec<usize> = blocks.clone().map(|block| self.tensor.block(block).n as usize).collect();
        let mut all =
            TauRows { tau: vec![0.0; if keep.is_none() { lens.iter().sum() } else { 0 }], ..TauRows::default() };
        // Each block has its own place in the whole.
        let (mut places, mut rest) = (Vec::new(), &mut all.tau[..]);
        for len in lens.into_iter().filter(|_| keep.is_none()) {
            let (place, after) = rest.split_at_mut(len);
            places.push(Mutex::new(place));
            rest = after;
        }
        let first = blocks.start;
        let parts = self.stream.map(&list, blocks, |extent, results| {
            let mut part = TauRows { stats: bytemuck::cast_slice(results.words(0)).to_vec(), ..TauRows::default() };
            let (len, tau) = (extent.row_len as usize, &results.floats(last)[..extent.n as usize]);
            let Some(keep) = keep else {
                let block = (extent.first_row / self.tensor.block_rows) as usize - first;
                places[block].lock().expect("no panic while held").copy_from_slice(tau);
                part.xi.extend(own.iter().flat_map(|place| &results.floats(*place)[..extent.rows as usize]));
                return Ok(part);
            };
            for (row, tau) in tau.chunks(len).enumerate() {
                if keep(extent.first_row + row as u64) {
                    part.tau.extend_from_slice(tau);
                    part.xi.extend(own.map(|place| results.floats(place)[row]));
                }
            }
            Ok(part)
        })?;
        drop(places);
        for part in parts {
            all.tau.extend(part.tau);
            all.xi.extend(part.xi);
            all.stats.extend(part.stats);
        }
        if let Xi::One(factor) = self.xi {
            all.xi = vec![factor];
        }
        Ok(all)
    }

    /// The tensor's report, where it was written from [`Prepared::rows`] of all its blocks; `out` is what was written.
    ///
    /// # Errors
    /// Numbers that are none, if that is an error.
    pub fn report(
        &self,
        rows: &TauRows,
        strength: Strength,
        counts: Counts,
        out: Option<&[u8]>,
    ) -> Result<TensorReport> {
        let mut report = TensorReport::merged(self.tensor, strength);
        report.counts(counts);
        for (row, stats) in rows.stats.chunks(self.tensor.experts() + 1).enumerate() {
            report.row(stats, strength.of(*rows.xi.get(row).unwrap_or(&rows.xi[0])));
        }
        if self.has_lost(&rows.stats, &counts) {
            for block in 0..self.tensor.blocks() {
                let extent = self.tensor.block(block);
                let at = (extent.first_row * u64::from(extent.row_len)) as usize * self.tensor.out_dtype.size();
                report.found(&finite::look(&self.stream, &extent, out.map(|out| &out[at..]))?);
            }
        }
        self.finish(report)
    }
}

/// Sums over a block of the last pass.
fn block_report(results: &Results, tensor: &Tensor, xi: Xi, strength: Strength) -> TensorReport {
    let planes = tensor.experts() + 1;
    let stats: &[Stats] = bytemuck::cast_slice(results.words(2));
    let mut report = TensorReport::merged(tensor, strength);
    report.counts(bytemuck::cast_slice::<u32, Counts>(results.words(1))[0]);
    for (row, stats) in stats.chunks(planes).enumerate() {
        let factor = match xi {
            Xi::One(factor) => strength.of(factor),
            Xi::Rows(..) => results.floats(3)[row],
        };
        report.row(stats, factor);
    }
    report
}
