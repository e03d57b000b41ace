//! An opened checkpoint: what its headers say, and its bytes in pieces.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::dtype::Dtype;
use super::files::{Handles, Stamp, changed, open_regular, read_piece, read_small};
use super::folder::{self, Folder};
use super::header::{self, Entry};
use super::index::Index;
use super::text::{self, list, shown};
use super::torch;
use crate::error::{Error, Result};

/// Longest `config.json`.
const MAX_CONFIG: u64 = 16 << 20;

/// A tensor, as the header of its file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name; free of control characters.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Size in its file.
    pub bytes: u64,
    /// Which of the checkpoint's files holds it.
    pub(crate) file: usize,
    /// Where in that file it begins.
    pub(crate) offset: u64,
}

impl TensorInfo {
    /// A tensor of f32 that an [`Overlay`] computes.
    pub(crate) fn computed(name: String, shape: Vec<u64>) -> Self {
        let bytes = shape.iter().product::<u64>() * 4;
        Self { name, dtype: Dtype::F32, shape, bytes, file: 0, offset: 0 }
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Number of rows: the first dimension, 1 for a scalar.
    pub fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }
}

/// A file with tensors.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
}

impl Part {
    /// Opens the file again. It must be the one whose header was read.
    pub(super) fn reopen(&self) -> Result<File> {
        let (file, stamp) = open_regular(&self.path)?;
        if stamp == self.stamp { Ok(file) } else { Err(changed(&self.path)) }
    }
}

/// Tensors that are computed as they are read.
pub(crate) trait Overlay: fmt::Debug + Send + Sync {
    /// Fills `buf` with the bytes of tensor number `tensor` from `offset` on; the range lies within the tensor.
    fn read_at(&self, tensor: usize, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// The model whose bytes of tensor number `tensor` it hands on as they are, if it does.
    fn below(&self, tensor: usize) -> Option<&Checkpoint>;

    /// The checkpoints that it reads.
    fn read_from(&self) -> Vec<&Checkpoint>;
}

/// An opened checkpoint. Its headers are read and checked; of its tensors not a byte.
///
/// ```
/// use magic_merge::Checkpoint;
///
/// # fn main() -> magic_merge::Result<()> {
/// let base = Checkpoint::open("assets/demo/base", &[])?;
/// assert_eq!(base.config()?.unwrap()["model_type"], "vit");
/// let name = base.names().find(|name| name.ends_with("query.weight")).unwrap();
/// let (shape, values) = (base.shape(name).unwrap(), base.values(name)?);
/// assert_eq!(shape.iter().product::<u64>(), values.len() as u64);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    name: String,
    folder: Option<Folder>,
    pub(super) parts: Vec<Part>,
    tensors: Vec<TensorInfo>,
    /// Positions in `tensors`, by name.
    by_name: Vec<u32>,
    handles: Handles,
    /// Where tensors come from, if not from the files.
    overlay: Option<Box<dyn Overlay>>,
    /// What is to be said of what its files hold besides.
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens `spec`: a Hugging Face folder (`model.safetensors`, or an index and its shards, or the only
    /// `.safetensors` file; without any, `pytorch_model.bin` or its shards), one `.safetensors` file or file of
    /// `torch.save`, or, if there is nothing at a path of that name, `org/name[@revision]` in the local hub cache. A
    /// revision is a branch, a tag, `refs/pr/1`, or a commit or its first digits. A relative path is looked for in the working
    /// directory, then below each folder of `search`.
    ///
    /// # Errors
    /// Nothing of that name, a PEFT adapter, a file that is missing, cut off or of another format, an index and
    /// shards that disagree, a link or an index entry that leads out of the model. The message names file and
    /// tensor.
    pub fn open(spec: &str, search: &[PathBuf]) -> Result<Self> {
        match Self::open_any(spec, search)? {
            (opened, false) => Ok(opened),
            (_, true) => Err(Error::input(format!("`{}` is a PEFT adapter, not a whole model", shown(spec)))
                .hint("name its base too: `--base PATH`, or `BASE+ADAPTER` in the place of a model")),
        }
    }

    /// As [`open`](Self::open), and whether it is the folder of an adapter, whose tensors are its own alone.
    pub(crate) fn open_any(spec: &str, search: &[PathBuf]) -> Result<(Self, bool)> {
        let found = folder::find(spec, search)?;
        let headers: Vec<Result<_>> = found.files.into_par_iter().map(read_part).collect();
        let mut parts = Vec::with_capacity(headers.len());
        let (mut tensors, mut notes) = (Vec::new(), Vec::new());
        for header in headers {
            let (part, entries, data, note) = header?;
            notes.extend(note);
            let file = parts.len();
            tensors.extend(entries.into_iter().map(|Entry { name, dtype, shape, begin, end }| TensorInfo {
                name,
                dtype,
                shape,
                bytes: end - begin,
                file,
                offset: data + begin,
            }));
            parts.push(part);
        }
        if let Some((index, path)) = found.index {
            compare(index, &tensors, &parts, &path)?;
        }
        let by_name = sorted(&tensors);
        let (name, handles) = (spec.to_owned(), Handles::default());
        let opened = Self { name, folder: found.folder, parts, tensors, by_name, handles, overlay: None, notes };
        Ok((opened, found.adapter))
    }

    /// Tensors that `overlay` computes, without a file.
    pub(crate) fn computed(name: &str, tensors: Vec<TensorInfo>, overlay: Box<dyn Overlay>) -> Self {
        let (name, by_name, handles) = (name.to_owned(), sorted(&tensors), Handles::default());
        let (parts, notes) = (Vec::new(), Vec::new());
        Self { name, folder: None, parts, tensors, by_name, handles, overlay: Some(overlay), notes }
    }

    /// What is to be said of what its files, and those that it is read from, hold besides its tensors.
    #[doc(hidden)]
    pub fn notes(&self) -> Vec<String> {
        let below = self.read_from().into_iter().flat_map(Self::notes);
        self.notes.iter().cloned().chain(below).collect()
    }

    /// The same with the files of `own`, and with the folder of `below`, which has the configuration of both.
    pub(crate) fn with_files_of(mut self, own: &Self, below: Option<&Self>) -> Self {
        self.parts = own.parts.iter().map(|part| Part { path: part.path.clone(), stamp: part.stamp.clone() }).collect();
        self.folder = below.and_then(|below| below.folder.clone());
        self
    }

    /// The spec as it was given, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's folder; `None` for a single file, whose folder may hold anything.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(|folder| folder.path.as_path())
    }

    pub(super) fn model_folder(&self) -> Option<&Folder> {
        self.folder.as_ref()
    }

    /// True if tensor number `tensor` is that of `model`, bytes and all: an adapter over it that does not touch it.
    #[doc(hidden)]
    pub fn hands_on(&self, tensor: usize, model: &Self) -> bool {
        self.overlay.as_ref().and_then(|overlay| overlay.below(tensor)).is_some_and(|below| below.name == model.name)
    }

    /// Names of all tensors, in the order in which they lie on disk; free of control characters.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// Dimensions of the tensor `name`, outermost first; none for a scalar.
    pub fn shape(&self, name: &str) -> Option<&[u64]> {
        self.get(name).map(|(_, info)| info.shape.as_slice())
    }

    /// All tensors in the order in which they lie on disk; of a PyTorch file, in that of a safetensors file.
    #[doc(hidden)]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of that name, with its number in [`tensors`](Self::tensors).
    #[doc(hidden)]
    pub fn get(&self, name: &str) -> Option<(usize, &TensorInfo)> {
        let at = self.by_name.binary_search_by_key(&name, |&i| self.tensors[i as usize].name.as_str()).ok()?;
        let number = self.by_name[at] as usize;
        Some((number, &self.tensors[number]))
    }

    /// Fills `buf` with the bytes of tensor number `tensor` from `offset` on. Any thread may call this at any time.
    ///
    /// # Errors
    /// A range outside the tensor, a file that cannot be read, that has changed or has become shorter.
    #[doc(hidden)]
    pub fn read_at(&self, tensor: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Some(info) = self.tensors.get(tensor) else {
            return Err(Error::input(format!("`{}` has no tensor number {tensor}", shown(&self.name))));
        };
        let length = buf.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > info.bytes) {
            let (name, bytes) = (shown(&info.name), info.bytes);
            let what = format!("cannot read {length} bytes at {offset} of tensor `{name}`, which has {bytes}");
            return Err(Error::input(format!("{what}, in `{}`", shown(&self.name))));
        }
        if let Some(overlay) = &self.overlay {
            return overlay.read_at(tensor, offset, buf);
        }
        let part = &self.parts[info.file];
        let file = self.handles.get(info.file, || part.reopen())?;
        read_piece(&file, &part.path, buf, info.offset + offset).map_err(|e| {
            let e = match e.kind() {
                std::io::ErrorKind::UnexpectedEof => "the file has become shorter since it was opened".to_owned(),
                _ => e.to_string(),
            };
            let name = shown(&info.name);
            Error::input(format!("cannot read tensor `{name}` of `{}`: {e}", text::path(&part.path)))
        })
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.parts.iter().map(|part| part.path.as_path())
    }

    /// Name, without its folder, and size of each of them.
    #[doc(hidden)]
    pub fn sizes(&self) -> impl Iterator<Item = (String, u64)> {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.parts.iter().map(move |part| (name(&part.path), part.stamp.len))
    }

    /// The file that holds tensor number `tensor`.
    #[doc(hidden)]
    pub fn file_of(&self, tensor: usize) -> &Path {
        &self.parts[self.tensors[tensor].file].path
    }

    /// The file that holds tensor number `tensor`, and where in it; `None` for one that is computed.
    pub(crate) fn range_of(&self, tensor: usize) -> Option<(&Path, std::ops::Range<u64>)> {
        let TensorInfo { offset, bytes, .. } = self.tensors[tensor];
        self.overlay.is_none().then(|| (self.file_of(tensor), offset..offset + bytes))
    }

    /// Bytes of all tensors; of an adapter, of its own files.
    pub fn total_bytes(&self) -> u64 {
        if self.overlay.is_some() {
            return self.parts.iter().map(|part| part.stamp.len).sum();
        }
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// `config.json` of the folder, `None` if there is no folder or no such file.
    ///
    /// # Errors
    /// A file that cannot be read, is longer than 16 MiB, leads out of the folder or holds no JSON object.
    pub fn config(&self) -> Result<Option<serde_json::Value>> {
        self.json("config.json")
    }

    /// The JSON object in file `name` of the folder, as [`Checkpoint::config`].
    #[doc(hidden)]
    pub fn json(&self, name: &str) -> Result<Option<serde_json::Value>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let Some(path) = folder.file(name)? else { return Ok(None) };
        let bytes = read_small(&path, MAX_CONFIG)?;
        let bad = |what: &str| Error::input(format!("`{}` holds no JSON object: {what}", text::path(&path)));
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| bad(&shown(&e.to_string())))?;
        if value.is_object() { Ok(Some(value)) } else { Err(bad("it holds another value")) }
    }

    /// The checkpoints that its tensors are computed from, if they are computed.
    pub(crate) fn read_from(&self) -> Vec<&Self> {
        self.overlay.as_ref().map_or(Vec::new(), |overlay| overlay.read_from())
    }

    /// Checks that every file is still the one that was opened: size, time of change and, on Unix, inode.
    ///
    /// # Errors
    /// The first file that has changed or is gone.
    pub fn check_unchanged(&self) -> Result<()> {
        self.stamped().into_iter().try_for_each(|(path, stamp)| stamp.check(path))
    }

    /// All files that it is read from, as they were when they were opened.
    pub(super) fn stamped(&self) -> Vec<(&Path, &Stamp)> {
        let below = self.read_from().into_iter().flat_map(Self::stamped);
        below.chain(self.parts.iter().map(|part| (&*part.path, &part.stamp))).collect()
    }
}

/// Places of `tensors`, by name.
fn sorted(tensors: &[TensorInfo]) -> Vec<u32> {
    let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
    by_name.sort_unstable_by_key(|&i| tensors[i as usize].name.as_str());
    by_name
}

/// The tensors of a file, where their bytes begin, and what is to be said of what it holds besides.
fn read_part(path: PathBuf) -> Result<(Part, Vec<Entry>, u64, Option<String>)> {
    let (file, stamp) = open_regular(&path)?;
    // By what a file holds: names of files promise nothing.
    if torch::is_archive(&file, stamp.len) {
        let (entries, note) = torch::read(&file, &path, stamp.len)?;
        return Ok((Part { path, stamp }, entries, 0, note));
    }
    let (entries, data) = header::read(&file, &path, stamp.len)?;
    Ok((Part { path, stamp }, entries, data, None))
}

/// Every tensor must be in the shard where the index says it is, and in no other.
fn compare(mut index: Index, tensors: &[TensorInfo], parts: &[Part], path: &Path) -> Result<()> {
    let bad = |what: String| {
        Error::input(format!("`{}` and its shards disagree: {what}", text::path(path)))
            .hint("the files are of different versions of the model: download it again")
    };
    let mut extra = Vec::new();
    for tensor in tensors {
        match index.map.get(&tensor.name) {
            Some(&shard) if shard == tensor.file => drop(index.map.remove(&tensor.name)),
            Some(&shard) => {
                let (name, shard, at) = (shown(&tensor.name), &index.shards[shard], &parts[tensor.file].path);
                let at = text::path(at);
                return Err(bad(format!("tensor `{name}` should be in `{}`, but is in `{at}`", shown(shard))));
            }
            None => extra.push(tensor),
        }
    }
    if let [first, ..] = &extra[..] {
        // A name that is in two shards was taken out of the map when it was met first.
        let at = &parts[first.file].path;
        let names = list(extra.iter().map(|tensor| tensor.name.as_str()), 4);
        return Err(bad(format!("it does not place {names} in `{}`", text::path(at))));
    }
    let mut absent: Vec<(&str, usize)> = index.map.iter().map(|(name, shard)| (name.as_str(), *shard)).collect();
    absent.sort_unstable();
    match absent.first() {
        None => Ok(()),
        Some(&(_, shard)) => {
            let names = list(absent.iter().map(|(name, _)| *name), 4);
            let at = text::path(&parts[shard].path);
            Err(bad(format!("tensors {names} are not where it places them; `{at}` lacks the first")))
        }
    }
}
