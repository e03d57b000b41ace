//! Factors of feature space: measured once, on one machine, before there is work.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::sealed;
use crate::calibrate::feature::Outcome;
use crate::checkpoint::text::path;
use crate::checkpoint::{FACTORS, put, read_document};
use crate::device::Wanted;
use crate::error::{Error, Result};
use crate::job::Origin;
use crate::kernels::factor::Strength;
use crate::progress::Progress;

/// Name and version of the document.
const SCHEMA: &str = "magic-factors/1";

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(super) struct Factors {
    /// Digest of the plan.
    plan: String,
    /// What measured it.
    origin: Origin,
    /// Wall time in seconds.
    seconds: f64,
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
    let known = || Factors::document(dir, &id, manifest.tensors).ok();
    if let Some((known, _)) = known() {
        return found(known.outcome.leaves.len(), true, known.origin.name);
    }
    let job = manifest.job(wanted)?;
    let outcome = job.measure_all(progress)?;
    let strengths = outcome.strengths.iter().map(|of| [of.shift.to_bits(), of.times.to_bits()]).collect();
    // Whoever else has measured meanwhile was first: there may be work that applies it.
    if let Some((known, _)) = known() {
        return found(known.outcome.leaves.len(), true, known.origin.name);
    }
    let (origin, seconds) = (job.origin(), started.elapsed().as_secs_f64());
    let factors = Factors { plan: id.clone(), origin, seconds, strengths, outcome };
    put(dir, FACTORS, &sealed::seal(SCHEMA, &factors).0)?;
    found(factors.outcome.leaves.len(), false, factors.origin.name)
}

impl Factors {
    fn document(dir: &Path, plan: &str, tensors: usize) -> Result<(Self, String)> {
        let again = "measure them: `magic measure DIR`";
        let at = path(&dir.join(FACTORS));
        let bytes = read_document(dir, FACTORS)?.ok_or_else(|| {
            Error::input(format!("the factors of feature space are not there yet: `{at}`")).hint(again)
        })?;
        let bad = |what: String| Error::input(format!("`{at}` {what}")).hint(format!("remove it, and {again}"));
        let (factors, id): (Self, String) = sealed::open(SCHEMA, &bytes).map_err(bad)?;
        match factors.plan == plan && factors.strengths.len() == tensors {
            true => Ok((factors, id)),
            false => Err(bad("is of another plan".into())),
        }
    }

    /// What was measured for the plan in `dir`, of a merge of so many `tensors`, and the digest by which all work names it.
    ///
    /// # Errors
    /// Factors that are not there, damaged, or of another plan.
    pub(super) fn read(dir: &Path, plan: &str, tensors: usize) -> Result<Known> {
        let (factors, id) = Self::document(dir, plan, tensors)?;
        let bits = f32::from_bits;
        let strengths =
            factors.strengths.iter().map(|&[shift, times]| Strength { shift: bits(shift), times: bits(times) });
        let outcome = Outcome { strengths: strengths.collect(), ..factors.outcome };
        Ok(Known { outcome, id, origin: factors.origin, seconds: factors.seconds })
    }
}

/// Factors that are there.
pub(super) struct Known {
    pub outcome: Outcome,
    /// Digest of the document.
    pub id: String,
    /// What measured them.
    pub origin: Origin,
    /// Wall time that it took, in seconds.
    pub seconds: f64,
}
