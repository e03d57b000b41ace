//! One shard, by whoever asks for it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::factors::Factors;
use super::finish::is_finished;
use super::manifest::Manifest;
use super::part::{Receipt, receipt_name};
use crate::checkpoint::text::path;
use crate::checkpoint::{Access, Checkpoint, PARTS, Sink, Writer, put, settle, take_back, work_folder};
use crate::device::Wanted;
use crate::error::Result;
use crate::progress::Progress;

/// What became of a piece of work.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Worked {
    /// Number of the shard.
    pub shard: usize,
    /// Name of its file.
    pub file: String,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes that were read for it, once.
    pub read: u64,
    /// True if it was there already, whole.
    pub already: bool,
    /// What computed it.
    pub device: String,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Makes shard number `shard` of the plan in `dir`, unless it is there and its receipt and digest stand. Any number of
/// workers may do the same work at the same time: what they make is the same, and the last one's stays. `None` if the merge
/// is finished, perhaps since this began: then nothing of it stays, whatever became of it.
///
/// # Errors
/// Whatever is wrong with plan, inputs or device; factors that were not measured; a failed write.
pub fn work(dir: &Path, shard: usize, wanted: &Wanted, progress: &Progress) -> Result<Option<Worked>> {
    let done = make(dir, shard, wanted, progress);
    if !is_finished(dir) {
        return done.map(Some);
    }
    if let Ok(done) = done {
        take_back(&dir.join(PARTS), [&done.file, &receipt_name(&done.file)]);
    }
    Ok(None)
}

fn make(dir: &Path, shard: usize, wanted: &Wanted, progress: &Progress) -> Result<Worked> {
    let started = Instant::now();
    let (manifest, id) = Manifest::read(dir)?;
    let own = manifest.shard(shard)?;
    let worked = |already: bool, device: &str| Worked {
        shard,
        file: own.file.clone(),
        bytes: own.bytes,
        read: own.read,
        already,
        device: device.to_owned(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let factors = manifest.measured.then(|| Factors::read(dir, &id, manifest.tensors)).transpose()?;
    let (factors, outcome) = factors.map(|known| (known.id, known.outcome)).unzip();
    if let Ok(receipt) = Receipt::check(dir, &id, factors.as_deref(), own, progress)? {
        return Ok(worked(true, &receipt.origin.name));
    }
    let mut job = manifest.job(wanted)?;
    if let Some(outcome) = outcome {
        job.take_measured(outcome);
    }
    let (layout, members) = job.layout(manifest.shard_size)?.part(shard)?;
    let parts = dir.join(PARTS);
    let place = work_folder(&parts)?;
    let inputs: Vec<&Checkpoint> = job.checkpoints.iter().collect();
    let access = Access { overwrite: true, hashed: true, ..Access::default() };
    let writer = Writer::open(place.path(), layout, &inputs, &access)?;
    let places = members.iter().copied().zip(0..).collect();
    let reports = job.compute_some(&Part { writer: &writer, places }, &members, progress)?;
    inputs.iter().try_for_each(|input| input.check_unchanged())?;
    let record = writer.shard_records(true, &|_| progress.check())?.remove(0);
    let sha256 = record.sha256.expect("it was asked for");
    writer.finish()?;
    settle(&place.path().join(&own.file), &parts.join(&own.file))?;
    let names = own.tensors.iter().map(|tensor| tensor.name.clone());
    let mut receipt = Receipt::new(&id, own, sha256, job.origin(), names.zip(reports).collect());
    receipt.factors = factors;
    receipt.seconds = started.elapsed().as_secs_f64();
    put(&parts, receipt_name(&own.file), &receipt.document())?;
    log::info!("{} of `{}` is done", own.file, path(dir));
    Ok(worked(false, &receipt.origin.name))
}

/// A writer of some tensors of a merge.
struct Part<'a> {
    writer: &'a Writer,
    /// Their places in the merge, and in the writer.
    places: HashMap<usize, usize>,
}

impl Sink for Part<'_> {
    fn wants(&self, tensor: usize) -> bool {
        self.places.contains_key(&tensor)
    }

    fn write_at(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.writer.write_at(self.places[&tensor], offset, bytes)
    }

    fn complete(&self, tensor: usize, report: &dyn Fn() -> Value) -> Result<()> {
        self.writer.complete(self.places[&tensor], report)
    }
}
