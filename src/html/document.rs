//! `magic.json`, as far as the page shows it.

use serde::{Deserialize, Deserializer};

use crate::checkpoint::{FileRecord, Fingerprint};
use crate::part::is_matrix;
use crate::report::Input;

/// The part of a receipt that the page is made of. A number that is none is `null` there, and NaN here.
#[derive(Debug, Deserialize)]
pub struct Document {
    pub version: String,
    pub method: String,
    pub calibrate: String,
    pub seed: u64,
    pub non_finite: String,
    pub device: String,
    pub inputs: Vec<Input>,
    pub base: Option<String>,
    pub experts: Vec<String>,
    pub features: Option<Features>,
    pub tensors: Vec<Tensor>,
    pub lora: Option<Lora>,
    pub ignored: Vec<String>,
    pub bytes: Bytes,
    pub fingerprint: Fingerprint,
    pub files: Vec<FileRecord>,
    pub warnings: Vec<String>,
    #[serde(deserialize_with = "number")]
    pub seconds: f64,
}

/// See [`FeatureReport`](crate::report::FeatureReport).
#[derive(Debug, Deserialize)]
pub struct Features {
    pub family: String,
    pub fit: String,
    pub norm: String,
    pub data: Vec<Data>,
    pub leaves: Vec<Leaf>,
    #[serde(default)]
    pub candidates: Vec<Candidate>,
}

/// See [`DataReport`](crate::report::DataReport).
#[derive(Debug, Deserialize)]
pub struct Data {
    pub name: String,
    pub samples: u64,
}

/// See [`LeafReport`](crate::calibrate::feature::LeafReport).
#[derive(Debug, Deserialize)]
pub struct Leaf {
    pub leaf: String,
    #[serde(deserialize_with = "number")]
    pub xi: f64,
    #[serde(deserialize_with = "numbers")]
    pub experts: Vec<f64>,
    #[serde(default, deserialize_with = "numbers")]
    pub uncalibrated: Vec<f64>,
}

/// See [`CandidateReport`](crate::calibrate::feature::CandidateReport).
#[derive(Debug, Deserialize)]
pub struct Candidate {
    pub name: String,
    pub space: String,
    #[serde(deserialize_with = "number")]
    pub strength: f64,
    #[serde(deserialize_with = "number")]
    pub scale: f64,
    #[serde(deserialize_with = "number")]
    pub distance: f64,
    #[serde(deserialize_with = "number")]
    pub hidden: f64,
    pub logits: Option<f64>,
    pub chosen: bool,
}

/// See [`TensorReport`](crate::report::TensorReport).
#[derive(Debug, Default, Deserialize)]
pub struct Tensor {
    pub name: String,
    pub action: String,
    pub shape: Option<Vec<u64>>,
    pub elements: u64,
    #[serde(default, deserialize_with = "numbers")]
    pub experts: Vec<f64>,
    #[serde(default, deserialize_with = "numbers")]
    pub cosines: Vec<f64>,
    pub between: Option<Between>,
    #[serde(deserialize_with = "number")]
    pub merged: f64,
    #[serde(deserialize_with = "number")]
    pub calibrated: f64,
    pub xi: Option<Factors>,
    pub degenerate_rows: u64,
    pub nan: u64,
    pub infinite: u64,
    pub overflow: u64,
    pub recovered: Option<String>,
}

/// See [`Between`](crate::report::Between).
#[derive(Debug, Deserialize)]
pub struct Between {
    pub elements: u64,
    #[serde(deserialize_with = "numbers")]
    pub cosines: Vec<f64>,
}

/// See [`Factors`](crate::report::Factors).
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Factors {
    #[serde(deserialize_with = "number")]
    pub min: f64,
    #[serde(deserialize_with = "number")]
    pub mean: f64,
    #[serde(deserialize_with = "number")]
    pub max: f64,
}

/// See [`LoraReport`](crate::report::LoraReport).
#[derive(Debug, Deserialize)]
pub struct Lora {
    pub tensors: usize,
    pub rank: usize,
    #[serde(deserialize_with = "number")]
    pub error: f64,
    pub worst: String,
    #[serde(deserialize_with = "number")]
    pub worst_error: f64,
}

/// See [`Bytes`](crate::report::Bytes).
#[derive(Debug, Deserialize)]
pub struct Bytes {
    pub read: u64,
    pub written: u64,
}

impl Document {
    /// Whether any tensor has a factor.
    pub fn is_calibrated(&self) -> bool {
        self.tensors.iter().any(|tensor| tensor.xi.is_some())
    }

    /// Tensors that were merged.
    pub fn merged(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter().filter(|tensor| !tensor.experts.is_empty())
    }
}

impl Tensor {
    /// Mean over the experts of their ‖τ‖.
    pub fn expert(&self) -> f64 {
        self.experts.iter().sum::<f64>() / self.experts.len().max(1) as f64
    }

    /// Whether it has rows, as far as the receipt tells.
    pub fn is_matrix(&self) -> bool {
        self.shape.as_deref().is_none_or(is_matrix)
    }

    /// ‖τ‖ of the merge in units of the experts' mean.
    pub fn ratio(&self) -> f64 {
        self.merged / self.expert()
    }

    /// The least of its cosines.
    pub fn least_cosine(&self) -> f64 {
        self.cosines.iter().copied().filter(|cosine| cosine.is_finite()).reduce(f64::min).unwrap_or(f64::NAN)
    }
}

fn number<'de, D: Deserializer<'de>>(source: D) -> Result<f64, D::Error> {
    Option::deserialize(source).map(|number| number.unwrap_or(f64::NAN))
}

fn numbers<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<f64>, D::Error> {
    let numbers = Vec::<Option<f64>>::deserialize(source)?;
    Ok(numbers.into_iter().map(|number| number.unwrap_or(f64::NAN)).collect())
}
