//! Documents and shards of a merge by several machines, each there as a whole or not at all.

use std::fs;
use std::io;
use std::path::Path;

use super::digest::sha256;
use super::disk::{self, OutFile, sync_dir};
use super::files::read_small;
use super::journal::{Fingerprint, JOURNAL, Journal, Record};
use super::output::{LOCK, abandoned, names, refuse_link};
use super::text;
use crate::error::{Error, Result};

/// The plan.
pub(crate) const PLAN: &str = "plan.json";
/// Factors of feature space that were measured for it.
pub(crate) const FACTORS: &str = "factors.json";
/// The folder of shards and their receipts.
pub(crate) const PARTS: &str = "parts";
/// Beginning of the names of folders in which a shard is being made.
const WORK: &str = ".work-";
/// Beginning of the names of folders in which a document is being written.
const DOCUMENT: &str = ".put-";
/// Longest document that is read.
const MOST: u64 = 1 << 30;

/// True for what is there only until the merge is complete.
pub(super) fn is_shared(name: &str) -> bool {
    [PLAN, FACTORS, PARTS].contains(&name)
}

/// Checks that the result will replace nobody's files in `dir`, and follow no link.
///
/// # Errors
/// A link, files besides those of the plan.
pub(crate) fn only_shared(dir: &Path) -> Result<()> {
    refuse_link(dir)?;
    let foreign: Vec<String> =
        names(dir)?.into_iter().filter(|name| !is_shared(name) && !name.starts_with('.')).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let names = text::list(foreign.iter().map(String::as_str), 4);
    Err(Error::output(format!("`{}` has come to hold other files: {names}", text::path(dir)))
        .hint("move them away: the result may have files of these names"))
}

/// Makes `dir`, and what is missing above it.
pub(crate) fn create_folder(dir: &Path) -> Result<()> {
    disk::create_dirs(dir).map_err(|e| text::cannot_write(dir, 0, &e))
}

/// A folder in `parts` for the work on a shard, which goes with what is returned: others may be at the same shard. What
/// workers on this machine that were killed have left beside it is removed.
pub(crate) fn work_folder(parts: &Path) -> Result<tempfile::TempDir> {
    let failed = |e: io::Error| text::cannot_write(parts, 0, &e);
    disk::create_dirs(parts).map_err(failed)?;
    let mut start = WORK.to_owned();
    if let Some(here) = here(parts) {
        start += &format!("{here}-");
        remove_abandoned(parts, &start);
    }
    tempfile::Builder::new().prefix(&start).tempdir_in(parts).map_err(failed)
}

/// What all processes have in common that see each other's locks in `dir`: the running kernel and the mounted file system.
/// On a file system of several machines, a lock that is free here may be held elsewhere.
fn here(dir: &Path) -> Option<String> {
    #[cfg(target_os = "linux")]
    {
        let kernel = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let mount = std::os::unix::fs::MetadataExt::dev(&fs::metadata(dir).ok()?);
        let mut here = sha256(format!("{kernel}{mount}"));
        here.truncate(16);
        Some(here)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir; // they stay until the end
        None
    }
}

/// Removes folders in `parts` whose names begin with `start` and whose writers are gone. What cannot be removed has no need
/// to be: the end does it.
fn remove_abandoned(parts: &Path, start: &str) {
    let Ok(entries) = fs::read_dir(parts) else { return };
    let ours = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with(start));
    for dir in entries.flatten().filter(ours).map(|entry| entry.path()) {
        // A writer that lives makes its first file when it has its lock, and keeps that for as long as there is one.
        let written = names(&dir).is_ok_and(|names| names.iter().any(|name| name != LOCK));
        if let Some(_held) = written.then(|| abandoned(&dir)).flatten() {
            let _ = disk::remove_dirs(&dir);
        }
    }
}

/// The document `name` in `dir`; `None` if it is not there.
pub(crate) fn read_document(dir: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = dir.join(name);
    if path.exists() { read_small(&path, MOST).map(Some) } else { Ok(None) }
}

/// Writes the document `name` in `dir`, in the place of another if there is one.
pub(crate) fn put(dir: &Path, name: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = dir.join(&name);
    let place =
        tempfile::Builder::new().prefix(DOCUMENT).tempdir_in(dir).map_err(|e| text::cannot_write(dir, 0, &e))?;
    let staged = place.path().join(name);
    let done = OutFile::create(staged.clone()).and_then(|file| file.write_at(bytes, 0).and_then(|()| file.sync_all()));
    done.map_err(|e| text::cannot_write(&path, bytes.len() as u64, &e))?;
    settle(&staged, &path)
}

/// Gives a synced file its final name, for good.
pub(crate) fn settle(from: &Path, to: &Path) -> Result<()> {
    let failed = |e| text::cannot_write(to, 0, &e);
    disk::rename(from, to).map_err(failed)?;
    to.parent().map_or(Ok(()), |dir| sync_dir(dir).map_err(failed))
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if path.exists() { disk::remove_file(path).map_err(|e| text::cannot_write(path, 0, &e)) } else { Ok(()) }
}

/// Removes the files `names` from the folder of parts of a merge that is finished, and the folder if nothing else is in it, as
/// far as there are any.
pub(crate) fn take_back<'a>(parts: &Path, names: impl IntoIterator<Item = &'a String>) {
    for name in names {
        let _ = disk::remove_file(&parts.join(name));
    }
    let _ = disk::remove_dir(parts);
}

/// Removes shards, receipts and what killed workers left from the folder of parts, if it is there; and the folder, unless
/// others have put something into it.
pub(crate) fn remove_parts(dir: &Path) -> Result<()> {
    // A worker that found the merge complete may be quicker.
    let done = |path: &Path, done: io::Result<()>| match done {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(text::cannot_write(path, 0, &e)),
        _ => Ok(()),
    };
    let mut empty = true;
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| text::cannot_read(dir, &e))?,
    };
    for entry in entries {
        let entry = entry.map_err(|e| text::cannot_read(dir, &e))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if [WORK, DOCUMENT].iter().any(|start| name.starts_with(start)) {
            done(&path, disk::remove_dirs(&path))?;
        } else if name == LOCK || [".safetensors", ".safetensors.json"].iter().any(|end| name.ends_with(end)) {
            done(&path, disk::remove_file(&path))?;
        } else {
            empty = false;
        }
    }
    if empty { done(dir, disk::remove_dir(dir)) } else { Ok(()) }
}

/// Writes the journal of a merge in `dir` whose `tensors` are all safe beside their final names.
pub(crate) fn write_journal(dir: &Path, fingerprint: &Fingerprint, tensors: Vec<Record>) -> Result<()> {
    remove(&dir.join(JOURNAL))?;
    Journal::new(vec![dir.to_owned()], dir, false, fingerprint.clone()).append(tensors, false)
}
