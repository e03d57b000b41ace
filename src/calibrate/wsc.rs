//! Weight-space calibration: ξ from the task vectors alone (MAGIC, arXiv 2512.19320; weight space).

use crate::calibrate::spectral;
use crate::error::Result;
use crate::kernels::factor::{self, Bounds, Rule};
use crate::kernels::{norms, residual};
use crate::merge::Merged;
use crate::recipe::{Manifold, Norm};
use crate::recording::{Buf, Recording, Size};
use crate::stack::Stack;
use crate::stream::Stream;

/// How the rows or the whole of one tensor are calibrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A factor for each row, known as soon as the row is merged.
    Rows(Rule),
    /// One factor: mean ‖τ_k‖_p / ‖τ_m‖_p over the whole tensor.
    Tensor(Norm),
    /// One factor: mean σ₁(τ_k) / σ₁(τ_m).
    Spectral,
}

/// The calibration of one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// What is compared.
    pub measure: Measure,
    /// Where ξ may lie.
    pub bounds: Bounds,
}

impl Measure {
    /// The measure of a manifold, for a tensor that it applies to.
    pub fn new(manifold: Manifold, norm: Norm) -> Self {
        match (manifold, norm) {
            (Manifold::Mixed, _) => Self::Rows(Rule::Mixed),
            (Manifold::Sphere, Norm::L1) => Self::Rows(Rule::SphereL1),
            (Manifold::Sphere, Norm::L2) => Self::Rows(Rule::SphereL2),
            (Manifold::Sphere, Norm::Linf) => Self::Rows(Rule::SphereLinf),
            (Manifold::Tensor, norm) => Self::Tensor(norm),
            (Manifold::Spectral, _) => Self::Spectral,
        }
    }

    /// True if the tensor must be seen as [out, everything else].
    pub fn needs_rows(self) -> bool {
        matches!(self, Self::Rows(_) | Self::Spectral)
    }
}

/// ξ as far as it is known before the last pass over the tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Xi {
    /// One factor for all.
    One(f32),
    /// A factor for each row, found in the last pass itself.
    Rows(Rule, Bounds),
}

/// Finds ξ, reading the tensor as often as the measure takes.
pub fn xi(stream: &Stream<'_>, merged: &Merged, calibration: Option<Calibration>) -> Result<Xi> {
    let Some(Calibration { measure, bounds }) = calibration else { return Ok(Xi::One(1.0)) };
    let sizes = match measure {
        Measure::Rows(rule) => return Ok(Xi::Rows(rule, bounds)),
        Measure::Tensor(norm) => tensor_norms(stream, merged, norm)?,
        Measure::Spectral => spectral::largest_singular_values(stream, merged)?,
    };
    let (whole, experts) = sizes.split_last().expect("one plane is the merged task vector");
    let mean = experts.iter().sum::<f64>() / experts.len() as f64;
    let ratio = (mean / whole) as f32;
    Ok(Xi::One(if *whole > 0.0 && mean > 0.0 && ratio.is_finite() {
        ratio.clamp(bounds.least, bounds.most)
    } else {
        1.0
    }))
}

/// Appends row statistics and, where rows have their own factors, those. Returns (statistics, factors).
pub fn record(list: &mut Recording, stack: &Stack, xi: Xi) -> (Buf, Buf) {
    let stats = list.result("stats", norms::size(list.planes));
    norms::record(list, stack.tau, stats);
    let factors = match xi {
        Xi::One(factor) => list.floats("xi", &[factor]),
        Xi::Rows(rule, bounds) => {
            let factors = list.result("xi", Size::Rows(1));
            let unexplained = list.scratch("residual", Size::Rows(1));
            if rule == Rule::Mixed {
                residual::record(list, stack.tau, stats, unexplained);
            }
            factor::record(list, rule, bounds, stats, unexplained, factors);
            factors
        }
    };
    (stats, factors)
}

/// ‖·‖_p of every expert's task vector and, last, of the merged one.
fn tensor_norms(stream: &Stream<'_>, merged: &Merged, norm: Norm) -> Result<Vec<f64>> {
    let (mut list, stack) = merged.record(stream.tensor);
    let stats = list.result("stats", norms::size(list.planes));
    norms::record(&mut list, stack.tau, stats);
    let planes = list.planes as usize;
    let parts = stream.map(&list, |_, results| {
        let mut parts = vec![0f64; planes];
        for (at, stats) in bytemuck::cast_slice::<u32, norms::Stats>(results.words(0)).iter().enumerate() {
            let part = &mut parts[at % planes];
            match norm {
                Norm::L1 => *part += f64::from(stats.l1),
                Norm::L2 => *part += f64::from(stats.square),
                Norm::Linf => *part = part.max(f64::from(stats.largest)),
            }
        }
        Ok(parts)
    })?;
    let blocks = |k: usize| parts.iter().map(move |block| block[k]);
    Ok((0..planes)
        .map(|k| match norm {
            Norm::L1 => blocks(k).sum(),
            Norm::L2 => blocks(k).sum::<f64>().sqrt(),
            Norm::Linf => blocks(k).fold(0.0, f64::max),
        })
        .collect())
}
