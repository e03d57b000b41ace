//! What a merge will do, from headers alone: every tensor accounted for, every mismatch found, memory and bytes known.

use std::collections::HashSet;

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::calibrate::measure::{Calibration, Measure};
use crate::checkpoint::text::shown;
use crate::checkpoint::{Checkpoint, Dtype, Layout, OutTensor, TensorInfo};
use crate::decompose;
use crate::error::{Error, Result};
use crate::kernels::blend::Along;
use crate::kernels::factor::Bounds;
use crate::kernels::residual::{self, MAX_EXPERTS};
use crate::memory::{Memory, Shape, Share};
use crate::methods::combine::parts;
use crate::methods::{Combine, Method, Rescale, Settings, Sparsify};
use crate::recipe::{Depth, NonFinite, Recipe, Space};
use crate::recording::{Extent, FLAT_ROW, GROUP_ROWS};
use crate::select;

/// Most mismatches that one message lists.
const LISTED: usize = 20;

/// Where a tensor's elements are stored.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Place among the opened checkpoints.
    pub checkpoint: usize,
    /// Place among its tensors.
    pub tensor: usize,
    /// Element type there.
    pub dtype: Dtype,
}

/// Why a tensor is copied from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Its elements are no floats that can be computed with.
    NotFloat,
    /// A pattern excludes it.
    Excluded,
    /// It has no elements.
    Empty,
    /// All experts are adapters that leave it as it is.
    Untouched,
}

/// What happens to a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is merged.
    Merge,
    /// It is the base's, byte for byte.
    Copy(Copied),
}

/// One tensor of the output.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Its number of elements.
    pub elements: u64,
    /// Its bytes in the base.
    pub bytes: u64,
    /// The base's, then each expert's, then that of a merge which was given.
    pub sources: Vec<Source>,
    /// Whether the merge was given.
    pub given: bool,
    /// Element type of the output.
    pub out_dtype: Dtype,
    /// What happens to it.
    pub action: Action,
    /// The method's parameters.
    pub settings: Settings,
    /// How its task vectors become one.
    pub combine: Combine,
    /// What becomes of what is not finite.
    pub non_finite: NonFinite,
    /// Its calibration, if it has one.
    pub calibration: Option<Calibration>,
    /// Elements of a row in the view that its blocks are cut from.
    pub row_len: u32,
    /// Rows of a block.
    pub block_rows: u64,
    /// Whether its inputs stay in memory between passes.
    pub resident: bool,
    /// Entries that a selection may list on the host.
    pub listed: u64,
}

impl Tensor {
    /// Number of experts.
    pub fn experts(&self) -> usize {
        self.sources.len() - 1 - usize::from(self.given)
    }

    /// Bytes that are read, once, and written.
    pub fn bytes_moved(&self) -> u64 {
        let read: u64 = self.sources.iter().map(|source| self.elements * source.dtype.size() as u64).sum();
        read + self.elements * self.out_dtype.size() as u64
    }

    /// Rows of the view.
    pub fn rows(&self) -> u64 {
        self.elements.div_ceil(u64::from(self.row_len))
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.rows().div_ceil(self.block_rows) as usize
    }

    /// What a block's first row, and the rows of all blocks but the last, are a multiple of: no group of rows that is summed
    /// into one partial result may lie in two blocks.
    pub fn align(&self) -> u64 {
        let spectral = self.calibration.is_some_and(|c| c.measure == Measure::Spectral);
        if spectral || by_columns(self) { u64::from(GROUP_ROWS) } else { 1 }
    }

    /// Block `index`.
    pub fn block(&self, index: usize) -> Extent {
        let first_row = index as u64 * self.block_rows;
        let rows = self.block_rows.min(self.rows() - first_row);
        let len = u64::from(self.row_len);
        let n = (rows * len).min(self.elements - first_row * len);
        Extent { first_row, rows: rows as u32, row_len: self.row_len, n: n as u32 }
    }
}

/// A whole merge, ready to run.
#[derive(Debug)]
pub struct Plan {
    /// The method.
    pub method: &'static Method,
    /// Whether it merges models as they are, and not their task vectors.
    pub models: bool,
    /// Seed of the random masks.
    pub seed: u64,
    /// All tensors of the output, in the base's order.
    pub tensors: Vec<Tensor>,
    /// Tensors of experts that nothing of the output is made from, by name.
    pub ignored: Vec<String>,
    /// How memory is shared out.
    pub memory: Memory,
    /// Patterns that matched nothing, and the like.
    pub warnings: Vec<String>,
    /// Names that are not calibrated.
    pub uncalibrated: GlobSet,
}

impl Plan {
    /// Plans the merge of `checkpoints`: the base, or what stands in for it, and the experts, whose places in it and
    /// in the recipe `experts` gives as (recipe, checkpoint); `given` is the place of a merge made elsewhere. `sensitive`
    /// names the tensors that may only shrink.
    ///
    /// # Errors
    /// Every way in which the checkpoints do not fit each other, in one message.
    pub fn new(
        recipe: &Recipe,
        method: &'static Method,
        checkpoints: &[Checkpoint],
        experts: &[(usize, usize)],
        given: Option<usize>,
        sensitive: Option<&HashSet<String>>,
        memory: Memory,
    ) -> Result<Self> {
        if experts.len() > MAX_EXPERTS {
            return Err(Error::usage(format!("{} models given, {MAX_EXPERTS} can be merged at once", experts.len())));
        }
        let planner = Planner {
            recipe,
            method,
            checkpoints,
            experts,
            given,
            sensitive,
            out_dtype: recipe.output_dtype()?.and_then(Dtype::from_torch_name),
            exclude: patterns("exclude", &recipe.exclude)?,
            uncalibrated: patterns("calibrate.exclude", &recipe.calibrate.exclude)?,
            depth: Depth::new(checkpoints[0].tensors().iter().map(|tensor| tensor.name.as_str())),
            models: experts.iter().map(|&(model, _)| model).collect(),
        };
        planner.plan(memory)
    }

    /// Bytes that are read, once.
    pub fn bytes_in(&self) -> u64 {
        let sources = |tensor: &Tensor| match tensor.action {
            Action::Copy(_) => tensor.bytes,
            Action::Merge => tensor.sources.iter().map(|s| tensor.elements * s.dtype.size() as u64).sum(),
        };
        self.tensors.iter().map(sources).sum()
    }

    /// Where each tensor goes.
    pub fn layout(&self, shard_size: u64) -> Result<Layout> {
        let out = |tensor: &Tensor| OutTensor {
            name: tensor.name.clone(),
            dtype: tensor.out_dtype,
            shape: tensor.shape.clone(),
        };
        Layout::new(self.tensors.iter().map(out).collect(), shard_size)
    }
}

struct Planner<'a> {
    recipe: &'a Recipe,
    method: &'static Method,
    checkpoints: &'a [Checkpoint],
    experts: &'a [(usize, usize)],
    given: Option<usize>,
    sensitive: Option<&'a HashSet<String>>,
    out_dtype: Option<Dtype>,
    exclude: GlobSet,
    uncalibrated: GlobSet,
    depth: Depth,
    models: Vec<usize>,
}

impl Planner<'_> {
    /// Places of the checkpoints besides the base.
    fn places(&self) -> impl Iterator<Item = usize> {
        self.experts.iter().map(|&(_, place)| place).chain(self.given)
    }

    fn plan(&self, mut memory: Memory) -> Result<Plan> {
        let base = &self.checkpoints[0];
        let mut mismatches = Vec::new();
        let mut tensors = Vec::with_capacity(base.tensors().len());
        for (index, info) in base.tensors().iter().enumerate() {
            if let Some(tensor) = self.tensor(index, info, &mut mismatches)? {
                tensors.push(tensor);
            }
        }
        let ignored = self.extras(&mut mismatches);
        if !mismatches.is_empty() {
            return Err(self.mismatch(&mismatches));
        }
        let mut warnings = self.unmatched();
        if let Some(name) = self.sensitive.into_iter().flatten().find(|name| base.get(name).is_none()) {
            return Err(Error::input(format!(
                "the sensitive list names `{name}`, which `{}` does not have",
                base.name()
            ))
            .hint("make the list from these models: `magic sensitivity … --out FILE.json`"));
        }
        if tensors.iter().all(|tensor| tensor.action != Action::Merge) {
            warnings.push("nothing is merged: every tensor is copied from the base".into());
        } else if self.recipe.calibrate.space == Space::Wsc && tensors.iter().all(|tensor| tensor.calibration.is_none())
        {
            warnings.push("no tensor is calibrated: none has two dimensions and a name that ends in `weight`".into());
        }
        let whole = memory.clone();
        while let Err(error) = self.share(&mut tensors, &mut memory) {
            // Fewer blocks at a time leave each more room.
            memory = whole.with_lanes(memory.lanes / 2).ok_or(error)?;
        }
        if memory.excess() > 0 {
            let (more, limit) = (memory.excess().div_ceil(1_000_000), "`--memory`");
            warnings.push(format!("decompositions take whole tensors: about {more} MB more than {limit} allows"));
        }
        let uncalibrated = self.uncalibrated.clone();
        let models = !self.method.merges_task_vectors(self.recipe);
        let (method, seed) = (self.method, self.recipe.seed);
        Ok(Plan { method, models, seed, tensors, ignored, memory, warnings, uncalibrated })
    }

    /// Shares out the memory.
    fn share(&self, tensors: &mut [Tensor], memory: &mut Memory) -> Result<()> {
        for tensor in tensors.iter_mut().filter(|tensor| tensor.action == Action::Merge) {
            let shape = Shape {
                name: &tensor.name,
                elements: tensor.elements,
                row_len: tensor.row_len,
                align: tensor.align(),
                stored: tensor.sources.iter().map(|source| source.dtype.size() as u64).sum(),
                planes: tensor.experts() as u64 + 1,
                beside: beside(self.method, tensor),
                out: tensor.out_dtype.size() as u64,
                passes: passes(self.method, tensor),
                selects: matches!(self.method.sparsify, Sparsify::Largest | Sparsify::Middle | Sparsify::Varying),
            };
            Share { block_rows: tensor.block_rows, resident: tensor.resident, listed: tensor.listed } =
                memory.share(&shape)?;
            if let Combine::Decompose(rule) = tensor.combine {
                let shape = (tensor.shape[0] as usize, tensor.shape[1] as usize);
                memory.decompose(tensor.elements * 4, decompose::working_bytes(rule, shape, tensor.experts()));
            }
        }
        Ok(())
    }

    /// Plans one tensor of the base; `None` after a mismatch.
    fn tensor(&self, index: usize, info: &TensorInfo, mismatches: &mut Vec<String>) -> Result<Option<Tensor>> {
        let name = &info.name;
        let own = Source { checkpoint: 0, tensor: index, dtype: info.dtype };
        let action = match info {
            _ if self.exclude.is_match(name) => Action::Copy(Copied::Excluded),
            _ if !info.dtype.is_float() => Action::Copy(Copied::NotFloat),
            _ if info.elements() == 0 => Action::Copy(Copied::Empty),
            _ => Action::Merge,
        };
        let mut sources = vec![own];
        if action != Action::Copy(Copied::Excluded) {
            for place in self.places() {
                let expert = &self.checkpoints[place];
                match expert.get(name) {
                    None if action == Action::Merge => {
                        mismatches.push(format!("`{name}` is missing in `{}`", expert.name()));
                    }
                    Some((_, other)) if other.shape != info.shape => mismatches.push(format!(
                        "`{name}` is {:?} in `{}` and {:?} in `{}`",
                        info.shape,
                        self.checkpoints[0].name(),
                        other.shape,
                        expert.name()
                    )),
                    Some((_, other)) if action == Action::Merge && !other.dtype.is_float() => mismatches.push(format!(
                        "`{name}` is stored as {} in `{}`, which cannot be computed with",
                        other.dtype.header_name(),
                        expert.name()
                    )),
                    Some((tensor, other)) => sources.push(Source { checkpoint: place, tensor, dtype: other.dtype }),
                    None => {}
                }
            }
            if action == Action::Merge && sources.len() <= self.places().count() {
                return Ok(None);
            }
        }
        let same_type = self.out_dtype.is_none_or(|dtype| dtype == info.dtype);
        let action = match action {
            Action::Merge if same_type && self.untouched(&sources) => Action::Copy(Copied::Untouched),
            action => action,
        };
        if let Action::Copy(_) = action {
            let given = self.given.and_then(|place| {
                let (tensor, other) = self.checkpoints[place].get(name)?;
                let same = other.dtype == info.dtype && other.shape == info.shape;
                same.then_some(Source { checkpoint: place, tensor, dtype: other.dtype })
            });
            sources = vec![given.unwrap_or(own)];
        }
        let settings = self.method.settings(self.recipe, &self.models, name, self.depth.t(name))?;
        let calibration = if action == Action::Merge { self.calibration(info) } else { None };
        let by_leaf = matches!(self.recipe.calibrate.space, Space::Fsc | Space::Dsc | Space::Auto);
        let combine = self.method.combine(name, &info.shape, &settings);
        let matrix = info.shape.len() > 1 && action == Action::Merge;
        let ranked = self.method.sparsify == Sparsify::Ranked && action == Action::Merge;
        let rows = calibration.is_some_and(|c| c.measure.needs_rows())
            || matrix && (by_leaf || ranked || matches!(combine, Combine::Sphere(_)));
        let row_len = match () {
            () if rows => info.elements() / info.shape[0],
            () if ranked => info.elements(), // a vector is one row
            () => u64::from(FLAT_ROW).min(info.elements()).max(1),
        };
        let row_len = u32::try_from(row_len).map_err(|_| {
            Error::input(format!("`{name}` has rows of {row_len} elements, more than can be calibrated"))
                .hint(format!("leave it out of the calibration: `calibrate: {{exclude: [\"{name}\"]}}`"))
        })?;
        Ok(Some(Tensor {
            name: name.clone(),
            shape: info.shape.clone(),
            elements: info.elements(),
            bytes: info.bytes,
            out_dtype: self.out_dtype.filter(|_| action == Action::Merge).unwrap_or(info.dtype),
            sources,
            given: self.given.is_some() && action == Action::Merge,
            action,
            settings,
            combine,
            non_finite: self.recipe.non_finite,
            calibration,
            row_len,
            block_rows: 1,
            resident: false,
            listed: 0,
        }))
    }

    /// Whether nothing can come of task vectors: all experts are adapters over the base that do not touch the tensor.
    fn untouched(&self, sources: &[Source]) -> bool {
        let below = |source: &Source| self.checkpoints[source.checkpoint].hands_on(source.tensor, &self.checkpoints[0]);
        self.method.merges_task_vectors(self.recipe) && sources.len() > 1 && sources[1..].iter().all(below)
    }

    /// Eligible are weights of rank two and more; for the spectral rule, which is one of matrices, of rank two.
    fn calibration(&self, info: &TensorInfo) -> Option<Calibration> {
        let wanted = &self.recipe.calibrate;
        let measure = Measure::new(wanted.manifold, wanted.norm);
        let rank = info.shape.len();
        let eligible = matches!(wanted.space, Space::Wsc | Space::Dsc | Space::Auto)
            && rank >= 2
            && (measure != Measure::Spectral || rank == 2)
            && info.name.ends_with("weight")
            && !self.uncalibrated.is_match(&info.name);
        let bounds = match self.sensitive {
            None => Bounds::NONE,
            Some(names) if names.contains(&info.name) => Bounds::SHRINK,
            Some(_) => Bounds::ENLARGE,
        };
        eligible.then_some(Calibration { measure, bounds })
    }

    /// Tensors that experts have and the base has not: mismatches, unless excluded or no floats.
    fn extras(&self, mismatches: &mut Vec<String>) -> Vec<String> {
        let mut ignored = Vec::new();
        for place in self.places() {
            let expert = &self.checkpoints[place];
            for info in expert.tensors() {
                if self.checkpoints[0].get(&info.name).is_some() || ignored.contains(&info.name) {
                    continue;
                }
                if self.exclude.is_match(&info.name) || !info.dtype.is_float() {
                    ignored.push(info.name.clone());
                } else {
                    let base = self.checkpoints[0].name();
                    mismatches.push(format!("`{}` is in `{}` but not in `{base}`", info.name, expert.name()));
                }
            }
        }
        ignored
    }

    fn mismatch(&self, mismatches: &[String]) -> Error {
        let count = mismatches.len();
        let mut message =
            format!("the models do not fit each other ({count} {}):", if count == 1 { "place" } else { "places" });
        for line in mismatches.iter().take(LISTED) {
            message += &format!("\n  {line}");
        }
        if count > LISTED {
            message += &format!("\n  … and {} more", count - LISTED);
        }
        Error::input(message)
            .hint("copy such tensors from the base with `--exclude 'PATTERN'`, for instance `--exclude 'classifier.*'`")
    }

    fn unmatched(&self) -> Vec<String> {
        let names = || self.checkpoints.iter().flat_map(|c| c.tensors()).map(|tensor| &tensor.name);
        let lists = [("exclude", &self.recipe.exclude), ("calibrate.exclude", &self.recipe.calibrate.exclude)];
        let mut warnings = Vec::new();
        for (key, list) in lists {
            for pattern in list {
                let glob = Glob::new(pattern).map(|glob| glob.compile_matcher());
                if glob.is_ok_and(|glob| !names().any(|name| glob.is_match(name))) {
                    warnings.push(format!("`{key}` pattern `{pattern}` matches no tensor"));
                }
            }
        }
        warnings
    }
}

/// Most patterns of a list.
const MAX_PATTERNS: usize = 1 << 14;
/// Most of them that are more than a name: each is a small program, and all are one large one.
const MAX_COMPLEX: usize = 1 << 10;
/// Longest pattern, and all of those together, in bytes.
const MAX_PATTERN: usize = 1 << 12;
const MAX_BYTES: usize = 1 << 16;
/// Most alternatives, `{a,b}`, of one pattern.
const MAX_ALTERNATIVES: usize = 64;

/// The globs of `list`, which `key` gives.
pub(crate) fn patterns(key: &str, list: &[String]) -> Result<GlobSet> {
    let bad = |what: String| {
        Error::usage(format!("`{key}` {what}")).hint("patterns are globs over tensor names, such as `*.classifier.*`")
    };
    if list.len() > MAX_PATTERNS {
        return Err(bad(format!("has {} patterns, and {MAX_PATTERNS} are the most", list.len())));
    }
    let (mut set, mut complex, mut bytes) = (GlobSetBuilder::new(), 0, 0);
    for pattern in list {
        let about = |what: String| bad(format!("has the pattern `{}`, {what}", shown(pattern)));
        let alternatives = pattern.matches([',', '{']).count();
        if pattern.len() > MAX_PATTERN {
            return Err(about(format!("which is longer than {MAX_PATTERN} bytes")));
        }
        if pattern.contains('{') && alternatives > MAX_ALTERNATIVES {
            return Err(about(format!("which has more than {MAX_ALTERNATIVES} alternatives")));
        }
        if pattern.contains(['*', '?', '[', '{', '\\']) {
            (complex, bytes) = (complex + 1, bytes + pattern.len());
        }
        if complex > MAX_COMPLEX || bytes > MAX_BYTES {
            let most = format!("{MAX_COMPLEX} that are no plain names, of {MAX_BYTES} bytes together");
            return Err(about(format!("with which the patterns are more than the most: {most}")));
        }
        set.add(Glob::new(pattern).map_err(|e| about(format!("which is none: {}", e.kind())))?);
    }
    set.build().map_err(|e| bad(format!("has patterns that cannot be used: {}", shown(&e.to_string()))))
}

/// Whether inner products of columns are taken.
fn by_columns(tensor: &Tensor) -> bool {
    match tensor.combine {
        Combine::Sphere(rule) => matches!(parts(rule, &tensor.settings, tensor), Some((Along::Columns, _))),
        _ => false,
    }
}

/// Words that a block takes besides its stack, its statistics and what is stored: for each element, and for each row.
fn beside(method: &Method, tensor: &Tensor) -> (u64, u64) {
    let planes = tensor.experts() as u64 + 1;
    let pairs = planes * (planes + 1) / 2;
    let elements = match method.sparsify {
        Sparsify::Ranked => 5,
        Sparsify::Varying => 1 + planes.div_ceil(u64::from(select::LISTED)),
        Sparsify::Largest | Sparsify::Middle => planes.div_ceil(u64::from(select::LISTED)),
        Sparsify::Keep | Sparsify::Random => 0,
    };
    let row_len = u64::from(tensor.row_len);
    let rows = match tensor.combine {
        Combine::Slerp => pairs,
        Combine::Sphere(rule) => match parts(rule, &tensor.settings, tensor) {
            Some((Along::Rows, unit)) => row_len / u64::from(unit) * (pairs + planes),
            Some((Along::Columns, _)) => pairs + pairs * row_len / u64::from(GROUP_ROWS),
            None => pairs,
        },
        _ => 0,
    };
    let whole = u64::from(matches!(tensor.combine, Combine::Decompose(_)));
    let products = tensor.calibration.and_then(|_| residual::beside(tensor.experts() as u32)).map_or(0, u64::from);
    (elements + whole, rows + products)
}

/// How often a tensor is read, as far as it is known beforehand. One that is decomposed is read in passes of its own.
fn passes(method: &Method, tensor: &Tensor) -> u32 {
    let settings = &tensor.settings;
    let sparse = settings.densities.iter().any(|&density| density < 1.0);
    let mut passes = match method.sparsify {
        _ if matches!(tensor.combine, Combine::Decompose(_)) => return 1,
        Sparsify::Largest if sparse => 2,
        Sparsify::Middle => 3,
        Sparsify::Varying if settings.select_topk < 1.0 => 3,
        _ => 1,
    };
    if method.sparsify != Sparsify::Keep && sparse && settings.rescale == Rescale::L1 {
        passes += 1;
    }
    passes += match tensor.combine {
        Combine::Slerp | Combine::Sphere(_) | Combine::Energies => 1 + u32::from(by_columns(tensor)),
        _ => 0,
    };
    match tensor.calibration.map(|c| c.measure) {
        Some(Measure::Tensor(_)) => passes += 1,
        Some(Measure::Spectral) => passes += 20,
        Some(Measure::Rows(_)) | None => {}
    }
    passes
}
