//! A way to calibrate: which space, which fit, how strongly, on which scale.

use serde::Serialize;

use crate::kernels::factor::Strength;
use crate::recipe::{Fit, Space};

/// One of the ways that [`Space::Auto`] tries, or the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Never [`Space::Auto`].
    pub space: Space,
    /// How features are read, in spaces that have some.
    pub fit: Fit,
    /// s in τ ← τ_m + s(τ_cal − τ_m).
    pub strength: f64,
    /// Scale of the whole.
    pub scale: f64,
}

/// ξ of a leaf in feature space, by both fits, measured on the merge as it is and on the one calibrated in weight space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Factors {
    /// FSC by magnitude and by projection.
    pub fsc: [f64; 2],
    /// DSC by magnitude and by projection.
    pub dsc: [f64; 2],
}

impl Factors {
    /// Where nothing is measured.
    pub const ONE: Self = Self { fsc: [1.0; 2], dsc: [1.0; 2] };
}

impl Candidate {
    /// The calibration `space` in full.
    pub fn full(space: Space, fit: Fit) -> Self {
        Self { space, fit, strength: 1.0, scale: 1.0 }
    }

    /// All that [`Space::Auto`] tries, uncalibrated first and weight space second.
    pub fn all() -> Vec<Self> {
        let none = Self::full(Space::None, Fit::Magnitude);
        let mut all = vec![none, Self::full(Space::Wsc, Fit::Magnitude)];
        all.extend(SCALES.map(|scale| Self { scale, ..none }));
        all.push(Self { strength: 0.5, ..all[1] });
        for space in [Space::Fsc, Space::Dsc] {
            for fit in [Fit::Magnitude, Fit::Projection] {
                all.extend([0.5, 1.0].map(|strength| Self { space, fit, strength, scale: 1.0 }));
            }
        }
        all
    }

    /// What it makes of a tensor's ξ in weight space, at a leaf with these factors.
    pub fn strength(&self, factors: &Factors) -> Strength {
        let fit = usize::from(self.fit == Fit::Projection);
        let (s, m) = (self.strength, self.scale);
        let (weight, feature) = match self.space {
            Space::None | Space::Auto => (false, 1.0),
            Space::Wsc => (true, 1.0),
            Space::Fsc => (false, factors.fsc[fit]),
            Space::Dsc => (true, factors.dsc[fit]),
        };
        if weight {
            Strength { shift: (m * (1.0 - s)) as f32, times: (m * s * feature) as f32 }
        } else {
            Strength { shift: (m * (1.0 + s * (feature - 1.0))) as f32, times: 0.0 }
        }
    }

    /// As a person reads it: `dsc projection ½`.
    pub fn name(&self) -> String {
        let mut name = self.space.to_string();
        if matches!(self.space, Space::Fsc | Space::Dsc) {
            name += &format!(" {}", self.fit);
        }
        if self.strength != 1.0 {
            name += &format!(", strength {}", self.strength);
        }
        if self.scale != 1.0 {
            name += &format!(", × {}", self.scale);
        }
        name
    }
}

/// Scales of the uncalibrated merge that are tried besides 1.
const SCALES: [f64; 4] = [0.5, 0.7, 1.4, 2.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_lie_between_the_merge_and_its_calibration() {
        let factors = Factors { fsc: [2.0, 0.5], dsc: [3.0, 0.25] };
        let of = |candidate: Candidate, xi: f32| candidate.strength(&factors).of(xi);
        for fit in [Fit::Magnitude, Fit::Projection] {
            assert_eq!(of(Candidate::full(Space::None, fit), 7.0), 1.0);
            assert_eq!(of(Candidate::full(Space::Wsc, fit), 7.0), 7.0);
        }
        assert_eq!(of(Candidate::full(Space::Fsc, Fit::Magnitude), 7.0), 2.0);
        assert_eq!(of(Candidate::full(Space::Dsc, Fit::Projection), 4.0), 1.0);
        let half = Candidate { strength: 0.5, ..Candidate::full(Space::Dsc, Fit::Magnitude) };
        assert_eq!(of(half, 3.0), 5.0); // between 1 and 9
        assert_eq!(of(Candidate { scale: 2.0, ..half }, 3.0), 10.0);
    }

    #[test]
    fn candidates_differ() {
        let all = Candidate::all();
        assert!(all.iter().enumerate().all(|(i, a)| !all[..i].contains(a)));
        assert_eq!(all[0].strength(&Factors::ONE), Strength { shift: 1.0, times: 0.0 });
        assert_eq!(all[1].strength(&Factors::ONE), Strength::FULL);
    }
}
