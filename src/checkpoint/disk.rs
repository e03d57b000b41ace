//! All that an output does to the disk: each operation in one function, which asks [`faults`](super::faults) first.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::faults::{Operation, pass};
use super::files;

/// A file of an output, open for writing.
#[derive(Debug)]
pub(super) struct OutFile {
    file: File,
    path: PathBuf,
}

impl OutFile {
    /// Makes a file that must not be there.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        pass(&path, &Operation::Create)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }

    /// Opens a file that is there.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(&path)?;
        Ok(Self { file, path })
    }

    /// Sets its length.
    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        pass(&self.path, &Operation::SetLength(len))?;
        self.file.set_len(len)
    }

    /// Writes all of `bytes` at `offset`.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        pass(&self.path, &Operation::Write { file: &self.file, offset, bytes })?;
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
