//! The lines of a text file, one at a time: the file may be larger than memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::checkpoint::files::open_file;
use crate::checkpoint::text;
use crate::error::{Error, Result};

/// Longest line.
const LONGEST: u64 = 16 << 20;

/// A line and its number, counted from 1.
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) text: String,
}

/// The lines that are not blank.
pub(super) struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    number: usize,
    read: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let (file, _) = open_file(path)?;
        Ok(Self { path, reader: BufReader::with_capacity(1 << 16, file), number: 0, read: 0 })
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// The next line that is not blank, without its end; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Line>> {
        loop {
            let mut bytes = Vec::new();
            let taken = (&mut self.reader).take(LONGEST + 1).read_until(b'\n', &mut bytes);
            if taken.map_err(|e| text::cannot_read(self.path, &e))? == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.read += bytes.len() as u64;
            if bytes.len() as u64 > LONGEST && !bytes.ends_with(b"\n") {
                return Err(self.bad(&format!("is longer than {}", text::size(LONGEST))));
            }
            let line = String::from_utf8(bytes).map_err(|_| self.bad("is not UTF-8 text"))?;
            let line = if self.number == 1 { line.strip_prefix('\u{feff}').unwrap_or(&line) } else { &line };
            let line = line.trim_end_matches(['\n', '\r']);
            if !line.trim().is_empty() {
                return Ok(Some(Line { number: self.number, text: line.to_owned() }));
            }
        }
    }

    fn bad(&self, what: &str) -> Error {
        let error = Error::input(format!("line {} of `{}` {what}", self.number, text::path(self.path)));
        error.hint("data is UTF-8 text with one sample on each line")
    }
}
