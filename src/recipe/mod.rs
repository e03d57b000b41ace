//! The recipe of a merge: what is merged, how, and what is put back afterwards.
//!
//! A recipe is mergekit's YAML plus a few keys of our own ([`Recipe::from_yaml`], [`Recipe::to_yaml`]), or the quick form
//! of the command line ([`Quick`]); both give the same [`Recipe`]. Nothing here opens a model.

mod choice;
mod depth;
mod emit;
mod keys;
mod params;
mod quick;
mod tree;
mod yaml;

use std::path::{Path, PathBuf};

use crate::error::nearest;
use crate::{Error, Result};

pub use choice::{Fit, Manifold, NonFinite, Norm, Propagate, Space};
pub use depth::{Depth, layer};
pub use params::{PARAMS, Param, Params, Takes, Value};
pub use quick::Quick;
pub use tree::MAX_BYTES;

/// Output dtypes, by mergekit's names.
pub const DTYPES: [&str; 3] = ["float32", "bfloat16", "float16"];

/// A merge, complete and checked. Paths stand as written; [`resolve`] finds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipe {
    /// `merge_method`.
    pub method: String,
    /// `base_model`.
    pub base: Option<String>,
    /// The models, in the order of the file.
    pub models: Vec<ModelEntry>,
    /// The recipe's own `parameters`.
    pub params: Params,
    /// `dtype` as written. All arithmetic is f32, so this only names the output; see [`Recipe::output_dtype`].
    pub dtype: Option<String>,
    /// `out_dtype` as written.
    pub out_dtype: Option<String>,
    /// `calibrate`.
    pub calibrate: Calibrate,
    /// Seed of the random masks.
    pub seed: u64,
    /// Globs of the tensors that are copied from the base.
    pub exclude: Vec<String>,
    /// `non_finite`: what becomes of NaN and infinities.
    pub non_finite: NonFinite,
    /// `lora_out`: the result is an adapter, of at most this rank.
    pub lora_out: Option<usize>,
}

/// One model of a recipe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelEntry {
    /// Its path, or `org/name` in the local hub cache.
    pub model: String,
    /// Its own `parameters`; they come before the recipe's.
    pub params: Params,
    /// Its own calibration samples.
    pub data: Option<String>,
}

/// What happens to the task vectors after the merge.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibrate {
    /// Where magnitudes are measured.
    pub space: Space,
    /// The shape of the weight-space calibration.
    pub manifold: Manifold,
    /// The norm of [`Manifold::Sphere`] and [`Manifold::Tensor`].
    pub norm: Norm,
    /// How the feature-space calibration reads its features (`feature.fit`).
    pub fit: Fit,
    /// The norm of the features (`feature.norm`).
    pub feature_norm: Norm,
    /// Samples used of each expert's data (`feature.samples`).
    pub samples: usize,
    /// What later leaves are measured on (`feature.propagate`).
    pub propagate: Propagate,
    /// Calibration samples: none, one for all experts, or one per expert; see [`Recipe::data_of`].
    pub data: Vec<String>,
    /// Tensors whose factor may only shrink.
    pub sensitive: Sensitive,
    /// Globs of the tensors that are not calibrated.
    pub exclude: Vec<String>,
}

impl Default for Calibrate {
    fn default() -> Self {
        Self {
            space: Space::None,
            manifold: Manifold::Mixed,
            norm: Norm::L1,
            fit: Fit::Magnitude,
            feature_norm: Norm::L1,
            samples: 10,
            propagate: Propagate::Merged,
            data: Vec::new(),
            sensitive: Sensitive::None,
            exclude: Vec::new(),
        }
    }
}

/// The tensors whose calibration factor may only shrink. An empty list is not the same as no list: with a list, every
/// tensor that is not on it may only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sensitive {
    /// No list.
    #[default]
    None,
    /// A JSON file, as `magic sensitivity` writes it.
    File(String),
    /// Tensor names.
    Names(Vec<String>),
}

impl Recipe {
    /// Reads a recipe. `name` is the file's path: it opens each message, and paths in the recipe may be relative to its
    /// folder.
    pub fn from_yaml(text: &str, name: &str) -> Result<Self> {
        yaml::read(text, name)
    }

    /// The recipe as YAML that mergekit reads too, without what is at its default. Keys have a fixed order, and
    /// [`Recipe::from_yaml`] gives the same recipe back.
    pub fn to_yaml(&self) -> String {
        emit::write(self)
    }

    /// The dtype of the output: `out_dtype`, else `dtype`, else none (the base tensor's own).
    pub fn output_dtype(&self) -> Result<Option<&'static str>> {
        self.out_dtype.as_deref().or(self.dtype.as_deref()).map(dtype_name).transpose()
    }

    /// Indices of the models that are not the base itself (`slerp` lists its base among the models).
    pub fn experts(&self) -> impl Iterator<Item = usize> {
        (0..self.models.len()).filter(|&i| self.base.as_ref() != Some(&self.models[i].model))
    }

    /// The calibration samples of model `model`: its own, else the recipe's for all or for its place among the experts.
    pub fn data_of(&self, model: usize) -> Option<&str> {
        let own = self.models.get(model)?.data.as_deref();
        own.or_else(|| match self.calibrate.data.as_slice() {
            [one] => Some(one),
            each => self.experts().position(|i| i == model).and_then(|place| each.get(place)).map(String::as_str),
        })
    }

    /// What no single key can tell: checked after reading, and again after the command line has changed something.
    fn validate(&self) -> Result<()> {
        self.output_dtype()?;
        let (given, experts) = (self.calibrate.data.len(), self.experts().count());
        if given > 1 && given != experts {
            let message = format!("{given} calibration data sets for {experts} experts");
            return Err(Error::usage(message).hint("give one for all experts, or one for each in their order"));
        }
        if given > 1 && self.models.iter().any(|entry| entry.data.is_some()) {
            let message = "calibration data stands both in `calibrate.data`, as a list, and beside a model";
            return Err(Error::usage(message).hint("keep one of the two"));
        }
        Ok(())
    }
}

/// The static name of an output dtype.
fn dtype_name(given: &str) -> Result<&'static str> {
    DTYPES.into_iter().find(|name| *name == given).ok_or_else(|| {
        let hint = match near(given, DTYPES) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known are {}", listed(DTYPES)),
        };
        Error::usage(format!("`{given}` is no output dtype")).hint(hint)
    })
}

/// The place of a path that a recipe names: the working directory first, as in mergekit, then the recipe's folder.
/// What is in neither is returned as it stands; it may be a name in the hub cache.
pub fn resolve(path: &str, recipe_dir: Option<&Path>) -> PathBuf {
    let here = PathBuf::from(path);
    if here.is_absolute() || here.exists() {
        return here;
    }
    recipe_dir.map(|dir| dir.join(path)).filter(|beside| beside.exists()).unwrap_or(here)
}

/// The known name that `given` may be a typo of. One-letter names are near to everything, so they are never it.
fn near<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(given, known.into_iter().filter(|name| name.len() > 1))
}

/// `a`, `b`, `c`: names in a message.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The same error, with its place before the message.
fn at(place: &str, error: &Error) -> Error {
    let placed = Error::new(error.kind(), format!("{place}: {error}"));
    error.hints().iter().fold(placed, |placed, hint| placed.hint(hint))
}
