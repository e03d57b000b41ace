//! Bytes on their way to files: gathered into long runs that begin and end on pages, and written by threads of their
//! own. Those who compute neither wait for the disk nor, for a file that takes one write at a time, for each other.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::coverage::join;
use super::disk::PAGE;
use super::faults::{self, Commits};
use crate::error::{Error, Result};

/// Bytes of a run, and where runs begin.
const RUN: usize = 1 << 20;

/// Most runs that are being gathered or written.
const MOST: usize = 10;

/// Most of them that are gathered while others wait to be written: neighbours of tensors in work.
const OPEN: usize = 6;

/// Threads that write, so that the disk has the next run while one is being ended.
const WRITERS: usize = 2;

/// Memory that it takes at most.
pub(crate) const GATHERED: u64 = (MOST * (RUN + PAGE)) as u64;

/// Writes to file number `.0` at the place `.2`.
pub(super) type Write = dyn Fn(usize, &[u8], u64) -> Result<()> + Send + Sync;

/// Bytes of one file from `start` on, of which some are there.
#[derive(Debug)]
struct Run {
    file: usize,
    start: u64,
    memory: Vec<u8>,
    /// What is there: ranges apart from each other, in order.
    filled: Vec<(usize, usize)>,
}

impl Run {
    fn new(file: usize, start: u64, memory: Vec<u8>) -> Self {
        Self { file, start, memory, filled: Vec::new() }
    }

    /// Where in its memory a page begins.
    fn aligned(memory: &[u8]) -> usize {
        memory.as_ptr().align_offset(PAGE).min(PAGE)
    }

    fn add(&mut self, at: usize, bytes: &[u8]) {
        let from = Self::aligned(&self.memory) + at;
        self.memory[from..from + bytes.len()].copy_from_slice(bytes);
        join(&mut self.filled, at, at + bytes.len());
    }

    fn place(&self) -> (usize, u64) {
        (self.file, self.start)
    }

    fn is_full(&self) -> bool {
        self.filled == [(0, RUN)]
    }

    fn write(&self, write: &Write) -> Result<()> {
        let from = Self::aligned(&self.memory);
        self.filled.iter().try_for_each(|&(begin, end)| {
            write(self.file, &self.memory[from + begin..from + end], self.start + begin as u64)
        })
    }
}

#[derive(Debug, Default)]
struct State {
    /// Not complete, the oldest first.
    open: Vec<Run>,
    queue: VecDeque<Run>,
    /// Places of runs that a thread is writing.
    writing: Vec<(usize, u64)>,
    spare: Vec<Vec<u8>>,
    /// Whether someone waits until all is written, so that nothing may be added.
    settling: bool,
    closed: bool,
    failed: Option<Error>,
}

impl State {
    fn free(&self) -> bool {
        self.open.len() + self.queue.len() + self.writing.len() < MOST
    }

    /// The next run to be written: of one place one at a time, so that the last bytes to come are those that stay.
    fn next(&mut self) -> Option<Run> {
        let next = self.queue.iter().position(|run| !self.writing.contains(&run.place()))?;
        let run = self.queue.remove(next)?;
        self.writing.push(run.place());
        Some(run)
    }

    /// Gives the run number `place` of those that are open to the threads that write.
    fn send(&mut self, place: usize) {
        let run = self.open.remove(place);
        self.queue.push_back(run);
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    more: Condvar,
    /// Something was written.
    less: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        on.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// What each of the threads does.
    fn serve(&self, write: &Write) {
        let mut state = self.lock();
        loop {
            let Some(run) = state.next() else {
                if state.closed && state.queue.is_empty() {
                    return;
                }
                state = Self::wait(&self.more, state);
                continue;
            };
            // After a failure nothing can be made good, and whoever waits shall learn of it soon.
            let failed = state.failed.is_some();
            drop(state);
            // Others wait for this thread, whatever becomes of it.
            let written = || catch_unwind(AssertUnwindSafe(|| run.write(write)));
            let panicked = |_| Err(Error::output("a thread that wrote the output ended in a panic"));
            let done = if failed { Ok(()) } else { written().unwrap_or_else(panicked) };
            state = self.lock();
            state.writing.retain(|place| *place != run.place());
            state.spare.push(run.memory);
            if let Err(error) = done {
                state.failed.get_or_insert(error);
            }
            self.less.notify_all();
            self.more.notify_all(); // what was of the same place, or the end
        }
    }
}

/// What gathers bytes, and its threads.
pub(super) struct Gather {
    shared: Arc<Shared>,
    write: Arc<Write>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shared.fmt(f)
    }
}

impl Gather {
    /// Writes with `write`, which may be called on two threads at a time.
    pub(super) fn new(write: Arc<Write>) -> Self {
        let shared = Arc::new(Shared::default());
        let writers = if faults::commits() == Commits::AtOnce { 1 } else { WRITERS };
        let start = |_| {
            let (shared, write) = (shared.clone(), write.clone());
            Builder::new().name("write".into()).spawn(move || shared.serve(&*write))
        };
        let threads: io::Result<Vec<_>> = (0..writers).map(start).collect();
        // A system that has no thread left for it lets each writer do it.
        Self { threads: threads.unwrap_or_default(), shared, write }
    }

    /// Takes `bytes` of file number `file` from `offset` on.
    ///
    /// # Errors
    /// Whatever failed since the beginning.
    pub(super) fn add(&self, file: usize, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        if self.threads.is_empty() {
            return (self.write)(file, bytes, offset);
        }
        let mut state = self.shared.lock();
        while !bytes.is_empty() {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            let at = (offset % RUN as u64) as usize;
            let start = offset - at as u64;
            let known = state.open.iter().position(|run| run.file == file && run.start == start);
            let place = match known {
                _ if state.settling => None,
                None if state.free() => {
                    let memory = state.spare.pop().unwrap_or_else(|| vec![0; RUN + PAGE]);
                    state.open.push(Run::new(file, start, memory));
                    Some(state.open.len() - 1)
                }
                known => known,
            };
            let Some(place) = place else {
                if state.open.len() > OPEN {
                    state.send(0);
                    self.shared.more.notify_one();
                }
                state = Shared::wait(&self.shared.less, state);
                continue;
            };
            let (piece, rest) = bytes.split_at(bytes.len().min(RUN - at));
            state.open[place].add(at, piece);
            if state.open[place].is_full() {
                state.send(place);
                self.shared.more.notify_one();
            }
            (bytes, offset) = (rest, offset + piece.len() as u64);
        }
        Ok(())
    }

    /// Waits until all that was added is written, runs that are not complete as far as they are there.
    ///
    /// # Errors
    /// Whatever failed since the beginning.
    pub(super) fn settle(&self) -> Result<()> {
        let mut state = self.shared.lock();
        while state.settling {
            state = Shared::wait(&self.shared.less, state);
        }
        state.settling = true;
        while !state.open.is_empty() {
            state.send(0);
        }
        self.shared.more.notify_all();
        while !state.queue.is_empty() || !state.writing.is_empty() {
            state = Shared::wait(&self.shared.less, state);
        }
        state.settling = false;
        self.shared.less.notify_all();
        state.failed.clone().map_or(Ok(()), Err)
    }
}

impl Drop for Gather {
    /// What is not complete is given up.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.more.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().expect("a writer does not panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Files = Arc<Mutex<[Vec<u8>; 2]>>;

    /// A disk of two files that are written to in pieces.
    fn disk() -> (Files, Arc<Write>) {
        let files = Arc::new(Mutex::new([vec![0; 5 * RUN + 123], vec![0; 3 * RUN]]));
        let written = files.clone();
        let write = move |file: usize, bytes: &[u8], offset: u64| {
            assert_eq!((bytes.as_ptr() as usize) % PAGE, offset as usize % PAGE, "what a disk may read as it is");
            written.lock().unwrap()[file][offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        (files, Arc::new(write))
    }

    #[test]
    fn every_byte_arrives_in_whatever_order_it_comes() {
        let (files, write) = disk();
        let wanted: Vec<Vec<u8>> =
            files.lock().unwrap().iter().map(|file| (0..file.len()).map(|i| (i * 7 % 251) as u8).collect()).collect();
        let gather = Gather::new(write);
        // Pieces of awkward lengths, several threads, and someone who waits for all of it in between.
        let mut pieces = Vec::new();
        for (file, bytes) in wanted.iter().enumerate() {
            let mut at = 0;
            for length in [1, 4095, 4096, 65_536, 100_003, RUN, RUN + 1].into_iter().cycle() {
                let end = (at + length).min(bytes.len());
                pieces.push((file, at, end));
                at = end;
                if at == bytes.len() {
                    break;
                }
            }
        }
        let count = pieces.len();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (pieces, gather, wanted) = (&pieces, &gather, &wanted);
                scope.spawn(move || {
                    for number in (thread..count).step_by(3) {
                        let (file, begin, end) = pieces[number * 17 % count];
                        gather.add(file, &wanted[file][begin..end], begin as u64).unwrap();
                        if number % 11 == 0 {
                            gather.settle().unwrap();
                        }
                    }
                });
            }
        });
        assert!(count % 17 != 0, "every piece has its turn");
        gather.settle().unwrap();
        assert!(*files.lock().unwrap() == wanted[..]);
    }

    #[test]
    fn more_unfinished_runs_than_there_is_room_for() {
        let (sizes, seen) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (total, written) = (sizes.clone(), seen.clone());
        let gather = Gather::new(Arc::new(move |file, bytes: &[u8], offset| {
            *total.lock().unwrap() += bytes.len();
            written.lock().unwrap().push((file, offset));
            Ok(())
        }));
        for run in 0..50_u64 {
            gather.add(0, &[1; 10], run * RUN as u64 + 5).unwrap();
        }
        for run in 0..50_u64 {
            gather.add(0, &[1; 10], run * RUN as u64 + 5000).unwrap();
        }
        gather.settle().unwrap();
        assert_eq!((*sizes.lock().unwrap(), seen.lock().unwrap().len()), (1000, 100));
    }

    #[test]
    fn of_what_is_written_twice_the_last_stays() {
        let (files, write) = disk();
        let slow = move |file: usize, bytes: &[u8], offset: u64| {
            // The first takes longer than those that come after it.
            std::thread::sleep(std::time::Duration::from_millis(if bytes[0] == 1 { 20 } else { 0 }));
            write(file, bytes, offset)
        };
        let gather = Gather::new(Arc::new(slow));
        for value in 1..=3 {
            gather.add(0, &vec![value; 2 * RUN], 0).unwrap();
        }
        gather.settle().unwrap();
        assert!(files.lock().unwrap()[0][..2 * RUN].iter().all(|byte| *byte == 3));
    }

    #[test]
    fn a_failure_reaches_everyone_who_comes_later() {
        let gather = Gather::new(Arc::new(|_, _: &[u8], offset| match offset {
            0 => Err(Error::output("the disk is broken")),
            _ => Ok(()),
        }));
        gather.add(0, &[0; RUN], 0).unwrap();
        let of = |done: Result<()>| done.unwrap_err().to_string();
        assert_eq!(of(gather.settle()), "the disk is broken");
        assert_eq!(of(gather.add(0, &[0; 8], 8)), "the disk is broken");
        assert_eq!(of(gather.settle()), "the disk is broken");
    }

    #[test]
    fn nobody_waits_for_a_writer_that_panicked() {
        let gather = Gather::new(Arc::new(|_, _: &[u8], offset| match offset {
            0 => panic!("on purpose"),
            _ => Ok(()),
        }));
        for run in 0..2 * MOST as u64 {
            let _ = gather.add(0, &[0; RUN], run * RUN as u64);
        }
        assert!(gather.settle().unwrap_err().to_string().contains("panic"));
    }
}
