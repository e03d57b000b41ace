//! What a merge was made from and what came of it, so that anyone can check it: files with their SHA-256, and the recipe
//! with paths that hold everywhere on this machine.

use std::path::Path;

use rayon::prelude::*;

use super::Job;
use crate::checkpoint::{Checkpoint, FileRecord, Writer};
use crate::error::Result;
use crate::progress::Progress;
use crate::recipe::{Recipe, Sensitive, resolve};
use crate::report::{Input, InputFile, Report};

/// Inputs up to this many bytes, all together, are always hashed, and so is what comes of them; to hash more takes longer
/// than to merge it.
pub const HASHED: u64 = 1_000_000_000;

impl Job {
    /// Whether files are hashed: `always`, or because there is little of them.
    pub(super) fn is_hashed(&self, always: bool) -> bool {
        always || self.sources().iter().map(|source| source.total_bytes()).sum::<u64>() <= HASHED
    }

    /// The inputs and the shards of the output, which are all written, as the receipt lists them. Files are hashed
    /// several at a time.
    pub(super) fn hashed(
        &self,
        writer: &Writer,
        always: bool,
        progress: &Progress,
    ) -> Result<(Vec<Input>, Vec<FileRecord>)> {
        let sources = self.sources();
        let hash = self.is_hashed(always);
        let input = |source: &&Checkpoint| input(source, hash, progress);
        let (inputs, files) = rayon::join(
            || sources.par_iter().map(input).collect::<Result<_>>(),
            || writer.shard_records(hash, &|_| progress.check()),
        );
        Ok((inputs?, files?))
    }

    /// The models that have files, each once: the base, the experts, and what only adapters stand on.
    pub(crate) fn sources(&self) -> Vec<&Checkpoint> {
        let mut sources: Vec<&Checkpoint> = self.checkpoints[usize::from(self.zeros)..].iter().collect();
        let mut next = 0;
        while let Some(source) = sources.get(next) {
            for below in source.read_from() {
                if below.files().len() > 0 && sources.iter().all(|known| known.name() != below.name()) {
                    sources.push(below);
                }
            }
            next += 1;
        }
        sources
    }

    /// What the recipe calls the model or samples `name`, which it may have been opened by another name than that.
    fn called<'a>(&'a self, name: &'a str) -> &'a str {
        let mut names = paths(&self.resolved).zip(paths(&self.recipe));
        match paths(&self.recipe).any(|given| given == name) {
            true => name,
            false => names.find(|(path, _)| *path == name).map_or(name, |(_, given)| given),
        }
    }

    /// `text`, in which names stand in back quotes, with those that the recipe uses.
    pub(super) fn told(&self, text: &str) -> String {
        let piece = |(at, piece)| if at % 2 == 1 { self.called(piece) } else { piece };
        text.split('`').enumerate().map(piece).collect::<Vec<_>>().join("`")
    }

    /// The same of `report`.
    pub(super) fn name_inputs(&self, report: &mut Report) {
        let data = report.features.iter_mut().flat_map(|features| &mut features.data).map(|set| &mut set.name);
        let models = report.inputs.iter_mut().map(|input| &mut input.model);
        models.chain(data).for_each(|name| *name = self.called(name).to_owned());
        report.warnings.iter_mut().for_each(|warning| *warning = self.told(warning));
    }

    /// Where the files of the inputs are, from the root.
    pub(crate) fn input_paths(&self) -> Vec<String> {
        self.sources().into_iter().flat_map(Checkpoint::files).map(absolute).collect()
    }
}

/// A checkpoint as the report names it, after a look that it is still what was read.
fn input(checkpoint: &Checkpoint, hash: bool, progress: &Progress) -> Result<Input> {
    let records: Vec<FileRecord> = if hash {
        let digests = checkpoint.digests_with(&|_| progress.check())?.into_iter();
        digests.map(|of| FileRecord { file: of.file, bytes: of.bytes, sha256: Some(of.sha256) }).collect()
    } else {
        checkpoint.sizes().map(|(file, bytes)| FileRecord { file, bytes, sha256: None }).collect()
    };
    checkpoint.check_unchanged()?;
    let file = |(path, record): (&Path, FileRecord)| InputFile { path: absolute(path), record };
    let files = checkpoint.files().zip(records).map(file).collect();
    Ok(Input { model: checkpoint.name().to_owned(), files })
}

/// `path` from the root.
pub(crate) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// `path` from the root, if there is something at it; else it stays what it is, such as a name of the hub.
pub(super) fn located(path: &str, folder: Option<&Path>) -> String {
    let found = resolve(path, folder);
    let whole = found.exists().then(|| std::path::absolute(&found).ok()).flatten();
    whole.as_deref().and_then(Path::to_str).unwrap_or(path).to_owned()
}

/// The paths and names of the hub in `recipe`, those of adapters on models whole and in both parts.
fn paths(recipe: &Recipe) -> impl Iterator<Item = &str> {
    let models = recipe.base.iter().chain(recipe.models.iter().map(|entry| &entry.model));
    let data = recipe.calibrate.data.iter().chain(recipe.models.iter().filter_map(|entry| entry.data.as_ref()));
    models.chain(data).flat_map(|path| {
        let (model, adapter) = path.split_once('+').unwrap_or((path, path));
        [path, model, adapter]
    })
}

/// `recipe` with every path that exists made absolute; names of the hub stay as they are.
pub(super) fn resolved(recipe: &Recipe, folder: Option<&Path>) -> Recipe {
    let absolute = |path: &mut String| {
        *path = match path.split_once('+').filter(|_| !resolve(path, folder).exists()) {
            Some((model, adapter)) => format!("{}+{}", located(model, folder), located(adapter, folder)),
            None => located(path, folder),
        };
    };
    let mut recipe = recipe.clone();
    recipe.base.iter_mut().for_each(absolute);
    recipe.models.iter_mut().map(|entry| &mut entry.model).for_each(absolute);
    recipe.calibrate.data.iter_mut().for_each(absolute);
    recipe.models.iter_mut().filter_map(|entry| entry.data.as_mut()).for_each(absolute);
    if let Sensitive::File(file) = &mut recipe.calibrate.sensitive {
        absolute(file);
    }
    recipe
}
