//! Writes a checkpoint. Everything is written beside its final name and synced; only then does the old output go
//! and the new one appear, the file that makes it a model last. At no moment is there a folder that looks whole and
//! is not.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;

use super::coverage::Coverage;
use super::digest::{Step, file_sha256, sha256};
use super::disk::{remove_file, rename, sync_dir};
use super::flush::Flush;
use super::index::plain_name;
use super::journal::{Found, JOURNAL, Journal, recorded};
use super::layout::{INDEX, Layout, SINGLE, Shard};
use super::output::{Access, Output, RECEIPT, REPORT, strangers, temporary};
use super::parts::is_shared;
use super::reader::Checkpoint;
use super::receipt::FileRecord;
use super::text::{self, shown};
use crate::error::{Error, Result};

/// An output that is being written. Dropped before [`finish`](Self::finish), it leaves nothing behind, or, if it has a
/// journal and there is something in it, that and the shards as they are.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    written: Vec<Coverage>,
    /// What is to be said of tensors that another run wrote.
    kept: Vec<Option<Value>>,
    side: Vec<(String, Vec<u8>)>,
    /// Before `output`, so that files are closed before they are removed.
    flush: Flush,
    output: Output,
    finished: bool,
}

impl Writer {
    /// Prepares folder `dir`, which is made if it is not there, and the files of `layout` at their full length.
    ///
    /// # Errors
    /// A folder that is not empty (unless `overwrite`), that another merge writes into or that one of `inputs` lies
    /// in, a link or an input in the place of a file to write, too little space, a failed write.
    pub fn create(dir: &Path, layout: Layout, inputs: &[&Checkpoint], overwrite: bool) -> Result<Self> {
        Self::open(dir, layout, inputs, &Access { overwrite, ..Access::default() })
    }

    /// As [`create`](Self::create). With a fingerprint, what is complete is recorded on the way, and with `resume`, an
    /// unfinished merge goes on: [`kept`](Self::kept) says which tensors need not be written again.
    ///
    /// # Errors
    /// As [`create`](Self::create), an unfinished merge without `resume` or `overwrite`, one of another fingerprint.
    pub fn open(dir: &Path, layout: Layout, inputs: &[&Checkpoint], access: &Access<'_>) -> Result<Self> {
        let (output, found) = Output::open(dir, &layout, inputs, access)?;
        let written = layout.places.iter().map(|_| Coverage::default()).collect();
        let stamped = inputs.iter().flat_map(|input| input.stamped());
        let stamped = stamped.map(|(path, stamp)| (path.to_owned(), stamp.clone())).collect();
        let flush = Flush::new(&output.dir, layout.shards(), stamped, access.hashed);
        let kept = layout.places.iter().map(|_| None).collect();
        let mut writer = Self { layout, written, kept, side: Vec::new(), flush, output, finished: false };
        let mut staged = vec![false; writer.layout.shards.len()];
        if let Some(found) = &found {
            for (staged, shard) in staged.iter_mut().zip(&writer.layout.shards) {
                *staged = writer.output.is_staged(shard)?;
            }
            writer.keep(found, &staged)?;
        }
        for (number, shard) in writer.layout.shards.iter().enumerate() {
            if !staged[number] {
                let path = writer.output.dir.join(temporary(&shard.name));
                if found.is_some() && path.exists() {
                    remove_file(&path).map_err(|e| text::cannot_write(&path, 0, &e))?;
                }
                writer.output.cleanup.files.push(path);
                writer.flush.create(number, &shard.header)?;
            }
        }
        if let Some(fingerprint) = access.fingerprint {
            let folders = writer.output.cleanup.made().chain([&*writer.output.dir]).map(Path::to_owned).collect();
            let dir = &writer.output.dir;
            writer.flush.record_in(match &found {
                Some(found) => Journal::again(folders, dir, found)?,
                None => Journal::new(folders, dir, access.overwrite, fingerprint.clone()),
            });
        }
        Ok(writer)
    }

    /// Takes over what another run wrote, of shards that are `staged`.
    fn keep(&mut self, found: &Found, staged: &[bool]) -> Result<()> {
        let damaged = |what: String| {
            let what = format!("the unfinished merge in `{}` cannot go on: {what}", text::path(&self.output.dir));
            Err(Error::output(what).hint("start again with `--overwrite` (without `--resume`)"))
        };
        let numbers: HashMap<&str, usize> =
            self.layout.tensors().iter().enumerate().map(|(number, tensor)| (tensor.name.as_str(), number)).collect();
        let mut known = Vec::with_capacity(found.tensors.len());
        for (name, report) in &found.tensors {
            let Some(&number) = numbers.get(name.as_str()) else {
                return damaged(format!("its journal has the tensor `{}`, and the merge has not", shown(name)));
            };
            let shard = self.layout.places[number].shard;
            if !staged[shard] {
                let name = temporary(&self.layout.shards[shard].name);
                return damaged(format!(
                    "`{name}`, which holds `{}`, is missing or damaged",
                    shown(&self.layout.tensors()[number].name)
                ));
            }
            known.push((number, report));
        }
        for (number, report) in known {
            self.written[number].add(0, self.layout.places[number].bytes);
            self.kept[number] = Some(report.clone());
        }
        Ok(())
    }

    /// Whether [`open`](Self::open) would accept the folder, as far as that can be told without making it: what it would
    /// say of too little space, if that is all.
    ///
    /// # Errors
    /// As for [`open`](Self::open), but for space.
    pub fn check(dir: &Path, layout: &Layout, inputs: &[&Checkpoint], access: &Access<'_>) -> Result<Option<Error>> {
        Output::check_dir(dir, layout, inputs, access)
    }

    /// What is being written.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What [`complete`](Self::complete) was told of tensor number `tensor` by the run that this one goes on with.
    pub fn kept(&self, tensor: usize) -> Option<&Value> {
        self.kept[tensor].as_ref()
    }

    /// Takes note that tensor number `tensor` is written, and of what is to be said of it: once its bytes are safe on
    /// the disk, both are recorded in the journal, if there is one.
    ///
    /// # Errors
    /// A byte that was never written, and failed writes as [`write_at`](Self::write_at) has them.
    pub fn complete(&self, tensor: usize, report: impl FnOnce() -> Value) -> Result<()> {
        self.check_complete(tensor)?;
        self.flush.complete(|| (self.layout.tensors()[tensor].name.clone(), report()))
    }

    /// Writes `bytes` of tensor number `tensor` from `offset` on. Any thread may call this at any time, in any order.
    ///
    /// # Errors
    /// A range outside the tensor, a failed write; on a full disk with the bytes needed and free.
    pub fn write_at(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(place) = self.layout.places.get(tensor) else {
            return Err(Error::output(format!("the output has no tensor number {tensor}")));
        };
        let length = bytes.len() as u64;
        let Some(end) = offset.checked_add(length).filter(|end| *end <= place.bytes) else {
            let (name, all) = (shown(&self.layout.tensors()[tensor].name), place.bytes);
            return Err(Error::output(format!(
                "cannot write {length} bytes at {offset} of tensor `{name}`, which has {all}"
            )));
        };
        self.flush.write_at(place.shard, bytes, place.offset + offset)?;
        self.written[tensor].add(offset, end);
        Ok(())
    }

    /// Records now what is complete.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub fn record(&self) -> Result<()> {
        self.flush.sync_now()
    }

    /// Finds out early whether files of these names may be added: after the work is done it would be late to say.
    ///
    /// # Errors
    /// A link, a folder or an input in the place of one of them.
    pub fn expect<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        names.into_iter().try_for_each(|name| self.check_side(name))
    }

    /// Whether there can be a file `name` beside the weights.
    fn check_side(&self, name: &str) -> Result<()> {
        plain_name(name).map_err(|why| Error::output(format!("the output file `{}` {why}", shown(name))))?;
        if name == INDEX || name == SINGLE || self.layout.shards.iter().any(|shard| shard.name == name) {
            return Err(Error::output(format!("the output file `{name}` holds tensors: it cannot be another file")));
        }
        self.output.check(&self.output.dir.join(name))
    }

    /// Adds a file that is written at the end: configuration, tokenizer, recipe, receipt, model card. The last of a
    /// name counts.
    pub fn file(&mut self, name: &str, bytes: Vec<u8>) {
        self.side.retain(|(known, _)| known != name);
        self.side.push((name.to_owned(), bytes));
    }

    /// Names of all files so far.
    fn names(&self) -> impl Iterator<Item = &str> {
        let index = (self.layout.shards.len() > 1).then_some(INDEX);
        self.layout.shards().map(|(name, _)| name).chain(index).chain(self.side.iter().map(|(name, _)| name.as_str()))
    }

    /// What is to be said of files in the folder that stay there and are not of this output, as far as its files are known.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(crate) fn strangers(&mut self) -> Result<Option<String>> {
        let new: Vec<String> = self.names().chain([RECEIPT, REPORT]).map(str::to_owned).collect();
        self.output.add_stale(&new);
        let goes = |name: &str| self.output.old.contains(&self.output.dir.join(name));
        strangers(&self.output.dir, |name| is_shared(name) || new.iter().any(|new| new == name) || goes(name))
    }

    /// What is to be recorded of the shards; with their SHA-256 if `hash` says so, taken from all of them at a time,
    /// while they are still in memory.
    ///
    /// # Errors
    /// A failed read, and those of `step`.
    pub(crate) fn shard_records(&self, hash: bool, step: Step<'_>) -> Result<Vec<FileRecord>> {
        self.flush.settle()?;
        let record = |shard: &Shard| {
            let path = self.output.dir.join(temporary(&shard.name));
            let sha256 = if hash { Some(file_sha256(&path, step)?) } else { None };
            Ok(FileRecord { file: shard.name.clone(), bytes: shard.bytes, sha256 })
        };
        self.layout.shards.par_iter().map(record).collect()
    }

    /// What is to be recorded of the index and the other files so far.
    pub(crate) fn side_records(&self) -> Vec<FileRecord> {
        let record = |(name, bytes): (&str, &[u8])| FileRecord {
            file: name.to_owned(),
            bytes: bytes.len() as u64,
            sha256: Some(sha256(bytes)),
        };
        let index = self.layout.index();
        let index = index.iter().map(|index| (INDEX, &**index));
        index.chain(self.side.iter().map(|(name, bytes)| (&**name, &**bytes))).map(record).collect()
    }

    /// Completes the output: syncs the shards, writes the other files, removes what is left of an older output,
    /// gives all files their names, and last that one without which no loader would take the folder for a model.
    ///
    /// # Errors
    /// A byte of a tensor that was never written, a failed write, a name that is not a plain file name or is taken.
    pub fn finish(mut self) -> Result<()> {
        (0..self.layout.tensors().len()).try_for_each(|tensor| self.check_complete(tensor))?;
        // All that needs space or can be refused comes first, so that an older output is safe until then.
        let new: Vec<String> = self.names().map(str::to_owned).collect();
        self.output.add_stale(&new);
        let mut names: Vec<String> = Vec::new();
        for (name, bytes) in std::mem::take(&mut self.side) {
            self.check_side(&name)?;
            self.output.stage(&name, &bytes)?;
            names.push(name);
        }
        let shards = self.layout.shards.iter().map(|shard| shard.name.clone());
        match self.layout.index() {
            Some(index) => {
                names.splice(0..0, shards);
                self.output.stage(INDEX, &index)?;
                names.push(INDEX.to_owned());
            }
            None => names.extend(shards),
        }
        self.flush.finish()?;

        let Output { dir, old, cleanup, .. } = &mut self.output;
        let failed = |path: &Path, e: &io::Error| text::cannot_write(path, 0, e);
        let sync = |dir: &Path| sync_dir(dir).map_err(|e| failed(dir, &e));
        for path in &*old {
            remove_file(path).map_err(|e| failed(path, &e))?;
        }
        if !old.is_empty() {
            sync(dir)?;
        }
        for (number, name) in names.iter().enumerate() {
            if number + 1 == names.len() {
                sync(dir)?;
            }
            let path = dir.join(name);
            rename(&dir.join(temporary(name)), &path).map_err(|e| failed(&path, &e))?;
            cleanup.files.push(path);
        }
        sync(dir)?;
        cleanup.made().try_for_each(sync)?;
        // Complete: whatever still fails, nothing of it goes.
        cleanup.keep();
        self.finished = true;
        let journal = dir.join(JOURNAL);
        if journal.exists() {
            remove_file(&journal).map_err(|e| failed(&journal, &e))?;
            sync(dir)?;
        }
        Ok(())
    }

    fn check_complete(&self, tensor: usize) -> Result<()> {
        let all = self.layout.places[tensor].bytes;
        let Some(gap) = self.written[tensor].gap(all) else { return Ok(()) };
        let name = shown(&self.layout.tensors()[tensor].name);
        let what = format!("tensor `{name}` is not complete: byte {gap} of {all} was never written");
        Err(Error::output(what).hint("this is a mistake in this program: please report it"))
    }
}

impl Drop for Writer {
    /// Keeps what is recorded. Of a merge that fails before anything is, which is within seconds, nothing stays.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Where this fails too, what was recorded before is what there is.
        let _ = self.flush.wait();
        let journal = self.output.dir.join(JOURNAL);
        if recorded(&self.output.dir).is_some() {
            let _ = self.flush.sync_now();
            self.output.cleanup.keep_shards(&self.layout);
        } else if journal.exists() {
            self.output.cleanup.files.push(journal);
        }
    }
}
