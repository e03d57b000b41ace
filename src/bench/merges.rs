//! Whole merges of blocks, as the tool runs them: many calls, and few launches.

use super::case::{EXPERTS, PLANES, Round, Setup};
use crate::checkpoint::Dtype;
use crate::kernels::factor::{self, Bounds, Factor, Rule, Strength};
use crate::kernels::trim::Threshold;
use crate::kernels::{combine, delta, elect, norms, rescale, residual, trim};
use crate::recording::Size;

/// How a merge goes.
#[derive(Clone, Copy)]
pub struct Merge {
    /// Trimmed and elected (TIES), or else a weighted sum.
    pub ties: bool,
    /// With a factor for each row (WSC).
    pub calibrated: bool,
}

/// Base and experts in bf16, merged into bf16.
pub fn round(s: &mut Setup, merge: Merge) -> Round {
    let (models, tau) = (s.bf16, s.list.scratch("tau", Size::Planes(PLANES)));
    let weights = s.list.floats("weights", &[0.5, 0.3, 0.2]);
    let (out, counts) = (s.out(Size::Stored(Dtype::BF16)), s.out(Size::Fixed(rescale::COUNTS)));
    let stats = s.list.scratch("stats", norms::size(PLANES));
    let (left, own) = (s.list.scratch("residual", Size::Rows(1)), s.list.scratch("xi", Size::Rows(1)));
    let one = s.list.floats("one", &[1.0]);
    Box::new(move |list| {
        let differences = |list: &mut _| {
            (0..EXPERTS).for_each(|k| delta::record(list, models[0], models[k as usize + 1], tau, k));
        };
        differences(list);
        if merge.ties {
            let keep = Threshold::new(0.02f32.to_bits(), u64::MAX);
            (0..EXPERTS).for_each(|k| trim::record(list, tau, k, keep, Threshold::NOTHING));
            // Votes that do not count by weight are the same on every device, however near they are.
            elect::record(list, weights, 1.0, true, false, tau);
            differences(list);
        } else {
            combine::record(list, models[0], weights, 0.0, tau);
        }
        norms::record(list, tau, stats);
        if merge.calibrated {
            let rule = Factor { rule: Rule::Mixed, bounds: Bounds::NONE, strength: Strength::FULL };
            residual::record(list, tau, stats, left);
            factor::record(list, rule, stats, left, own);
        }
        rescale::record(list, models[0], tau, if merge.calibrated { own } else { one }, out, counts);
    })
}
