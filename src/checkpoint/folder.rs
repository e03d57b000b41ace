//! From what the user names to the files that hold the tensors.

use std::fs;
use std::path::{Path, PathBuf};

use super::hub::{self, Repo, Snapshot};
use super::index::{self, Index};
use super::text::{self, list, shown};
use crate::error::{Error, Result, nearest};

/// Tensors of a PEFT adapter, the preferred file first.
const ADAPTER: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
/// What makes a folder one of a PEFT adapter.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Tensors of a model that PyTorch saved, and the index where they are in shards.
const TORCH: &str = "pytorch_model.bin";
const TORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// What a spec leads to.
pub(super) struct Found {
    /// The folder, unless the spec names one file.
    pub(super) folder: Option<Folder>,
    /// The files with tensors.
    pub(super) files: Vec<PathBuf>,
    /// Where the files are shards: their index and its path.
    pub(super) index: Option<(Index, PathBuf)>,
    /// True for the folder of a PEFT adapter.
    pub(super) adapter: bool,
}

/// Finds the files of `spec`; a relative path also below each folder of `search`.
pub(super) fn find(spec: &str, search: &[PathBuf]) -> Result<Found> {
    let path = locate(spec, search)?;
    if !path.is_dir() {
        if path.extension().is_some_and(|end| end == "json") {
            let error = Error::usage(format!("`{}` holds no tensors", shown(spec)));
            return Err(error.hint("name the folder that it is in"));
        }
        // The file of an adapter means nothing without the configuration beside it.
        let name = ADAPTER.into_iter().find(|name| path.file_name().is_some_and(|file| file == *name));
        let folder = path.parent().filter(|folder| folder.join(ADAPTER_CONFIG).exists());
        return match folder.zip(name) {
            Some((folder, name)) if folder.as_os_str().is_empty() => Folder::open(".".into())?.adapter(&[name]),
            Some((folder, name)) => Folder::open(folder.to_owned())?.adapter(&[name]),
            None => Ok(Found { folder: None, files: vec![path], index: None, adapter: false }),
        };
    }
    let folder = Folder::open(path)?;
    if folder.path.join(ADAPTER_CONFIG).exists() { folder.adapter(&ADAPTER) } else { folder.weights() }
}

fn locate(spec: &str, search: &[PathBuf]) -> Result<PathBuf> {
    if spec.is_empty() || spec.contains(text::is_hostile) {
        return Err(Error::usage(format!("`{}` is not the name of a model", shown(spec))));
    }
    let given = Path::new(spec);
    let mut places = vec![given.to_owned()];
    if given.is_relative() {
        places.extend(search.iter().map(|folder| folder.join(given)));
    }
    if let Some(found) = places.iter().find(|place| place.exists()) {
        return Ok(found.clone());
    }
    if let Some(link) = places.iter().find(|place| place.is_symlink()) {
        return Err(Error::usage(format!("`{}` is a link to nothing", text::path(link))));
    }
    let error = |what: &str| {
        let error = Error::usage(format!("`{}` {what}", shown(spec)));
        let near = places.iter().find_map(|place| sibling(place)).map(|near| format!("did you mean `{near}`?"));
        let below = list(search.iter().filter_map(|folder| folder.to_str()), 4);
        let below = (places.len() > 1).then(|| format!("looked in the working directory and below {below}"));
        near.into_iter().chain(below).fold(error, Error::hint)
    };
    let Some(repo) = Repo::parse(spec) else { return Err(error("does not exist")) };
    let Some(cache) = hub::cache() else { return Err(error("does not exist")) };
    match repo.find(&cache)? {
        Some(snapshot) => Ok(snapshot),
        None => {
            let what = format!("is neither a path nor a model in the Hugging Face cache `{}`", text::path(&cache));
            let error = error(&what);
            let folder = "a model is a folder, a `.safetensors` or PyTorch file, or `org/name` in that cache";
            Err(error.hint(if repo.id.contains('/') { repo.download() } else { folder.into() }))
        }
    }
}

/// The file or folder beside `path` whose name is nearest to its.
fn sibling(path: &Path) -> Option<String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(parent).ok()?.flatten().take(1000);
    let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(text::path(&path.with_file_name(near)))
}

/// A folder, of a model or of images, whose files may be links only to files in it.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(super) path: PathBuf,
    real: PathBuf,
    /// Of the hub's cache, whose files may be links elsewhere in it.
    snapshot: Option<Snapshot>,
}

impl Folder {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let real = fs::canonicalize(&path).map_err(|e| text::cannot_read(&path, &e))?;
        let snapshot = Snapshot::of(&real);
        Ok(Self { path, real, snapshot })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of file `name`, `None` if it is not there (or a link to nothing), an error if it is a link that leads
    /// out of it: a folder from elsewhere must not choose which files of this machine are read.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let path = self.path.join(name);
        let Ok(metadata) = fs::symlink_metadata(&path) else { return Ok(None) };
        if !metadata.is_symlink() {
            return Ok(Some(path));
        }
        let Ok(real) = fs::canonicalize(&path) else { return Ok(None) };
        match real.starts_with(&self.real) || self.snapshot.as_ref().is_some_and(|snapshot| snapshot.links_to(&real)) {
            true => Ok(Some(path)),
            false => {
                let (path, real) = (text::path(&path), text::path(&real));
                Err(Error::input(format!("`{path}` is a link that leads out of its folder, to `{real}`"))
                    .hint("if you trust it, copy the file into the folder, or name the folder that it leads to"))
            }
        }
    }

    /// `error` of a model that is not all there, with what to do about it.
    fn unfinished(&self, error: Error) -> Error {
        match self.snapshot.as_ref().and_then(Snapshot::download) {
            Some(command) => error.hint(format!("only a part of it was downloaded; the rest: `{command}`")),
            None => error.hint("the download did not finish: download it again"),
        }
    }

    fn no_index(&self) -> Error {
        let error = Error::input(format!("`{}` has shards, but no index of them", text::path(&self.path)));
        match self.snapshot {
            Some(_) => self.unfinished(error),
            None => error.hint("the download or the merge that made it did not finish: make it again"),
        }
    }

    /// Names of the files in it, sorted.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.path).map_err(|e| text::cannot_read(&self.path, &e))?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The files with tensors, in the order of preference that the usual loaders have.
    fn weights(self) -> Result<Found> {
        let names = self.names()?;
        let at = text::path(&self.path);
        if let Some(file) = self.file("model.safetensors")? {
            return Ok(self.only(file));
        }
        if let Some(name) = names.iter().find(|name| ADAPTER.contains(&name.as_str())) {
            return Err(Error::input(format!("`{at}` has `{name}`, but no `{ADAPTER_CONFIG}`"))
                .hint("an adapter cannot be scaled without it: download or save both"));
        }
        let ending = |end: &str| {
            let ours = names.iter().filter(|name| name.ends_with(end) && !name.starts_with('.'));
            ours.map(String::as_str).collect::<Vec<_>>()
        };
        let indices = ending(".safetensors.index.json");
        let index = match indices.contains(&"model.safetensors.index.json") {
            true => vec!["model.safetensors.index.json"],
            false => indices,
        };
        match (&index[..], &ending(".safetensors")[..]) {
            (&[index], _) => self.sharded(index, ".safetensors"),
            ([], [shard, ..]) if is_shard(shard, ".safetensors") => Err(self.no_index()),
            ([], &[name]) => match self.file(name)? {
                Some(file) => Ok(self.only(file)),
                None => Err(self.unfinished(Error::input(format!("`{at}/{}` is a link to nothing", shown(name))))),
            },
            ([], []) => {
                if let Some(file) = self.file(TORCH)? {
                    return Ok(self.only(file));
                }
                if names.iter().any(|name| name == TORCH_INDEX) {
                    return self.sharded(TORCH_INDEX, ".bin");
                }
                if names.iter().any(|name| is_shard(name, ".bin")) {
                    return Err(self.no_index());
                }
                let error = Error::input(format!("`{at}` has no `.safetensors` file, and no `{TORCH}`"));
                let files: Vec<&str> = [".bin", ".pt", ".pth", ".ckpt"].into_iter().flat_map(ending).collect();
                let quantized = ending(".gguf");
                Err(match (files.is_empty(), quantized.is_empty()) {
                    (false, _) => error.hint(format!("name the file, if the model is in {}", list(files, 4))),
                    (true, false) => error.hint(format!("convert {} to safetensors first", list(quantized, 4))),
                    (true, true) if self.snapshot.is_some() => {
                        let there = list(names.iter().map(String::as_str), 8);
                        let what = format!("there is {}", if names.is_empty() { "nothing" } else { &there });
                        self.unfinished(error.hint(what))
                    }
                    (true, true) => error.hint("name the folder or the file that holds the model's weights"),
                })
            }
            (several @ [_, ..], _) | ([], several) => {
                let what = format!("`{at}` has no `model.safetensors`, and more than one that it could be");
                Err(Error::input(format!("{what}: {}", list(several.iter().copied(), 8))).hint("name one file"))
            }
        }
    }

    /// A model in one file.
    fn only(self, file: PathBuf) -> Found {
        Found { folder: Some(self), files: vec![file], index: None, adapter: false }
    }

    /// The only file of an adapter: the first of `names` that is there.
    fn adapter(self, names: &[&str]) -> Result<Found> {
        for name in names {
            if let Some(file) = self.file(name)? {
                return Ok(Found { adapter: true, ..self.only(file) });
            }
        }
        let (at, names) = (text::path(&self.path), list(names.iter().copied(), 2));
        Err(self.unfinished(Error::input(format!("the adapter `{at}` has none of {names}"))))
    }

    /// The shards that the index `name` says; names of shards end with `end`.
    fn sharded(self, name: &str, end: &str) -> Result<Found> {
        let missing = |what: &str| self.unfinished(Error::input(what.to_owned()));
        let Some(path) = self.file(name)? else {
            return Err(missing(&format!("`{}` is a link to nothing", text::path(&self.path.join(name)))));
        };
        let index = index::read(&path, end)?;
        let mut files = Vec::with_capacity(index.shards.len());
        let mut lost = Vec::new();
        for shard in &index.shards {
            match self.file(shard)? {
                Some(file) => files.push(file),
                None => lost.push(shard.as_str()),
            }
        }
        if !lost.is_empty() {
            let (all, at) = (index.shards.len(), text::path(&self.path));
            let what = format!("{} of the {all} shards of `{at}` are missing: {}", lost.len(), list(lost, 64));
            return Err(missing(&what));
        }
        Ok(Found { folder: Some(self), files, index: Some((index, path)), adapter: false })
    }
}

/// True for `anything-00001-of-00002.safetensors`, or with another `end`.
pub(super) fn is_shard(name: &str, end: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.strip_suffix(end)
        .and_then(|stem| stem.rsplit_once("-of-"))
        .is_some_and(|(front, count)| digits(count) && front.rsplit_once('-').is_some_and(|(_, number)| digits(number)))
}
