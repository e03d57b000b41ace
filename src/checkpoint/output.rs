//! The folder of an output: everything that speaks against writing into it is found before the first byte.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::{Identity, identity, read_small};
use super::folder::is_shard;
use super::index::plain_name;
use super::layout::{INDEX, Layout, SINGLE};
use super::reader::Checkpoint;
use super::side::is_side;
use super::text::{self, list, shown};
use crate::error::{Error, Result};

/// Held while a merge writes into its folder. What an interrupted merge left can be told from what another is
/// writing.
const LOCK: &str = ".magic.lock";

/// Weights of an older output besides shards, and what would make a folder that of an adapter.
const OLD: [&str; 5] =
    [SINGLE, INDEX, "adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors"];

/// What is written of a merge beside its result.
pub(crate) const RECEIPT: &str = "magic.json";
/// Longest receipt that is read.
const MAX_RECEIPT: u64 = 256 << 20;

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
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // Failures have no remedy here, and a folder that others have put files into is rightly kept.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        if let Some((file, path)) = self.lock.take() {
            let _ = fs::remove_file(path);
            drop(file);
        }
        for dir in self.dirs.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// A folder that may be written into.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) dir: PathBuf,
    /// Weights of an older output: they go when the new ones come, so that old and new never mix.
    pub(super) old: Vec<PathBuf>,
    pub(super) cleanup: Cleanup,
    inputs: HashMap<Identity, PathBuf>,
}

impl Output {
    /// Finds what speaks against [`open`](Self::open), and makes nothing.
    pub(super) fn check_dir(dir: &Path, layout: &Layout, inputs: &[&Checkpoint], overwrite: bool) -> Result<()> {
        let dir: PathBuf = dir.components().collect();
        acceptable(&dir, inputs, overwrite)?;
        let there = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
        if !there.is_dir() {
            return Err(Error::output(format!("`{}` is not a folder", text::path(there))));
        }
        check_space(there, layout.file_bytes(), false)
    }

    /// Makes or checks the folder `dir` for the files of `layout`.
    pub(super) fn open(dir: &Path, layout: &Layout, inputs: &[&Checkpoint], overwrite: bool) -> Result<Self> {
        // Without a trailing slash, which would make a link look like the folder that it leads to.
        let dir: PathBuf = dir.components().collect();
        let names = acceptable(&dir, inputs, overwrite)?;
        let mut cleanup = Cleanup::default();
        create_dirs(&dir, &mut cleanup.dirs)?;
        cleanup.lock = lock(&dir)?;
        let inputs = inputs.iter().flat_map(|input| input.files());
        let inputs = inputs.filter_map(|file| Some((identity(file).ok()?, file.to_owned()))).collect();
        let is_old = |name: &&String| {
            OLD.contains(&name.as_str()) || name.starts_with("model-") && is_shard(name, ".safetensors")
        };
        let mut old: Vec<PathBuf> = names.iter().filter(is_old).map(|name| dir.join(name)).collect();
        // The index first: without it, what is left of its shards is no model.
        old.sort_by_key(|path| !path.ends_with(INDEX));
        let output = Self { dir, old, cleanup, inputs };
        for name in layout.shards().map(|(name, _)| name).chain([INDEX]) {
            output.check(&output.dir.join(name))?;
        }
        output.old.iter().try_for_each(|path| output.check(path))?;
        if output.cleanup.lock.is_some() {
            for name in names.iter().filter(|name| is_leftover(name)) {
                let path = output.dir.join(name);
                fs::remove_file(&path).map_err(|e| text::cannot_write(&path, 0, &e))?;
            }
        }
        check_space(&output.dir, layout.file_bytes(), overwrite && !output.old.is_empty())?;
        Ok(output)
    }

    /// Adds to what goes the files that an older output says it wrote, and that are not among the names `new`. No
    /// receipt, whoever wrote it, makes other files go than those that an output has.
    pub(super) fn add_stale(&mut self, new: &[String]) {
        let Ok(bytes) = read_small(&self.dir.join(RECEIPT), MAX_RECEIPT) else { return };
        let receipt: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let files = receipt.get("files").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for name in files.filter(|name| is_side(name) || *name == "recipe.yml") {
            let path = self.dir.join(name);
            let stale = plain_name(name).is_ok() && !new.iter().any(|new| new == name);
            // A link, a folder or an input that has come there since is not ours.
            if stale && path.exists() && !self.old.contains(&path) && self.check(&path).is_ok() {
                self.old.push(path);
            }
        }
    }

    /// Refuses to put a file at `path` where that would follow a link or replace a folder or an input.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        refuse_link(path)?;
        let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
        if !metadata.is_file() {
            return Err(Error::output(format!("`{}` is in the way: it is not a file", text::path(path))));
        }
        match identity(path).ok().and_then(|id| self.inputs.get(&id)) {
            Some(input) => {
                let (path, input) = (text::path(path), text::path(input));
                Err(Error::output(format!("the output `{path}` would replace the input `{input}`"))
                    .hint("choose another output folder"))
            }
            None => Ok(()),
        }
    }
}

/// The names in folder `dir`, if a merge may write there.
fn acceptable(dir: &Path, inputs: &[&Checkpoint], overwrite: bool) -> Result<Vec<String>> {
    let at = text::path(dir);
    if dir.as_os_str().is_empty() {
        return Err(Error::usage("the output folder has no name"));
    }
    refuse_link(dir)?;
    if dir.exists() && !dir.is_dir() {
        return Err(Error::output(format!("`{at}` is not a folder")));
    }
    let names = if dir.is_dir() { names(dir)? } else { Vec::new() };
    refuse_inputs_folder(dir, inputs)?;
    let foreign: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !is_leftover(name) && *name != LOCK).collect();
    if !foreign.is_empty() && !overwrite {
        return Err(Error::output(format!("the output folder `{at}` is not empty: it has {}", list(foreign, 4)))
            .hint("choose another folder, or replace the result that is in it with `--overwrite`"));
    }
    Ok(names)
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

fn refuse_link(path: &Path) -> Result<()> {
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

/// The output must not be a folder that an input lies in, whatever it would replace there.
fn refuse_inputs_folder(dir: &Path, inputs: &[&Checkpoint]) -> Result<()> {
    let Ok(own) = identity(dir) else { return Ok(()) };
    for input in inputs {
        let parents = input.files().filter_map(|file| match file.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
            parent => parent,
        });
        // Of a link, as in the hub's cache, both ends count.
        let real = input.files().filter_map(|file| fs::canonicalize(file).ok()?.parent().map(Path::to_owned));
        let mut folders = input.folder().into_iter().chain(parents).map(Path::to_owned).chain(real);
        if folders.any(|folder| identity(&folder).is_ok_and(|id| id == own)) {
            let (dir, input) = (text::path(dir), shown(input.name()));
            let what = format!("the output folder `{dir}` is that of the input `{input}`");
            return Err(Error::output(what).hint("choose another output folder: an input is never written to"));
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|e| text::cannot_read(dir, &e))?;
    Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Name of a file while it is being written.
pub(super) fn temporary(name: &str) -> String {
    let kind = if name.starts_with("model") { "" } else { "model-" };
    format!(".{kind}{name}.tmp-{}", std::process::id())
}

/// True for a name that [`temporary`] gives, in this process or in another.
fn is_leftover(name: &str) -> bool {
    let id = name.strip_prefix(".model").and_then(|name| name.rsplit_once(".tmp-")).map(|(_, id)| id);
    id.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

/// As `create_dir_all`, and notes what it makes.
fn create_dirs(dir: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            // Someone else was quicker, or it is a name such as `..`.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(e) => return Err(text::cannot_write(path, 0, &e)),
        }
    }
    Ok(())
}

/// Takes the lock of `dir`; `None` on a file system that has no locks.
fn lock(dir: &Path) -> Result<Option<(File, PathBuf)>> {
    let path = dir.join(LOCK);
    refuse_link(&path)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| text::cannot_write(&path, 0, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some((file, path))),
        Err(TryLockError::WouldBlock) => {
            Err(Error::output(format!("another merge is writing into `{}`", text::path(dir)))
                .hint("wait for it, or choose another output folder"))
        }
        Err(TryLockError::Error(_)) => {
            drop(file);
            let _ = fs::remove_file(&path);
            Ok(None)
        }
    }
}
