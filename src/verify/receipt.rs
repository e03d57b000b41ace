//! What `magic.json` says that can be checked.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::checkpoint::text::shown;
use crate::checkpoint::{FileRecord, Fingerprint};
use crate::device::one_of;
use crate::report::{Bytes, Input};

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
    /// Names of experts' tensors that took no part.
    pub ignored: Vec<String>,
    /// Bytes read and written.
    pub bytes: Bytes,
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
    /// Its dimensions, if they were recorded.
    pub shape: Option<Vec<u64>>,
    /// Its elements.
    pub elements: u64,
    action: String,
    degenerate_rows: u64,
    nan: u64,
    infinite: u64,
    overflow: u64,
    xi: Option<Xi>,
    #[serde(default)]
    experts: Vec<Option<f64>>,
    #[serde(default)]
    cosines: Vec<Option<f64>>,
    between: Option<Between>,
    merged: Option<f64>,
    calibrated: Option<f64>,
    recovered: Option<serde::de::IgnoredAny>,
}

/// Cosines between its experts.
#[derive(Deserialize)]
struct Between {
    elements: u64,
    cosines: Vec<Option<f64>>,
}

/// ξ of a tensor.
#[derive(Deserialize)]
struct Xi {
    min: Option<f64>,
    mean: Option<f64>,
    max: Option<f64>,
}

impl Receipt {
    /// What its fingerprint says otherwise than it says itself: version and device.
    pub fn contradictions(&self) -> impl Iterator<Item = String> {
        let of = |key: &str| self.fingerprint.get(key).map_or("", String::as_str);
        let (device, _) = of("device").rsplit_once(" on ").unwrap_or_default();
        let is_device = match device.strip_prefix("several: ").unwrap_or(device) {
            // Beside it stands the number of threads.
            "CPU" => self.device.starts_with("CPU, "),
            name => one_of(&self.device) == name,
        };
        let said = [("version", self.version == of("version")), ("device", is_device)];
        let other = said.into_iter().filter(|(_, same)| !same);
        other.map(|(key, _)| format!("its `{key}` is not that of its `fingerprint`"))
    }

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

    /// The first of what is said of it that is not what it is `now`: what was done; to a part in ten thousand ‖τ_k‖ of the
    /// experts, their cosines with the merge and with each other, ‖τ_m‖ before and after calibration; and, where rounding is
    /// the same (`exact`), counts, and ξ to a part in ten thousand.
    pub fn difference(&self, now: &crate::report::TensorReport, exact: bool) -> Option<String> {
        let within = |recorded: Option<f64>, now: f64, part: f64| match recorded {
            Some(recorded) => (recorded - now).abs() <= 1e-4 * part,
            None => !now.is_finite(),
        };
        let near = |recorded: Option<f64>, now: f64| within(recorded, now, now.abs());
        let all = |recorded: &[Option<f64>], now: &[f64], near: &dyn Fn(Option<f64>, f64) -> bool| {
            recorded.len() == now.len() && recorded.iter().zip(now).all(|(recorded, now)| near(*recorded, *now))
        };
        let xi = match (&self.xi, &now.xi) {
            (Some(xi), Some(now)) => near(xi.min, now.min) && near(xi.mean, now.mean) && near(xi.max, now.max),
            (recorded, now) => recorded.is_none() && now.is_none(),
        };
        let cosines =
            |recorded: &[Option<f64>], now: &[f64]| all(recorded, now, &|recorded, now| within(recorded, now, 1.0));
        let between = match (&self.between, &now.between) {
            (Some(recorded), Some(now)) => {
                recorded.elements == now.elements && cosines(&recorded.cosines, &now.cosines)
            }
            // Other versions record none.
            (recorded, now) => recorded.is_none() && (now.is_none() || !exact),
        };
        let counts = [self.nan, self.infinite, self.overflow] == [now.nan, now.infinite, now.overflow];
        let what = match () {
            () if self.action != now.action => "the action of",
            () if !all(&self.experts, &now.experts, &near) => "a norm of the task vectors of",
            () if !cosines(&self.cosines, &now.cosines) => "a cosine with the merge of",
            () if !between => "a cosine between experts of",
            () if !near(self.merged, now.merged) => "the norm of the merged task vector of",
            () if !near(self.calibrated, now.calibrated) => "the norm of the calibrated task vector of",
            () if exact && !counts => "a count of NaN, infinite or too large numbers of",
            () if exact && self.degenerate_rows != now.degenerate_rows => "the count of rows without a length of",
            () if exact && !xi => "ξ of",
            () => return None,
        };
        Some(format!("{what} `{}` is not what was recorded", shown(&self.name)))
    }
}
