//! The zip archives that `torch.save` has written since PyTorch 1.6: members that are stored as they are.
//!
//! Read here and not with a crate: what those add is decompression, and what they take is any archive (text before and
//! after it, the last of two members of a name, sizes of one of the two headers). Here a file has one reading or none:
//! members lie one after the other from the first byte to the directory, the directory ends the file, and all that
//! either header says is what the other says. The CRC-32 of a member that is read whole, the pickle, is checked; those of
//! storages are not, as in PyTorch: of a storage rows are read, in any order, some twice and some never, so that it would
//! take a second pass over the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;

use crate::checkpoint::files::read_exact_at;
use crate::checkpoint::text::{is_hostile, shown, size};
use crate::error::{Error, Result};

/// Most members: several times the tensors of any one file.
const MAX_MEMBERS: u64 = 1 << 18;
/// Longest directory.
const MAX_DIRECTORY: u64 = 32 << 20;
/// Longest name of a member in bytes.
const MAX_NAME: usize = 1024;
/// Length of the records that end an archive: the last one, and the two before it in archives of 64 bits.
const END: u64 = 22;
const LOCATOR: u64 = 20;
const END_64: u64 = 56;
/// What a number of 32 bits says when it stands in a field of 64.
const WIDE: u64 = 0xffff_ffff;

/// Where the bytes of a member are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// First byte.
    pub begin: u64,
    /// Number of bytes.
    pub len: u64,
    /// CRC-32 of the bytes; 0 where PyTorch was told not to compute any.
    pub crc: u32,
}

/// True for the first nine bytes of an archive. A safetensors file can begin with the same four, and has `{` next.
pub fn is_archive(first: &[u8]) -> bool {
    first.starts_with(b"PK\x03\x04") && first.get(8) != Some(&b'{')
}

/// Bytes that fields are taken from; it must be known that they are there.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or_else(|| bad("a header is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.bytes(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, signature: &[u8; 4], what: &str) -> Result<()> {
        if self.bytes(4)? == signature { Ok(()) } else { Err(bad(format!("{what} is not where it should be"))) }
    }
}

fn bad(what: impl Into<String>) -> Error {
    Error::input(format!("bad zip archive: {}", what.into()))
}

fn read(file: &File, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    read_exact_at(file, &mut bytes, at).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => bad("a header is cut off"),
        _ => Error::input(e.to_string()),
    })?;
    Ok(bytes)
}

/// The directory: its place, its length, and how many members it names.
struct Directory {
    begin: u64,
    len: u64,
    members: u64,
}

impl Directory {
    /// Reads the end of a file of `len` bytes.
    fn find(file: &File, len: u64) -> Result<Self> {
        let end = len.checked_sub(END).ok_or_else(|| bad("it is too short"))?;
        let bytes = read(file, end, END as usize)?;
        let mut fields = Fields(&bytes);
        fields.signed(b"PK\x05\x06", "the end of the directory").map_err(|_| {
            bad("its directory does not end the file").hint("the download did not finish, or something was appended")
        })?;
        let narrow = Self::fields(&mut fields, 2, 4)?;
        if fields.number(2)? != 0 {
            return Err(bad("it has a comment"));
        }
        let locator = end.checked_sub(LOCATOR).filter(|_| end >= LOCATOR + END_64);
        let wide = match locator.map(|at| read(file, at, LOCATOR as usize)).transpose()? {
            Some(bytes) if bytes.starts_with(b"PK\x06\x07") => Some(Self::wide(file, end - LOCATOR, &bytes)?),
            _ => None,
        };
        let (found, stop) = match wide {
            None => (narrow, end),
            Some(wide) => {
                let same = |narrow: u64, wide: u64, most: u64| narrow == wide || narrow == most && wide > most;
                let agree = same(narrow.members, wide.members, 0xffff)
                    && same(narrow.len, wide.len, WIDE)
                    && same(narrow.begin, wide.begin, WIDE);
                if !agree {
                    return Err(bad("its two ends disagree about the directory"));
                }
                (wide, end - LOCATOR - END_64)
            }
        };
        if found.begin.checked_add(found.len) != Some(stop) {
            return Err(bad("its directory is not right before its end"));
        }
        if found.members > MAX_MEMBERS || found.len > MAX_DIRECTORY {
            return Err(bad(format!("{} members and a directory of {}", found.members, size(found.len))));
        }
        Ok(found)
    }

    /// The record of 64 bits that the locator right before `end` leads to.
    fn wide(file: &File, end: u64, locator: &[u8]) -> Result<Self> {
        let mut fields = Fields(locator);
        fields.bytes(4)?;
        let (disk, at, disks) = (fields.number(4)?, fields.number(8)?, fields.number(4)?);
        if disk != 0 || disks > 1 || at.checked_add(END_64) != Some(end) {
            return Err(bad("its end of 64 bits is not where it should be"));
        }
        let bytes = read(file, at, END_64 as usize)?;
        let mut fields = Fields(&bytes);
        fields.signed(b"PK\x06\x06", "its end of 64 bits")?;
        if fields.number(8)? != END_64 - 12 {
            return Err(bad("its end of 64 bits has another length"));
        }
        fields.bytes(4)?;
        Self::fields(&mut fields, 4, 8)
    }

    /// Disks and counts of `narrow` bytes or of as many as lengths, then lengths of `wide` bytes.
    fn fields(fields: &mut Fields<'_>, narrow: usize, wide: usize) -> Result<Self> {
        let count = if wide == 8 { 8 } else { narrow };
        let disks = (fields.number(narrow)?, fields.number(narrow)?);
        let (here, members) = (fields.number(count)?, fields.number(count)?);
        if disks != (0, 0) || here != members {
            return Err(bad("it is a part of several"));
        }
        Ok(Self { len: fields.number(wide)?, begin: fields.number(wide)?, members })
    }
}

/// What either header says of a member.
struct Header<'a> {
    name: &'a [u8],
    flags: u64,
    method: u64,
    crc: u64,
    packed: u64,
    len: u64,
    /// Where its local header is, in the directory's header.
    at: u64,
}

impl<'a> Header<'a> {
    /// Reads a header of the directory.
    fn central(fields: &mut Fields<'a>) -> Result<Self> {
        fields.signed(b"PK\x01\x02", "a header of its directory")?;
        fields.bytes(4)?;
        let (flags, method) = (fields.number(2)?, fields.number(2)?);
        fields.bytes(4)?;
        let (crc, packed, len) = (fields.number(4)?, fields.number(4)?, fields.number(4)?);
        let (name, extra, comment) = (fields.number(2)?, fields.number(2)?, fields.number(2)?);
        let disk = fields.number(2)?;
        fields.bytes(6)?;
        let at = fields.number(4)?;
        let name = fields.bytes(name as usize)?;
        let mut header = Self { name, flags, method, crc, packed, len, at };
        let Self { packed, len, at, .. } = &mut header;
        widen(fields.bytes(extra as usize)?, [len, packed, at])?;
        fields.bytes(comment as usize)?;
        if disk == 0 { Ok(header) } else { Err(bad("it is a part of several")) }
    }

    /// Checks the name, and that the bytes are stored as they are.
    fn check(&self) -> Result<String> {
        let Ok(name) = std::str::from_utf8(self.name) else { return Err(bad("the name of a member is not UTF-8")) };
        let wrong = match name {
            "" => "has no name",
            _ if name.len() > MAX_NAME => "has too long a name",
            _ if name.contains(is_hostile) => "has control characters in its name",
            _ if name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..") => {
                "leads out of the archive"
            }
            _ if self.flags & 0x2041 != 0 => "is encrypted",
            _ if self.method != 0 || self.flags & 0x20 != 0 => "is compressed",
            _ if self.packed != self.len => "is stored in another length than its own",
            _ => return Ok(name.to_owned()),
        };
        let error = bad(format!("`{}` {wrong}", shown(name)));
        Err(if wrong == "is compressed" {
            error.hint("if it is a TorchScript program, load it and save its `state_dict()` with `torch.save`")
        } else {
            error
        })
    }

    /// Reads the local header, which must say the same, and gives where the bytes begin.
    fn local(&self, file: &File) -> Result<u64> {
        let bytes = read(file, self.at, 30)?;
        let mut fields = Fields(&bytes);
        fields.signed(b"PK\x03\x04", "a member")?;
        fields.bytes(2)?;
        let (flags, method) = (fields.number(2)?, fields.number(2)?);
        fields.bytes(8)?;
        let (mut packed, mut len) = (fields.number(4)?, fields.number(4)?);
        let (name, extra) = (fields.number(2)?, fields.number(2)?);
        let bytes = read(file, self.at + 30, (name + extra) as usize)?;
        let mut fields = Fields(&bytes);
        let name = fields.bytes(name as usize)?;
        widen(fields.0, [&mut len, &mut packed, &mut 0])?;
        let later = self.is_described() && len == 0 && packed == 0;
        let same = name == self.name && flags == self.flags && method == self.method;
        match same && (later || len == self.len && packed == self.packed) {
            true => Ok(self.at + 30 + bytes.len() as u64),
            false => Err(bad(format!("the two headers of `{}` disagree", shown(&String::from_utf8_lossy(self.name))))),
        }
    }

    /// True if its lengths come after its bytes.
    fn is_described(&self) -> bool {
        self.flags & 8 != 0
    }

    /// Checks that `bytes`, all that lie between the member and what comes next, say once more how long it is.
    fn check_description(&self, bytes: &[u8]) -> Result<()> {
        let wide = match bytes.len() {
            12 | 16 => 4,
            20 | 24 => 8,
            _ => return Err(bad("bytes between its members belong to none")),
        };
        let mut fields = Fields(bytes);
        if bytes.len().is_multiple_of(8) {
            fields.signed(b"PK\x07\x08", "a description")?;
        }
        fields.bytes(4)?;
        match self.is_described() && (fields.number(wide)?, fields.number(wide)?) == (self.len, self.len) {
            true => Ok(()),
            false => Err(bad("what lies between its members describes none")),
        }
    }
}

/// Replaces those of `values` that are too large for 32 bits by what the field of 64 bits in `extra` says.
fn widen(extra: &[u8], values: [&mut u64; 3]) -> Result<()> {
    let mut fields = Fields(extra);
    let mut wide = None;
    while fields.0.len() >= 4 {
        let (id, len) = (fields.number(2)?, fields.number(2)?);
        let field = fields.bytes(len as usize)?;
        if id == 1 && wide.replace(field).is_some() {
            return Err(bad("a member has two lengths of 64 bits"));
        }
    }
    let Some(wide) = wide else {
        return match values.iter().any(|value| **value == WIDE) {
            true => Err(bad("a length of 64 bits is missing")),
            false => Ok(()),
        };
    };
    let mut fields = Fields(wide);
    for value in values.into_iter().filter(|value| **value == WIDE) {
        *value = fields.number(8)?;
    }
    Ok(())
}

/// The members of the archive `file`, which is `len` bytes long.
pub fn members(file: &File, len: u64) -> Result<HashMap<String, Member>> {
    let directory = Directory::find(file, len)?;
    let bytes = read(file, directory.begin, directory.len as usize)?;
    let mut fields = Fields(&bytes);
    let mut headers = Vec::new();
    while !fields.0.is_empty() {
        headers.push(Header::central(&mut fields)?);
    }
    if headers.len() as u64 != directory.members {
        return Err(bad(format!("{} members, where {} should be", headers.len(), directory.members)));
    }
    headers.sort_by_key(|header| header.at);
    if headers.first().is_none_or(|first| first.at != 0) {
        return Err(bad("its first member is not at its beginning"));
    }
    let mut members = HashMap::with_capacity(headers.len());
    for (number, header) in headers.iter().enumerate() {
        let name = header.check()?;
        let wrong = |what: &str| bad(format!("`{}` {what}", shown(&name)));
        let next = headers.get(number + 1).map_or(directory.begin, |next| next.at);
        if header.at >= directory.begin || next > directory.begin {
            return Err(wrong("or the member after it lies outside the archive"));
        }
        let begin = header.local(file)?;
        let end = begin.checked_add(header.len).filter(|end| *end <= next);
        let end = end.ok_or_else(|| wrong("overlaps what comes after it"))?;
        if end < next {
            header.check_description(&read(file, end, (next - end).min(32) as usize)?)?;
        }
        if members.insert(name.clone(), Member { begin, len: header.len, crc: header.crc as u32 }).is_some() {
            return Err(wrong("is there twice"));
        }
    }
    Ok(members)
}
