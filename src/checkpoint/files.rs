//! Files at the level of the operating system: regular ones only, positioned reads and writes, few open at a time.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::faults::{Operation, pass};
use super::text;
use crate::error::{Error, Result};

/// What shows that a file is still the one that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) len: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    id: Identity,
    #[cfg(unix)]
    touched: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            id: unix_identity(metadata),
            #[cfg(unix)]
            touched: unix_touched(metadata),
        }
    }

    /// Checks that the file at `path` is still the one that was opened.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let metadata = fs::metadata(path).map_err(|e| text::cannot_read(path, &e))?;
        if Self::of(&metadata) == *self { Ok(()) } else { Err(changed(path)) }
    }

    /// Seconds since 1970 at which it was changed, as far as the file system knows.
    pub(super) fn changed(&self) -> String {
        let since = self.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.map_or("unknown".to_owned(), |since| format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
    }

    /// The same of its entry in the file system, which no program can set back; the time of [`changed`](Self::changed)
    /// where there is none.
    pub(super) fn touched(&self) -> String {
        #[cfg(unix)]
        return format!("{}.{:09}", self.touched.0, self.touched.1);
        #[cfg(not(unix))]
        self.changed()
    }
}

/// The error of a file that is another than was opened.
pub(super) fn changed(path: &Path) -> Error {
    Error::input(format!("`{}` has changed since it was opened", text::path(path)))
        .hint("wait until nothing writes to it any more, then run this again")
}

/// What two paths to one file or folder have in common.
#[cfg(unix)]
pub(super) type Identity = (u64, u64);
/// What two paths to one file or folder have in common.
#[cfg(not(unix))]
pub(super) type Identity = std::path::PathBuf;

#[cfg(unix)]
fn unix_touched(metadata: &Metadata) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(unix)]
fn unix_identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Identity of what `path` leads to.
pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    #[cfg(unix)]
    return fs::metadata(path).map(|metadata| unix_identity(&metadata));
    #[cfg(not(unix))]
    fs::canonicalize(path)
}

/// Opens a regular file for reading. Everything else is refused before it is opened: a pipe would wait for ever.
pub(super) fn open_regular(path: &Path) -> Result<(File, Stamp)> {
    let regular = |metadata: Metadata| match metadata.is_file() {
        true => Ok(metadata),
        false => {
            let what = if metadata.is_dir() { "a folder" } else { "a pipe, a socket or a device" };
            Err(Error::input(format!("`{}` is {what}, not a file", text::path(path))))
        }
    };
    pass(path, &Operation::Open).map_err(|e| text::cannot_read(path, &e))?;
    regular(fs::metadata(path).map_err(|e| text::cannot_read(path, &e))?)?;
    let file = File::open(path).map_err(|e| text::cannot_read(path, &e))?;
    // Once more on what was opened, in case the path was exchanged in between.
    let metadata = regular(file.metadata().map_err(|e| text::cannot_read(path, &e))?)?;
    Ok((file, Stamp::of(&metadata)))
}

/// Opens a regular file for reading, for who needs its length but not its stamp.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64)> {
    open_regular(path).map(|(file, stamp)| (file, stamp.len))
}

/// The whole of a small file, refused if it is longer than `most` bytes.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, stamp) = open_regular(path)?;
    if stamp.len > most {
        let (len, most) = (text::size(stamp.len), text::size(most));
        return Err(Error::input(format!("`{}` is {len} long, more than the {most} expected", text::path(path))));
    }
    let mut bytes = Vec::new();
    // The limit holds even if the file grows, or if it lies about its length as those of /proc do.
    io::Read::read_to_end(&mut io::Read::take(file, most), &mut bytes).map_err(|e| text::cannot_read(path, &e))?;
    Ok(bytes)
}

/// Fills `buf` with a piece of the input at `path`, as [`read_exact_at`].
pub(super) fn read_piece(file: &File, path: &Path, buf: &mut [u8], offset: u64) -> io::Result<()> {
    pass(path, &Operation::Read)?;
    read_exact_at(file, buf, offset)
}

/// Fills `buf` from `offset`, without moving a cursor that other threads share.
pub(super) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, buf, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buf.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Writes all of `bytes` at `offset`.
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            match std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Open files, the most recently used last. A model may have more shards than a process may have open files (256 on
/// macOS), so each model keeps a few open and opens the others again when they are asked for.
#[derive(Debug)]
pub(super) struct Handles<T = File>(Mutex<Vec<(usize, Arc<T>)>>);

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Handles<T> {
    /// Most files kept open. Files still in use by other threads are closed when these are done.
    const MOST: usize = 16;

    /// File number `key`, opened by `open` if it is not at hand.
    pub(super) fn get(&self, key: usize, open: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match files.iter().position(|(known, _)| *known == key) {
            Some(at) => files.remove(at),
            None => (key, Arc::new(open()?)),
        };
        if files.len() >= Self::MOST {
            files.remove(0);
        }
        let file = entry.1.clone();
        files.push(entry);
        Ok(file)
    }

    /// Closes all.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
