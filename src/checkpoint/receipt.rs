//! The folder of a finished output, and whether its files are those that its receipt lists.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::{Step, file_sha256};
use super::files::{open_regular, read_small};
use super::folder::Folder;
use super::header::MAX_HEADER;
use super::index::plain_name;
use super::journal::JOURNAL;
use super::layout::describe;
use super::output::{self, LOCK, MAX_RECEIPT, RECEIPT, REPORT, SCORES, is_leftover, names, refuse_busy, temporary};
use super::text::{self, shown};
use crate::error::{Error, Kind, Result};

/// How long what is said about a merge waits for whoever else writes into its folder.
const PATIENCE: Duration = Duration::from_secs(10);

/// A file as a receipt lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name, without its folder.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal digits; absent if it was not taken.
    pub sha256: Option<String>,
}

/// A folder with the receipt of an output that was finished.
#[derive(Debug)]
pub(crate) struct Finished {
    folder: Folder,
    /// The receipt.
    pub(crate) receipt: Value,
    /// Its text.
    pub(crate) text: String,
}

/// Makes what is said about the merge in `dir` this run's to change, as long as what is returned lives: waits for others
/// that do so, and for a merge that writes there. The lock is the folder's own, which leaves nothing behind; where a folder
/// cannot be locked, nobody is kept out.
///
/// # Errors
/// They take longer than ten seconds.
pub(crate) fn alone(dir: &Path) -> Result<Option<File>> {
    let until = Instant::now() + PATIENCE;
    let folder = dir.is_dir().then(|| File::open(dir).ok()).flatten();
    loop {
        let held = folder.as_ref().is_some_and(|folder| matches!(folder.try_lock(), Err(TryLockError::WouldBlock)));
        if !held && (!dir.join(LOCK).is_file() || refuse_busy(dir).is_ok()) {
            return Ok(folder);
        }
        if Instant::now() > until {
            let what = format!("another run is still writing into `{}`", text::path(dir));
            return Err(Error::output(what).hint("wait for it, and do this again"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Finished {
    /// Reads the receipt in `dir`.
    ///
    /// # Errors
    /// No folder, no receipt or none that can be read, an output that is not finished or is being written.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let at = text::path(dir);
        if !dir.is_dir() {
            return Err(Error::no_folder(dir).hint("name the output folder of a merge"));
        }
        refuse_busy(dir)?;
        let folder = Folder::open(dir.to_owned())?;
        let names = names(dir)?;
        // What is said about it may be written anew at any time: what was left of that says nothing of the merge.
        let leftover = |name: &String| is_leftover(name) && ![REPORT, SCORES].map(temporary).contains(name);
        let killed = |name: &String| name == LOCK && !names.iter().any(|name| name == RECEIPT);
        if names.iter().any(|name| name == JOURNAL || leftover(name) || killed(name)) {
            return Err(Error::input(format!("the merge in `{at}` is not finished"))
                .hint("to go on with it: the command that began it, and `--resume`"));
        }
        let Some(path) = folder.file(RECEIPT)? else {
            return Err(Error::input(format!("`{at}` holds no finished merge: there is no `{RECEIPT}`"))
                .hint("name the folder that `magic merge` or `magic calibrate` wrote"));
        };
        let bytes = read_small(&path, MAX_RECEIPT)?;
        let damaged = |what: String| {
            Error::input(format!("`{}` is damaged: {}", text::path(&path), shown(&what)))
                .hint("without it nobody knows what the merge was made from: make it again")
        };
        let text = String::from_utf8(bytes).map_err(|e| damaged(e.to_string()))?;
        let receipt = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        Ok(Self { folder, receipt, text })
    }

    /// Whether there is a file `name`, of whatever kind.
    pub(crate) fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.folder.path.join(name)).is_ok()
    }

    /// What is to be said of files in the folder that are not among those `listed`.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(crate) fn strangers(&self, listed: &HashSet<&str>) -> Result<Option<String>> {
        output::strangers(&self.folder.path, |name| [RECEIPT, REPORT].contains(&name) || listed.contains(name))
    }

    /// What is wrong with the file of `record`, if anything is.
    ///
    /// # Errors
    /// Those of `step`.
    pub(crate) fn check(&self, record: &FileRecord, step: Step<'_>) -> Result<Option<String>> {
        let name = shown(&record.file);
        if let Err(why) = plain_name(&record.file) {
            return Ok(Some(format!("the receipt lists a file `{name}` that {why}")));
        }
        match self.folder.file(&record.file) {
            Ok(Some(path)) => check_file(&path, &name, record.bytes, record.sha256.as_deref(), step),
            Ok(None) => Ok(Some(format!("`{name}` is missing"))),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// The text of file `name`, if it is there.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let path = self.folder.file(name).ok().flatten()?;
        String::from_utf8(read_small(&path, MAX_RECEIPT).ok()?).ok()
    }

    /// Writes file `name` about it anew, all of it or nothing.
    ///
    /// # Errors
    /// A merge that writes into the folder, a link or no file in its place, a failed write.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        output::replace(&self.folder.path, name, bytes)
    }

    /// Where everything lies in the files `shards`, in the words of a [`Layout`](super::Layout); `None` if a header cannot
    /// be read.
    pub(crate) fn describe<'a>(&self, shards: impl Iterator<Item = &'a str>) -> Option<String> {
        let mut headers = Vec::new();
        let mut count = 0;
        for name in shards {
            let (file, _) = open_regular(&self.folder.file(name).ok().flatten()?).ok()?;
            let mut length = [0; 8];
            (&file).read_exact(&mut length).ok()?;
            let length_of_text = Some(u64::from_le_bytes(length)).filter(|length| *length <= MAX_HEADER)?;
            headers.extend(length);
            (&file).take(length_of_text).read_to_end(&mut headers).ok()?;
            count += 1;
        }
        Some(describe(count, headers))
    }
}

/// What is wrong with the file at `path`, which is to be called `name`, if anything is.
///
/// # Errors
/// Those of `step`.
pub(crate) fn check_file(
    path: &Path,
    name: &str,
    bytes: u64,
    sha256: Option<&str>,
    step: Step<'_>,
) -> Result<Option<String>> {
    let found = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Some(format!("`{name}` is missing"))),
        Err(e) => return Ok(Some(text::cannot_read(path, &e).to_string())),
    };
    if found != bytes {
        return Ok(Some(format!("`{name}` has {found} bytes, and {bytes} were recorded")));
    }
    let Some(recorded) = sha256 else { return Ok(None) };
    match file_sha256(path, step) {
        Ok(found) if found == recorded => Ok(None),
        Ok(found) => {
            // As much of them as tells them apart.
            let [found, recorded] = [&found, recorded].map(|sha256| shown(sha256.get(..16).unwrap_or(sha256)));
            Ok(Some(format!("`{name}` has the SHA-256 {found}…, and {recorded}… was recorded")))
        }
        Err(error) if error.kind() == Kind::Interrupted => Err(error),
        Err(error) => Ok(Some(error.to_string())),
    }
}
