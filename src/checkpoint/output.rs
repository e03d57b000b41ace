//! The folder of an output: everything that speaks against writing into it is found before the first byte.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::disk::{self, OutFile};
use super::faults::{Operation, pass};
use super::files::{open_file, read_exact_at, read_small};
use super::folder::is_shard;
use super::index::plain_name;
use super::inputs::Inputs;
use super::journal::{self, Fingerprint, Found, JOURNAL};
use super::layout::{INDEX, Layout, SINGLE, Shard};
use super::parts::PLAN;
use super::reader::Checkpoint;
use super::side::is_side;
use super::text::{self, list, shown};
use crate::error::{Error, Result};

/// Held while a merge writes into its folder. What an interrupted merge left can be told from what another is
/// writing.
pub(super) const LOCK: &str = ".magic.lock";

/// Weights of an older output besides shards, and what would make a folder that of an adapter.
const OLD: [&str; 5] =
    [SINGLE, INDEX, "adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors"];

/// The part of a receipt that says what decided the bytes.
const FINGERPRINT: &str = "fingerprint";

/// What is written of a merge beside its result.
pub(crate) const RECEIPT: &str = "magic.json";
/// The receipt as a page for people, made from nothing else.
pub(crate) const REPORT: &str = "report.html";
/// Name of what was measured on it later.
pub(crate) const SCORES: &str = "scores.json";
/// Longest receipt that is read.
pub(super) const MAX_RECEIPT: u64 = 256 << 20;

/// What may be in the folder of an output already, and what becomes of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access<'a> {
    /// Whether an earlier result, or an unfinished one, may be replaced.
    pub overwrite: bool,
    /// Whether an unfinished merge goes on.
    pub resume: bool,
    /// What decides the bytes; without it, nothing is kept of a merge that is not finished.
    pub fingerprint: Option<&'a Fingerprint>,
    /// Inputs besides the checkpoints: files and folders of samples, lists.
    pub others: &'a [PathBuf],
    /// Whether the shards will be hashed when they are written.
    pub hashed: bool,
}

/// What has to go if the output is not finished.
#[derive(Debug, Default)]
pub(super) struct Cleanup {
    pub(super) files: Vec<PathBuf>,
    /// Folders that were made for the output, outermost first.
    dirs: Vec<PathBuf>,
    lock: Option<(File, PathBuf)>,
}

impl Cleanup {
    /// Folders that hold a folder that was made.
    pub(super) fn made(&self) -> impl Iterator<Item = &Path> {
        let parents = self.dirs.iter().filter_map(|dir| dir.parent());
        parents.map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
    }

    /// The output is finished: everything stays but the lock.
    pub(super) fn keep(&mut self) {
        self.files.clear();
        self.dirs.clear();
    }

    /// Another run may go on: everything stays but the lock and files beside the shards that will be made again.
    pub(super) fn keep_shards(&mut self, layout: &Layout) {
        let shards: Vec<String> = layout.shards().map(|(name, _)| temporary(name)).collect();
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        self.files.retain(|path| is_leftover(&name(path)) && !shards.contains(&name(path)));
        self.dirs.clear();
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // Failures have no remedy here, and a folder that others have put files into is rightly kept.
        for file in &self.files {
            let _ = disk::remove_file(file);
        }
        if let Some((file, path)) = self.lock.take() {
            let _ = disk::remove_file(&path);
            drop(file);
        }
        for dir in self.dirs.iter().rev() {
            let _ = disk::remove_dir(dir);
        }
    }
}

/// Names of the files that a receipt lists.
fn listed(receipt: &Value) -> impl Iterator<Item = &str> {
    let files = receipt.get("files").and_then(Value::as_array).into_iter().flatten();
    files.filter_map(|file| file.get("file")?.as_str())
}

/// The receipt of a result in `dir` that is complete and of the merge of this `fingerprint`; `None` if there is no
/// result, or an unfinished one, or one that may be replaced.
///
/// # Errors
/// A result of another merge, or one that is not whole.
pub(crate) fn finished(
    dir: &Path,
    layout: Option<&Layout>,
    fingerprint: &Fingerprint,
    overwrite: bool,
) -> Result<Option<Value>> {
    let path = dir.join(RECEIPT);
    if !path.exists() || journal::recorded(dir).is_some() {
        return Ok(None);
    }
    let receipt: Value = serde_json::from_slice(&read_small(&path, MAX_RECEIPT)?).unwrap_or_default();
    let old = receipt.get(FINGERPRINT).and_then(|old| serde_json::from_value(old.clone()).ok());
    let Some(old): Option<Fingerprint> = old else { return Ok(None) };
    let is_lost = |name: &&str| plain_name(name).is_err() || !dir.join(name).is_file();
    let lost = listed(&receipt).find(is_lost).map(str::to_owned);
    let is_whole = |name: &str, bytes: u64| fs::metadata(dir.join(name)).is_ok_and(|file| file.len() == bytes);
    let mut shards = layout.into_iter().flat_map(Layout::shards).filter(|(name, bytes)| !is_whole(name, *bytes));
    let what = match journal::difference(&old, fingerprint) {
        Some(what) => format!("is that of another merge: {what}"),
        None => match lost.or_else(|| shards.next().map(|(name, _)| name.to_owned())) {
            Some(name) => format!("is not whole: `{}` is missing or has another size", shown(&name)),
            None => {
                // It may have been killed just before this was gone.
                if dir.join(LOCK).exists() {
                    let mut cleanup = Cleanup::default();
                    cleanup.lock = lock(dir)?;
                }
                return Ok(Some(receipt));
            }
        },
    };
    match overwrite {
        true => Ok(None),
        false => Err(Error::output(format!("the result in `{}` {what}", text::path(dir)))
            .hint("replace it with `--overwrite`, or choose another folder")),
    }
}

/// A folder that may be written into.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) dir: PathBuf,
    /// Weights of an older output: they go when the new ones come, so that old and new never mix.
    pub(super) old: Vec<PathBuf>,
    pub(super) cleanup: Cleanup,
    inputs: Inputs,
}

impl Output {
    /// Finds what speaks against [`open`](Self::open), and makes nothing; too little space, which may change, apart.
    pub(super) fn check_dir(
        dir: &Path,
        layout: &Layout,
        inputs: &[&Checkpoint],
        access: &Access<'_>,
    ) -> Result<Option<Error>> {
        let dir: PathBuf = dir.components().collect();
        refuse_busy(&dir)?;
        let (_, found) = acceptable(&dir, &Inputs::new(inputs, access.others), access)?;
        let there = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
        if !there.is_dir() {
            return Err(
                Error::output(format!("`{}` is not a folder", text::path(there))).hint("name another: `--out DIR`")
            );
        }
        Ok(check_space(there, needed(&dir, layout, found.as_ref()), false).err())
    }

    /// Makes or checks the folder `dir` for the files of `layout`. With what an unfinished merge has left there, if
    /// that is to go on.
    pub(super) fn open(
        dir: &Path,
        layout: &Layout,
        inputs: &[&Checkpoint],
        access: &Access<'_>,
    ) -> Result<(Self, Option<Found>)> {
        // Without a trailing slash, which would make a link look like the folder that it leads to.
        let dir: PathBuf = dir.components().collect();
        refuse_busy(&dir)?;
        let inputs = Inputs::new(inputs, access.others);
        acceptable(&dir, &inputs, access)?;
        let mut cleanup = Cleanup::default();
        create_dirs(&dir, &mut cleanup.dirs)?;
        cleanup.lock = lock(&dir)?;
        // Once more, now that nobody else writes here.
        let (_, found) = acceptable(&dir, &inputs, access)?;
        let mut output = Self { dir, old: Vec::new(), cleanup, inputs };
        for name in layout.shards().map(|(name, _)| name).chain([INDEX]) {
            output.check(&output.dir.join(name))?;
        }
        if let Some(found) = &found {
            output.take_back(layout, found)?;
        }
        let names = names(&output.dir)?;
        let is_old = |name: &&String| {
            OLD.contains(&name.as_str()) || name.starts_with("model-") && is_shard(name, ".safetensors")
        };
        output.old = names.iter().filter(is_old).map(|name| output.dir.join(name)).collect();
        // The index first: without it, what is left of its shards is no model.
        output.old.sort_by_key(|path| !path.ends_with(INDEX));
        if let (Some(found), Some(path)) = (&found, output.old.first())
            && !found.overwrite
            && !access.overwrite
        {
            let what = format!("`{}` has come into the folder since the merge began", text::path(path));
            return Err(Error::output(what).hint("move it away, or replace it with `--overwrite`"));
        }
        output.old.iter().try_for_each(|path| output.check(path))?;
        output.clear(&names, layout, found.as_ref())?;
        check_space(&output.dir, needed(&output.dir, layout, found.as_ref()), !output.old.is_empty())?;
        Ok((output, found))
    }

    /// Removes what interrupted merges left; of one that goes on only what it will write again.
    fn clear(&self, names: &[String], layout: &Layout, found: Option<&Found>) -> Result<()> {
        if self.cleanup.lock.is_none() && found.is_none() {
            return Ok(()); // it may be what another merge is writing
        }
        let remove = |name: &str| {
            let path = self.dir.join(name);
            disk::remove_file(&path).map_err(|e| text::cannot_write(&path, 0, &e))
        };
        if found.is_none() && names.iter().any(|name| name == JOURNAL) {
            // First and for good: without its files, the journal would say what is not so.
            remove(JOURNAL)?;
            disk::sync_dir(&self.dir).map_err(|e| text::cannot_write(&self.dir, 0, &e))?;
        }
        let staged: Vec<String> = layout.shards().map(|(name, _)| temporary(name)).collect();
        let stays = |name: &&String| is_leftover(name) && (found.is_none() || !staged.contains(name));
        names.iter().filter(stays).try_for_each(|name| remove(name))
    }

    /// Where a merge ended while its files got their final names, takes the names of shards back: what was whole or
    /// nearly so is once more visibly unfinished, and is finished the usual way.
    fn take_back(&self, layout: &Layout, found: &Found) -> Result<()> {
        let failed = |path: &Path, e: &io::Error| text::cannot_write(path, 0, e);
        let staged = |name: &str| self.dir.join(temporary(name));
        let named: Vec<&str> = layout.shards().map(|(name, _)| name).filter(|name| !staged(name).exists()).collect();
        if !found.committing || named.is_empty() {
            return Ok(());
        }
        // An older output was removed before the first got its name, so that what is there is of this merge.
        let index = self.dir.join(INDEX);
        if index.exists() {
            disk::remove_file(&index).map_err(|e| failed(&index, &e))?;
            disk::sync_dir(&self.dir).map_err(|e| failed(&self.dir, &e))?;
        }
        for name in named {
            let path = self.dir.join(name);
            if path.exists() {
                disk::rename(&path, &staged(name)).map_err(|e| failed(&path, &e))?;
            }
        }
        Ok(())
    }

    /// Whether `shard` lies beside its final name, as a merge that goes on needs it.
    ///
    /// # Errors
    /// A file that cannot be read: what is in it may be all there is of tensors that were recorded.
    pub(super) fn is_staged(&self, shard: &Shard) -> Result<bool> {
        let path = self.dir.join(temporary(&shard.name));
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(text::cannot_read(&path, &e)),
            _ => return Ok(false),
        }
        let (file, len) = open_file(&path)?;
        let mut header = vec![0; shard.header.len()];
        if len != shard.bytes {
            return Ok(false);
        }
        read_exact_at(&file, &mut header, 0).map_err(|e| text::cannot_read(&path, &e))?;
        Ok(header == shard.header)
    }

    /// Adds to what goes the files that an older output says it wrote, and that are not among the names `new`. No
    /// receipt, whoever wrote it, makes other files go than those that an output has.
    pub(super) fn add_stale(&mut self, new: &[String]) {
        let Ok(bytes) = read_small(&self.dir.join(RECEIPT), MAX_RECEIPT) else { return };
        let receipt: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        for name in listed(&receipt).filter(|name| is_side(name) || *name == "recipe.yml") {
            let path = self.dir.join(name);
            let stale = plain_name(name).is_ok() && !new.iter().any(|new| new == name);
            // A link, a folder or an input that has come there since is not ours.
            if stale && path.exists() && !self.old.contains(&path) && self.check(&path).is_ok() {
                self.old.push(path);
            }
        }
    }

    /// Writes and syncs the file that will be `name`; it goes again unless the output is finished.
    pub(super) fn stage(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, staged) = (self.dir.join(name), self.dir.join(temporary(name)));
        self.cleanup.files.push(staged.clone());
        let done = OutFile::create(staged).and_then(|file| file.write_at(bytes, 0).and_then(|()| file.sync_all()));
        done.map_err(|e| text::cannot_write(&path, bytes.len() as u64, &e))
    }

    /// Refuses to put a file at `path` where that would follow a link or replace a folder or an input.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        refuse_link(path)?;
        refuse_no_file(path)?;
        self.inputs.refuse_file(path)
    }
}

/// The names in folder `dir`, if a merge may write there, and what an unfinished merge has left, if that goes on.
fn acceptable(dir: &Path, inputs: &Inputs, access: &Access<'_>) -> Result<(Vec<String>, Option<Found>)> {
    let at = text::path(dir);
    if dir.as_os_str().is_empty() {
        return Err(Error::usage("the output folder has no name").hint("name one: `--out DIR`"));
    }
    refuse_link(dir)?;
    if dir.exists() && !dir.is_dir() {
        return Err(Error::output(format!("`{at}` is not a folder")).hint("name another: `--out DIR`"));
    }
    let names = if dir.is_dir() { names(dir)? } else { Vec::new() };
    inputs.refuse_folder(dir)?;
    refuse_link(&dir.join(JOURNAL))?;
    let found = match journal::read(dir) {
        // Whatever it was, it is replaced.
        _ if access.overwrite && !access.resume => None,
        found => found?,
    };
    if let Some(found) = found {
        return match access.fingerprint.filter(|_| access.resume) {
            Some(fingerprint) => found.check(dir, fingerprint).map(|()| (names, Some(found))),
            None => Err(found.refuse(dir)),
        };
    }
    if access.overwrite && names.iter().any(|name| name == PLAN) {
        return Err(Error::output(format!("`{at}` holds the plan of a merge by several machines"))
            .hint("choose another folder, or give the plan up: remove `plan.json` and `parts`"));
    }
    let foreign: Vec<&str> = names.iter().map(String::as_str).filter(|name| !is_own(name)).collect();
    if !foreign.is_empty() && !access.overwrite {
        return Err(Error::output(format!("the output folder `{at}` is not empty: it has {}", list(foreign, 4)))
            .hint("choose another folder, or replace the result that is in it with `--overwrite`"));
    }
    Ok((names, None))
}

/// Bytes that the shards still need. What an unfinished merge has taken of the disk need not be free again.
fn needed(dir: &Path, layout: &Layout, found: Option<&Found>) -> u64 {
    let Some(found) = found else { return layout.file_bytes() };
    let done = layout.bytes_of(found.tensors.iter().map(|(name, _)| name.as_str()));
    let taken = layout.shards().map(|(name, _)| taken(&dir.join(temporary(name)))).sum();
    layout.file_bytes().saturating_sub(done.max(taken))
}

/// Bytes of the disk that a file takes, holes left out.
fn taken(path: &Path) -> u64 {
    #[cfg(unix)]
    return fs::metadata(path).map_or(0, |metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) * 512);
    #[cfg(not(unix))]
    0
}

fn check_space(dir: &Path, needed: u64, replaces: bool) -> Result<()> {
    // Some network file systems do not know their size; there only the write itself can tell.
    let Ok(space) = fs4::statvfs(dir) else { return Ok(()) };
    if space.total_space() == 0 || space.available_space() >= needed {
        return Ok(());
    }
    let (needed, free) = (text::size(needed), text::size(space.available_space()));
    let what = format!("`{}` has {free} free, and the output needs {needed}", text::path(dir));
    let error = Error::output(what).hint("free some space, or choose an output folder on another disk");
    Err(match replaces {
        true => error.hint("the old result stays until the new one is complete: remove it first"),
        false => error,
    })
}

/// Makes `bytes` the file `name` of a finished output, all of it or nothing: under the lock, beside its final name, synced.
///
/// # Errors
/// A merge that writes into the folder, a link or no file in the place of `name`, a failed write.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let mut cleanup = Cleanup::default();
    cleanup.lock = lock(dir)?;
    let mut output = Output { dir: dir.to_owned(), old: Vec::new(), cleanup, inputs: Inputs::default() };
    let (path, staged) = (dir.join(name), dir.join(temporary(name)));
    output.check(&path)?;
    // What a run that was killed has left.
    if fs::symlink_metadata(&staged).is_ok() {
        disk::remove_file(&staged).map_err(|e| text::cannot_write(&staged, 0, &e))?;
    }
    output.stage(name, bytes)?;
    let named = disk::rename(&staged, &path).and_then(|()| disk::sync_dir(dir));
    named.map_err(|e| text::cannot_write(&path, bytes.len() as u64, &e))
}

pub(super) fn refuse_link(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => {
            let error = Error::output(format!("the output `{}` is a link", text::path(path)));
            Err(match fs::read_link(path) {
                Ok(to) => error.hint(format!("it leads to `{}`: name that, or remove the link", text::path(&to))),
                Err(_) => error,
            })
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(text::cannot_write(path, 0, &e)),
    }
}

/// Refuses what is at `path` if it is there and is no regular file.
pub(super) fn refuse_no_file(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            let what = format!("`{}` is in the way: it is not a file", text::path(path));
            Err(Error::output(what).hint("remove it, or name another output"))
        }
        _ => Ok(()),
    }
}

pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|e| text::cannot_read(dir, &e))?;
    Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// What is to be said of files in `dir` that are not of the output, which those are that are `known`.
///
/// # Errors
/// A folder that cannot be read.
pub(super) fn strangers(dir: &Path, known: impl Fn(&str) -> bool) -> Result<Option<String>> {
    let mut names = names(dir)?;
    names.retain(|name| !is_own(name) && !known(name));
    names.sort_unstable();
    let said = |names: &[String]| {
        let names = list(names.iter().map(String::as_str), 4);
        let what = "the output folder holds files that are not of this merge";
        format!("{what}: {names}; programs may take them for a part of the model")
    };
    Ok((!names.is_empty()).then(|| said(&names)))
}

/// Name of a file while it is being written. The same in every run, so that one can go on with what another left.
pub(crate) fn temporary(name: &str) -> String {
    let kind = if name.starts_with("model") { "" } else { "model-" };
    format!(".{kind}{name}.tmp")
}

/// True for a name that [`temporary`] gives.
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with(".model") && name.ends_with(".tmp")
}

/// True for what is there only while a merge is not finished.
pub(super) fn is_own(name: &str) -> bool {
    is_leftover(name) || name == LOCK || name == JOURNAL
}

/// As `create_dir_all`, and notes what it makes.
fn create_dirs(dir: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match disk::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            // Someone else was quicker, or it is a name such as `..`.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(e) => return Err(text::cannot_write(path, 0, &e)),
        }
    }
    Ok(())
}

fn busy(dir: &Path) -> Error {
    Error::output(format!("another merge is writing into `{}`", text::path(dir)))
        .hint("wait for it, or choose another output folder")
}

/// Sees whether another merge holds the lock of `dir`, without making one.
pub(super) fn refuse_busy(dir: &Path) -> Result<()> {
    // To open a pipe would wait for ever.
    refuse_no_file(&dir.join(LOCK))?;
    let held = File::open(dir.join(LOCK)).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
    if held { Err(busy(dir)) } else { Ok(()) }
}

/// A folder that nobody else may work in.
#[derive(Debug)]
pub(crate) struct Held(#[allow(dead_code, reason = "its end is what matters")] Cleanup);

/// Takes the lock of `dir` for as long as what is returned lives.
///
/// # Errors
/// Another process has it.
pub(crate) fn hold(dir: &Path) -> Result<Held> {
    let mut cleanup = Cleanup::default();
    cleanup.lock = lock(dir)?;
    Ok(Held(cleanup))
}

/// The lock of `dir`, if whoever held it ended without giving it back. Only among processes that see each other's locks.
pub(super) fn abandoned(dir: &Path) -> Option<File> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().write(true).open(&path).ok()?;
    // Who gives it back removes it first.
    (file.try_lock().is_ok() && path.exists()).then_some(file)
}

/// Takes the lock of `dir`; `None` on a file system that has no locks.
fn lock(dir: &Path) -> Result<Option<(File, PathBuf)>> {
    let path = dir.join(LOCK);
    refuse_link(&path)?;
    refuse_no_file(&path)?;
    let file = pass(&path, &Operation::Create)
        .and_then(|()| OpenOptions::new().write(true).create(true).truncate(false).open(&path));
    let file = file.map_err(|e| text::cannot_write(&path, 0, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some((file, path))),
        Err(TryLockError::WouldBlock) => Err(busy(dir)),
        Err(TryLockError::Error(_)) => {
            drop(file);
            let _ = disk::remove_file(&path);
            Ok(None)
        }
    }
}
