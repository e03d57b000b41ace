//! Writes a checkpoint. Everything is written beside its final name and synced; only then does the old output go
//! and the new one appear, the file that makes it a model last. At no moment is there a folder that looks whole and
//! is not.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::coverage::Coverage;
use super::files::{Handles, sync_dir, write_all_at};
use super::index::plain_name;
use super::layout::{INDEX, Layout, SINGLE};
use super::output::{Output, temporary};
use super::reader::Checkpoint;
use super::text::{self, shown};
use crate::error::{Error, Result};

/// An output that is being written. Dropped before [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    written: Vec<Coverage>,
    side: Vec<(String, Vec<u8>)>,
    /// Before `output`, so that files are closed before they are removed.
    handles: Handles,
    output: Output,
}

impl Writer {
    /// Prepares folder `dir`, which is made if it is not there, and the files of `layout` at their full length.
    ///
    /// # Errors
    /// A folder that is not empty (unless `overwrite`), that another merge writes into or that one of `inputs` lies
    /// in, a link or an input in the place of a file to write, too little space, a failed write.
    pub fn create(dir: &Path, layout: Layout, inputs: &[&Checkpoint], overwrite: bool) -> Result<Self> {
        let output = Output::open(dir, &layout, inputs, overwrite)?;
        let written = layout.places.iter().map(|_| Coverage::default()).collect();
        let mut writer = Self { layout, written, side: Vec::new(), handles: Handles::default(), output };
        for number in 0..writer.layout.shards.len() {
            let shard = &writer.layout.shards[number];
            let (file, path) = create(&mut writer.output, &shard.name, shard.bytes)?;
            let begun = file.set_len(shard.bytes).and_then(|()| write_all_at(&file, &shard.header, 0));
            begun.map_err(|e| text::cannot_write(&path, shard.bytes, &e))?;
            writer.handles.get(number, || Ok(file))?;
        }
        Ok(writer)
    }

    /// Whether [`create`](Self::create) would accept the folder, as far as that can be told without making it.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn check(dir: &Path, layout: &Layout, inputs: &[&Checkpoint], overwrite: bool) -> Result<()> {
        Output::check_dir(dir, layout, inputs, overwrite)
    }

    /// What is being written.
    pub fn layout(&self) -> &Layout {
        &self.layout
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
        let file = self.shard(place.shard)?;
        write_all_at(&file, bytes, place.offset + offset).map_err(|e| self.failed(place.shard, &e))?;
        self.written[tensor].add(offset, end);
        Ok(())
    }

    /// Adds a file that is written at the end: configuration, tokenizer, recipe, receipt, model card. The last of a
    /// name counts.
    pub fn file(&mut self, name: &str, bytes: Vec<u8>) {
        self.side.retain(|(known, _)| known != name);
        self.side.push((name.to_owned(), bytes));
    }

    /// Names of all files so far.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let index = (self.layout.shards.len() > 1).then_some(INDEX);
        self.layout.shards().map(|(name, _)| name).chain(index).chain(self.side.iter().map(|(name, _)| name.as_str()))
    }

    /// Completes the output: syncs the shards, writes the other files, removes what is left of an older output,
    /// gives all files their names, and last that one without which no loader would take the folder for a model.
    ///
    /// # Errors
    /// A byte of a tensor that was never written, a failed write, a name that is not a plain file name or is taken.
    pub fn finish(mut self) -> Result<()> {
        self.check_written()?;
        // All that needs space or can be refused comes first, so that an older output is safe until then.
        let new: Vec<String> = self.names().map(str::to_owned).collect();
        self.output.add_stale(&new);
        let mut names: Vec<String> = Vec::new();
        for (name, bytes) in std::mem::take(&mut self.side) {
            self.stage(&name, &bytes)?;
            names.push(name);
        }
        let shards = self.layout.shards.iter().map(|shard| shard.name.clone());
        match self.layout.index() {
            Some(index) => {
                names.splice(0..0, shards);
                write_new(&mut self.output, INDEX, &index)?;
                names.push(INDEX.to_owned());
            }
            None => names.extend(shards),
        }
        for number in 0..self.layout.shards.len() {
            self.shard(number)?.sync_all().map_err(|e| self.failed(number, &e))?;
        }
        self.handles.close();

        let Output { dir, old, cleanup, .. } = &mut self.output;
        let failed = |path: &Path, e: &io::Error| text::cannot_write(path, 0, e);
        let sync = |dir: &Path| sync_dir(dir).map_err(|e| failed(dir, &e));
        for path in &*old {
            fs::remove_file(path).map_err(|e| failed(path, &e))?;
        }
        sync(dir)?;
        for (number, name) in names.iter().enumerate() {
            if number + 1 == names.len() {
                sync(dir)?;
            }
            let path = dir.join(name);
            fs::rename(dir.join(temporary(name)), &path).map_err(|e| failed(&path, &e))?;
            cleanup.files.push(path);
        }
        sync(dir)?;
        cleanup.made().try_for_each(sync)?;
        cleanup.keep();
        Ok(())
    }

    fn check_written(&self) -> Result<()> {
        for ((tensor, place), written) in self.layout.tensors().iter().zip(&self.layout.places).zip(&self.written) {
            if let Some(gap) = written.gap(place.bytes) {
                let (name, all) = (shown(&tensor.name), place.bytes);
                let what = format!("tensor `{name}` is not complete: byte {gap} of {all} was never written");
                return Err(Error::output(what).hint("this is a mistake in this program: please report it"));
            }
        }
        Ok(())
    }

    /// Writes and syncs a file beside its final name.
    fn stage(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        plain_name(name).map_err(|why| Error::output(format!("the output file `{}` {why}", shown(name))))?;
        if name == INDEX || name == SINGLE || self.layout.shards.iter().any(|shard| shard.name == name) {
            return Err(Error::output(format!("the output file `{name}` holds tensors: it cannot be another file")));
        }
        self.output.check(&self.output.dir.join(name))?;
        write_new(&mut self.output, name, bytes)
    }

    fn shard(&self, number: usize) -> Result<Arc<File>> {
        self.handles.get(number, || {
            let path = self.output.dir.join(temporary(&self.layout.shards[number].name));
            OpenOptions::new().write(true).open(&path).map_err(|e| text::cannot_write(&path, 0, &e))
        })
    }

    fn failed(&self, shard: usize, e: &io::Error) -> Error {
        let shard = &self.layout.shards[shard];
        text::cannot_write(&self.output.dir.join(&shard.name), shard.bytes, e)
    }
}

/// Makes the file that will be `name`; it goes again unless the output is finished.
fn create(output: &mut Output, name: &str, bytes: u64) -> Result<(File, PathBuf)> {
    let path = output.dir.join(temporary(name));
    let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::output(format!("`{}` is in the way, left by an interrupted merge", text::path(&path)))
                .hint("remove it")
        }
        _ => text::cannot_write(&path, bytes, &e),
    })?;
    output.cleanup.files.push(path);
    Ok((file, output.dir.join(name)))
}

fn write_new(output: &mut Output, name: &str, bytes: &[u8]) -> Result<()> {
    let (mut file, path) = create(output, name, bytes.len() as u64)?;
    let done = io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all());
    done.map_err(|e| text::cannot_write(&path, bytes.len() as u64, &e))
}
