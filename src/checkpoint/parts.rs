//! Documents and shards of a merge by several machines, each there as a whole or not at all.

use std::path::Path;

use super::disk::{self, OutFile, sync_dir};
use super::files::read_small;
use super::journal::{Fingerprint, JOURNAL, Journal, Record};
use super::text;
use crate::error::Result;

/// The plan.
pub(crate) const PLAN: &str = "plan.json";
/// Factors of feature space that were measured for it.
pub(crate) const FACTORS: &str = "factors.json";
/// The folder of shards and their receipts.
pub(crate) const PARTS: &str = "parts";
/// Longest document that is read.
const MOST: u64 = 1 << 30;

/// True for what is there only until the merge is complete.
pub(super) fn is_shared(name: &str) -> bool {
    [PLAN, FACTORS, PARTS].contains(&name)
}

/// Makes `dir`, and what is missing above it.
pub(crate) fn create_folder(dir: &Path) -> Result<()> {
    disk::create_dirs(dir).map_err(|e| text::cannot_write(dir, 0, &e))
}

/// The document `name` in `dir`; `None` if it is not there.
pub(crate) fn read_document(dir: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = dir.join(name);
    if path.exists() { read_small(&path, MOST).map(Some) } else { Ok(None) }
}

/// Writes the document `name` in `dir`, in the place of another if there is one.
pub(crate) fn put(dir: &Path, name: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = dir.join(&name);
    let place = tempfile::Builder::new().prefix(".put-").tempdir_in(dir).map_err(|e| text::cannot_write(dir, 0, &e))?;
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

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    if path.exists() { disk::remove_dirs(path).map_err(|e| text::cannot_write(path, 0, &e)) } else { Ok(()) }
}

/// Writes the journal of a merge in `dir` whose `tensors` are all safe beside their final names.
pub(crate) fn write_journal(dir: &Path, fingerprint: &Fingerprint, tensors: Vec<Record>) -> Result<()> {
    remove(&dir.join(JOURNAL))?;
    Journal::new(vec![dir.to_owned()], dir, false, fingerprint.clone()).append(tensors, false)
}
