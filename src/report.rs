//! What a merge leaves behind besides tensors: `magic.json`.

mod warnings;

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::calibrate::feature::{CandidateReport, LeafReport};
use crate::checkpoint::text::shown;
use crate::checkpoint::{FileRecord, Fingerprint, sha256};
use crate::decompose::{Route, Why};
use crate::error::{self, Error};
use crate::fast_gemm::FastReport;
use crate::finite::Findings;
use crate::kernels::factor::Strength;
use crate::kernels::norms::Stats;
use crate::kernels::rescale::Counts;
use crate::plan::{Action, Copied, Tensor};
use crate::recipe::NonFinite;
use crate::recover::Recovered;

/// Name and version of the document.
pub const SCHEMA: &str = "magic-merge/1";

/// What a merge did: the whole of `magic.json`, which is how it serialises. There are each tensor's norms, least, mean and
/// largest factor and counts of what is not finite, inputs and outputs with their hashes, and, in feature space, every
/// leaf's factor.
///
/// ```
/// use magic_merge::{Job, Output, Progress, Quick, Wanted};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let models = Quick::new("linear").base("assets/demo/base").exclude("classifier.*").calibrate("wsc");
/// # let models = models.model("assets/demo/expert_digits").model("assets/demo/expert_photo");
/// # let job = Job::new(models.recipe()?, None, &Wanted::on("cpu"))?;
/// # let output = Output::new(folder.path().join("merged"));
/// let report = job.run(&output, &Progress::default())?;
/// assert!(report.warnings.is_empty());
///
/// let report = serde_json::to_value(&report)?;
/// let tensor = report["tensors"].as_array().unwrap().iter().find(|tensor| tensor["xi"].is_object()).unwrap();
/// assert!(tensor["xi"]["mean"].as_f64().unwrap() > 1.0, "averaging shortens task vectors");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `magic-merge/1`.
    pub schema: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// Name of the method.
    pub method: String,
    /// Space of the calibration.
    pub calibrate: String,
    /// Seed of the random masks.
    pub seed: u64,
    /// What becomes of NaN and infinities.
    #[serde(serialize_with = "word")]
    #[doc(hidden)]
    pub non_finite: NonFinite,
    /// The device, as a person knows it.
    pub device: String,
    /// The base first, then the experts, then models that only adapters stand on.
    #[doc(hidden)]
    pub inputs: Vec<Input>,
    /// Name of the base, if one was named: without it, task vectors are differences from the first model, or, where the
    /// models are adapters alone, all that these add.
    pub base: Option<String>,
    /// Names of the experts, in the order of their norms.
    pub experts: Vec<String>,
    /// What was measured in feature space.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[doc(hidden)]
    pub features: Option<FeatureReport>,
    /// Everything that was written.
    #[doc(hidden)]
    pub tensors: Vec<TensorReport>,
    /// What a result that is an adapter leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[doc(hidden)]
    pub lora: Option<LoraReport>,
    /// Names of experts' tensors that took no part.
    pub ignored: Vec<String>,
    /// Bytes read, once, and written.
    #[doc(hidden)]
    pub bytes: Bytes,
    /// What decided the bytes, by name: another merge with all of it the same is this merge.
    #[doc(hidden)]
    pub fingerprint: Fingerprint,
    /// How what was measured or factored came about, if the device had failed at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[doc(hidden)]
    pub recovered: Option<Recovered>,
    /// Tensors that an earlier run had written, before it was interrupted.
    #[serde(skip)]
    #[doc(hidden)]
    pub kept: usize,
    /// SHA-256 of the WGSL of all kernels, where a GPU ran them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wgsl_sha256: Option<String>,
    /// The files that were written, but for this one.
    #[doc(hidden)]
    pub files: Vec<FileRecord>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// Wall time of the merge in seconds.
    pub seconds: f64,
    /// SHA-256 of the text of the document as it is with nothing here. An edit shows, unless whoever made it put in the
    /// hash of what came of it.
    pub sha256: String,
}

fn word<S: Serializer>(non_finite: &NonFinite, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(non_finite.as_str())
}

/// A part `T` of the document, as it is in `magic.json` at `at`.
///
/// # Errors
/// A document of another kind, or in which something of that part is missing.
pub(crate) fn read<'de, T: Deserialize<'de>>(document: &'de serde_json::Value, at: &str) -> error::Result<T> {
    let again = "make the merge again with this version";
    let bad = |what: String| Error::input(format!("`{at}` is no receipt of a merge: {what}")).hint(again);
    match document.get("schema").and_then(serde_json::Value::as_str) {
        Some(SCHEMA) => T::deserialize(document).map_err(|e| bad(shown(&e.to_string()))),
        Some(schema) => Err(bad(format!("its schema is `{}`, not `{SCHEMA}`", shown(schema)))),
        None => Err(bad("it names no schema".into())),
    }
}

/// What is wrong with the document's own SHA-256; `text` is what it was read from.
pub(crate) fn broken_seal(document: &serde_json::Value, text: &str) -> Option<String> {
    let Some(seal) = document.get("sha256").and_then(serde_json::Value::as_str) else {
        return Some("it lacks its own `sha256`: it was edited, or is of an older version".into());
    };
    let unsealed = text.replacen(&format!("\"{seal}\""), "\"\"", 1);
    (sha256(unsealed) != seal).then(|| "its text has not its own `sha256`: it was edited after the merge".into())
}

impl Report {
    /// The document, with its own SHA-256 in it.
    pub(crate) fn seal(&mut self) -> Vec<u8> {
        let text = |report: &Self| serde_json::to_vec_pretty(report).expect("a report is plain data");
        self.sha256.clear();
        self.sha256 = sha256(text(self));
        text(self)
    }
}

/// An adapter.
#[derive(Clone, Debug, Serialize)]
pub struct LoraReport {
    /// Matrices that it changes.
    pub tensors: usize,
    /// Largest rank.
    pub rank: usize,
    /// ‖ΔW − BA‖ / ‖ΔW‖ over all of them.
    pub error: f64,
    /// The matrix for which that is largest.
    pub worst: String,
    /// The same for it.
    pub worst_error: f64,
}

/// The factors of a tensor.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LowRank {
    /// r.
    pub rank: usize,
    /// ‖ΔW − BA‖ / ‖ΔW‖.
    pub error: f64,
}

/// Feature space.
#[derive(Clone, Debug, Serialize)]
pub struct FeatureReport {
    /// `model_type`.
    pub family: String,
    /// How features were read.
    pub fit: Cow<'static, str>,
    /// Their norm.
    pub norm: &'static str,
    /// Samples, a set for all experts or one for each.
    pub data: Vec<DataReport>,
    /// Most bytes of activations at a time.
    pub activation_bytes: u64,
    /// Leaves in network order.
    pub leaves: Vec<LeafReport>,
    /// What `auto` tried, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<CandidateReport>,
    /// What products by cooperative matrices erred by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_gemm: Option<FastReport>,
}

/// A set of samples that went in.
#[derive(Clone, Debug, Serialize)]
pub struct DataReport {
    /// As it was named.
    pub name: String,
    /// Samples used.
    pub samples: usize,
}

/// A checkpoint that went in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Input {
    /// As it was named.
    pub model: String,
    /// Its files.
    pub files: Vec<InputFile>,
}

/// A file that went in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InputFile {
    /// Where it was.
    pub path: String,
    /// Its name, size and SHA-256.
    #[serde(flatten)]
    pub record: FileRecord,
}

/// Amounts moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Read, once.
    pub read: u64,
    /// Written.
    pub written: u64,
}

/// Least, mean and largest ξ of a tensor.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Factors {
    /// Least.
    pub min: f64,
    /// Mean over the rows that share no factor.
    pub mean: f64,
    /// Largest.
    pub max: f64,
}

/// Cosines ⟨τ_i, τ_j⟩ / ‖τ_i‖‖τ_j‖ of the experts of a tensor, taken over a sample of its elements.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Between {
    /// Elements of the sample, which is the same in every run: all of a tensor of up to 16,384, else so many, in 16 pieces
    /// from its beginning to its end.
    pub elements: u64,
    /// By pairs: (0,1), (0,2), …, (1,2), …. Not a number where the sample of either is zero or not finite.
    pub cosines: Vec<f64>,
}

/// One tensor of the output.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// `merged`, or why it was copied.
    pub action: &'static str,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Elements.
    pub elements: u64,
    /// ‖τ_k‖ of each expert.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub experts: Vec<f64>,
    /// ⟨τ_k, τ_m⟩ / ‖τ_k‖‖τ_m‖ of each expert: its cosine with the merge. Not a number where one of them is zero.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cosines: Vec<f64>,
    /// Cosines between the experts themselves, of up to 16 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between: Option<Between>,
    /// ‖τ_m‖ before calibration.
    pub merged: f64,
    /// ‖ξ ∘ τ_m‖.
    pub calibrated: f64,
    /// ξ, if the tensor was calibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xi: Option<Factors>,
    /// Its factors, if it goes into an adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LowRank>,
    /// Rows whose norm is zero, and whose ξ is one therefore.
    pub degenerate_rows: u64,
    /// Results that are NaN before they are rounded, the base's own and what is copied among them.
    pub nan: u64,
    /// Results that are infinite before they are rounded, and what is copied.
    pub infinite: u64,
    /// Finite results that the output type rounds to infinity or NaN.
    pub overflow: u64,
    /// What of models and results is no number, and where the first is, if there is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_finite: Option<Findings>,
    /// How it was computed after the device failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// How it was decomposed, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Whether the device had too little memory for it.
    #[serde(skip)]
    too_large: Option<u64>,
    /// Time on this tensor.
    pub seconds: f64,
    #[serde(skip)]
    rows: u64,
}

/// What of a [`TensorReport`] its tensor does not say. Floats are their bits: no reader may round them.
#[derive(Serialize, Deserialize)]
struct Record {
    experts: Vec<u64>,
    cosines: Vec<u64>,
    between: Option<(u64, Vec<u64>)>,
    norms: [u64; 2],
    xi: Option<[u64; 3]>,
    counts: [u64; 5],
    not_finite: Option<Findings>,
    recovered: Option<Recovered>,
    route: Option<String>,
    too_large: Option<u64>,
    seconds: u64,
}

impl TensorReport {
    /// A tensor that was copied.
    pub fn copied(tensor: &Tensor) -> Self {
        Self::new(tensor, Vec::new(), false)
    }

    /// A tensor that is merged, before any block.
    pub fn merged(tensor: &Tensor, strength: Strength) -> Self {
        Self::new(tensor, vec![0.0; tensor.experts()], tensor.calibration.is_some() || strength != Strength::FULL)
    }

    fn new(tensor: &Tensor, experts: Vec<f64>, calibrated: bool) -> Self {
        let action = match tensor.action {
            Action::Merge => "merged",
            Action::Copy(Copied::NotFloat) => "copied: not a float type",
            Action::Copy(Copied::Excluded) => "copied: excluded",
            Action::Copy(Copied::Empty) => "copied: empty",
            Action::Copy(Copied::Untouched) => "copied: no adapter touches it",
        };
        let none = Factors { min: f64::INFINITY, mean: 0.0, max: f64::NEG_INFINITY };
        Self {
            name: tensor.name.clone(),
            action,
            shape: tensor.shape.clone(),
            elements: tensor.elements,
            between: None,
            cosines: vec![0.0; experts.len()],
            experts,
            merged: 0.0,
            calibrated: 0.0,
            xi: calibrated.then_some(none),
            lora: None,
            degenerate_rows: 0,
            nan: 0,
            infinite: 0,
            overflow: 0,
            not_finite: None,
            recovered: None,
            route: None,
            too_large: None,
            seconds: 0.0,
            rows: 0,
        }
    }

    /// Adds the counts of a block.
    pub fn counts(&mut self, counts: Counts) {
        self.nan += u64::from(counts.nan);
        self.infinite += u64::from(counts.infinite);
        self.overflow += u64::from(counts.overflow);
    }

    /// Adds NaN and infinite numbers that were copied.
    pub fn stored(&mut self, (nan, infinite): (u64, u64)) {
        self.nan += nan;
        self.infinite += infinite;
    }

    /// Adds what was found of numbers that are none.
    pub fn found(&mut self, findings: &Findings) {
        if !findings.is_empty() {
            self.not_finite.get_or_insert_default().add(findings);
        }
    }

    /// Adds a row: statistics of each plane, and its ξ. Until [`TensorReport::finish`], norms are their squares, and cosines
    /// are products.
    pub fn row(&mut self, stats: &[Stats], factor: f32) {
        let (experts, merged) = stats.split_at(stats.len() - 1);
        let (factor, merged) = (f64::from(factor), f64::from(merged[0].square));
        for ((square, dot), stats) in self.experts.iter_mut().zip(&mut self.cosines).zip(experts) {
            *square += f64::from(stats.square);
            *dot += f64::from(stats.dot);
        }
        self.merged += merged;
        self.calibrated += factor * factor * merged;
        self.rows += 1;
        if let Some(xi) = &mut self.xi {
            *xi = Factors { min: xi.min.min(factor), mean: xi.mean + factor, max: xi.max.max(factor) };
            self.degenerate_rows += u64::from(merged == 0.0 || experts.iter().all(|s| s.square == 0.0));
        }
    }

    /// Adds a block.
    pub fn add(&mut self, block: &Self) {
        self.experts.iter_mut().zip(&block.experts).for_each(|(sum, part)| *sum += part);
        self.cosines.iter_mut().zip(&block.cosines).for_each(|(sum, part)| *sum += part);
        self.merged += block.merged;
        self.calibrated += block.calibrated;
        self.degenerate_rows += block.degenerate_rows;
        self.nan += block.nan;
        self.infinite += block.infinite;
        self.overflow += block.overflow;
        block.not_finite.iter().for_each(|findings| self.found(findings));
        self.rows += block.rows;
        if let (Some(xi), Some(part)) = (&mut self.xi, &block.xi) {
            *xi = Factors { min: xi.min.min(part.min), mean: xi.mean + part.mean, max: xi.max.max(part.max) };
        }
    }

    /// Its numbers, exactly, for the journal of a merge.
    pub fn record(&self) -> serde_json::Value {
        let exact = |x: f64| x.to_bits();
        serde_json::to_value(Record {
            experts: self.experts.iter().copied().map(exact).collect(),
            cosines: self.cosines.iter().copied().map(exact).collect(),
            between: self.between.as_ref().map(|of| (of.elements, of.cosines.iter().copied().map(exact).collect())),
            norms: [self.merged, self.calibrated].map(exact),
            xi: self.xi.map(|xi| [xi.min, xi.mean, xi.max].map(exact)),
            counts: [self.degenerate_rows, self.nan, self.infinite, self.overflow, self.rows],
            not_finite: self.not_finite.clone(),
            recovered: self.recovered,
            route: self.route.clone(),
            too_large: self.too_large,
            seconds: exact(self.seconds),
        })
        .expect("a record is plain data")
    }

    /// The report of `tensor` of which [`record`](Self::record) was taken; `None` if it is none.
    pub fn recorded(tensor: &Tensor, record: &serde_json::Value) -> Option<Self> {
        let record = Record::deserialize(record).ok()?;
        let exact = f64::from_bits;
        let [degenerate_rows, nan, infinite, overflow, rows] = record.counts;
        let between = |(elements, cosines): (u64, Vec<u64>)| Between {
            elements,
            cosines: cosines.into_iter().map(exact).collect(),
        };
        Some(Self {
            between: record.between.map(between),
            merged: exact(record.norms[0]),
            calibrated: exact(record.norms[1]),
            xi: record.xi.map(|xi| xi.map(exact)).map(|[min, mean, max]| Factors { min, mean, max }),
            degenerate_rows,
            nan,
            infinite,
            overflow,
            not_finite: record.not_finite,
            recovered: record.recovered,
            route: record.route,
            too_large: record.too_large,
            seconds: exact(record.seconds),
            rows,
            cosines: record.cosines.into_iter().map(exact).collect(),
            ..Self::new(tensor, record.experts.into_iter().map(exact).collect(), false)
        })
    }

    /// Turns squares into norms, products into cosines and the sum of ξ into its mean; `route` is that of a
    /// decomposition.
    pub fn finish(&mut self, route: Option<&Route>, elapsed: Duration) {
        self.route = route.map(Route::to_string);
        self.too_large = match route {
            Some(Route::Host(Why::Budget(bytes))) => Some(*bytes),
            _ => None,
        };
        self.experts.iter_mut().for_each(|square| *square = square.sqrt());
        self.merged = self.merged.sqrt();
        self.calibrated = self.calibrated.sqrt();
        self.cosines.iter_mut().zip(&self.experts).for_each(|(dot, norm)| *dot /= norm * self.merged);
        self.seconds = elapsed.as_secs_f64();
        if let Some(xi) = &mut self.xi {
            xi.mean /= self.rows as f64;
        }
    }
}
