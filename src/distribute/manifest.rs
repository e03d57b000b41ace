//! `plan.json`: what is to be done, and of what.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::sealed;
use crate::checkpoint::text::{path, shown};
use crate::checkpoint::{Fingerprint, PLAN, create_folder, difference, put, read_document};
use crate::device::Wanted;
use crate::error::{Error, Result};
use crate::job::resume::{DECOMPOSITION, KERNELS, PRODUCTS};
use crate::job::{Job, Output, absolute};
use crate::recipe::Recipe;

/// Name and version of the document.
const SCHEMA: &str = "magic-plan/1";
/// What to do about a plan that does not fit.
const AGAIN: &str = "plan the merge again, in another folder: `magic plan RECIPE.yml --out DIR`";

/// The plan of a merge by several machines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program that planned it, and that has to do the work.
    pub version: String,
    /// The recipe, with paths from the root, as all machines open it.
    pub recipe: String,
    /// The recipe as it was given, whose names the result has.
    given: String,
    /// Most bytes of a shard.
    pub shard_size: u64,
    /// Whether factors of feature space are to be measured before there is work.
    pub measured: bool,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all files that are read.
    pub read: u64,
    /// Bytes of all shards.
    pub written: u64,
    /// Most host memory that a worker takes, in bytes, on the device that it was planned for.
    pub host_memory: u64,
    /// Most device memory, in bytes.
    pub device_memory: u64,
    /// The largest tensor: its name, and in how many blocks it is merged.
    pub largest: Option<(String, usize)>,
    /// All files that are read.
    pub inputs: Vec<InputFile>,
    /// The shards of the output.
    pub shards: Vec<Shard>,
    /// Where everything lies in them, as a digest.
    layout: String,
    /// What else decides the bytes, but for the device: files as they were, samples.
    decisive: Fingerprint,
}

/// A file that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// The model, as it was named.
    pub model: String,
    /// Where it is.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// A digest of what its header says.
    pub header: String,
}

impl InputFile {
    /// Whether both are the same file with the same contents, as far as a look at it can tell.
    fn is(&self, other: &Self) -> bool {
        self.path == other.path && self.bytes == other.bytes && self.header == other.header
    }
}

/// A shard of the output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shard {
    /// Name of its file.
    pub file: String,
    /// Size of its file.
    pub bytes: u64,
    /// Bytes that are read for it, once.
    pub read: u64,
    /// Its tensors.
    pub tensors: Vec<Tensor>,
}

/// A tensor of a shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tensor {
    /// Name.
    pub name: String,
    /// Its bytes in the output.
    pub bytes: u64,
    /// What it is made from: input file, first byte, and byte after the last. Tensors that an adapter computes have none.
    pub ranges: Vec<(usize, u64, u64)>,
}

impl Manifest {
    /// The plan of `job`, which was opened on the device that is `wanted`, in shards of at most `shard_size` bytes.
    ///
    /// # Errors
    /// A job whose result is an adapter.
    pub fn new(job: &Job, shard_size: u64, wanted: &Wanted) -> Result<Self> {
        if job.recipe.lora_out.is_some() || job.zeros {
            return Err(Error::usage("an adapter is laid out when all of it is computed: it cannot be planned")
                .hint("use `magic merge`"));
        }
        let layout = job.layout(shard_size)?;
        let inputs = inputs(job);
        let place = |checkpoint: usize, tensor: usize| {
            let (path, range) = job.checkpoints[checkpoint].range_of(tensor)?;
            let path = absolute(path);
            Some((inputs.iter().position(|input| input.path == path)?, range.start, range.end))
        };
        let mut shards: Vec<Shard> = layout
            .shards()
            .map(|(file, bytes)| Shard { file: file.to_owned(), bytes, read: 0, tensors: Vec::new() })
            .collect();
        for (number, tensor) in job.plan.tensors.iter().enumerate() {
            let ranges: Vec<_> =
                tensor.sources.iter().filter_map(|source| place(source.checkpoint, source.tensor)).collect();
            let shard = &mut shards[layout.shard_of(number)];
            shard.read += ranges.iter().map(|(_, start, end)| end - start).sum::<u64>();
            shard.tensors.push(Tensor { name: tensor.name.clone(), bytes: layout.tensor_bytes(number), ranges });
        }
        let largest = job.plan.tensors.iter().max_by_key(|tensor| tensor.elements);
        let manifest = Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: job.resolved_yaml(),
            given: job.recipe.to_yaml(),
            shard_size,
            measured: job.features.is_some(),
            tensors: job.plan.tensors.len(),
            read: inputs.iter().map(|input| input.bytes).sum(),
            written: layout.file_bytes(),
            host_memory: job.plan.memory.host_peak(),
            device_memory: job.plan.memory.device_peak(),
            largest: largest.map(|tensor| (tensor.name.clone(), tensor.blocks())),
            inputs,
            shards,
            layout: layout.describe(),
            decisive: Fingerprint::new(),
        };
        // As workers will see it: under the names that the plan has.
        let decisive = decisive(&manifest.opened(wanted)?)?;
        Ok(Self { decisive, ..manifest })
    }

    /// Writes it into `dir`, which is made if it is not there; returns its digest, by which all work names it, and what is
    /// to be said of too little space there.
    ///
    /// # Errors
    /// A folder that holds something else, a failed write.
    pub fn write(&self, job: &Job, dir: &Path) -> Result<(String, Option<String>)> {
        let (document, id) = sealed::seal(SCHEMA, self);
        if dir.join(PLAN).exists() {
            return match Self::read(dir)?.1 == id {
                true => Ok((id, None)),
                false => Err(Error::output(format!("`{}` holds the plan of another merge", path(dir)))
                    .hint("choose another folder, or remove it")),
            };
        }
        let space = job.check_but_space(&Output { shard_size: self.shard_size, ..Output::new(dir) })?;
        create_folder(dir)?;
        put(dir, PLAN, &document)?;
        Ok((id, space.map(|error| error.to_string())))
    }

    /// Reads the plan in `dir`, and its digest.
    ///
    /// # Errors
    /// No plan, or one that has been changed.
    pub fn read(dir: &Path) -> Result<(Self, String)> {
        let at = path(&dir.join(PLAN));
        if !dir.is_dir() {
            return Err(Error::no_folder(dir).hint("name the folder of a plan"));
        }
        let bytes = read_document(dir, PLAN)?.ok_or_else(|| {
            Error::input(format!("there is no `{PLAN}` in `{}`", path(dir)))
                .hint("make one: `magic plan RECIPE.yml --out DIR`")
        })?;
        sealed::open(SCHEMA, &bytes).map_err(|what| Error::input(format!("`{at}` {what}")).hint(AGAIN))
    }

    /// The merge, opened on the device that is `wanted`.
    ///
    /// # Errors
    /// Another version of the program, inputs that are no longer what was planned with, and all that opening a merge can
    /// end with.
    pub fn job(&self, wanted: &Wanted) -> Result<Job> {
        let version = env!("CARGO_PKG_VERSION");
        if self.version != version {
            let what = format!("the plan is of version {}, and this is {version}", shown(&self.version));
            return Err(Error::usage(what).hint("all machines need the same version"));
        }
        let job = self.opened(wanted)?;
        let now = inputs(&job);
        if let Some(input) = self.inputs.iter().find(|input| !now.iter().any(|other| other.is(input))) {
            let what = format!("the input `{}` is not what the merge was planned with", shown(&input.path));
            let error = Error::input(what);
            return Err(match now.iter().find(|other| other.path == input.path) {
                Some(other) if other.bytes != input.bytes => {
                    error.hint(format!("it has {} bytes, and had {}", other.bytes, input.bytes)).hint(AGAIN)
                }
                Some(_) => error.hint("its header says something else than then").hint(AGAIN),
                None => error.hint("all machines need to see the inputs under the same paths"),
            });
        }
        if let Some(what) = difference(&self.decisive, &decisive(&job)?) {
            return Err(Error::input(format!("this is no longer the merge that was planned: {what}")).hint(AGAIN));
        }
        let layout = job.layout(self.shard_size)?;
        let shards = self.shards.iter().map(|shard| (shard.file.as_str(), shard.bytes));
        if layout.describe() != self.layout || !layout.shards().eq(shards) {
            return Err(Error::input("the output would be laid out in another way than was planned").hint(AGAIN));
        }
        Ok(job)
    }

    fn opened(&self, wanted: &Wanted) -> Result<Job> {
        let mut job = Job::new(Recipe::from_yaml(&self.recipe, PLAN)?, None, wanted)?;
        job.take_names(Recipe::from_yaml(&self.given, PLAN)?);
        Ok(job)
    }

    /// Shard number `shard`.
    ///
    /// # Errors
    /// One that there is not.
    pub fn shard(&self, shard: usize) -> Result<&Shard> {
        self.shards.get(shard).ok_or_else(|| {
            let error = |what: String| Error::usage(format!("there is no shard {shard}: the plan has {what}"));
            match self.shards.len() {
                1 => error("only shard 0".into()).hint("add `--shard 0`"),
                count => error(format!("shards 0 to {}", count - 1))
                    .hint(format!("an array of jobs would have the indices 0-{}", count - 1)),
            }
        })
    }
}

/// What decides the bytes of `job`, and is the same on every machine.
fn decisive(job: &Job) -> Result<Fingerprint> {
    let here = ["device", "version", KERNELS, PRODUCTS, DECOMPOSITION];
    let mut all = job.decisive()?;
    all.retain(|key, _| !here.contains(&key.as_str()));
    Ok(all)
}

/// All files that `job` reads.
fn inputs(job: &Job) -> Vec<InputFile> {
    let mut files = Vec::new();
    for source in job.sources() {
        for (path, bytes, header) in source.contents() {
            files.push(InputFile { model: source.name().to_owned(), path: absolute(path), bytes, header });
        }
    }
    files
}
