//! Hands what is computed to the disk while the rest is, and records in the journal which tensors are safe there. The
//! sync at the end then finds little left to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::disk::OutFile;
use super::faults::{self, Commits};
use super::files::{Handles, Stamp};
use super::gather::Gather;
use super::journal::{Journal, Record};
use super::output::temporary;
use super::text;
use crate::error::{Error, Result};

/// Bytes between two syncs, of what goes through the page cache.
const STEP: u64 = 64 << 20;

/// Time between two records, which take a sync of their own.
const PAUSE: Duration = Duration::from_secs(2);

/// A shard that is being written beside its final name.
#[derive(Debug)]
struct Staged {
    path: PathBuf,
    named: PathBuf,
    bytes: u64,
    /// Whether there may be something in it that was not synced.
    dirty: AtomicBool,
}

/// What the thread that syncs shares with those that write.
#[derive(Debug)]
struct Shards {
    files: Vec<Staged>,
    handles: Handles<OutFile>,
    /// Whether whole pages go past the page cache.
    direct: bool,
    safe: Mutex<Safe>,
    /// Tensors that are complete and not recorded.
    complete: Mutex<Vec<Record>>,
}

/// What is known to be safe.
#[derive(Debug)]
struct Safe {
    /// Nothing is recorded where there is none, or after something failed.
    journal: Option<Journal>,
    /// The files that all was computed from.
    inputs: Vec<(PathBuf, Stamp)>,
    since: Instant,
}

impl Safe {
    /// Whether it is time to record.
    fn due(&self) -> bool {
        self.since.elapsed() >= PAUSE || faults::commits() == Commits::Often
    }

    /// Records tensors that were read from files that have not changed since.
    fn record(&mut self, complete: Vec<Record>, all: bool) -> Result<()> {
        self.inputs.iter().try_for_each(|(path, stamp)| stamp.check(path))?;
        self.journal.as_mut().map_or(Ok(()), |journal| journal.append(complete, all))
    }
}

impl Staged {
    fn failed(&self, e: &io::Error) -> Error {
        text::cannot_write(&self.named, self.bytes, e)
    }
}

impl Shards {
    /// The file of shard number `number`, as `open` opens it if it is not.
    fn file(&self, number: usize, open: impl FnOnce(&Staged) -> io::Result<OutFile>) -> Result<Arc<OutFile>> {
        let staged = &self.files[number];
        let open = || open(staged).map(|file| if self.direct { file.past_the_cache() } else { file });
        self.handles.get(number, || open().map_err(|e| staged.failed(&e)))
    }

    fn again(&self, number: usize) -> Result<Arc<OutFile>> {
        self.file(number, |staged| OutFile::open(staged.path.clone()))
    }

    fn write(&self, number: usize, bytes: &[u8], offset: u64) -> Result<()> {
        let staged = &self.files[number];
        self.again(number)?.write_at(bytes, offset).map_err(|e| staged.failed(&e))?;
        staged.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Syncs what was written; then tensors that were complete before are recorded, if it is time or `record` says so.
    fn sync(&self, gather: &Gather, record: bool) -> Result<()> {
        let mut safe = lock(&self.safe);
        let record = record || safe.due();
        let complete = if record { std::mem::take(&mut *lock(&self.complete)) } else { Vec::new() };
        let settled = if complete.is_empty() { Ok(()) } else { gather.settle() };
        let done = settled.and_then(|()| self.sync_files(false)).and_then(|()| match complete.is_empty() {
            true => Ok(()),
            false => safe.record(complete, false),
        });
        if record {
            safe.since = Instant::now();
        }
        if done.is_err() {
            // What the system could not write it may report once only: nothing after this can be called safe.
            safe.journal = None;
        }
        done
    }

    fn sync_files(&self, all: bool) -> Result<()> {
        for (number, staged) in self.files.iter().enumerate() {
            if staged.dirty.swap(false, Ordering::AcqRel) || all {
                let file = self.again(number)?;
                let done = if all { file.sync_all() } else { file.sync() };
                done.map_err(|e| staged.failed(&e))?;
            }
        }
        Ok(())
    }
}

/// One sync at a time, on a thread of its own. A disk that cannot follow is asked less often.
#[derive(Debug)]
pub(super) struct Flush {
    shards: Arc<Shards>,
    gather: Arc<Gather>,
    /// Whether there is a journal to record in.
    records: bool,
    /// Bytes since the last one began.
    pending: AtomicU64,
    sync: Mutex<Option<JoinHandle<Result<()>>>>,
}

impl Flush {
    /// For shards of these names and sizes in `dir`; `soon` says whether they are read again soon.
    pub(super) fn new<'a>(
        dir: &Path,
        shards: impl Iterator<Item = (&'a str, u64)>,
        inputs: Vec<(PathBuf, Stamp)>,
        soon: bool,
    ) -> Self {
        let staged = |(name, bytes)| Staged {
            path: dir.join(temporary(name)),
            named: dir.join(name),
            bytes,
            dirty: AtomicBool::new(true),
        };
        let files = shards.map(staged).collect();
        let safe = Mutex::new(Safe { journal: None, inputs, since: Instant::now() });
        let shards = Shards { files, handles: Handles::default(), direct: !soon, safe, complete: Mutex::default() };
        let shards = Arc::new(shards);
        let to = shards.clone();
        let gather = Gather::new(Arc::new(move |number, bytes: &[u8], offset| to.write(number, bytes, offset)));
        let (gather, sync) = (Arc::new(gather), Mutex::default());
        Self { shards, gather, records: false, pending: AtomicU64::new(0), sync }
    }

    /// Records from now on in `journal`.
    pub(super) fn record_in(&mut self, journal: Journal) {
        lock(&self.shards.safe).journal = Some(journal);
        self.records = true;
    }

    /// Makes the file of shard `number`, at its full length and with its `header`.
    ///
    /// # Errors
    /// A failed write.
    pub(super) fn create(&self, number: usize, header: &[u8]) -> Result<()> {
        self.shards.file(number, |staged| {
            let file = OutFile::create(staged.path.clone())?;
            file.allocate(staged.bytes)?;
            Ok(file)
        })?;
        self.gather.add(number, header, 0)
    }

    /// Takes `bytes` of shard `number` at `offset`, to be written soon.
    ///
    /// # Errors
    /// What an earlier write or sync ran into: the system reports that once, and not again at the end.
    pub(super) fn write_at(&self, number: usize, bytes: &[u8], offset: u64) -> Result<()> {
        self.gather.add(number, bytes, offset)?;
        if self.shards.direct || faults::commits() == Commits::AtOnce {
            return Ok(());
        }
        let bytes = bytes.len() as u64;
        let pending = self.pending.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if pending >= STEP { self.start() } else { Ok(()) }
    }

    /// Takes note of a tensor that is complete, and of what is to be said of it.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub(super) fn complete(&self, record: impl FnOnce() -> Record) -> Result<()> {
        if !self.records {
            return Ok(());
        }
        lock(&self.shards.complete).push(record());
        if faults::commits() == Commits::AtOnce {
            return self.sync_now();
        }
        let due = self.shards.safe.try_lock().is_ok_and(|safe| safe.due());
        if due { self.start() } else { Ok(()) }
    }

    fn start(&self) -> Result<()> {
        let Ok(mut sync) = self.sync.try_lock() else { return Ok(()) };
        if sync.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        outcome(sync.take())?;
        self.pending.store(0, Ordering::Relaxed);
        let (shards, gather) = (self.shards.clone(), self.gather.clone());
        // Without a thread the sync at the end does it all.
        *sync = Builder::new().name("sync".into()).spawn(move || shards.sync(&gather, false)).ok();
        Ok(())
    }

    /// Waits until all that was taken is in its file, though it may not be on the disk.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub(super) fn settle(&self) -> Result<()> {
        self.gather.settle()
    }

    /// Waits for the sync that is in work.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub(super) fn wait(&self) -> Result<()> {
        outcome(lock(&self.sync).take())
    }

    /// Syncs and records on this thread all that is complete.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub(super) fn sync_now(&self) -> Result<()> {
        self.wait()?;
        self.pending.store(0, Ordering::Relaxed);
        if lock(&self.shards.complete).is_empty() { Ok(()) } else { self.shards.sync(&self.gather, true) }
    }

    /// Syncs all shards, closes them, and records that all is safe.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at), and an input that has changed.
    pub(super) fn finish(&self) -> Result<()> {
        self.wait()?;
        self.settle()?;
        let mut safe = lock(&self.shards.safe);
        let complete = std::mem::take(&mut *lock(&self.shards.complete));
        let done = self.shards.sync_files(true).and_then(|()| safe.record(complete, true));
        self.shards.handles.close();
        safe.journal = None;
        done
    }
}

fn outcome(sync: Option<JoinHandle<Result<()>>>) -> Result<()> {
    sync.map_or(Ok(()), |thread| thread.join().expect("a sync does not panic"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Flush {
    fn drop(&mut self) {
        // The output is given up: what its disk says does not matter any more.
        let _ = self.wait();
    }
}
