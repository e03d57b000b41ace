//! The parameters of one leaf, in chunks that fit the memory, in all the versions that a pass runs it with: the base's,
//! an expert's, the merged ones at any strength, and the task vectors themselves.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::executor::{Executor, Inputs};
use crate::forward::is_head;
use crate::forward::network::{Form, Leaf};
use crate::forward::pass::{Formed, Pass};
use crate::kernels::factor::Strength;
use crate::kernels::rescale::{self, Counts};
use crate::kernels::{delta, scale, widen};
use crate::merge::{Prepared, TauRows};
use crate::plan::{Action, Plan, Source};
use crate::progress::Progress;
use crate::recording::{Extent, Recording, Results, Size};
use crate::stack;
use crate::stream::Engine;
use crate::written::Written;

/// Which parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Version {
    /// θ_0.
    Base,
    /// θ_k.
    Expert(usize),
    /// τ_k.
    Tau(usize),
    /// θ_0 + ξ∘τ_m, with ξ in weight space at a strength.
    Merged(Strength),
    /// ξ∘τ_m.
    TauMerged(Strength),
    /// θ_0 + ξ∘τ_m with the strength for the weight alone; the bias is the merged one.
    Perturbed(Strength),
}

/// Where parameters come from: checkpoints as they are, or a merge of them.
pub struct Library<'a> {
    /// The base, then the experts.
    pub checkpoints: &'a [Checkpoint],
    /// Where a classifier comes from, if not from the base.
    pub head: Option<&'a Checkpoint>,
    /// What loads them.
    pub executor: &'a Executor,
    /// The merge, if there is one.
    pub merge: Option<(&'a Plan, &'a Engine<'a>)>,
    /// Bytes of parameters to load at a time.
    pub budget: u64,
}

/// One tensor of a leaf.
struct Tensor<'a> {
    sources: Vec<Source>,
    rows: u64,
    row_len: u64,
    prepared: Option<Prepared<'a>>,
}

/// A leaf, everything known that takes a whole tensor to know.
pub struct Open<'a> {
    library: &'a Library<'a>,
    weight: Tensor<'a>,
    bias: Option<Tensor<'a>>,
    chunks: Vec<Chunk>,
    /// True for the table of an embedding, of which single rows are loaded.
    listed: bool,
}

/// Rows of a leaf's weight, and the part of its bias that goes with them.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// One after another.
    Range(Range<u64>),
    /// Single rows of a table, in ascending order.
    List(Vec<u32>),
}

/// A chunk in the executor's memory.
pub struct Loaded {
    /// Which rows.
    pub chunk: Chunk,
    weight: Side,
    bias: Option<Side>,
}

/// What was loaded of one tensor.
struct Side {
    extent: Extent,
    /// The stored elements of all its sources, then τ_m where it is merged.
    inputs: Inputs,
    /// Bytes of an element in all inputs.
    element_bytes: u64,
    rows: TauRows,
}

impl<'a> Library<'a> {
    /// Opens a leaf; of a table, only the rows `wanted` (in ascending order) if they are given.
    pub fn open(&'a self, leaf: &Leaf, wanted: Option<&[u32]>) -> Result<Open<'a>> {
        let row_len = match leaf.form {
            Form::Linear { inputs, .. } => inputs,
            Form::Affine { width } | Form::Table { width, .. } => width,
        };
        let weight = self.tensor(&leaf.weight, row_len.into())?;
        let outputs = match leaf.form {
            Form::Linear { outputs, .. } => outputs,
            Form::Affine { width } | Form::Table { width, .. } => width,
        };
        let bias = leaf.bias.as_ref().map(|bias| self.tensor(bias, outputs.into())).transpose()?;
        // Rows can be picked where the merge sees the same ones.
        let alike = weight.prepared.as_ref().is_none_or(|p| u64::from(p.tensor.row_len) == weight.row_len);
        let step = weight.prepared.as_ref().map_or(1, |p| p.tensor.block_rows);
        // Besides what is loaded: one version, and the task vectors while they are measured.
        let row_bytes = weight.row_len * (weight.element_bytes() + 8);
        let most_bytes = match self.executor {
            Executor::Cpu(_) => u64::MAX,
            Executor::Gpu(gpu) => gpu.limits().max_binding_bytes,
        };
        let most = (self.budget / row_bytes).min(most_bytes / 4 / weight.row_len).max(1);
        let listed = wanted.is_some() && alike;
        let chunks = match wanted.filter(|_| listed) {
            Some(rows) => rows.chunks(most as usize).map(|rows| Chunk::List(rows.to_vec())).collect(),
            None if weight.rows <= most || !alike || leaf.form.is_affine() => vec![Chunk::Range(0..weight.rows)],
            None => {
                let most = (most / step).max(1) * step;
                let range = |i: u64| Chunk::Range(i * most..((i + 1) * most).min(weight.rows));
                (0..weight.rows.div_ceil(most)).map(range).collect()
            }
        };
        Ok(Open { library: self, weight, bias, chunks, listed })
    }

    fn tensor(&'a self, name: &str, row_len: u64) -> Result<Tensor<'a>> {
        let shape = |elements: u64| (elements / row_len, row_len);
        if let Some((plan, engine)) = self.merge {
            let found = plan.tensors.iter().position(|tensor| tensor.name == name);
            let index = found.ok_or_else(|| Error::input(format!("the merge has no tensor `{name}`")))?;
            let tensor = &plan.tensors[index];
            let (rows, row_len) = shape(tensor.elements);
            let prepared = match tensor.action {
                Action::Merge => Some(Prepared::new(plan, engine, index, &plan.tensors[index])?),
                Action::Copy(_) => None,
            };
            return Ok(Tensor { sources: tensor.sources.clone(), rows, row_len, prepared });
        }
        let mut sources = Vec::new();
        let mut elements = 0;
        let head = self.head.filter(|head| is_head(name) && head.get(name).is_some());
        let all: Vec<&Checkpoint> = head.map_or_else(|| self.checkpoints.iter().collect(), |head| vec![head]);
        for (i, opened) in all.into_iter().enumerate() {
            let checkpoint = if head.is_some() { usize::MAX } else { i };
            let missing = || Error::input(format!("`{}` has no tensor `{name}`", opened.name()));
            let (tensor, info) = opened.get(name).ok_or_else(missing)?;
            if !info.dtype.is_float() {
                let what = format!("`{name}` of `{}` is stored as {}", opened.name(), info.dtype.header_name());
                return Err(Error::input(format!("{what}, which cannot be computed with")));
            }
            sources.push(Source { checkpoint, tensor, dtype: info.dtype });
            elements = info.elements();
        }
        let (rows, row_len) = shape(elements);
        Ok(Tensor { sources, rows, row_len, prepared: None })
    }
}

impl Tensor<'_> {
    /// Bytes of an element in all inputs.
    fn element_bytes(&self) -> u64 {
        let stored: u64 = self.sources.iter().map(|source| source.dtype.size() as u64).sum();
        stored + if self.prepared.is_some() { 4 } else { 0 }
    }
}

impl Form {
    fn is_affine(self) -> bool {
        matches!(self, Self::Affine { .. })
    }
}

/// Something to load: stored rows of a tensor, or what a merge made.
enum Load<'a> {
    Stored { checkpoint: usize, tensor: usize, row_bytes: u64, rows: &'a Chunk },
    Tau(&'a [f32]),
}

impl Load<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Stored { row_bytes, rows, .. } => (rows.len() * row_bytes) as usize,
            Self::Tau(tau) => 4 * tau.len(),
        }
    }
}

impl Chunk {
    /// Number of rows.
    pub fn len(&self) -> u64 {
        match self {
            Self::Range(range) => range.end - range.start,
            Self::List(list) => list.len() as u64,
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of each row of `index` in the chunk, `u32::MAX` for those that are not in it.
    pub fn places(&self, index: &[u32]) -> Vec<u32> {
        let place = |row: &u32| match self {
            Self::Range(range) if range.contains(&u64::from(*row)) => *row - range.start as u32,
            Self::Range(_) => u32::MAX,
            Self::List(list) => list.binary_search(row).map_or(u32::MAX, |at| at as u32),
        };
        index.iter().map(place).collect()
    }
}

impl Loaded {
    /// Bytes that it takes, roughly.
    pub fn bytes(&self) -> u64 {
        let of = |side: &Side| u64::from(side.extent.n) * side.element_bytes;
        of(&self.weight) + self.bias.as_ref().map_or(0, of)
    }
}

impl<'a> Open<'a> {
    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// True if the merge changes the leaf at all.
    pub fn is_merged(&self) -> bool {
        self.weight.prepared.is_some() || self.bias.as_ref().is_some_and(|bias| bias.prepared.is_some())
    }

    /// Loads chunk `at`.
    pub fn load(&self, at: usize) -> Result<Loaded> {
        let chunk = self.chunks[at].clone();
        let weight = tau_rows(&self.weight, &chunk)?;
        // The bias has an element for each row of a matrix, or for each column of a vector.
        let part = match (&chunk, &self.bias) {
            (Chunk::Range(range), Some(bias)) if bias.row_len == self.weight.rows => range.clone(),
            (_, bias) => 0..bias.as_ref().map_or(0, |bias| bias.row_len),
        };
        let bias = match &self.bias {
            Some(bias) => {
                let mut rows = tau_rows(bias, &Chunk::Range(0..1))?;
                if bias.prepared.is_some() {
                    rows.tau = rows.tau[part.start as usize..part.end as usize].to_vec();
                }
                Some(self.side(bias, &Chunk::Range(part.clone()), (1, part.end - part.start), rows)?)
            }
            None => None,
        };
        let weight = self.side(&self.weight, &chunk, (chunk.len(), self.weight.row_len), weight)?;
        Ok(Loaded { weight, bias, chunk })
    }

    /// Loads `chunk` of a tensor, which has the shape `rows` × `row_len`: its rows, or elements of a bias.
    fn side(&self, tensor: &Tensor<'_>, chunk: &Chunk, (rows, row_len): (u64, u64), mut tau: TauRows) -> Result<Side> {
        let unit = rows * row_len / chunk.len().max(1);
        let stored = |source: &Source| Load::Stored {
            checkpoint: source.checkpoint,
            tensor: source.tensor,
            row_bytes: unit * source.dtype.size() as u64,
            rows: chunk,
        };
        let mut loads: Vec<Load> = tensor.sources.iter().map(stored).collect();
        if tensor.prepared.is_some() {
            loads.push(Load::Tau(&tau.tau));
        }
        let sizes: Vec<usize> = loads.iter().map(Load::bytes).collect();
        let mut read = |i: usize, offset: u64, buffer: &mut [u8]| self.read(&loads[i], offset, buffer);
        let inputs = self.library.executor.load(&sizes, &mut read)?;
        tau.tau = Vec::new(); // loaded now
        let extent = Extent { first_row: 0, rows: rows as u32, row_len: row_len as u32, n: (rows * row_len) as u32 };
        Ok(Side { extent, inputs, element_bytes: tensor.element_bytes(), rows: tau })
    }

    fn read(&self, load: &Load<'_>, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match load {
            Load::Tau(tau) => {
                let bytes: &[u8] = bytemuck::cast_slice(tau);
                buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
                Ok(())
            }
            Load::Stored { checkpoint, tensor, row_bytes, rows } => {
                let opened = self.library.checkpoints.get(*checkpoint).or(self.library.head).expect("it was opened");
                match rows {
                    Chunk::Range(range) => opened.read_at(*tensor, range.start * row_bytes + offset, buffer),
                    Chunk::List(list) => {
                        let (mut at, mut done) = (offset, 0);
                        while done < buffer.len() {
                            let within = at % row_bytes;
                            let piece = ((row_bytes - within) as usize).min(buffer.len() - done);
                            let row = u64::from(list[(at / row_bytes) as usize]);
                            opened.read_at(*tensor, row * row_bytes + within, &mut buffer[done..done + piece])?;
                            (at, done) = (at + piece as u64, done + piece);
                        }
                        Ok(())
                    }
                }
            }
        }
    }

    /// Makes a version of a loaded chunk, in buffers that [`Open::unform`] gives back.
    pub fn form(&self, pass: &mut Pass<'_>, loaded: &Loaded, version: Version) -> Result<Formed> {
        let (version, of_bias) = match version {
            Version::Perturbed(strength) => (Version::Merged(strength), Version::Merged(Strength::FULL)),
            version => (version, version),
        };
        let weight = form(pass, &self.weight, &loaded.weight, version)?;
        let bias = match (&self.bias, &loaded.bias) {
            (Some(tensor), Some(side)) => Some(form(pass, tensor, side, of_bias)?),
            _ => None,
        };
        Ok(Formed { weight, bias })
    }

    /// Gives the buffers of [`Open::form`] back.
    pub fn unform(&self, pass: &mut Pass<'_>, formed: Formed) {
        pass.kept.give(formed.weight);
        formed.bias.into_iter().for_each(|id| pass.kept.give(id));
    }

    /// Gives a chunk's memory back.
    pub fn unload(&self, loaded: Loaded) {
        let sides = [Some(loaded.weight), loaded.bias];
        sides.into_iter().flatten().for_each(|side| self.library.executor.unload(side.inputs));
    }

    /// Writes θ_0 + ξ∘τ_m of a leaf that was loaded whole; nothing if it was not, and none that is not wanted.
    pub fn write(&self, loaded: &Loaded, sink: &Written<'_>, strength: Strength, progress: &Progress) -> Result<()> {
        if self.listed || self.chunks.len() > 1 {
            return Ok(());
        }
        for (tensor, side) in [(Some(&self.weight), Some(&loaded.weight)), (self.bias.as_ref(), loaded.bias.as_ref())] {
            let (Some(tensor), Some(side)) = (tensor, side) else { continue };
            let Some(prepared) = &tensor.prepared else { continue };
            if !sink.wants(prepared.index) {
                continue;
            }
            let out_dtype = prepared.tensor.out_dtype;
            let mut list = Recording::new(1);
            let base = list.input("base", 0, tensor.sources[0].dtype);
            let tau = list.input("tau", tensor.sources.len(), crate::checkpoint::Dtype::F32);
            let out = list.result("out", Size::Stored(out_dtype));
            let counts = list.result("counts", Size::Fixed(rescale::COUNTS));
            let xi = factors(&mut list, side, strength);
            stack::sum(&mut list, prepared.tensor.non_finite, [base, tau, xi, out, counts]);
            let mut results = Results::default();
            self.library.executor.run(&list, &side.extent, &side.inputs, &mut results)?;
            let bytes = results.bytes(0, side.extent.n as usize * out_dtype.size());
            sink.write(prepared.index, bytes)?;
            let counts = bytemuck::cast_slice::<u32, Counts>(results.words(1))[0];
            let report = prepared.report(&side.rows, strength, counts, Some(bytes))?;
            sink.complete(prepared.index, report)?;
            progress.bytes.fetch_add(prepared.tensor.bytes_moved(), Ordering::Relaxed);
            progress.tensors.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The merged task vector of a chunk of a tensor's rows.
fn tau_rows(tensor: &Tensor<'_>, chunk: &Chunk) -> Result<TauRows> {
    let Some(prepared) = &tensor.prepared else { return Ok(TauRows { xi: vec![1.0], ..TauRows::default() }) };
    let own = prepared.tensor;
    let whole = 0..own.blocks();
    match chunk {
        _ if u64::from(own.row_len) != tensor.row_len => prepared.rows(whole, None),
        Chunk::Range(range) => {
            let blocks = (range.start / own.block_rows) as usize..range.end.div_ceil(own.block_rows) as usize;
            prepared.rows(blocks, None)
        }
        Chunk::List(list) => prepared.rows(whole, Some(&|row| list.binary_search(&(row as u32)).is_ok())),
    }
}

fn factors(list: &mut Recording, side: &Side, strength: Strength) -> crate::recording::Buf {
    let xi: Vec<f32> = side.rows.xi.iter().map(|&xi| strength.of(xi)).collect();
    match &xi[..] {
        [one] => list.floats("xi", &[*one]),
        rows if rows.len() == side.extent.rows as usize => list.table("xi", 1, rows),
        // Rows of the merge that are not those of the leaf: a factor for each of the merge's.
        rows => {
            let each = side.extent.rows as usize / rows.len().max(1);
            let spread: Vec<f32> = rows.iter().flat_map(|xi| std::iter::repeat_n(*xi, each)).collect();
            list.table("xi", 1, &spread)
        }
    }
}

fn form(pass: &mut Pass<'_>, tensor: &Tensor<'_>, side: &Side, version: Version) -> Result<usize> {
    let id = pass.kept.take(pass.executor, side.extent.n.max(1))?;
    let mut list = Recording::new(1);
    let input = |list: &mut Recording, k: usize| list.input("stored", k, tensor.sources[k].dtype);
    let tau = |list: &mut Recording| list.input("tau", tensor.sources.len(), crate::checkpoint::Dtype::F32);
    let base = input(&mut list, 0);
    let merged = tensor.prepared.is_some();
    match version {
        Version::Expert(k) if tensor.sources.len() > k + 1 => {
            let out = list.kept("formed", id, Size::Planes(1));
            let expert = input(&mut list, k + 1);
            widen::record(&mut list, expert, out, 0);
        }
        Version::Tau(k) if tensor.sources.len() > k + 1 => {
            let out = list.kept("formed", id, Size::Planes(1));
            let expert = input(&mut list, k + 1);
            delta::record(&mut list, base, expert, out, 0);
        }
        Version::Merged(strength) if merged => {
            let out = list.kept("formed", id, Size::Stored(crate::checkpoint::Dtype::F32));
            let (tau, xi) = (tau(&mut list), factors(&mut list, side, strength));
            let counts = list.scratch("counts", Size::Fixed(rescale::COUNTS));
            rescale::record(&mut list, base, tau, xi, out, counts);
        }
        Version::TauMerged(strength) if merged => {
            let out = list.kept("formed", id, Size::Planes(1));
            let (tau, xi) = (tau(&mut list), factors(&mut list, side, strength));
            scale::record(&mut list, tau, xi, out);
        }
        // What is copied from the base has no task vectors.
        Version::Tau(_) | Version::TauMerged(_) => {
            let out = list.kept("formed", id, Size::Planes(1));
            delta::record(&mut list, base, base, out, 0);
        }
        Version::Base | Version::Expert(_) | Version::Merged(_) | Version::Perturbed(_) => {
            let out = list.kept("formed", id, Size::Planes(1));
            widen::record(&mut list, base, out, 0);
        }
    }
    pass.run_over(&list, &side.extent, &side.inputs)?;
    Ok(id)
}
