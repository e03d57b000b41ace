//! Files of PyTorch: what `torch.save` writes, read without PyTorch and without running anything in them.
//!
//! [`zip`] finds the members of the archive, [`pickle`] reads `data.pkl` as data, [`model`] finds tensors and names in
//! it, and [`tensor`] what each says of itself. A tensor is then a range of bytes of the file, as in a safetensors file.
//! Of the file only headers and the pickle are read here.

mod model;
mod pickle;
mod tensor;
mod zip;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use super::files::read_exact_at;
use super::header::Entry;
use super::text::{self, list, shown, size};
use crate::error::{Error, Result};
use pickle::{MAX_PICKLE, Pickle};
use tensor::Tensor;
use zip::Member;

/// True if the file, which is `len` bytes long, is an archive of `torch.save`, or another of its kind.
pub(super) fn is_archive(file: &File, len: u64) -> bool {
    let mut first = [0; 9];
    len >= 9 && read_exact_at(file, &mut first, 0).is_ok() && zip::is_archive(&first)
}

/// The tensors of `file`, whose length is `len`, with their places counted from the file's first byte, in the order
/// that they have in a safetensors file of the same tensors; and what is to be said of others that the file has.
pub(super) fn read(file: &File, path: &Path, len: u64) -> Result<(Vec<Entry>, Option<String>)> {
    let named = |what: &str| format!("`{}` cannot be read as a PyTorch file: {what}", text::path(path));
    let found = entries(file, len).map_err(|error| match error.within(named) {
        error if error.hints().is_empty() => error.hint("download it again, or save its `state_dict()` again"),
        error => error,
    });
    let (entries, others) = found?;
    let note = (!others.is_empty()).then(|| {
        let (at, others) = (text::path(path), list(others.iter().map(String::as_str), 4));
        format!(
            "`{at}` has weights of the same names under {others} too, which are left out: to use them, save them alone"
        )
    });
    Ok((entries, note))
}

fn entries(file: &File, len: u64) -> Result<(Vec<Entry>, Vec<String>)> {
    let members = zip::members(file, len)?;
    let root = root(&members)?;
    if let Some(order) = members.get(&format!("{root}byteorder"))
        && whole(file, "byteorder", *order, 16)? != b"little"
    {
        return Err(Error::input("its numbers have their big end first").hint("save it again on a usual machine"));
    }
    let bytes = whole(file, "data.pkl", members[&format!("{root}data.pkl")], MAX_PICKLE)?;
    let pickle = Pickle::read(&bytes)?;
    let (tensors, others) = model::tensors(&pickle)?;
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let named = |what: &str| format!("tensor `{}` {what}", shown(&name));
        let begin = place(&members, root, &tensor).map_err(|error| error.within(named))?;
        entries.push(Entry { name, dtype: tensor.dtype, shape: tensor.shape, begin, end: begin + tensor.bytes });
    }
    entries.sort_by(|a, b| tensor::rank(a.dtype).cmp(&tensor::rank(b.dtype)).then_with(|| a.name.cmp(&b.name)));
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::input(format!("tensor `{}` appears twice", shown(pair[0])))),
        None => Ok((entries, others)),
    }
}

/// The folder of the archive that everything is in, with its `/`.
fn root(members: &HashMap<String, Member>) -> Result<&str> {
    let roots = members.keys().filter_map(|name| name.strip_suffix("data.pkl"));
    let roots: Vec<&str> = roots.filter(|root| root.ends_with('/') && root.matches('/').count() == 1).collect();
    match roots[..] {
        [] => Err(Error::input("it is a zip archive without `data.pkl`")),
        [root] => Ok(root),
        _ => Err(Error::input("it has more than one `data.pkl`")),
    }
}

/// All bytes of the member `name`, if they are not more than `most` and those that were written.
fn whole(file: &File, name: &str, member: Member, most: u64) -> Result<Vec<u8>> {
    if member.len > most {
        return Err(Error::input(format!("a member of {}, more than the {} expected", size(member.len), size(most))));
    }
    let mut bytes = vec![0; member.len as usize];
    read_exact_at(file, &mut bytes, member.begin).map_err(|e| Error::input(e.to_string()))?;
    match member.crc {
        0 => Ok(bytes),
        crc if crc32fast::hash(&bytes) == crc => Ok(bytes),
        _ => Err(Error::input(format!("its member `{name}` is damaged: its CRC-32 is not the recorded one"))
            .hint("download it again")),
    }
}

/// Where in the file `tensor` begins.
fn place(members: &HashMap<String, Member>, root: &str, tensor: &Tensor<'_>) -> Result<u64> {
    let name = format!("{root}data/{}", tensor.storage);
    let wrong = match members.get(&name) {
        Some(storage) if storage.len == tensor.storage_bytes => return Ok(storage.begin + tensor.begin),
        Some(storage) => format!("of {} bytes, where {} should be", storage.len, tensor.storage_bytes),
        None => "that is not there".into(),
    };
    Err(Error::input(format!("has the storage `{}` {wrong}", shown(&name))))
}

/// Names of the tensors in a `data.pkl`, for fuzzers: every function that sees bytes of a pickle is called.
///
/// # Errors
/// Those of a file with that `data.pkl`, but for what its storages cause.
#[doc(hidden)]
pub fn pickled_names(data: &[u8]) -> Result<Vec<String>> {
    let pickle = Pickle::read(data)?;
    Ok(model::tensors(&pickle)?.0.into_iter().map(|(name, _)| name).collect())
}
