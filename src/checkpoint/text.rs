//! What reaches a message: names and paths made harmless, lists and sizes made short.

use std::io;
use std::path::Path;

use crate::error::Error;

/// Longest text shown whole; of a longer one, both ends.
const LONGEST: usize = 400;

/// True for what could move a cursor, ring a bell or turn the reading direction of a terminal.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` fit for a message: control and direction characters escaped, the middle of a long text left out.
pub(crate) fn shown(text: &str) -> String {
    let escape = |out: &mut String, c: char| match is_hostile(c) {
        true => out.extend(c.escape_unicode()),
        false => out.push(c),
    };
    let mut out = String::with_capacity(text.len().min(2 * LONGEST));
    let count = text.chars().count();
    if count <= LONGEST {
        text.chars().for_each(|c| escape(&mut out, c));
    } else {
        text.chars().take(LONGEST / 2).for_each(|c| escape(&mut out, c));
        out.push('…');
        text.chars().skip(count - LONGEST / 2).for_each(|c| escape(&mut out, c));
    }
    out
}

/// A path fit for a message.
pub(crate) fn path(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

/// `` `a`, `b` and 3 more ``.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>, most: usize) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut out = names.iter().take(most).map(|name| format!("`{}`", shown(name))).collect::<Vec<_>>().join(", ");
    if names.len() > most {
        out += &format!(" and {} more", names.len() - most);
    }
    out
}

/// `1 tensor`, `723 tensors`.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `n` bytes in the unit that people read.
pub(crate) fn size(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 10_000 {
        return format!("{n} bytes");
    }
    let mut value = n as f64 / 1e3;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A failed read.
pub(crate) fn cannot_read(file: &Path, source: &io::Error) -> Error {
    Error::input(format!("cannot read `{}`: {source}", path(file)))
}

/// A failed write of `file`, which is to be `needed` bytes long; where the disk is full, with what it would take.
pub(crate) fn cannot_write(file: &Path, needed: u64, source: &io::Error) -> Error {
    let shown = path(file);
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let free = file.parent().and_then(|dir| fs4::available_space(dir).ok());
            let free = free.map_or("an unknown number of bytes".to_owned(), size);
            Error::output(format!("the disk is full: `{shown}` needs {}, {free} free ({source})", size(needed)))
                .hint("free some space, or choose an output folder on another disk")
        }
        io::ErrorKind::FileTooLarge => Error::output(format!("cannot write `{shown}`, {}: {source}", size(needed)))
            .hint("use a smaller `--shard-size`"),
        io::ErrorKind::AlreadyExists => {
            Error::output(format!("cannot write `{shown}`: what an interrupted merge left is in the way"))
                .hint("remove the files `.model*.tmp` of that folder")
        }
        _ => Error::output(format!("cannot write `{shown}`: {source}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped_and_shortened() {
        assert_eq!(shown("a\u{1b}[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
        assert_eq!(shown(&"x".repeat(10_000)).chars().count(), LONGEST + 1);
        assert_eq!(list(["a", "b", "c"], 2), "`a`, `b` and 1 more");
        assert_eq!([size(9_999), size(14_200_000_000), size(u64::MAX)], ["9999 bytes", "14.2 GB", "18.4 EB"]);
    }
}
