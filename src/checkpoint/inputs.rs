//! What a run reads: none of it is ever written to.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::files::{Identity, identity};
use super::reader::Checkpoint;
use super::text::{self, shown};
use crate::error::{Error, Result};

/// Files and folders that are only read, known by what they are and not by their paths.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    files: HashMap<Identity, PathBuf>,
    /// Folders that were named as inputs, with the name.
    named: Vec<(Identity, String)>,
    /// Folders that files of inputs lie in.
    parents: Vec<(Identity, String)>,
}

impl Inputs {
    /// `checkpoints`, and `others`: files and folders of samples, lists.
    pub(crate) fn new(checkpoints: &[&Checkpoint], others: &[PathBuf]) -> Self {
        let mut inputs = Self::default();
        for checkpoint in checkpoints {
            inputs.add_folder(checkpoint.folder(), checkpoint.name());
            checkpoint.stamped().into_iter().for_each(|(file, _)| inputs.add_file(file, checkpoint.name()));
        }
        for other in others {
            let name = other.to_string_lossy();
            match other.is_dir() {
                true => inputs.add_folder(Some(other), &name),
                false => inputs.add_file(other, &name),
            }
        }
        inputs
    }

    fn add_folder(&mut self, dir: Option<&Path>, name: &str) {
        let id = dir.and_then(|dir| identity(dir).ok());
        self.named.extend(id.map(|id| (id, name.to_owned())));
    }

    fn add_file(&mut self, file: &Path, name: &str) {
        let Ok(id) = identity(file) else { return };
        self.files.insert(id, file.to_owned());
        // Of a link, as in the hub's cache, both ends count.
        let real = fs::canonicalize(file).ok();
        let parents = [Some(file), real.as_deref()].into_iter().flatten().map(folder_of);
        self.parents.extend(parents.filter_map(|dir| Some((identity(dir).ok()?, name.to_owned()))));
    }

    /// The output must not be a folder that an input lies in, whatever it would replace there.
    pub(super) fn refuse_folder(&self, dir: &Path) -> Result<()> {
        let Ok(own) = identity(dir) else { return Ok(()) };
        match self.named.iter().chain(&self.parents).find(|(id, _)| *id == own) {
            Some((_, input)) => {
                let what = format!("the output folder `{}` is that of the input `{}`", text::path(dir), shown(input));
                Err(Error::output(what).hint("choose another output folder: an input is never written to"))
            }
            None => Ok(()),
        }
    }

    /// An output must not replace an input, under whatever name.
    pub(super) fn refuse_file(&self, path: &Path) -> Result<()> {
        match identity(path).ok().and_then(|id| self.files.get(&id)) {
            Some(input) => Err(replaces(path, &text::path(input)).hint("choose another output folder")),
            None => Ok(()),
        }
    }

    /// The same of a file that was named as an output, which must not replace anything that lies in an input's folder
    /// either, or in a folder in it.
    pub(crate) fn refuse_named(&self, path: &Path) -> Result<()> {
        self.refuse_file(path)?;
        let Ok(real) = fs::canonicalize(path) else { return Ok(()) };
        for dir in real.ancestors().skip(1).take(2) {
            let Ok(own) = identity(dir) else { continue };
            if let Some((_, input)) = self.named.iter().find(|(id, _)| *id == own) {
                return Err(replaces(path, &shown(input)).hint("name another file"));
            }
        }
        Ok(())
    }
}

/// The folder that the file `path` lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn replaces(path: &Path, input: &str) -> Error {
    Error::output(format!("the output `{}` would replace the input `{input}`", text::path(path)))
}
