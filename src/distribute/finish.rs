//! The end: every shard is checked, and then taken for what an earlier run of one merge has left.

use std::path::Path;

use super::factors::Factors;
use super::manifest::Manifest;
use super::part::{Receipt, found};
use crate::checkpoint::text::{list, path};
use crate::checkpoint::{FACTORS, PARTS, PLAN, RECEIPT, remove, remove_folder, settle, temporary, write_journal};
use crate::device::Wanted;
use crate::error::{Error, Result};
use crate::job::{Job, Output};
use crate::progress::Progress;
use crate::report::Report;

/// Shards that one message names.
const NAMED: usize = 4;

/// Completes the merge that was planned in `dir`, if every shard and its receipt stand; the plan and the receipts go.
/// `None` if it is complete already. `mixed` allows shards that different devices have made, whose last bits may differ from
/// those of one device.
///
/// # Errors
/// A shard that is missing, damaged or of another plan, by name; shards of different devices; a failed write.
pub fn finalize(dir: &Path, mixed: bool, hash: bool, wanted: &Wanted, progress: &Progress) -> Result<Option<Report>> {
    if !dir.join(PLAN).exists() && dir.join(RECEIPT).exists() {
        clear(dir)?;
        return Ok(None);
    }
    let (manifest, id) = Manifest::read(dir)?;
    let mut receipts = Vec::with_capacity(manifest.shards.len());
    let mut wrong = Vec::new();
    for (number, shard) in manifest.shards.iter().enumerate() {
        progress.check()?;
        match Receipt::check(dir, &id, shard, progress)? {
            Ok(receipt) => receipts.push(receipt),
            Err(what) => wrong.push((number, format!("shard {number}: {what}"))),
        }
    }
    if let [(first, _), ..] = wrong[..] {
        let (count, all) = (wrong.len(), manifest.shards.len());
        let what: Vec<&str> = wrong.iter().take(NAMED).map(|(_, what)| what.as_str()).collect();
        let more = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
        let what = format!("{count} of {all} shards are not done: {}{more}", what.join("; "));
        return Err(Error::input(what).hint(format!("do its work: `magic work {} --shard {first}`", path(dir))));
    }
    let mut origins: Vec<_> = receipts.iter().map(|receipt| &receipt.origin).collect();
    origins.sort_by_key(|origin| (&origin.device, &origin.wgsl_sha256));
    origins.dedup_by_key(|origin| (&origin.device, &origin.wgsl_sha256));
    if let [first, others @ ..] = &origins[..]
        && !others.is_empty()
        && !mixed
    {
        let names = list(origins.iter().map(|origin| origin.name.as_str()), NAMED);
        return Err(Error::input(format!("different devices have made the shards: {names}"))
            .hint("their last bits may differ: `--mixed` takes them all the same")
            .hint(format!("or make all of them on one, such as `--device {:?}`", first.name)));
    }
    let origin = match &origins[..] {
        [one] => (*one).clone(),
        _ => crate::job::Origin::several(&origins),
    };
    let mut job = manifest.job(wanted)?;
    if manifest.measured {
        job.take_measured(Factors::read(dir, &id)?);
    }
    job.take_origin(origin);
    complete(dir, &job, &manifest, receipts, hash, progress).map(Some)
}

fn complete(
    dir: &Path,
    job: &Job,
    manifest: &Manifest,
    receipts: Vec<Receipt>,
    hash: bool,
    progress: &Progress,
) -> Result<Report> {
    for shard in &manifest.shards {
        let (from, to) = (found(dir, &shard.file), dir.join(temporary(&shard.file)));
        if from != to {
            settle(&from, &to)?;
        }
    }
    // What stands in the place of a result is what an end that was killed has given its final name.
    let output = Output { dir: dir.to_owned(), shard_size: manifest.shard_size, overwrite: true, resume: true, hash };
    let tensors = receipts.into_iter().flat_map(|receipt| receipt.tensors).collect();
    write_journal(dir, &job.fingerprint(&output)?, tensors)?;
    let report = job.run(&output, progress)?;
    clear(dir)?;
    Ok(report)
}

/// Removes what only the way here needed. The plan first: where it is gone, the merge is complete.
fn clear(dir: &Path) -> Result<()> {
    remove(&dir.join(PLAN))?;
    remove(&dir.join(FACTORS))?;
    remove_folder(&dir.join(PARTS))
}
