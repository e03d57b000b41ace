//! One file that a command is told to write: all of it or nothing, and never in the place of what should stay.

use std::path::Path;

use super::inputs::folder_of;
use super::output::{refuse_link, refuse_no_file};
use super::parts::put;
use super::text;
use crate::error::{Error, Result};

/// Finds what speaks against a file at `path`, before the work that it will hold the result of. Nothing is made there.
///
/// # Errors
/// A link, what is no file, a file without `overwrite`, a folder that is not there or takes no file.
pub fn check(path: &Path, overwrite: bool) -> Result<()> {
    if path.file_name().is_none() {
        return Err(Error::usage(format!("`{}` is not the name of a file", text::path(path))));
    }
    refuse_link(path)?;
    refuse_no_file(path)?;
    if path.exists() && !overwrite {
        return Err(Error::output(format!("`{}` is there already", text::path(path)))
            .hint("replace it with `--overwrite`, or name another file"));
    }
    let probe = tempfile::Builder::new().prefix(".put-").tempfile_in(folder_of(path));
    let failed = |e| text::cannot_write(path, 0, &e).hint("the output is a file, in a folder that is there");
    probe.map(drop).map_err(failed)
}

/// Writes `bytes` beside `path`, syncs them, and gives them that name.
///
/// # Errors
/// As [`check`], a failed write.
pub fn write(path: &Path, overwrite: bool, bytes: &[u8]) -> Result<()> {
    check(path, overwrite)?;
    put(folder_of(path), path.file_name().unwrap_or_default(), bytes)
}
