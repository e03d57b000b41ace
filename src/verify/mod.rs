//! Whether a finished merge is what its receipt says: its files, its inputs, and its tensors, computed again and compared
//! while they stream by. Nothing is written.

mod compare;
mod receipt;
mod sample;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use crate::checkpoint::text::{path, shown};
use crate::checkpoint::{
    Checkpoint, FileRecord, Finished, INDEX, LAYOUT, RECEIPT, REPORT, SCORES, check_file, difference, sha256,
};
use crate::device::{self, Wanted};
use crate::error::{Error, Result};
use crate::gpu;
use crate::html;
use crate::job::resume::{DECOMPOSITION, KERNELS, MERGED, PRODUCTS};
use crate::job::{CARD, Job, RECIPE};
use crate::methods::Combine;
use crate::plan::Action;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::report::{self, Bytes, InputFile};
use crate::scores::Scores;
use compare::Comparison;
pub use compare::{Difference, Element};
use receipt::{Receipt, Recorded};
use sample::sample;

/// Name and version of the document.
pub const SCHEMA: &str = "magic-verify/1";

/// What [`verify`](verify()) found. It serialises as what `magic verify --json` prints.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// `magic-verify/1`.
    pub schema: &'static str,
    /// The folder.
    pub dir: String,
    /// Version of the program that made it.
    pub version: String,
    /// Whether all is well.
    pub passed: bool,
    /// Files of the output.
    #[doc(hidden)]
    pub files: Files,
    /// Files that it was made from.
    #[doc(hidden)]
    pub inputs: Files,
    /// What else the receipt says that is not so.
    pub receipt: Vec<String>,
    /// Its tensors.
    #[doc(hidden)]
    pub tensors: Tensors,
    /// What was not checked, and why.
    pub notes: Vec<String>,
}

/// Files that were looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Files {
    /// How many were recorded.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Those of which a SHA-256 was recorded, and compared.
    pub hashed: usize,
    /// What is wrong with them.
    pub wrong: Vec<String>,
}

/// Tensors that were computed again.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tensors {
    /// How many there are.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them were computed again.
    pub recomputed: usize,
    /// The bytes of those.
    pub recomputed_bytes: u64,
    /// On which device.
    pub device: Option<String>,
    /// Whether all of them were compared bit for bit.
    pub exact: bool,
    /// How many were compared bit for bit.
    pub bit_for_bit: usize,
    /// How many were compared in value: within 1e-5 of the tensor's task vector and one rounding of its type. Those are
    /// what another device or version made, and what was made by a detour after a device had failed.
    pub within_tolerance: usize,
    /// How many differ.
    pub different: usize,
    /// In what, in the order of the tensors.
    pub differences: Vec<Difference>,
}

/// Verifies the finished merge in `dir`: on the device that made it, if `wanted` names none and it is there. Computes all
/// tensors again if `all`, else some. `say` is told what is being done.
///
/// # Errors
/// What is no finished merge, a device that is not there, and [`Kind::Interrupted`](crate::Kind). What is wrong
/// with the merge is no error but a part of what is returned.
///
/// ```
/// use magic_merge::{Job, Output, Progress, Quick, Wanted, verify};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let merged = folder.path().join("merged");
/// # let models = Quick::new("linear").base("assets/demo/base").exclude("classifier.*");
/// # let models = models.model("assets/demo/expert_digits").model("assets/demo/expert_photo");
/// # Job::new(models.recipe()?, None, &Wanted::on("cpu"))?.run(&Output::new(&merged), &Progress::default())?;
/// let check = || verify(&merged, true, &Wanted::default(), &Progress::default(), &|step| eprintln!("{step}"));
/// assert!(check()?.passed);
///
/// std::fs::write(merged.join("config.json"), "{}")?;
/// let error = check()?.verdict().unwrap_err();
/// assert!(error.to_string().contains("`config.json`"));
/// # Ok(())
/// # }
/// ```
pub fn verify(
    dir: &Path,
    all: bool,
    wanted: &Wanted,
    progress: &Progress,
    say: &dyn Fn(String),
) -> Result<Verification> {
    let finished = Finished::open(dir)?;
    let receipt: Receipt = report::read(&finished.receipt, &path(&dir.join(RECEIPT)))?;
    say("comparing files".into());
    let check = |record: &FileRecord| finished.check(record, &|_| progress.check());
    let input = |input: &InputFile| {
        let record = &input.record;
        let step = &|_| progress.check();
        check_file(Path::new(&input.path), &shown(&input.path), record.bytes, record.sha256.as_deref(), step)
    };
    let of_inputs: Vec<&InputFile> = receipt.inputs.iter().flat_map(|input| &input.files).collect();
    let mut found = Verification {
        schema: SCHEMA,
        dir: dir.display().to_string(),
        version: receipt.version.clone(),
        passed: false,
        files: Files::of(receipt.files.iter(), receipt.files.par_iter().map(check).collect::<Result<_>>()?),
        inputs: Files::of(
            of_inputs.iter().map(|input| &input.record),
            of_inputs.par_iter().map(|file| input(file)).collect::<Result<_>>()?,
        ),
        receipt: Vec::new(),
        tensors: Tensors::default(),
        notes: Vec::new(),
    };
    let verifier = Verifier { dir, finished: &finished, receipt: &receipt, all, wanted, progress, say };
    verifier.run(&mut found)?;
    let wrong = found.files.wrong.len() + found.inputs.wrong.len() + found.receipt.len();
    found.passed = wrong + found.tensors.different == 0;
    Ok(found)
}

impl Verification {
    /// Whether all is well, as a result.
    ///
    /// # Errors
    /// The first of what is wrong, and how much more there is.
    pub fn verdict(&self) -> Result<()> {
        let said = [&self.files.wrong, &self.inputs.wrong, &self.receipt];
        let Some(first) = said.into_iter().flatten().next().cloned().or_else(|| {
            let first = self.tensors.differences.first()?;
            Some(format!("element {} of `{}` differs", first.index, shown(&first.tensor)))
        }) else {
            return Ok(());
        };
        let count = said.iter().map(|wrong| wrong.len()).sum::<usize>() + self.tensors.different;
        let more = if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
        let what = format!("`{}` is not what its receipt says: {first}{more}", shown(&self.dir));
        // What `magic calibrate` made has no recipe.
        Err(Error::input(what).hint(match Path::new(&self.dir).join(RECIPE).is_file() {
            true => format!("to make it again: `magic merge {}/{RECIPE} --out NEW`", shown(&self.dir)),
            false => "to make it again: the command that made it, with another `--out`".to_owned(),
        }))
    }
}

impl Files {
    fn of<'a>(records: impl Iterator<Item = &'a FileRecord> + Clone, checked: Vec<Option<String>>) -> Self {
        Self {
            count: checked.len(),
            bytes: records.clone().map(|record| record.bytes).fold(0, u64::saturating_add),
            hashed: records.filter(|record| record.sha256.is_some()).count(),
            wrong: checked.into_iter().flatten().collect(),
        }
    }
}

struct Verifier<'a> {
    dir: &'a Path,
    finished: &'a Finished,
    receipt: &'a Receipt,
    all: bool,
    wanted: &'a Wanted,
    progress: &'a Progress,
    say: &'a dyn Fn(String),
}

impl Verifier<'_> {
    /// Opens the output and, if that and the inputs allow it, computes its tensors again.
    fn run(&self, found: &mut Verification) -> Result<()> {
        found.receipt.extend(report::broken_seal(&self.finished.receipt, &self.finished.text));
        found.receipt.extend(self.receipt.contradictions());
        let recipe = self.recipe(found);
        let scores = Scores::of(self.finished).ok().flatten();
        self.look_at_page(scores.as_ref(), found);
        let dir = self.dir.to_string_lossy();
        let output = match Checkpoint::open_any(&dir, &[]) {
            Ok((output, _)) => output,
            Err(error) => {
                found.files.wrong.push(error.to_string());
                return Ok(());
            }
        };
        found.tensors.count = output.tensors().len();
        found.tensors.bytes = output.total_bytes();
        self.look_at_files(&output, scores.is_some(), found)?;
        if self.receipt.is_adapter() {
            found
                .notes
                .push("the result is an adapter: its files were compared, its factors not computed again".into());
            return Ok(());
        }
        self.look_at_tensors(&output, found);
        if !found.inputs.wrong.is_empty() {
            found.notes.push("no tensor was computed again: the inputs are not those of the merge".into());
            return Ok(());
        }
        let Some(recipe) = recipe else { return Ok(()) };
        match self.job(recipe) {
            Ok(job) => self.recompute(&job, &output, found),
            Err(error) => {
                // Of the device, and what it is called, the merge knows nothing.
                device::open(&self.wanted()).map(drop)?;
                found.inputs.wrong.push(format!("nothing can be computed from the inputs: {error}"));
                Ok(())
            }
        }
    }

    /// The recipe as the receipt has it, which is that of the file beside it.
    fn recipe(&self, found: &mut Verification) -> Option<Recipe> {
        let text = self.receipt.recipe();
        let merged = self.receipt.fingerprint.contains_key(MERGED);
        if !merged && self.finished.text(RECIPE).as_deref() != text {
            found.receipt.push(format!("`{RECIPE}` is not the recipe in `{RECEIPT}`"));
        }
        match Recipe::from_yaml(text.unwrap_or_default(), RECEIPT) {
            Ok(recipe) => {
                let said = [
                    ("method", recipe.method.clone().into()),
                    ("calibrate", recipe.calibrate.space.as_str().into()),
                    ("seed", recipe.seed.into()),
                    ("non_finite", recipe.non_finite.as_str().into()),
                ];
                let other = said.into_iter().filter(|(key, value)| self.finished.receipt.get(*key) != Some(value));
                found.receipt.extend(other.map(|(key, value)| format!("its `{key}` is not {value}, as in its recipe")));
                Some(recipe)
            }
            Err(error) => {
                found.receipt.push(format!("its recipe cannot be read: {error}"));
                None
            }
        }
    }

    /// The page about the merge must be the one that this version makes of the receipt, if this version made it.
    fn look_at_page(&self, scores: Option<&Scores>, found: &mut Verification) {
        let again = "`magic report` writes it anew";
        match self.finished.text(REPORT) {
            None => found.notes.push(format!("there is no `{REPORT}` that could be read: {again}")),
            Some(page) if !html::is_ours(&page) => {
                found.notes.push(format!("`{REPORT}` was made by another version, and not compared: {again}"));
            }
            // Scores may have been added, and the page not been written since.
            Some(page) => match self.page(scores) {
                Ok(now) if now == page => {}
                Ok(_) if self.page(None).is_ok_and(|plain| plain == page) => {}
                Ok(_) => found.receipt.push(format!("`{REPORT}` is not what follows from `{RECEIPT}`: {again}")),
                Err(error) => found.receipt.push(error.to_string()),
            },
        }
    }

    /// The page as this version makes it.
    fn page(&self, scores: Option<&Scores>) -> Result<String> {
        let edited = report::broken_seal(&self.finished.receipt, &self.finished.text);
        html::page(&self.finished.receipt, scores, edited.as_deref(), RECEIPT)
    }

    /// Loaders must find in the folder what the receipt lists, and nothing else.
    fn look_at_files(&self, output: &Checkpoint, scored: bool, found: &mut Verification) -> Result<()> {
        let mut listed: HashSet<&str> = self.receipt.files.iter().map(|record| record.file.as_str()).collect();
        let name = |file: &Path| file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let names: Vec<String> = output.files().map(name).collect();
        for name in names.iter().filter(|name| !listed.contains(name.as_str())) {
            found.receipt.push(format!("`{}` holds the model, and the receipt does not list it", shown(name)));
        }
        let given = self.receipt.fingerprint.contains_key(MERGED);
        let beside = [(CARD, true), (RECIPE, !given), (INDEX, names.len() > 1)];
        for (name, _) in beside.iter().filter(|(name, written)| *written && !listed.contains(name)) {
            found.receipt.push(format!("a merge writes `{name}`, and the receipt does not list it"));
        }
        let weights = |record: &&FileRecord| names.contains(&record.file);
        for record in self.receipt.files.iter().filter(|record| !weights(record) && record.sha256.is_none()) {
            found.receipt.push(format!("the receipt has no SHA-256 of `{}`", shown(&record.file)));
        }
        if !listed.contains(INDEX) && self.finished.has(INDEX) {
            found.files.wrong.push(format!("`{INDEX}` is not of this merge: loaders may read the files that it names"));
        }
        if scored {
            listed.insert(SCORES);
            found.notes.push(format!("the scores in `{SCORES}` were not measured again"));
        }
        found.notes.extend(self.finished.strangers(&listed)?);
        let layout = self.receipt.fingerprint.get(LAYOUT);
        let headers = self.finished.describe(names.iter().map(String::as_str));
        if !self.receipt.is_adapter() && layout != headers.as_ref() {
            found.receipt.push("the headers of its files are not those that were recorded".into());
        }
        Ok(())
    }

    /// The receipt must have every tensor of the output, and no other.
    fn look_at_tensors(&self, output: &Checkpoint, found: &mut Verification) {
        let mut recorded: HashMap<&str, &Recorded> =
            self.receipt.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        for tensor in output.tensors() {
            let name = shown(&tensor.name);
            match recorded.remove(tensor.name.as_str()) {
                Some(Recorded { elements, .. }) if *elements != tensor.elements() => found
                    .receipt
                    .push(format!("`{name}` has {} elements, and {elements} were recorded", tensor.elements())),
                Some(Recorded { shape: Some(shape), .. }) if *shape != tensor.shape => {
                    found.receipt.push(format!("`{name}` is {:?}, and {shape:?} was recorded", tensor.shape));
                }
                Some(_) => {}
                None => found.receipt.push(format!("`{name}` is in the output, and the receipt does not have it")),
            }
        }
        let mut lost: Vec<&str> = recorded.into_keys().collect();
        lost.sort_unstable();
        let lost = lost.into_iter().map(|name| format!("`{}` is in the receipt, and not in the output", shown(name)));
        found.receipt.extend(lost);
    }

    /// The device that is wanted: unless one is named, that of the merge, if it is here.
    fn wanted(&self) -> Wanted {
        let fast_gemm = self.receipt.fingerprint.contains_key(PRODUCTS);
        let mut wanted = Wanted { fast_gemm, ..self.wanted.clone() };
        if let ("" | "auto", Some(name)) = (&*wanted.device, self.receipt.adapter())
            && (name == "cpu" || gpu::adapter::list().iter().any(|adapter| adapter.name == name))
        {
            wanted.device = name.to_owned();
        }
        wanted
    }

    fn job(&self, recipe: Recipe) -> Result<Job> {
        match self.receipt.fingerprint.get(MERGED) {
            Some(merged) => Job::given(recipe, merged, &self.wanted()),
            None => Job::new(recipe, None, &self.wanted()),
        }
    }

    /// What follows from the plan, without computing anything: amounts, tensors left out, files beside the weights.
    fn look_at_plan(&self, job: &Job, output: &Checkpoint, found: &mut Verification) -> Result<()> {
        if self.receipt.bytes != (Bytes { read: job.plan.bytes_in(), written: output.total_bytes() }) {
            found.receipt.push("its `bytes` are not those of its tensors".into());
        }
        if self.receipt.ignored != job.plan.ignored {
            found.receipt.push("its `ignored` are not the tensors that took no part".into());
        }
        // Where those of the base are others, that has been said.
        if !found.inputs.wrong.is_empty() {
            return Ok(());
        }
        for (name, bytes) in job.side()? {
            let what = match self.receipt.files.iter().find(|record| record.file == name) {
                None => "and the receipt does not list it",
                Some(FileRecord { sha256: Some(recorded), .. }) if *recorded != sha256(&bytes) => {
                    "and the receipt has another SHA-256 of it"
                }
                Some(_) => continue,
            };
            found.receipt.push(format!("the merge writes `{}`, {what}", shown(&name)));
        }
        Ok(())
    }

    fn recompute(&self, job: &Job, output: &Checkpoint, found: &mut Verification) -> Result<()> {
        let (now, recorded) = (job.decisive()?, &self.receipt.fingerprint);
        if let Some(what) = difference(&Receipt::settings(recorded), &Receipt::settings(&now)) {
            found.inputs.wrong.push(format!("the merge was made from something else: {what}"));
        }
        let paths: HashSet<String> = job.input_paths().into_iter().collect();
        let listed: HashSet<String> =
            self.receipt.inputs.iter().flat_map(|input| &input.files).map(|file| file.path.clone()).collect();
        if let Some(other) = paths.symmetric_difference(&listed).min() {
            let what = if listed.contains(other) { "recipe does not read it" } else { "receipt does not list it" };
            found.receipt.push(format!("`{}` is not an input of both: the {what}", shown(other)));
            return Ok(());
        }
        let tensors = &job.plan.tensors;
        let as_planned = tensors.iter().all(|tensor| {
            let info = output.get(&tensor.name).map(|(_, info)| (info.dtype, &info.shape));
            info == Some((tensor.out_dtype, &tensor.shape))
        });
        if !as_planned || tensors.len() != output.tensors().len() {
            found.receipt.push("the tensors of the output are not those that the recipe makes of the inputs".into());
            return Ok(());
        }
        self.look_at_plan(job, output, found)?;
        let size = |name: &str| output.get(name).map_or(0, |(_, info)| info.bytes);
        let named: Vec<(&str, u64)> = tensors.iter().map(|t| (t.name.as_str(), size(&t.name))).collect();
        let chosen = match self.all || job.features.is_some() {
            true => vec![true; tensors.len()],
            false => sample(&named, &sha256(&self.finished.text)),
        };
        let same = |keys: &[&str]| keys.iter().all(|key| now.get(*key) == recorded.get(*key));
        let exact = same(&["version", "device", KERNELS, PRODUCTS]);
        let counted = || named.iter().zip(&chosen).filter(|(_, chosen)| **chosen);
        let recomputed = counted().count();
        found.tensors = Tensors {
            count: tensors.len(),
            bytes: named.iter().map(|(_, bytes)| bytes).sum(),
            recomputed,
            recomputed_bytes: counted().map(|((_, bytes), _)| bytes).sum(),
            device: Some(job.opened.name.clone()),
            ..Tensors::default()
        };
        if !exact {
            found.notes.push(format!(
                "the merge was made on {}, by version {}: values may differ in the last bits, and were compared within \
                 1e-5 of each task vector and one rounding",
                shown(&self.receipt.device),
                shown(&self.receipt.version)
            ));
        }
        (self.say)(format!("computing {recomputed} of {} tensors", tensors.len()));
        let comparison = Comparison::new(output, tensors, &chosen, self.progress);
        let (mut reports, outcome) = job.compute(&comparison, self.progress)?;
        let measured_again = outcome.recovered.is_some() || self.receipt.was_recovered();
        reports.sort_by_key(|(place, _)| *place);
        let known: HashMap<&str, _> =
            self.receipt.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        for (place, report) in &reports {
            let tensor = &tensors[*place];
            let recorded = known.get(tensor.name.as_str());
            let detour = measured_again
                || report.recovered.is_some()
                || recorded.is_some_and(|recorded| recorded.was_recovered());
            let alike = !matches!(tensor.combine, Combine::Decompose(_)) || same(&[DECOMPOSITION]);
            let exact = exact && alike && !detour || tensor.action != Action::Merge;
            let tensors = &mut found.tensors;
            *(if exact { &mut tensors.bit_for_bit } else { &mut tensors.within_tolerance }) += 1;
            tensors.differences.extend(comparison.difference(*place, exact, report.calibrated));
            found.receipt.extend(recorded.and_then(|recorded| recorded.difference(report, exact)));
        }
        found.tensors.different = found.tensors.differences.len();
        found.tensors.exact = found.tensors.within_tolerance == 0;
        if exact && !found.tensors.exact {
            found.notes.push(format!(
                "a device failed at, or had no memory for, {} of the tensors, in the merge or now: these were compared \
                 within 1e-5 of each task vector and one rounding",
                found.tensors.within_tolerance
            ));
        }
        Ok(())
    }
}
