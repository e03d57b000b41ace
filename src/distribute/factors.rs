//! Factors of feature space: measured once, on one machine, before there is work.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::calibrate::feature::Outcome;
use crate::checkpoint::text::{path, shown};
use crate::checkpoint::{FACTORS, put, read_document};
use crate::device::Wanted;
use crate::error::{Error, Result};
use crate::kernels::factor::Strength;
use crate::progress::Progress;

/// Name and version of the document.
const SCHEMA: &str = "magic-factors/1";

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(super) struct Factors {
    schema: String,
    /// Digest of the plan.
    plan: String,
    /// What measured it.
    device: String,
    /// Of each tensor of the merge, bits of f32: what becomes of its ξ.
    strengths: Vec<[u32; 2]>,
    outcome: Outcome,
}

/// What was measured, in short.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Leaves with a factor.
    pub leaves: usize,
    /// True if it was there already.
    pub already: bool,
    /// What measured it.
    pub device: String,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Measures the factors of the plan in `dir`, unless they are there.
///
/// # Errors
/// A plan that has none, whatever is wrong with plan, inputs, samples or device, a failed write.
pub fn measure(dir: &Path, wanted: &Wanted, progress: &Progress) -> Result<Measured> {
    let started = Instant::now();
    let (manifest, id) = Manifest::read(dir)?;
    if !manifest.measured {
        return Err(Error::usage("there is nothing to measure: the recipe does not calibrate in feature space")
            .hint("go on with the work: `magic work DIR --shard I`"));
    }
    let found = |leaves: usize, already: bool, device: String| {
        Ok(Measured { leaves, already, device, seconds: started.elapsed().as_secs_f64() })
    };
    if let Ok(known) = Factors::document(dir, &id) {
        return found(known.outcome.leaves.len(), true, known.device);
    }
    let job = manifest.job(wanted)?;
    let outcome = job.measure_all(progress)?;
    let strengths = outcome.strengths.iter().map(|of| [of.shift.to_bits(), of.times.to_bits()]).collect();
    let device = job.origin().name;
    let factors = Factors { schema: SCHEMA.into(), plan: id, device: device.clone(), strengths, outcome };
    put(dir, FACTORS, &serde_json::to_vec(&factors).expect("factors are plain data"))?;
    found(factors.outcome.leaves.len(), false, device)
}

impl Factors {
    fn document(dir: &Path, plan: &str) -> Result<Self> {
        let again = "measure them: `magic measure DIR`";
        let at = path(&dir.join(FACTORS));
        let bytes = read_document(dir, FACTORS)?.ok_or_else(|| {
            Error::usage(format!("the factors of feature space are not there yet: `{at}`")).hint(again)
        })?;
        let factors: Self = serde_json::from_slice(&bytes).map_err(|e| {
            Error::input(format!("`{at}` is damaged: {}", shown(&e.to_string())))
                .hint(format!("remove it, and {again}"))
        })?;
        match factors.schema == SCHEMA && factors.plan == plan {
            true => Ok(factors),
            false => Err(Error::input(format!("`{at}` is of another plan")).hint(format!("remove it, and {again}"))),
        }
    }

    /// What was measured for the plan in `dir`.
    ///
    /// # Errors
    /// Factors that are not there, damaged, or of another plan.
    pub(super) fn read(dir: &Path, plan: &str) -> Result<Outcome> {
        let factors = Self::document(dir, plan)?;
        let bits = f32::from_bits;
        let strengths =
            factors.strengths.iter().map(|&[shift, times]| Strength { shift: bits(shift), times: bits(times) });
        Ok(Outcome { strengths: strengths.collect(), ..factors.outcome })
    }
}
