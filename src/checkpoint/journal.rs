//! The journal of a merge that is under way: which tensors lie safely on the disk, so that another run need not
//! compute them again.
//!
//! Each line is a JSON object with an entry and the first half of its SHA-256, taken over the sum of the line before
//! too: no line can be torn, lost or put elsewhere unseen. A last line that does not fit was not finished, and does
//! not count; any other is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::sha256;
use super::disk::{self, OutFile};
use super::files::read_small;
use super::text::{self, shown};
use crate::error::{Error, Result};
use crate::figures;

/// Name of the file.
pub(super) const JOURNAL: &str = ".magic.journal";
/// Name and version of the format.
const SCHEMA: &str = "magic-journal/1";
/// Longest journal that is read: a million tensors and more.
const MOST: u64 = 1 << 30;
/// What makes a journal useless, and what to do then.
const AGAIN: &str = "start again with `--overwrite` (without `--resume`), or choose another output folder";

/// Everything that decides the bytes of an output, by name.
pub type Fingerprint = BTreeMap<String, String>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Entry {
    /// The first line.
    Merge {
        schema: String,
        /// Whether it may replace what is in the folder.
        overwrite: bool,
        fingerprint: Fingerprint,
    },
    /// A tensor whose bytes are safe, and what was said of it.
    Tensor { name: String, report: Value },
    /// All are safe: files get their final names from here on.
    Commit,
}

/// A tensor whose bytes are in its file, and what is to be said of it.
pub(crate) type Record = (String, Value);

/// What a journal says.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) overwrite: bool,
    pub(super) tensors: Vec<Record>,
    /// Whether files may have their final names already.
    pub(super) committing: bool,
    fingerprint: Fingerprint,
    end: u64,
    sum: String,
}

/// Reads the journal of `dir`; `None` if there is none, or nothing in it that would be worth keeping.
///
/// # Errors
/// A file that is no journal of this program's, or is damaged.
pub(super) fn read(dir: &Path) -> Result<Option<Found>> {
    let path = dir.join(JOURNAL);
    if !path.exists() {
        return Ok(None);
    }
    scan(&read_small(&path, MOST)?, &text::path(&path))
}

/// What `bytes` of the journal `at` say.
pub(super) fn scan(bytes: &[u8], at: &str) -> Result<Option<Found>> {
    let mut found: Option<Found> = None;
    let (mut sum, mut end) = (String::new(), 0);
    // Where the power failed, what was not synced reads as zeros, which no line holds.
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let last = lines.peek().is_none();
        let Some((entry, next)) = parse(line, &sum) else {
            if last && number > 0 {
                break;
            }
            // The first line alone, cut off: the merge ended before anything was safe.
            if last && !line.ends_with(b"\n") {
                return Ok(None);
            }
            let what = format!("`{at}` is damaged in line {}: it cannot be told what of the merge is safe", number + 1);
            return Err(Error::output(what).hint(AGAIN));
        };
        match (entry, &mut found) {
            (Entry::Merge { schema, overwrite, fingerprint }, None) if schema == SCHEMA => {
                let (tensors, sum) = (Vec::new(), String::new());
                found = Some(Found { overwrite, tensors, committing: false, fingerprint, end: 0, sum });
            }
            (Entry::Tensor { name, report }, Some(found)) => found.tensors.push((name, report)),
            (Entry::Commit, Some(found)) => found.committing = true,
            _ => {
                let what = format!("`{at}` was written by another version of this program");
                return Err(Error::output(what).hint(AGAIN));
            }
        }
        (sum, end) = (next, end + line.len() as u64);
    }
    let found = found.filter(|found| found.committing || !found.tensors.is_empty());
    Ok(found.map(|found| Found { end, sum, ..found }))
}

/// How many tensors an unfinished merge in `dir` has recorded, if there is one.
pub(crate) fn recorded(dir: &Path) -> Option<usize> {
    read(dir).ok().flatten().map(|found| found.tensors.len())
}

impl Found {
    /// Checks that it is of the merge of this `fingerprint`.
    pub(super) fn check(&self, dir: &Path, fingerprint: &Fingerprint) -> Result<()> {
        match difference(&self.fingerprint, fingerprint) {
            None => Ok(()),
            Some(what) => {
                let what = format!("the unfinished merge in `{}` is another: {what}", text::path(dir));
                Err(Error::output(what).hint("to go on with it, run it as it was before").hint(AGAIN))
            }
        }
    }

    /// The error of whoever does not say what is to become of it.
    pub(super) fn refuse(&self, dir: &Path) -> Error {
        let count = self.tensors.len();
        let done = figures::plural(count, "tensor");
        let what = format!(
            "`{}` holds an unfinished merge, of which {done} {} done",
            text::path(dir),
            if count == 1 { "is" } else { "are" }
        );
        Error::output(what)
            .hint("go on with it: the command that began it, and `--resume`")
            .hint("or start again: `--overwrite`, without `--resume`")
    }
}

/// Name in a fingerprint of where each tensor lies in which file.
pub(crate) const LAYOUT: &str = "layout";

/// The first thing in which two merges differ.
pub(crate) fn difference(old: &Fingerprint, new: &Fingerprint) -> Option<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut differing = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    // Whatever else differs may have changed the layout.
    let first = differing.next()?;
    let key = if first == LAYOUT { differing.next().unwrap_or(first) } else { first };
    let name = match key.as_str() {
        LAYOUT => "division into files (--shard-size)".to_owned(),
        _ if key.starts_with('`') => key.replace('`', ""),
        _ => key.clone(),
    };
    Some(match (old.get(key), new.get(key)) {
        (Some(old), Some(new)) => {
            // Of a text of many lines, the first that differs.
            let (mut old, mut new) = (old.lines(), new.lines());
            let pair = std::iter::repeat_with(|| (old.next(), new.next())).find(|(old, new)| old != new);
            let side = |line: Option<&str>| line.map_or("nothing".into(), |line| format!("`{}`", shown(line.trim())));
            let (old, new) = pair.expect("they differ");
            format!("its {} differs: {} before, {} now", shown(&name), side(old), side(new))
        }
        (Some(_), None) => format!("it had {}, and now there is none", shown(&name)),
        (None, _) => format!("it had no {}", shown(&name)),
    })
}

/// The entry of a line, and the line's sum; `None` if it is not whole.
fn parse(line: &[u8], before: &str) -> Option<(Entry, String)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("}\n")?.strip_prefix(r#"{"sum":""#)?;
    let (sum, entry) = line.split_once(r#"","entry":"#)?;
    if sum != sum_of(before, entry) {
        return None;
    }
    Some((serde_json::from_str(entry).ok()?, sum.to_owned()))
}

fn sum_of(before: &str, entry: &str) -> String {
    let mut sum = sha256(format!("{before}{entry}"));
    sum.truncate(32);
    sum
}

/// A journal that is being written. The file is made with the first line.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Folders in which this output is a new name, to be made lasting before anything is recorded.
    folders: Vec<PathBuf>,
    first: Option<Entry>,
    file: Option<OutFile>,
    end: u64,
    sum: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Merge { .. } => "Merge",
            Self::Tensor { .. } => "Tensor",
            Self::Commit => "Commit",
        })
    }
}

impl Journal {
    /// That of a new merge in `dir`, the last of `folders`.
    pub(super) fn new(folders: Vec<PathBuf>, dir: &Path, overwrite: bool, fingerprint: Fingerprint) -> Self {
        let first = Entry::Merge { schema: SCHEMA.to_owned(), overwrite, fingerprint };
        Self { path: dir.join(JOURNAL), folders, first: Some(first), file: None, end: 0, sum: String::new() }
    }

    /// That of a merge that goes on: what was not finished of it is written over.
    pub(super) fn again(folders: Vec<PathBuf>, dir: &Path, found: &Found) -> Result<Self> {
        let path = dir.join(JOURNAL);
        let cut = OutFile::open(path.clone()).and_then(|file| file.set_len(found.end).map(|()| file));
        let file = Some(cut.map_err(|e| text::cannot_write(&path, 0, &e))?);
        Ok(Self { path, folders, first: None, file, end: found.end, sum: found.sum.clone() })
    }

    /// Records tensors whose bytes are safe, and at the end that all are.
    ///
    /// # Errors
    /// A failed write. What was recorded before stays so.
    pub(super) fn append(&mut self, records: Vec<Record>, commit: bool) -> Result<()> {
        let mut text = String::new();
        let tensors = records.into_iter().map(|(name, report)| Entry::Tensor { name, report });
        for entry in self.first.take().into_iter().chain(tensors).chain(commit.then_some(Entry::Commit)) {
            let entry = serde_json::to_string(&entry).expect("an entry is plain data");
            self.sum = sum_of(&self.sum, &entry);
            text += &format!("{{\"sum\":\"{}\",\"entry\":{entry}}}\n", self.sum);
        }
        self.write(text.as_bytes()).map_err(|e| text::cannot_write(&self.path, text.len() as u64, &e))?;
        self.end += text.len() as u64;
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            self.file = Some(OutFile::create(self.path.clone())?);
        }
        let file = self.file.as_ref().expect("it was made");
        // The names of the shards and of the journal itself, before a line says that they are there.
        self.folders.drain(..).try_for_each(|dir| disk::sync_dir(&dir))?;
        file.write_at(text, self.end)?;
        file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_by_what_changes_it() {
        let print = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let old: Fingerprint = print(&[("layout", "1 file, a"), ("recipe", "x: 1\ny: 2"), ("seed", "0")]);
        let said = |new: &[(&str, &str)]| difference(&old, &print(new)).unwrap();
        let cut = said(&[("layout", "2 files, b"), ("recipe", "x: 1\ny: 2"), ("seed", "0")]);
        assert_eq!(cut, "its division into files (--shard-size) differs: `1 file, a` before, `2 files, b` now");
        let other = said(&[("layout", "2 files, b"), ("recipe", "x: 1\ny: 3"), ("seed", "0")]);
        assert_eq!(other, "its recipe differs: `y: 2` before, `y: 3` now");
        assert_eq!(difference(&old, &old), None);
    }

    fn journal() -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let print = Fingerprint::from([("recipe".to_owned(), "a\nb".to_owned())]);
        let mut journal = Journal::new(Vec::new(), dir.path(), false, print);
        let record = |i: u64| (format!("tensor {i}\n"), Value::from(f64::from_bits(i).to_bits()));
        journal.append(vec![record(0)], false).unwrap();
        journal.append(vec![record(u64::MAX), record(2)], false).unwrap();
        let bytes = std::fs::read(dir.path().join(JOURNAL)).unwrap();
        (dir, bytes)
    }

    #[test]
    fn a_torn_end_does_not_count_and_anything_else_is_an_error() {
        let (dir, bytes) = journal();
        let lines: Vec<usize> = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
        let put = |bytes: &[u8]| std::fs::write(dir.path().join(JOURNAL), bytes).unwrap();
        let count = || read(dir.path()).map(|found| found.map_or(0, |found| found.tensors.len()));
        assert_eq!(lines.len(), 4);
        for cut in 0..=bytes.len() {
            put(&bytes[..cut]);
            let whole = lines.iter().filter(|end| **end <= cut).count();
            assert_eq!(count().unwrap(), whole.saturating_sub(1), "{cut} bytes");
        }
        for (at, byte) in bytes.iter().enumerate() {
            let mut bad = bytes.clone();
            bad[at] = byte ^ 1;
            put(&bad);
            match count() {
                // Without its end, the line before the last is one with the last, which does not count.
                Ok(kept) => {
                    assert!(kept == 2 && at >= lines[2] || kept == 1 && at + 1 == lines[2], "{kept}: byte {at}")
                }
                Err(error) => assert!(error.to_string().contains("damaged") && at < lines[2], "byte {at}: {error}"),
            }
        }
        // A line that is missing, one too many, and one of another version.
        put(&[&bytes[..lines[0]], &bytes[lines[1]..]].concat());
        assert!(count().is_err());
        put(&[&bytes[..lines[1]], &bytes[lines[0]..]].concat());
        assert!(count().is_err());
        put(b"{}\n{}\n");
        assert!(count().is_err());
        std::fs::remove_file(dir.path().join(JOURNAL)).unwrap();
        assert!(read(dir.path()).unwrap().is_none());
    }

    #[test]
    fn it_goes_on_where_it_ended() {
        let (dir, bytes) = journal();
        std::fs::write(dir.path().join(JOURNAL), [&bytes[..], b"{\"sum\":\"torn"].concat()).unwrap();
        let found = read(dir.path()).unwrap().unwrap();
        assert_eq!(found.tensors[1], ("tensor 18446744073709551615\n".into(), Value::from(u64::MAX)));
        let mut journal = Journal::again(Vec::new(), dir.path(), &found).unwrap();
        journal.append(vec![("more".into(), Value::Null)], true).unwrap();
        let found = read(dir.path()).unwrap().unwrap();
        assert!(found.committing && found.tensors.len() == 4);
        let print = |text: &str| Fingerprint::from([("recipe".to_owned(), text.to_owned())]);
        found.check(dir.path(), &print("a\nb")).unwrap();
        let error = found.check(dir.path(), &print("a\nc")).unwrap_err().to_string();
        assert!(error.contains("its recipe differs: `b` before, `c` now"), "{error}");
        assert!(found.check(dir.path(), &Fingerprint::new()).is_err());
    }
}
