//! A merge from recipe to finished folder: open, plan, run, write.

mod adapter;
mod check;
mod compute;
mod origin;
mod provenance;
pub(crate) mod resume;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use crate::calibrate::feature::Outcome;
use crate::card;
use crate::checkpoint::text::size;
use crate::checkpoint::{
    Checkpoint, Dtype, Fingerprint, Inputs, Layout, RECEIPT, REPORT, Writer, quantized, side_files, with_dtype,
};
use crate::device::{self, Opened, Wanted};
use crate::error::{Error, Kind, Result};
use crate::fast_gemm::FastGemm;
use crate::html;
use crate::inputs::Features;
use crate::lora::Layer;
use crate::lora::models::{Models, all_adapters};
use crate::lora::target::Out;
use crate::lora::warn;
use crate::methods::{Combine, GIVEN, Method};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::recipe::{Recipe, Space};
use crate::report::{Bytes, FeatureReport, Report, SCHEMA, TensorReport};
use check::{check_adapter, check_calibration, experts, others, sensitive};
use resume::unfinished;

/// Where and how a merge is written.
///
/// ```
/// use magic_merge::Output;
///
/// let output = Output { shard_size: 2_000_000_000, overwrite: true, ..Output::new("merged") };
/// assert_eq!(output.dir.to_str(), Some("merged"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The folder; it is made, with those above it. Weights of an earlier result in it are an error.
    pub dir: PathBuf,
    /// Most bytes of a shard; a larger tensor has a shard alone.
    pub shard_size: u64,
    /// Whether an earlier merge in the folder may be replaced.
    pub overwrite: bool,
    /// Whether an unfinished merge in the folder goes on.
    pub resume: bool,
    /// Whether inputs of more than 1 GB in all are hashed too, and the shards of their output.
    pub hash: bool,
}

impl Output {
    /// The folder `dir`, which must be empty or not there, with shards of 5 GB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), shard_size: 5_000_000_000, overwrite: false, resume: false, hash: false }
    }
}

pub use origin::Origin;
pub use provenance::HASHED;
pub(crate) use provenance::absolute;

/// Name of the model card.
pub(crate) const CARD: &str = "README.md";
/// Name of the recipe as it was resolved.
pub(crate) const RECIPE: &str = "recipe.yml";

/// A merge that was opened, checked and planned: nothing of any tensor has been read, nothing written.
///
/// ```
/// use magic_merge::{Job, Output, Progress, Recipe, Wanted};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let recipe = Recipe::from_yaml(
///     "
///     merge_method: ties
///     base_model: assets/demo/base
///     models:
///       - {model: assets/demo/expert_digits, parameters: {density: 0.2}}
///       - {model: assets/demo/expert_photo, parameters: {density: 0.2}}
///     exclude: [classifier.*]
///     ",
///     "recipe.yml",
/// )?;
/// let job = Job::new(recipe, None, &Wanted::on("cpu"))?;
/// let report = job.run(&Output::new(folder.path().join("merged")), &Progress::default())?;
/// assert_eq!((&*report.method, &*report.calibrate), ("ties", "none"));
/// # Ok(())
/// # }
/// ```
pub struct Job {
    /// What was asked.
    pub recipe: Recipe,
    /// What will be done.
    #[doc(hidden)]
    pub plan: Plan,
    /// The base, or what stands in for it, then the experts.
    pub checkpoints: Vec<Checkpoint>,
    /// The device.
    #[doc(hidden)]
    pub opened: Opened,
    /// The device as it was asked for.
    wanted: Wanted,
    /// What feature space takes.
    #[doc(hidden)]
    pub features: Option<Features>,
    /// Whether the base is all zeros, because the models are adapters alone.
    #[doc(hidden)]
    pub zeros: bool,
    /// The adapters among the checkpoints.
    layers: Vec<Option<Arc<Layer>>>,
    /// The adapter that the result is, if it is one.
    adapter: Option<Out>,
    /// Place among the checkpoints of a merge that was made by another program.
    given: Option<usize>,
    sensitive: Option<HashSet<String>>,
    /// Inputs besides the checkpoints: files and folders of samples, the list of sensitive tensors.
    others: Vec<PathBuf>,
    /// The recipe with absolute paths, so that it can be run again from anywhere.
    resolved: Recipe,
    /// What was measured in feature space, if that is known.
    measured: Option<Outcome>,
    /// What has computed the tensors, if not this device.
    origin: Option<Origin>,
    /// Seconds that others have taken for it.
    spent: f64,
}

/// What is to be said of what the files of `checkpoints` hold besides, once of each.
fn notes(checkpoints: &[Checkpoint]) -> Vec<String> {
    let mut notes: Vec<String> = checkpoints.iter().flat_map(Checkpoint::notes).collect();
    notes.sort_unstable();
    notes.dedup();
    notes
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("recipe", &self.recipe).field("device", &self.opened.name).finish_non_exhaustive()
    }
}

impl Job {
    /// Opens all models and the device, and plans the merge. `folder` is where the recipe lies, if it is a file: paths
    /// that are not found from the working directory are looked for there.
    ///
    /// # Errors
    /// Whatever is wrong with recipe, models, samples or device, before any tensor is read.
    pub fn new(recipe: Recipe, folder: Option<&Path>, wanted: &Wanted) -> Result<Self> {
        let method = Method::find(&recipe.method)?;
        Self::open(recipe, method, None, folder, wanted)
    }

    /// The calibration of `merged`, a merge of the recipe's models by whatever program; the recipe's own method does not
    /// matter.
    ///
    /// # Errors
    /// As [`Job::new`].
    ///
    /// ```
    /// use magic_merge::{Job, Output, Progress, Quick, Wanted};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let merged = folder.path().join("merged");
    /// # let merged = merged.to_str().unwrap();
    /// # let models = Quick::new("linear").base("assets/demo/base").exclude("classifier.*");
    /// # let models = models.model("assets/demo/expert_digits").model("assets/demo/expert_photo");
    /// # Job::new(models.recipe()?, None, &Wanted::on("cpu"))?.run(&Output::new(merged), &Progress::default())?;
    /// let recipe = Quick::new("given")
    ///     .base("assets/demo/base")
    ///     .model("assets/demo/expert_digits")
    ///     .model("assets/demo/expert_photo")
    ///     .exclude("classifier.*")
    ///     .calibrate("fsc")
    ///     .data("assets/demo/samples/digits.calib.safetensors")
    ///     .data("assets/demo/samples/photo.calib.safetensors");
    /// let job = Job::given(recipe.recipe()?, merged, &Wanted::on("cpu"))?;
    /// let report = job.run(&Output::new(folder.path().join("calibrated")), &Progress::default())?;
    /// assert_eq!(report.calibrate, "fsc");
    /// # Ok(())
    /// # }
    /// ```
    pub fn given(recipe: Recipe, merged: &str, wanted: &Wanted) -> Result<Self> {
        Self::open(recipe, &GIVEN, Some(merged), None, wanted)
    }

    fn open(
        recipe: Recipe,
        method: &'static Method,
        merged: Option<&str>,
        folder: Option<&Path>,
        wanted: &Wanted,
    ) -> Result<Self> {
        let models = experts(&recipe, method);
        let search: Vec<PathBuf> = folder.map(Path::to_path_buf).into_iter().collect();
        let specs: Vec<&str> = models.iter().map(|&model| recipe.models[model].model.as_str()).chain(merged).collect();
        // Adapters alone are their own task vectors: zeros are their base.
        let alone = recipe.base.is_none() && all_adapters(&specs, &search);
        let based = Recipe { base: Some("zeros".into()), ..recipe.clone() };
        method.check(if alone { &based } else { &recipe }, &models)?;
        check_calibration(if alone { &based } else { &recipe }, method)?;
        check_adapter(&recipe, method, alone)?;
        let reference = match (&recipe.base, method.combine) {
            (Some(base), combine) if combine != Combine::Scale => base,
            _ => &recipe.models[models[0]].model,
        };
        let opened = Models::open(recipe.base.as_deref(), reference, &specs, recipe.lora_out.is_some(), &search)?;
        let experts: Vec<(usize, usize)> =
            models.iter().map(|&model| (model, opened.place(&recipe.models[model].model))).collect();
        let given = merged.map(|spec| opened.place(spec));
        let Models { checkpoints, layers, zeros } = opened;
        checkpoints.iter().try_for_each(quantized::refuse)?;
        let sensitive = sensitive(&recipe.calibrate.sensitive, folder)?;
        let others = others(&recipe, folder);
        let features = match recipe.calibrate.space {
            Space::Fsc | Space::Dsc | Space::Auto => Some(Features::open(&recipe, &experts, &checkpoints[0], folder)?),
            Space::None | Space::Wsc if wanted.fast_gemm => {
                return Err(Error::usage("`--fast-gemm` is for the forward pass, and nothing here runs the network")
                    .hint("leave it out, or calibrate in feature space: `--calibrate fsc`, `dsc` or `auto`"));
            }
            Space::None | Space::Wsc => None,
        };
        let opened = device::open(wanted)?;
        let memory = opened.memory.clone();
        let mut plan = Plan::new(&recipe, method, &checkpoints, &experts, given, sensitive.as_ref(), memory)?;
        let resolved = provenance::resolved(&recipe, folder);
        let adapter = match recipe.lora_out {
            None if !zeros => None,
            rank => {
                let dtype = recipe.output_dtype()?.and_then(Dtype::from_torch_name).unwrap_or(Dtype::F32);
                let config = checkpoints[0].config()?;
                let kind = config.as_ref().and_then(|config| config.get("model_type")).and_then(Value::as_str);
                Some(Out::new(&plan, &layers, rank, dtype, kind, zeros)?)
            }
        };
        plan.warnings.extend(warn::warnings(&layers, adapter.as_ref()));
        plan.warnings.extend(notes(&checkpoints));
        let wanted = wanted.clone();
        Ok(Self {
            recipe,
            plan,
            checkpoints,
            opened,
            wanted,
            features,
            zeros,
            layers,
            adapter,
            given,
            sensitive,
            others,
            resolved,
            measured: None,
            origin: None,
            spent: 0.0,
        })
    }

    /// Where each tensor will go; the largest that an adapter's may become.
    #[doc(hidden)]
    pub fn layout(&self, shard_size: u64) -> Result<Layout> {
        match &self.adapter {
            Some(adapter) => self.adapter_layout(adapter),
            None => self.plan.layout(shard_size),
        }
    }

    /// Bytes of the largest matrix that is decomposed, if the result is an adapter.
    #[doc(hidden)]
    pub fn largest_matrix(&self) -> Option<u64> {
        self.adapter.as_ref()?.targets.iter().map(|target| 4 * target.shape.iter().product::<u64>()).max()
    }

    /// How many tensors become pairs of factors, if the result is an adapter.
    #[doc(hidden)]
    pub fn pairs(&self) -> Option<usize> {
        self.adapter.as_ref().map(|adapter| adapter.targets.len())
    }

    /// What is not as it should be, as far as it is known before the merge runs.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn warnings(&self, shard_size: u64) -> Result<Vec<String>> {
        let mut warnings = self.plan.warnings.clone();
        warnings.extend(self.features.iter().flat_map(|features| features.warnings(&self.plan)));
        let layout = self.layout(shard_size)?;
        if let Some((bytes, name, count)) = layout.oversized(shard_size).filter(|_| self.adapter.is_none()) {
            let others = match count - 1 {
                0 => String::new(),
                1 => ", and so is 1 more tensor".into(),
                more => format!(", and so are {more} more tensors"),
            };
            let (bytes, most) = (size(bytes), size(shard_size));
            warnings.push(format!(
                "a file holds whole tensors: `{name}` ({bytes}) is larger than `--shard-size` ({most}){others}"
            ));
        }
        Ok(warnings)
    }

    /// Whether the merge may be written there, found out without making anything.
    ///
    /// # Errors
    /// A folder that is not empty or holds an input, an unfinished merge that is not to go on or is another, too little
    /// space.
    pub fn check(&self, output: &Output) -> Result<()> {
        self.check_but_space(output)?.map_or(Ok(()), Err)
    }

    /// The same, for what is written later: too little space is handed back, and no error.
    ///
    /// # Errors
    /// As [`check`](Self::check), but for space.
    pub(crate) fn check_but_space(&self, output: &Output) -> Result<Option<Error>> {
        let (layout, fingerprint) = (self.layout(output.shard_size)?, self.fingerprint(output)?);
        Writer::check(&output.dir, &layout, &self.inputs(), &self.access(output, &fingerprint))
    }

    /// Runs the merge and writes everything. If it fails or is stopped, tensors that are written stay, with a journal, so
    /// that another run may go on; nothing stays if there are none.
    ///
    /// # Errors
    /// As [`check`](Self::check), whatever goes wrong on the way, and an interrupt.
    pub fn run(&self, output: &Output, progress: &Progress) -> Result<Report> {
        let started = Instant::now();
        let fingerprint = self.fingerprint(output)?;
        if let Some(adapter) = &self.adapter {
            let done = self.run_adapter(adapter, output, fingerprint, progress);
            return done.map_err(|error| unfinished(error, output, 0));
        }
        let (layout, access) = (self.layout(output.shard_size)?, self.access(output, &fingerprint));
        let writer = Writer::open(&output.dir, layout, &self.inputs(), &access)?;
        let done = self.write(writer, output, fingerprint, started, progress);
        done.map_err(|error| unfinished(error, output, self.plan.tensors.len()))
    }

    fn write(
        &self,
        mut writer: Writer,
        output: &Output,
        fingerprint: Fingerprint,
        started: Instant,
        progress: &Progress,
    ) -> Result<Report> {
        let side = self.side()?;
        writer.expect(side.iter().map(|(name, _)| &**name).chain([CARD, RECIPE, RECEIPT, REPORT]))?;
        let mut tensors = self.kept(&writer, progress)?;
        let kept = tensors.len();
        let done = self.compute(&writer, progress);
        if done.as_ref().is_err_and(|error| error.kind() == Kind::Interrupted) {
            // Whoever stops a merge wants to go on with all that there is. What cannot be recorded is done again.
            let _ = writer.record();
        }
        let (made, outcome) = done?;
        tensors.extend(made);
        tensors.sort_by_key(|(tensor, _)| *tensor);
        let tensors = tensors.into_iter().map(|(_, report)| report).collect();
        let report = self.report(tensors, outcome, &writer, output, progress)?;
        side.into_iter().for_each(|(name, bytes)| writer.file(&name, bytes));
        self.finish(writer, Report { fingerprint, kept, ..report }, started)
    }

    /// The recipe with absolute paths.
    pub(crate) fn resolved_yaml(&self) -> String {
        self.resolved.to_yaml()
    }

    /// Whether a file at `path` would replace neither an input nor what lies in an input's folder.
    ///
    /// # Errors
    /// It would.
    #[doc(hidden)]
    pub fn spares_inputs(&self, path: &Path) -> Result<()> {
        Inputs::new(&self.inputs(), &self.others).refuse_named(path)
    }

    fn inputs(&self) -> Vec<&Checkpoint> {
        self.checkpoints.iter().collect()
    }

    /// What was done, all but the time.
    fn report(
        &self,
        tensors: Vec<TensorReport>,
        outcome: Outcome,
        writer: &Writer,
        output: &Output,
        progress: &Progress,
    ) -> Result<Report> {
        let (inputs, files) = self.hashed(writer, output.hash, progress)?;
        let origin = self.origin();
        let chosen = outcome.candidates.iter().find(|candidate| candidate.chosen);
        let fit = chosen.map_or_else(|| self.recipe.calibrate.fit.as_str().into(), |chosen| chosen.fit.clone());
        let mut report = Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            method: self.plan.method.name.to_owned(),
            calibrate: self.recipe.calibrate.space.to_string(),
            seed: self.plan.seed,
            non_finite: self.recipe.non_finite,
            device: origin.name,
            inputs,
            tensors,
            base: self.recipe.base.clone(),
            experts: experts(&self.recipe, self.plan.method)
                .into_iter()
                .map(|model| self.recipe.models[model].model.clone())
                .collect(),
            features: self.features.as_ref().map(|features| FeatureReport {
                family: features.network.family.clone(),
                fit,
                norm: self.recipe.calibrate.feature_norm.as_str(),
                data: features.data(),
                activation_bytes: outcome.activation_bytes,
                leaves: outcome.leaves,
                candidates: outcome.candidates,
                fast_gemm: self.opened.executor.fast_gemm().and_then(FastGemm::report),
            }),
            lora: None,
            recovered: outcome.recovered,
            ignored: self.plan.ignored.clone(),
            fingerprint: Fingerprint::new(),
            kept: 0,
            bytes: Bytes { read: self.plan.bytes_in(), written: writer.layout().total_bytes() },
            wgsl_sha256: origin.wgsl_sha256,
            files,
            warnings: self.warnings(output.shard_size)?,
            seconds: 0.0,
            sha256: String::new(),
        };
        self.name_inputs(&mut report);
        report.warn();
        Ok(report)
    }

    /// Writes card, recipe and receipt, and completes the output.
    fn finish(&self, mut writer: Writer, mut report: Report, started: Instant) -> Result<Report> {
        writer.file(CARD, card::text(&self.recipe, self.plan.method, &report).into_bytes());
        if self.plan.method.name != GIVEN.name {
            writer.file(RECIPE, self.resolved.to_yaml().into_bytes());
        }
        report.warnings.extend(writer.strangers()?);
        report.seconds = self.spent + started.elapsed().as_secs_f64();
        report.files.extend(writer.side_records());
        let document = report.seal();
        // Of what is written, not of what is in memory: whoever reads the receipt makes the same page of it. The receipt
        // therefore cannot list it.
        let written = serde_json::from_slice(&document).expect("a report is JSON");
        writer.file(REPORT, html::page(&written, None, None, RECEIPT)?.into_bytes());
        writer.file(RECEIPT, document);
        writer.finish()?;
        for (kernel, time) in self.opened.executor.spent() {
            log::info!("CPU time of `{kernel}`: {:.3} s", time.as_secs_f64());
        }
        Ok(report)
    }

    /// The model whose configuration and tokenizer the output gets: the merge that was given, else the base.
    fn model(&self) -> &Checkpoint {
        &self.checkpoints[self.given.unwrap_or(0)]
    }

    /// Its configuration and tokenizer, as the output gets them: name and bytes.
    pub(crate) fn side(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut side = side_files(self.model())?;
        for (_, bytes) in side.iter_mut().filter(|(name, _)| name == "config.json") {
            *bytes = self.config(bytes)?;
        }
        Ok(side)
    }

    /// Its configuration, with the element type of the output if that is another.
    fn config(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let Some(dtype) = self.recipe.output_dtype()?.and_then(Dtype::from_torch_name) else {
            return Ok(bytes.to_vec());
        };
        let config: Value = serde_json::from_slice(bytes)
            .map_err(|e| Error::input(format!("`config.json` of `{}` is not valid JSON: {e}", self.model().name())))?;
        Ok(serde_json::to_vec_pretty(&with_dtype(config, dtype)).expect("JSON stays JSON"))
    }
}
