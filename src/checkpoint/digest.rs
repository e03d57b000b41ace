//! SHA-256 of files, for the record of what went into a merge and what came of it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::faults::{Operation, pass};
use super::files::{changed, open_regular};
use super::reader::{Checkpoint, Part, TensorInfo};
use super::text;
use crate::error::Result;

/// Told the size of each piece that is done; its error ends the work.
pub(crate) type Step<'a> = &'a (dyn Fn(u64) -> Result<()> + Sync);

/// What was read of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// Name of the file, without its folder.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal digits.
    pub sha256: String,
}

#[doc(hidden)]
impl Checkpoint {
    /// SHA-256 of every file with tensors.
    ///
    /// # Errors
    /// A file that cannot be read or has changed since it was opened.
    pub fn digests(&self) -> Result<Vec<FileDigest>> {
        self.digests_with(&|_| Ok(()))
    }

    /// As [`digests`](Self::digests); `step` is told the size of each piece that is done, and ends the work with an
    /// error.
    ///
    /// # Errors
    /// As [`digests`](Self::digests), and those of `step`.
    pub fn digests_with(&self, step: Step<'_>) -> Result<Vec<FileDigest>> {
        self.parts.par_iter().map(|part| digest(part, step)).collect()
    }
}

fn digest(part: &Part, step: Step<'_>) -> Result<FileDigest> {
    let sha256 = hash(part.reopen()?, &part.path, part.stamp.len, step)?;
    let file = part.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(FileDigest { file, bytes: part.stamp.len, sha256 })
}

/// SHA-256 of the file at `path`.
///
/// # Errors
/// What is no file or cannot be read, and those of `step`.
pub(super) fn file_sha256(path: &Path, step: Step<'_>) -> Result<String> {
    let (file, stamp) = open_regular(path)?;
    hash(file, path, stamp.len, step)
}

fn hash(mut file: File, path: &Path, len: u64, step: Step<'_>) -> Result<String> {
    let mut piece = vec![0; 1 << 20];
    let mut hash = Sha256::new();
    let mut bytes = 0;
    loop {
        match pass(path, &Operation::Read).and_then(|()| file.read(&mut piece)) {
            Ok(0) => break,
            Ok(n) => {
                hash.update(&piece[..n]);
                bytes += n as u64;
                step(n as u64)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(text::cannot_read(path, &e)),
        }
    }
    if bytes == len { Ok(hex(&hash.finalize())) } else { Err(changed(path)) }
}

impl Checkpoint {
    /// What shows that its files are still the same in another run: for each file that it is read from, the model and
    /// the file, and its size, its time of change and a digest of what its header says.
    pub(crate) fn stamps(&self) -> Vec<(String, String)> {
        let below = self.read_from().into_iter().flat_map(Self::stamps);
        let own = self.parts.iter().enumerate().map(|(number, part)| {
            let name = part.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            let (len, changed, touched) = (part.stamp.len, part.stamp.changed(), part.stamp.touched());
            let header = self.header_digest(number);
            (
                format!("`{name}` of `{}`", self.name()),
                format!("{len} bytes, changed {changed}, its entry {touched}, header {header}"),
            )
        });
        own.chain(below).collect()
    }

    /// What shows that its own files are the same on another machine: path, size, and a digest of what the header says.
    pub(crate) fn contents(&self) -> Vec<(&Path, u64, String)> {
        let own = self.parts.iter().enumerate();
        own.map(|(number, part)| (&*part.path, part.stamp.len, self.header_digest(number))).collect()
    }

    /// A digest of what the header of file number `file` says.
    fn header_digest(&self, file: usize) -> String {
        let mut hash = Sha256::new();
        for tensor in self.tensors().iter().filter(|tensor| tensor.file == file) {
            let TensorInfo { name, dtype, shape, offset, bytes, .. } = tensor;
            hash.update(format!("{name}\0{} {shape:?} {offset} {bytes}\n", dtype.header_name()));
        }
        hex(&hash.finalize())[..16].to_owned()
    }
}

/// SHA-256 of `bytes` in lower-case hexadecimal digits.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
