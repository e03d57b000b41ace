//! A merge whose result is an adapter: each merged task vector, calibrated, becomes two thin matrices again.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use super::{Job, Output};
use crate::calibrate::feature::Outcome;
use crate::checkpoint::text::cannot_read;
use crate::checkpoint::{Access, Fingerprint, Layout, OutTensor, Writer};
use crate::error::{Error, Result};
use crate::kernels::rescale::Counts;
use crate::lora::adapter::{Form, rounded};
use crate::lora::factor::{self, Factored};
use crate::lora::target::{self, Out, Target};
use crate::merge::{Prepared, TauRows};
use crate::progress::Progress;
use crate::recover;
use crate::report::{LoraReport, LowRank, Report, TensorReport};
use crate::stream::Engine;

/// Factors on their way into the file, whose layout is known only when all ranks are.
struct Spill {
    file: File,
    /// For each target: its rank, and where its factors lie.
    entries: Vec<(usize, u64)>,
    end: u64,
}

impl Spill {
    /// A file without a name, beside the output.
    fn new(dir: &Path) -> Result<Self> {
        let there = dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
        let file = tempfile::tempfile_in(there).map_err(|e| Error::write(there, &e))?;
        Ok(Self { file, entries: Vec::new(), end: 0 })
    }

    fn put(&mut self, factored: &Factored, dir: &Path) -> Result<()> {
        self.entries.push((factored.rank, self.end));
        for bytes in [&factored.down, &factored.up] {
            self.file.write_all(bytes).map_err(|e| Error::write(dir, &e))?;
            self.end += bytes.len() as u64;
        }
        Ok(())
    }

    fn get(&mut self, at: u64, buffer: &mut [u8], dir: &Path) -> Result<()> {
        let read = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.read_exact(buffer));
        read.map_err(|e| cannot_read(dir, &e))
    }
}

impl Job {
    /// Where factors go if all have the largest rank that they may have.
    pub(super) fn adapter_layout(&self, out: &Out) -> Result<Layout> {
        let tensors = out.targets.iter().flat_map(|target| target.tensors(target.most, out.dtype)).collect();
        Layout::single(tensors, out.file())
    }

    /// Merges matrix after matrix, takes each apart, and writes the adapter.
    pub(super) fn run_adapter(
        &self,
        out: &Out,
        output: &Output,
        fingerprint: Fingerprint,
        progress: &Progress,
    ) -> Result<Report> {
        let started = Instant::now();
        self.check(output)?;
        let engine = self.engine(progress);
        let mut outcome = self.measure(&engine, None, progress)?;
        let factors = |engine: &Engine<'_>, _: bool| {
            let mut spill = Spill::new(&output.dir)?;
            let (reports, left) = self.factors(out, engine, &outcome, &mut spill, output)?;
            Ok((reports, left, spill))
        };
        let pool = self.plan.memory.pool()?;
        let done = pool.install(|| recover::attempt(&self.wanted, "the adapter", &engine, factors))?;
        let ((reports, left, mut spill), recovered) = done;
        outcome.recovered = outcome.recovered.or(recovered);
        let lora = summed(&reports);

        let mut tensors: Vec<OutTensor> = Vec::new();
        let mut written = Vec::new();
        for (number, (target, (rank, _))) in out.targets.iter().zip(&spill.entries).enumerate() {
            if *rank > 0 {
                tensors.extend(target.tensors(*rank, out.dtype));
                written.push((number, *rank));
            }
        }
        if written.is_empty() {
            return Err(match left {
                Some(names) => Error::input(format!("an adapter holds matrices only, and the merge changes {names}"))
                    .hint("nothing that it changes can be held by an adapter: leave `--lora-out` out"),
                None => Error::input("the merge changes nothing: there is nothing that an adapter could hold"),
            });
        }
        let layout = Layout::single(tensors, out.file())?;
        let hashed = self.is_hashed(output.hash);
        let access = Access { overwrite: output.overwrite, others: &self.others, hashed, ..Access::default() };
        let mut writer = Writer::open(&output.dir, layout, &self.inputs(), &access)?;
        let mut place = 0;
        for &(number, rank) in &written {
            progress.check()?;
            let mut at = spill.entries[number].1;
            for tensor in out.targets[number].tensors(rank, out.dtype) {
                let mut bytes = vec![0; writer.layout().tensor_bytes(place) as usize];
                match tensor.shape.is_empty() {
                    true => bytes = rounded(out.dtype, &mut [rank as f32]),
                    false => spill.get(at, &mut bytes, &output.dir)?,
                }
                writer.write_at(place, 0, &bytes)?;
                at += bytes.len() as u64;
                place += 1;
            }
        }
        drop(spill);
        let mut report = self.report(reports, outcome, &writer, output, progress)?;
        (report.lora, report.fingerprint) = (Some(lora), fingerprint);
        let left =
            left.map(|names| format!("an adapter holds matrices only: what the merge changes in {names} is left out"));
        report.warnings.extend(left);
        if out.form == Form::Peft {
            let known = (!self.zeros).then_some(&self.plan);
            let config = target::config(out, &written, &self.layers, self.recipe.base.as_deref(), known);
            writer.file("adapter_config.json", format!("{config:#}\n").into_bytes());
        }
        self.finish(writer, report, started)
    }

    /// Reports of the tensors that have factors, and the names of those that change and have none.
    fn factors(
        &self,
        out: &Out,
        engine: &Engine<'_>,
        outcome: &Outcome,
        spill: &mut Spill,
        output: &Output,
    ) -> Result<(Vec<TensorReport>, Option<String>)> {
        let mut reports = Vec::new();
        for target in &out.targets {
            engine.progress.check()?;
            let prepared = Prepared::new(&self.plan, engine, target.tensor, &self.plan.tensors[target.tensor])?;
            let mut rows = prepared.rows(0..prepared.tensor.blocks(), None)?;
            let strength = outcome.strengths[target.tensor];
            scale(&mut rows, prepared.tensor.row_len as usize, |xi| strength.of(xi));
            let (factored, turned) = (self.factor(out, target, &rows.tau)?, target.turned);
            let error = if factored.norm > 0.0 { factored.residual / factored.norm } else { 0.0 };
            let mut report = prepared.report(&rows, strength, Counts::default(), None)?;
            report.lora = Some(LowRank { rank: factored.rank, error });
            reports.push(report);
            let factored = if turned { factor::turned(factored, out.dtype, target.matrix()) } else { factored };
            spill.put(&factored, &output.dir)?;
            engine.progress.tensors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let mut left = Vec::new();
        for &place in &out.others {
            let prepared = Prepared::new(&self.plan, engine, place, &self.plan.tensors[place])?;
            if prepared.rows(0..prepared.tensor.blocks(), None)?.tau.iter().any(|x| *x != 0.0) {
                left.push(prepared.tensor.name.as_str());
            }
        }
        let left = (!left.is_empty()).then(|| crate::checkpoint::text::list(left.iter().copied(), 4));
        Ok((reports, left))
    }

    fn factor(&self, out: &Out, target: &Target, tau: &[f32]) -> Result<Factored> {
        if let Some(bad) = tau.iter().find(|x| !x.is_finite()) {
            let name = &self.plan.tensors[target.tensor].name;
            return Err(Error::input(format!("the merge of `{name}` holds {bad}: it cannot be refactored"))
                .hint("one of the models holds NaN or infinite numbers; `--exclude` leaves a tensor out"));
        }
        factor::factor(tau, target.matrix(), target.most, out.dtype)
    }
}

/// Multiplies each row of `rows` with its factor.
fn scale(rows: &mut TauRows, len: usize, factor: impl Fn(f32) -> f32) {
    let one = rows.xi.len() == 1;
    for (i, row) in rows.tau.chunks_mut(len).enumerate() {
        let factor = factor(rows.xi[if one { 0 } else { i }]);
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

/// All errors in one.
fn summed(reports: &[TensorReport]) -> LoraReport {
    let of = |report: &TensorReport| report.lora.map_or((0, 0.0), |lora| (lora.rank, lora.error));
    let worst = reports.iter().max_by(|a, b| of(a).1.total_cmp(&of(b).1));
    let (mut lost, mut whole) = (0.0, 0.0);
    for report in reports {
        lost += (of(report).1 * report.calibrated).powi(2);
        whole += report.calibrated.powi(2);
    }
    LoraReport {
        tensors: reports.iter().filter(|report| of(report).0 > 0).count(),
        rank: reports.iter().map(|report| of(report).0).max().unwrap_or(0),
        error: if whole > 0.0 { (lost / whole).sqrt() } else { 0.0 },
        worst: worst.map(|report| report.name.clone()).unwrap_or_default(),
        worst_error: worst.map_or(0.0, |report| of(report).1),
    }
}
