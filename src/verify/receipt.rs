//! What `magic.json` says that can be checked.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::checkpoint::text::shown;
use crate::checkpoint::{FileRecord, Fingerprint};
use crate::report::Input;

/// The part of a receipt that is checked.
#[derive(Deserialize)]
pub struct Receipt {
    /// Version of the program that wrote it.
    pub version: String,
    /// The device, as a person knows it.
    pub device: String,
    /// What went in.
    pub inputs: Vec<Input>,
    /// What came out.
    pub files: Vec<FileRecord>,
    /// The same, tensor by tensor.
    pub tensors: Vec<Recorded>,
    /// What decided the bytes.
    pub fingerprint: Fingerprint,
    lora: Option<serde::de::IgnoredAny>,
    recovered: Option<serde::de::IgnoredAny>,
}

/// What is said of a tensor. A number that is none is not written as one.
#[derive(Deserialize)]
pub struct Recorded {
    /// Its name.
    pub name: String,
    /// Its elements.
    pub elements: u64,
    #[serde(default)]
    experts: Vec<Option<f64>>,
    #[serde(default)]
    cosines: Vec<Option<f64>>,
    merged: Option<f64>,
    calibrated: Option<f64>,
    recovered: Option<serde::de::IgnoredAny>,
}

impl Receipt {
    /// Whether the device had failed at what was measured.
    pub fn was_recovered(&self) -> bool {
        self.recovered.is_some()
    }

    /// Whether the output is an adapter.
    pub fn is_adapter(&self) -> bool {
        self.lora.is_some()
    }

    /// The recipe, with paths from the root.
    pub fn recipe(&self) -> Option<&str> {
        self.fingerprint.get("recipe").map(String::as_str)
    }

    /// What [`Choice`](crate::gpu::Choice) calls the device: `cpu`, or the adapter's name.
    pub fn adapter(&self) -> Option<&str> {
        let (device, _) = self.fingerprint.get("device")?.rsplit_once(" on ")?;
        Some(if device == "CPU" { "cpu" } else { device.rsplit_once(" (")?.0 })
    }

    /// What decided the bytes besides files, program and device: samples, seed, lists, files beside the weights of the
    /// model that they were taken from, whatever that was called.
    pub fn settings(fingerprint: &Fingerprint) -> Fingerprint {
        let mut settings = BTreeMap::new();
        for (name, value) in fingerprint {
            match name.split_once("` of `") {
                // Files of tensors are checked for themselves.
                Some(_) if value.contains(" bytes, changed ") => {}
                Some((file, _)) => drop(settings.insert(format!("{file}`"), value.clone())),
                None if ["seed", "samples", "list of sensitive tensors"].contains(&&**name) => {
                    settings.insert(name.clone(), value.clone());
                }
                None => {}
            }
        }
        settings
    }
}

impl Recorded {
    /// Whether the device had failed at it, and it was computed in another way.
    pub fn was_recovered(&self) -> bool {
        self.recovered.is_some()
    }

    /// The first of its norms that is not what it is `now`, to a part in ten thousand: ‖τ_k‖ of the experts, their
    /// cosines with the merge, ‖τ_m‖ before and after calibration.
    pub fn difference(&self, now: &crate::report::TensorReport) -> Option<String> {
        let near = |recorded: Option<f64>, now: f64| match recorded {
            Some(recorded) => (recorded - now).abs() <= 1e-4 * now.abs(),
            None => !now.is_finite(),
        };
        let all = self.experts.len() == now.experts.len();
        let experts = all && self.experts.iter().zip(&now.experts).all(|(recorded, now)| near(*recorded, *now));
        let near_cosine = |recorded: Option<f64>, now: f64| match recorded {
            Some(recorded) => (recorded - now).abs() <= 1e-4,
            None => !now.is_finite(),
        };
        let cosines = self.cosines.len() == now.cosines.len()
            && self.cosines.iter().zip(&now.cosines).all(|(recorded, now)| near_cosine(*recorded, *now));
        let what = match () {
            () if !experts => "a norm of the task vectors",
            () if !cosines => "a cosine with the merge",
            () if !near(self.merged, now.merged) => "the norm of the merged task vector",
            () if !near(self.calibrated, now.calibrated) => "the norm of the calibrated task vector",
            () => return None,
        };
        Some(format!("{what} of `{}` is not what was recorded", shown(&self.name)))
    }
}
