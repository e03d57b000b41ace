//! Where every byte of an output goes, known before the first is written.

use std::collections::{BTreeMap, HashSet};

use super::digest::sha256;
use super::dtype::Dtype;
use super::header::{MAX_HEADER, check_name, elements};
use super::text::shown;
use crate::error::{Error, Result};
use crate::figures::plural;

/// Name of the file that says which shard holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Name of the file that holds all tensors.
pub(super) const SINGLE: &str = "model.safetensors";

/// A tensor to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutTensor {
    /// Name.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
}

/// A tensor's place: its shard, and its first byte in that file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// A file to write.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) name: String,
    /// Length and text of the header.
    pub(super) header: Vec<u8>,
    /// Length of the file.
    pub(super) bytes: u64,
}

/// Which tensor goes into which shard at which offset.
#[derive(Clone, Debug)]
pub struct Layout {
    tensors: Vec<OutTensor>,
    pub(super) places: Vec<Place>,
    pub(super) shards: Vec<Shard>,
}

impl Layout {
    /// Puts `tensors` into shards of at most `shard_size` bytes each, in their order. A larger tensor has a shard
    /// alone.
    ///
    /// # Errors
    /// A name that cannot be read again or appears twice, a tensor of unknown size, a shard size of 0.
    pub fn new(tensors: Vec<OutTensor>, shard_size: u64) -> Result<Self> {
        if shard_size == 0 {
            return Err(Error::usage("a shard cannot have 0 bytes").hint("the usual shard size is 5GB"));
        }
        let mut names = HashSet::new();
        let mut places = Vec::with_capacity(tensors.len());
        let mut members: Vec<Vec<usize>> = vec![Vec::new()];
        let (mut filled, mut total) = (0, 0u64);
        for (number, tensor) in tensors.iter().enumerate() {
            check_name(&tensor.name).map_err(Error::output)?;
            let wrong = |what: &str| Error::output(format!("tensor `{}` {what}", shown(&tensor.name)));
            if !names.insert(tensor.name.as_str()) {
                return Err(wrong("would be written twice"));
            }
            let bytes = size(tensor).ok_or_else(|| wrong("has a size that cannot be written"))?;
            total = total.checked_add(bytes).filter(|total| *total < 1 << 62).ok_or_else(|| wrong("is too large"))?;
            if filled > 0 && filled + bytes > shard_size {
                members.push(Vec::new());
                filled = 0;
            }
            filled += bytes;
            let shard = members.len() - 1;
            members[shard].push(number);
            places.push(Place { shard, offset: 0, bytes });
        }
        drop(names);
        Self::placed(tensors, places, members, SINGLE)
    }

    /// Puts all `tensors` into the one file `name`.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn single(tensors: Vec<OutTensor>, name: &str) -> Result<Self> {
        let Self { tensors, places, .. } = Self::new(tensors, u64::MAX >> 1)?;
        let members = vec![(0..tensors.len()).collect()];
        Self::placed(tensors, places, members, name)
    }

    /// `members` of each shard; a shard alone is called `single`.
    fn placed(
        tensors: Vec<OutTensor>,
        mut places: Vec<Place>,
        mut members: Vec<Vec<usize>>,
        single: &str,
    ) -> Result<Self> {
        let mut shards = Vec::with_capacity(members.len());
        let count = members.len();
        for (number, members) in members.iter_mut().enumerate() {
            let name = match count {
                1 => single.to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            shards.push(place(name, members, &tensors, &mut places)?);
        }
        Ok(Self { tensors, places, shards })
    }

    /// The tensors in the order in which they were given, which is how the writer counts them.
    pub fn tensors(&self) -> &[OutTensor] {
        &self.tensors
    }

    /// Size of tensor number `tensor`.
    pub fn tensor_bytes(&self, tensor: usize) -> u64 {
        self.places[tensor].bytes
    }

    /// Shard of tensor number `tensor`.
    pub fn shard_of(&self, tensor: usize) -> usize {
        self.places[tensor].shard
    }

    /// Bytes of all tensors, as `total_size` of an index counts them.
    pub fn total_bytes(&self) -> u64 {
        self.places.iter().map(|place| place.bytes).sum()
    }

    /// Shard number `shard` as a layout of its own, and the numbers of its tensors.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub(crate) fn part(&self, shard: usize) -> Result<(Self, Vec<usize>)> {
        let members: Vec<usize> =
            (0..self.tensors.len()).filter(|number| self.places[*number].shard == shard).collect();
        let tensors = members.iter().map(|number| self.tensors[*number].clone()).collect();
        Ok((Self::single(tensors, &self.shards[shard].name)?, members))
    }

    /// Where everything lies, in a few words and a digest.
    pub(crate) fn describe(&self) -> String {
        describe(self.shards.len(), self.shards.iter().flat_map(|shard| shard.header.iter().copied()).collect())
    }

    /// Bytes of the tensors of these names.
    pub(super) fn bytes_of<'a>(&self, names: impl Iterator<Item = &'a str>) -> u64 {
        let names: HashSet<&str> = names.collect();
        let placed = self.tensors.iter().zip(&self.places);
        placed.filter(|(tensor, _)| names.contains(tensor.name.as_str())).map(|(_, place)| place.bytes).sum()
    }

    /// The tensors that have more bytes than a shard should have: those of the first, its name, and how many there are.
    pub fn oversized(&self, shard_size: u64) -> Option<(u64, &str, usize)> {
        let mut large = self.tensors.iter().zip(&self.places).filter(|(_, place)| place.bytes > shard_size);
        let (tensor, place) = large.next()?;
        Some((place.bytes, &tensor.name, 1 + large.count()))
    }

    /// Bytes of all shards with their headers.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// Names and sizes of the files, without the index.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.shards.iter().map(|shard| (shard.name.as_str(), shard.bytes))
    }

    /// Text of the index, `None` where one file holds all.
    pub(super) fn index(&self) -> Option<Vec<u8>> {
        if self.shards.len() == 1 {
            return None;
        }
        let placed = self.tensors.iter().zip(&self.places);
        let map: BTreeMap<&str, &str> =
            placed.map(|(tensor, place)| (tensor.name.as_str(), self.shards[place.shard].name.as_str())).collect();
        let index = serde_json::json!({"metadata": {"total_size": self.total_bytes()}, "weight_map": map});
        Some(format!("{index:#}\n").into_bytes())
    }
}

/// [`Layout::describe`] of `count` files with these headers.
pub(super) fn describe(count: usize, headers: Vec<u8>) -> String {
    format!("{}, {}", plural(count, "file"), &sha256(headers)[..16])
}

/// Bytes of `tensor`, `None` where its type has no known size or they are too many.
fn size(tensor: &OutTensor) -> Option<u64> {
    let elements = elements(&tensor.shape)?;
    let bits = u128::from(elements) * u128::from(tensor.dtype.bits());
    if tensor.dtype.bits() == 0 && elements > 0 || bits % 8 != 0 {
        return None;
    }
    u64::try_from(bits / 8).ok()
}

/// Largest power of two bytes that both an element's size and a tensor's length are multiples of.
fn alignment(dtype: Dtype) -> u64 {
    match dtype.bits() {
        bits if bits > 0 && bits % 8 == 0 => 1 << (bits / 8).trailing_zeros(),
        _ => 1,
    }
}

/// Lays out one shard. There are no holes: with the widest types first, every tensor is aligned all the same.
fn place(name: String, members: &mut [usize], tensors: &[OutTensor], places: &mut [Place]) -> Result<Shard> {
    members.sort_by_key(|&number| std::cmp::Reverse(alignment(tensors[number].dtype)));
    let mut text = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut end = 0;
    for &number in &*members {
        let (tensor, place) = (&tensors[number], &mut places[number]);
        place.offset = end;
        end += place.bytes;
        let key = serde_json::Value::from(tensor.name.as_str());
        let shape = serde_json::Value::from(tensor.shape.as_slice());
        let dtype = tensor.dtype.header_name();
        let offsets = format!("[{},{end}]", place.offset);
        text += &format!(r#",{key}:{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#);
    }
    text.push('}');
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    let length = text.len() as u64;
    if length > MAX_HEADER {
        return Err(Error::output(format!("the header of `{name}` would be longer than a reader accepts"))
            .hint("use a smaller `--shard-size`"));
    }
    for &number in &*members {
        places[number].offset += 8 + length;
    }
    let header = [&length.to_le_bytes(), text.as_bytes()].concat();
    Ok(Shard { name, header, bytes: 8 + length + end })
}
