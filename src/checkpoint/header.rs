//! The header of one safetensors file. Stricter than the `safetensors` crate: no name twice, no leading space, no
//! unknown key, no shape that overflows in any order of its dimensions. `tests/differential.rs` lists every file that the
//! two judge differently.
//!
//! A tensor may begin at any byte: what is read is copied into memory that is aligned, never mapped.

use std::fmt;
use std::fs::File;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::dtype::Dtype;
use super::files::read_exact_at;
use super::json::Texts;
use super::text::{self, shown};
use crate::error::{Error, Result};

/// Largest header, with room for 300,000 tensors of usual names. Reading one takes some four times its size.
pub(super) const MAX_HEADER: u64 = 32 << 20;
/// Largest header that the format allows.
const FORMATS_MAX_HEADER: u64 = 100_000_000;
/// Longest name of a tensor in bytes.
const MAX_NAME: usize = 4096;
/// Most tensors of a file: twice those of the largest mixtures of experts in all their files.
const MAX_TENSORS: usize = 1 << 18;
/// Most dimensions of a tensor.
pub(super) const MAX_RANK: usize = 16;
/// The one key of a header that is no tensor.
const METADATA: &str = "__metadata__";

/// One tensor of a header. Offsets count from the first byte after the header.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// Reads the header of `file`, which is `len` bytes long: its tensors by offset, and where their bytes begin.
pub(super) fn read(file: &File, path: &Path, len: u64) -> Result<(Vec<Entry>, u64)> {
    let at = text::path(path);
    let mut first = [0; 8];
    let known = len.min(8) as usize;
    read_exact_at(file, &mut first[..known], 0).map_err(|e| text::cannot_read(path, &e))?;
    let size = u64::from_le_bytes(first);
    let wrong = match size {
        _ if len < 8 => format!("is {len} bytes long, too short for a safetensors file"),
        0..=1 => format!("has a header of {size} bytes, too short for a safetensors file"),
        _ if size > FORMATS_MAX_HEADER => format!("has no safetensors header: its length would be {size} bytes"),
        _ if size > MAX_HEADER => format!("has a header of {size} bytes, and more than {MAX_HEADER} are not read"),
        _ if size > len - 8 => format!("is cut off within its header: {} of {size} bytes are there", len - 8),
        _ => String::new(),
    };
    if !wrong.is_empty() {
        let error = Error::input(format!("`{at}` {wrong}"));
        return Err(match what_else(file, &first) {
            Some(hint) => error.hint(hint),
            None if size <= MAX_HEADER => error.hint("download it again"),
            None if size <= FORMATS_MAX_HEADER => error.hint("if it is a model: save it in several shards"),
            None => error.hint("name a safetensors file, or one of `torch.save`"),
        });
    }
    let mut header = vec![0; size as usize];
    read_exact_at(file, &mut header, 8).map_err(|e| text::cannot_read(path, &e))?;
    let data = 8 + size;
    Ok((parse(&header, len - data, &at)?, data))
}

/// What a file that is no safetensors file is most often, by its first bytes.
fn what_else(file: &File, first: &[u8; 8]) -> Option<&'static str> {
    let mut tar = [0; 5];
    if read_exact_at(file, &mut tar, 257).is_ok() && &tar == b"ustar" {
        return Some(
            "this is a tar archive: if PyTorch wrote it, load it and save it again with a recent `torch.save`",
        );
    }
    match first {
        b"version " => Some("this is a Git LFS pointer: run `git lfs pull` where it was cloned"),
        // The number that PyTorch's older format begins with, as a pickle.
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46" => Some(
            "this is a PyTorch file of the format before version 1.6: load it and save it again with a recent \
             `torch.save`, or as safetensors",
        ),
        [0x80, 2..=5, ..] => Some("this is a pickle, but not of `torch.save`: save its tensors as safetensors"),
        b"GGUF\x02\0\0\0" | b"GGUF\x03\0\0\0" => Some("this is a GGUF file: use the safetensors files of the model"),
        [b'<', b'!' | b'h', ..] => Some("this is a web page: download the file itself"),
        _ => None,
    }
}

/// Parses and checks a header; `data` bytes follow it in `file`, a name for messages.
pub(super) fn parse(header: &[u8], data: u64, file: &str) -> Result<Vec<Entry>> {
    let bad = |what: String| Error::input(format!("`{file}` has a bad safetensors header: {what}"));
    if header.first() != Some(&b'{') {
        return Err(bad("it does not begin with `{`".into()));
    }
    let header = std::str::from_utf8(header).map_err(|_| bad("it is not UTF-8".into()))?;
    let mut entries = serde_json::from_str::<Entries>(header).map_err(|e| bad(shown(&e.to_string())))?.0;
    check_names(&entries).map_err(bad)?;
    for entry in &mut entries {
        check_size(entry).map_err(|what| bad(format!("tensor `{}` {what}", shown(&entry.name))))?;
    }
    entries.sort_by_key(|entry| (entry.begin, entry.end));
    if let Some(entry) = entries.iter().find(|entry| entry.end > data) {
        let needed = entries.iter().map(|entry| entry.end).max().unwrap_or(0);
        let (missing, name) = (needed - data, shown(&entry.name));
        return Err(Error::input(format!("`{file}` is cut off: {missing} bytes are missing, from tensor `{name}` on"))
            .hint("the download did not finish, or the header lies: download it again"));
    }
    let mut end = 0;
    let mut before = "the header";
    for entry in &entries {
        let name = shown(&entry.name);
        if entry.begin < end {
            return Err(bad(format!("tensor `{name}` overlaps `{}`", shown(before))));
        }
        if entry.begin > end {
            return Err(bad(format!("{} bytes before tensor `{name}` belong to no tensor", entry.begin - end)));
        }
        (end, before) = (entry.end, &entry.name);
    }
    if end < data {
        return Err(bad(format!("{} bytes after the last tensor belong to no tensor", data - end)));
    }
    Ok(entries)
}

/// Why `name` cannot be the name of a tensor.
pub(super) fn check_name(name: &str) -> std::result::Result<(), String> {
    match name {
        "" => Err("a tensor has an empty name".into()),
        METADATA => Err(format!("no tensor can be named `{METADATA}`")),
        _ if name.len() > MAX_NAME => Err(format!("the name of tensor `{}` is longer than 4 KiB", shown(name))),
        _ if name.contains(text::is_hostile) => {
            Err(format!("control characters in the name of tensor `{}`", shown(name)))
        }
        _ => Ok(()),
    }
}

/// Elements of a tensor, and whether that number is beyond 64 bits in some order of the dimensions: zeros do not
/// hide it.
pub(super) fn elements(shape: &[u64]) -> Option<u64> {
    let product = shape.iter().filter(|dim| **dim != 0).try_fold(1u64, |product, dim| product.checked_mul(*dim))?;
    Some(if shape.contains(&0) { 0 } else { product })
}

fn check_names(entries: &[Entry]) -> std::result::Result<(), String> {
    let name = |place: u32| entries[place as usize].name.as_str();
    let mut order: Vec<u32> = (0..entries.len() as u32).collect();
    order.sort_unstable_by_key(|place| name(*place));
    match order.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        Some(pair) => Err(format!("tensor `{}` appears twice", shown(name(pair[0])))),
        None => Ok(()),
    }
}

/// Checks offsets against shape and type. A type that is not known gets the size that they imply.
fn check_size(entry: &mut Entry) -> std::result::Result<(), String> {
    let Entry { dtype, shape, begin, end, .. } = entry;
    let what = format!("({} {shape:?})", dtype.header_name());
    let Some(bytes) = end.checked_sub(*begin) else {
        return Err(format!("has `data_offsets` that run backwards: [{begin}, {end}]"));
    };
    let Some(elements) = elements(shape) else {
        return Err(format!("{what} has more elements than 64 bits can count"));
    };
    let stored = u128::from(bytes) * 8;
    if let Dtype::Other { bits: bits @ 0, .. } = dtype
        && elements > 0
    {
        match u32::try_from(stored / u128::from(elements)) {
            Ok(each) if each > 0 && stored % u128::from(elements) == 0 => *bits = each,
            _ => {
                return Err(format!(
                    "{what} is of an unknown type, and its {bytes} bytes do not divide into its elements"
                ));
            }
        }
    }
    let needed = u128::from(elements) * u128::from(dtype.bits());
    match needed == stored {
        true => Ok(()),
        false if needed % 8 != 0 => Err(format!("{what} does not fill whole bytes")),
        false => Err(format!("{what} takes {} bytes, but its `data_offsets` span {bytes}", needed / 8)),
    }
}

/// All tensors of a header, in its order.
struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<Self, D::Error> {
        source.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
        let mut entries = Vec::new();
        let mut metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                if std::mem::replace(&mut metadata, true) {
                    return Err(A::Error::custom(format!("`{METADATA}` appears twice")));
                }
                map.next_value::<Texts>().map_err(|e| A::Error::custom(format!("`{METADATA}`: {e}")))?;
                continue;
            }
            check_name(&name).map_err(A::Error::custom)?;
            let body = map.next_value::<Body>();
            let Body { dtype, shape, begin, end } =
                body.map_err(|e| A::Error::custom(format!("tensor `{}`: {e}", shown(&name))))?;
            if entries.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            entries.push(Entry { name, dtype, shape, begin, end });
        }
        Ok(Entries(entries))
    }
}

/// What a header says of one tensor.
struct Body {
    dtype: Dtype,
    shape: Vec<u64>,
    begin: u64,
    end: u64,
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<Self, D::Error> {
        source.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with `dtype`, `shape` and `data_offsets`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Body, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let twice = match key.as_str() {
                "dtype" => {
                    dtype.replace(known_dtype(&map.next_value::<String>()?).map_err(A::Error::custom)?).is_some()
                }
                "shape" => shape.replace(map.next_value::<Numbers<MAX_RANK>>()?.0).is_some(),
                "data_offsets" => offsets.replace(map.next_value::<Numbers<2>>()?.0).is_some(),
                _ => return Err(A::Error::custom(format!("unknown key `{}`", shown(&key)))),
            };
            if twice {
                return Err(A::Error::custom(format!("`{key}` appears twice")));
            }
        }
        let missing = |key| move || A::Error::custom(format!("`{key}` is missing"));
        let dtype = dtype.ok_or_else(missing("dtype"))?;
        let mut shape: Vec<u64> = shape.ok_or_else(missing("shape"))?;
        shape.shrink_to_fit();
        match offsets.ok_or_else(missing("data_offsets"))?[..] {
            [begin, end] => Ok(Body { dtype, shape, begin, end }),
            _ => Err(A::Error::custom("`data_offsets` are not two numbers")),
        }
    }
}

/// The type of that name, as long as it is one that can be written again under its name.
fn known_dtype(name: &str) -> std::result::Result<Dtype, String> {
    let plain = !name.is_empty() && name.len() <= 32 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let dtype = Dtype::from_header(name);
    match plain && dtype.header_name() == name {
        true => Ok(dtype),
        false => Err(format!("`{}` is no type of tensor", shown(name))),
    }
}

/// At most `MOST` whole numbers.
struct Numbers<const MOST: usize>(Vec<u64>);

impl<'de, const MOST: usize> Deserialize<'de> for Numbers<MOST> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<Self, D::Error> {
        source.deserialize_seq(NumbersVisitor::<MOST>)
    }
}

struct NumbersVisitor<const MOST: usize>;

impl<'de, const MOST: usize> Visitor<'de> for NumbersVisitor<MOST> {
    type Value = Numbers<MOST>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a list of at most {MOST} whole numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Numbers<MOST>, A::Error> {
        let mut numbers = Vec::new();
        while let Some(number) = list.next_element()? {
            if numbers.len() == MOST {
                return Err(A::Error::custom(format!("a list of more than {MOST} numbers")));
            }
            numbers.push(number);
        }
        Ok(Numbers(numbers))
    }
}
