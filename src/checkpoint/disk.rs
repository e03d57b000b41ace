//! All that an output does to the disk: each operation in one function, which asks [`faults`](super::faults) first.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::faults::{Operation, pass};
use super::files;

/// What the memory, the place and the length of a write past the page cache have to be multiples of.
pub(super) const PAGE: usize = 4096;

/// A file of an output, open for writing.
#[derive(Debug)]
pub(super) struct OutFile {
    file: File,
    /// The same file, to be written to past the page cache.
    direct: Option<File>,
    /// Held while it is written to through the cache: the system lets one in at a time, and others spin.
    turn: Mutex<()>,
    path: PathBuf,
}

impl OutFile {
    /// Makes a file that must not be there.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        pass(&path, &Operation::Create)?;
        Self::with(OpenOptions::new().write(true).create_new(true), path)
    }

    /// Opens a file that is there.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Self::with(OpenOptions::new().write(true), path)
    }

    fn with(options: &OpenOptions, path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: options.open(&path)?, direct: None, turn: Mutex::default(), path })
    }

    /// The same, whole pages written past the page cache, where the system and the file system can do that: what will
    /// be synced and not read soon is copied once less, and makes nothing else go.
    pub(super) fn past_the_cache(self) -> Self {
        Self { direct: open_direct(&self.path), ..self }
    }

    /// Sets its length.
    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        pass(&self.path, &Operation::SetLength(len))?;
        self.file.set_len(len)
    }

    /// The same, and sets aside the room for it, where the file system can.
    pub(super) fn allocate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, len);
        Ok(())
    }

    /// Writes all of `bytes` at `offset`.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        pass(&self.path, &Operation::Write { file: &self.file, offset, bytes })?;
        let Some(direct) = &self.direct else { return self.write_cached(bytes, offset) };
        let head = bytes.as_ptr().align_offset(PAGE).min(bytes.len());
        let pages = (bytes.len() - head) / PAGE * PAGE;
        if pages == 0 || !(offset + head as u64).is_multiple_of(PAGE as u64) {
            return self.write_cached(bytes, offset);
        }
        let (head, rest) = bytes.split_at(head);
        let (pages, tail) = rest.split_at(pages);
        let (at, end) = (offset + head.len() as u64, offset + (bytes.len() - tail.len()) as u64);
        self.write_cached(head, offset)?;
        self.write_cached(tail, end)?;
        match files::write_all_at(direct, pages, at) {
            // Some file systems open a file so and then refuse to write.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => self.write_cached(pages, at),
            done => done,
        }
    }

    fn write_cached(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        files::write_all_at(&self.file, bytes, offset)
    }

    /// Makes its bytes and its length last.
    pub(super) fn sync(&self) -> io::Result<()> {
        pass(&self.path, &Operation::Sync)?;
        self.file.sync_data()
    }

    /// The same with all that the system knows of it, before it gets its final name.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        pass(&self.path, &Operation::Sync)?;
        self.file.sync_all()
    }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> Option<File> {
    None
}

/// Gives a file another name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    pass(from, &Operation::Rename(to))?;
    fs::rename(from, to)
}

/// Removes a file.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    pass(path, &Operation::Remove)?;
    fs::remove_file(path)
}

/// Makes a folder.
pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    pass(path, &Operation::MakeFolder)?;
    fs::create_dir(path)
}

/// Makes a folder, and what is missing above it.
pub(super) fn create_dirs(path: &Path) -> io::Result<()> {
    pass(path, &Operation::MakeFolder)?;
    fs::create_dir_all(path)
}

/// Removes a folder with all that is in it.
pub(super) fn remove_dirs(path: &Path) -> io::Result<()> {
    pass(path, &Operation::RemoveFolder)?;
    fs::remove_dir_all(path)
}

/// Removes an empty folder.
pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
    pass(path, &Operation::RemoveFolder)?;
    fs::remove_dir(path)
}

/// Makes renames and removals in `dir` last; where a file system cannot, it has no need to.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    pass(dir, &Operation::SyncFolder)?;
    match File::open(dir)?.sync_all() {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_past_the_cache_is_in_the_file_with_all_around_it() {
        // Beside the tests' program: folders for temporary files are often in memory.
        let exe = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(exe.parent().unwrap()).unwrap();
        let path = folder.path().join("file");
        let wanted: Vec<u8> = (0..10 * PAGE + 77).map(|i| (i * 31 % 253) as u8).collect();
        let memory = vec![0; 12 * PAGE];
        let from = memory.as_ptr().align_offset(PAGE);
        for shift in [0, 1, 512] {
            let mut memory = memory.clone();
            let from = from + shift;
            memory[from..from + wanted.len()].copy_from_slice(&wanted);
            let file = OutFile::create(path.clone()).unwrap().past_the_cache();
            file.allocate(wanted.len() as u64).unwrap();
            let write = |begin: usize, end: usize| {
                file.write_at(&memory[from + begin..from + end], begin as u64).unwrap();
            };
            // Pages, what begins or ends within one, what is less than one; then all of it once more, over that.
            for (begin, end) in [(0, 3), (3, 2 * PAGE), (2 * PAGE, 5 * PAGE), (5 * PAGE, 7 * PAGE + 100)] {
                write(begin, end);
            }
            write(7 * PAGE + 100, wanted.len());
            assert!(std::fs::read(&path).unwrap() == wanted, "{shift}");
            write(0, 8 * PAGE);
            file.sync_all().unwrap();
            assert!(std::fs::read(&path).unwrap() == wanted, "{shift}");
            remove_file(&path).unwrap();
        }
    }
}
