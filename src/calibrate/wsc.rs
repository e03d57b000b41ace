//! Weight-space calibration: ξ from the task vectors alone (MAGIC, arXiv 2512.19320; weight space).

use crate::calibrate::measure::{Calibration, Measure};
use crate::calibrate::spectral;
use crate::error::Result;
use crate::kernels::factor::{self, Bounds, Factor, Rule, Strength};
use crate::kernels::{norms, residual};
use crate::methods::merged::Merged;
use crate::recipe::Norm;
use crate::recording::{Buf, Recording, Size};
use crate::stack::Stack;
use crate::stream::Stream;
use crate::totals::Totals;

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
    let known = *whole > 0.0 && mean > 0.0 && ratio.is_finite();
    Ok(Xi::One(if known { ratio.clamp(bounds.least, bounds.most) } else { 1.0 }))
}

/// Appends row statistics and, where rows have their own factors, those, at their strength. Returns (statistics,
/// factors).
pub fn record(list: &mut Recording, stack: &Stack, xi: Xi, strength: Strength) -> (Buf, Buf) {
    let stats = list.result("stats", norms::size(list.planes));
    norms::record(list, stack.tau, stats);
    let factors = match xi {
        Xi::One(factor) => list.floats("xi", &[strength.of(factor)]),
        Xi::Rows(rule, bounds) => {
            let factors = list.result("xi", Size::Rows(1));
            let unexplained = list.scratch("residual", Size::Rows(1));
            if rule == Rule::Mixed {
                residual::record(list, stack.tau, stats, unexplained);
            }
            factor::record(list, Factor { rule, bounds, strength }, stats, unexplained, factors);
            factors
        }
    };
    (stats, factors)
}

/// ‖·‖_p of every expert's task vector and, last, of the merged one.
fn tensor_norms(stream: &Stream<'_>, merged: &Merged, norm: Norm) -> Result<Vec<f64>> {
    let size = |totals: Totals| match norm {
        Norm::L1 => totals.l1,
        Norm::L2 => totals.square.sqrt(),
        Norm::Linf => totals.largest,
    };
    Ok(merged.totals(stream)?.into_iter().map(size).collect())
}
