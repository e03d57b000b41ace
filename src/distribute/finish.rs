//! The end: every shard is checked, and then taken for what an earlier run of one merge has left.

use std::path::Path;

use super::factors::Factors;
use super::manifest::Manifest;
use super::part::{Receipt, found};
use crate::checkpoint::text::{list, path};
use crate::checkpoint::{
    FACTORS, PARTS, PLAN, RECEIPT, hold, only_shared, recorded, remove, remove_parts, settle, temporary, write_journal,
};
use crate::device::Wanted;
use crate::error::{Error, Result};
use crate::job::{Job, Origin, Output};
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
    // Of two at once, one would take for damaged what the other moves.
    let held = dir.join(PARTS).is_dir().then(|| hold(&dir.join(PARTS))).transpose()?;
    if is_finished(dir) {
        clear(dir)?;
        return Ok(None);
    }
    let (manifest, id) = Manifest::read(dir)?;
    let factors = manifest.measured.then(|| Factors::read(dir, &id, manifest.tensors)).transpose()?;
    let receipts = receipts(dir, &manifest, &id, factors.as_ref().map(|known| known.id.as_str()), progress)?;
    let mut origins: Vec<&Origin> = receipts.iter().map(|receipt| &receipt.origin).collect();
    origins.extend(factors.iter().map(|known| &known.origin));
    let origin = origin(origins, mixed)?;
    let mut job = manifest.job(wanted)?;
    let measured = factors.as_ref().map_or(0.0, |known| known.seconds);
    job.take_seconds(measured + receipts.iter().map(|receipt| receipt.seconds).sum::<f64>());
    job.take_origin(origin);
    if let Some(known) = factors {
        job.take_measured(known.outcome);
    }
    let output = Output { dir: dir.to_owned(), shard_size: manifest.shard_size, overwrite: false, resume: true, hash };
    let report = complete(dir, &job, &manifest, receipts, &output, progress)?;
    clear(dir)?;
    drop(held);
    Ok(report)
}

/// Whether the merge that was planned in `dir` is complete: its plan goes as soon as it is.
pub fn is_finished(dir: &Path) -> bool {
    !dir.join(PLAN).exists() && dir.join(RECEIPT).exists()
}

/// Receipts of all shards, each checked with its shard.
fn receipts(
    dir: &Path,
    manifest: &Manifest,
    id: &str,
    factors: Option<&str>,
    progress: &Progress,
) -> Result<Vec<Receipt>> {
    let mut receipts = Vec::with_capacity(manifest.shards.len());
    let mut wrong = Vec::new();
    for (number, shard) in manifest.shards.iter().enumerate() {
        progress.check()?;
        match Receipt::check(dir, id, factors, shard, progress)? {
            Ok(receipt) => receipts.push(receipt),
            Err(what) => wrong.push((number, format!("shard {number}: {what}"))),
        }
    }
    let Some((first, _)) = wrong.first() else { return Ok(receipts) };
    let (count, all) = (wrong.len(), manifest.shards.len());
    let what: Vec<&str> = wrong.iter().take(NAMED).map(|(_, what)| what.as_str()).collect();
    let more = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
    let what = format!("{count} of {all} shards are not done: {}{more}", what.join("; "));
    Err(Error::input(what).hint(format!("do its work: `magic work {} --shard {first}`", path(dir))))
}

/// What has made all parts; several devices only where they may be `mixed`.
fn origin(mut origins: Vec<&Origin>, mixed: bool) -> Result<Origin> {
    origins.sort_by_key(|origin| (&origin.device, &origin.wgsl_sha256));
    origins.dedup_by_key(|origin| (&origin.device, &origin.wgsl_sha256));
    match &origins[..] {
        [one] => Ok((*one).clone()),
        several if mixed => Ok(Origin::several(several)),
        several => {
            let names = list(several.iter().map(|origin| origin.name.as_str()), NAMED);
            Err(Error::input(format!("different devices have made the parts: {names}"))
                .hint("their last bits may differ: `--mixed` takes them all the same")
                .hint(format!(
                    "or make all of them on one, such as `--device {:?}`: remove the receipts of others from `{PARTS}` first",
                    several[0].name
                )))
        }
    }
}

/// Hands the shards to an ordinary merge as what an earlier run has left. An end that was killed is taken up where it was.
fn complete(
    dir: &Path,
    job: &Job,
    manifest: &Manifest,
    receipts: Vec<Receipt>,
    output: &Output,
    progress: &Progress,
) -> Result<Option<Report>> {
    let named = manifest.shards.iter().any(|shard| found(dir, &shard.file) == dir.join(&shard.file));
    if recorded(dir).is_none() {
        if named && job.done(output)?.is_some() {
            return Ok(None);
        }
        only_shared(dir)?;
    }
    if !named {
        for shard in &manifest.shards {
            let (from, to) = (found(dir, &shard.file), dir.join(temporary(&shard.file)));
            if from != to {
                settle(&from, &to)?;
            }
        }
        let tensors = receipts.into_iter().flat_map(|receipt| receipt.tensors).collect();
        write_journal(dir, &job.fingerprint(output)?, tensors)?;
    }
    job.run(output, progress).map(Some)
}

/// Removes what only the way here needed. The plan first: where it is gone, the merge is complete.
fn clear(dir: &Path) -> Result<()> {
    remove(&dir.join(PLAN))?;
    remove(&dir.join(FACTORS))?;
    remove_parts(&dir.join(PARTS))
}
