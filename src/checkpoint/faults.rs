//! Where tests let the n-th operation on files fail, or the process end in the middle of it.
//!
//! Whatever is done to the files of an output, and every read of an input, passes `pass` first. Nothing watches
//! unless the environment says so when the first file is opened:
//!
//! `MAGIC_TEST_FAULT=kill@N` ends the process at operation N, in the middle of it if it is a write; `eio@N` lets it
//! fail; `enospc@N` lets it and everything after it that takes space fail; `pause@N:FILE` waits before read N until
//! FILE, which it makes, is gone. `MAGIC_TEST_COMMIT` is `often` or `at-once`, see `Commits`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::files::write_all_at;

/// What is about to be done to the file or folder at a path.
#[derive(Debug)]
pub enum Operation<'a> {
    /// Opening an input.
    Open,
    /// Reading a piece of an input.
    Read,
    /// Making a file that was not there.
    Create,
    /// Setting the length of a file.
    SetLength(u64),
    /// Writing.
    Write {
        /// The open file.
        file: &'a File,
        /// Where.
        offset: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// Making what was written to a file last.
    Sync,
    /// Giving a file another name.
    Rename(&'a Path),
    /// Removing a file.
    Remove,
    /// Making a folder.
    MakeFolder,
    /// Removing a folder.
    RemoveFolder,
    /// Making changes of names in a folder last.
    SyncFolder,
}

/// Looks at an operation before it is done; an error stands in its place.
pub type Hook = Box<dyn Fn(&Path, &Operation<'_>) -> io::Result<()> + Send + Sync>;

static HOOK: OnceLock<Option<Hook>> = OnceLock::new();

/// Asks whoever watches.
pub(super) fn pass(path: &Path, operation: &Operation<'_>) -> io::Result<()> {
    match HOOK.get_or_init(from_environment) {
        None => Ok(()),
        Some(hook) => hook(path, operation),
    }
}

/// Lets `hook` watch this process; false if something was opened before.
pub fn watch(hook: Hook) -> bool {
    HOOK.set(Some(hook)).is_ok()
}

/// When tensors that are complete are recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Commits {
    /// From time to time, on a thread of its own.
    Usual,
    /// The same without a pause.
    Often,
    /// Each at once, on the thread that wrote it: operations then have an order.
    AtOnce,
}

/// When this process records.
pub(super) fn commits() -> Commits {
    static COMMITS: OnceLock<Commits> = OnceLock::new();
    *COMMITS.get_or_init(|| match std::env::var("MAGIC_TEST_COMMIT").as_deref() {
        Ok("often") => Commits::Often,
        Ok("at-once") => Commits::AtOnce,
        _ => Commits::Usual,
    })
}

fn from_environment() -> Option<Hook> {
    let fault = std::env::var("MAGIC_TEST_FAULT").ok()?;
    let (kind, at) = fault.split_once('@')?;
    let (at, file) = at.split_once(':').unwrap_or((at, ""));
    let (kind, at, file) = (kind.to_owned(), at.parse::<u64>().ok()?, PathBuf::from(file));
    let count = AtomicU64::new(0);
    Some(Box::new(move |_, operation| {
        if kind == "pause" && !matches!(operation, Operation::Read) {
            return Ok(());
        }
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        match kind.as_str() {
            "kill" if number == at => {
                half(operation);
                std::process::abort()
            }
            "eio" if number == at => {
                half(operation);
                Err(io::Error::other("injected fault"))
            }
            "enospc" if number >= at && takes_space(operation) => {
                half(operation);
                Err(io::ErrorKind::StorageFull.into())
            }
            "pause" if number == at => {
                File::create(&file)?;
                while file.exists() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }))
}

fn takes_space(operation: &Operation<'_>) -> bool {
    use Operation::{Create, MakeFolder, SetLength, Sync, Write};
    matches!(operation, Create | SetLength(_) | Write { .. } | Sync | MakeFolder)
}

/// A write that fails may have written something.
fn half(operation: &Operation<'_>) {
    if let Operation::Write { file, offset, bytes } = operation {
        let _ = write_all_at(file, &bytes[..bytes.len() / 2], *offset);
    }
}
