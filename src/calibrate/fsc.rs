//! Feature-space calibration: one ξ for each leaf, from what it makes of real inputs (MAGIC, arXiv 2512.19320; feature
//! space), and the projection fit, which counts direction too.

use crate::kernels::deviation::Deviation;
use crate::recipe::{Fit, Norm};

/// Deviations of the features at one position: a of the expert's from the base's, c of the merged model's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    l1: [f64; 2],
    square: [f64; 2],
    largest: [f64; 2],
    dot: f64,
}

impl Position {
    /// What was measured on all of the features.
    pub fn of(whole: &Deviation) -> Self {
        let mut position = Self::default();
        position.add(whole);
        position
    }

    /// Adds what was measured on some of the features.
    pub fn add(&mut self, part: &Deviation) {
        let add = |sum: &mut [f64; 2], a: f32, c: f32| {
            sum[0] += f64::from(a);
            sum[1] += f64::from(c);
        };
        add(&mut self.l1, part.l1_a, part.l1_c);
        add(&mut self.square, part.square_a, part.square_c);
        self.largest[0] = self.largest[0].max(part.largest_a.into());
        self.largest[1] = self.largest[1].max(part.largest_c.into());
        self.dot += f64::from(part.dot);
    }

    /// ‖a‖ / ‖c‖; 0/0 and x/0 are 1.
    fn ratio(&self, norm: Norm) -> f64 {
        let [a, c] = match norm {
            Norm::L1 => self.l1,
            Norm::L2 => self.square.map(f64::sqrt),
            Norm::Linf => self.largest,
        };
        let ratio = a / c;
        if ratio.is_finite() { ratio } else { 1.0 }
    }
}

/// What was measured at one leaf: for each expert, every position of its samples.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Positions of each expert.
    pub experts: Vec<Vec<Position>>,
    /// Channels of each expert, where magnitudes are compared channel by channel: at a normalisation within heads. Its
    /// output has four axes, and the reference takes the second for the features, as it does at a convolution; what is
    /// left are positions that differ by channel alone.
    pub channels: Option<Vec<Vec<Position>>>,
}

impl Measured {
    /// The first expert of which a feature is not a finite number, or of whose samples the merge's are not.
    pub fn not_finite(&self) -> Option<usize> {
        let broken = |side: usize| {
            move |positions: &Vec<Position>| positions.iter().any(|position| !position.l1[side].is_finite())
        };
        let mut experts = self.experts.iter();
        experts.position(broken(0)).or_else(|| self.experts.iter().position(broken(1)))
    }

    /// ξ of each expert alone, by magnitude: mean ‖a‖ / ‖c‖ over its positions.
    pub fn ratios(&self, norm: Norm) -> Vec<f64> {
        let mean = |positions: &Vec<Position>| {
            positions.iter().map(|position| position.ratio(norm)).sum::<f64>() / positions.len().max(1) as f64
        };
        self.channels.as_ref().unwrap_or(&self.experts).iter().map(mean).collect()
    }

    /// ξ of the leaf.
    pub fn factor(&self, fit: Fit, norm: Norm) -> f64 {
        let xi = match fit {
            Fit::Magnitude => self.ratios(norm).iter().sum::<f64>() / self.experts.len().max(1) as f64,
            Fit::Projection => self.projection(),
        };
        if xi.is_finite() { xi } else { 1.0 }
    }

    /// [Σ_t ⟨a,c⟩/‖a‖²] / [Σ_t ‖c‖²/‖a‖²]: the least-squares scale of c, every expert weighing the same.
    fn projection(&self) -> f64 {
        let (mut along, mut length) = (0.0, 0.0);
        for positions in &self.experts {
            let sum = |of: fn(&Position) -> f64| positions.iter().map(of).sum::<f64>();
            let a = sum(|position| position.square[0]);
            if a > 0.0 {
                along += sum(|position| position.dot) / a;
                length += sum(|position| position.square[1]) / a;
            }
        }
        if length > 0.0 { along / length } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(experts: &[&[([f32; 2], [f32; 2])]]) -> Measured {
        let position = |&(a, c): &([f32; 2], [f32; 2])| {
            let norm = |x: [f32; 2]| x[0].abs() + x[1].abs();
            let square = |x: [f32; 2]| x[0] * x[0] + x[1] * x[1];
            let largest = |x: [f32; 2]| x[0].abs().max(x[1].abs());
            Position::of(&Deviation {
                l1_a: norm(a),
                l1_c: norm(c),
                square_a: square(a),
                square_c: square(c),
                dot: a[0] * c[0] + a[1] * c[1],
                largest_a: largest(a),
                largest_c: largest(c),
                ..Deviation::default()
            })
        };
        let experts = experts.iter().map(|list| list.iter().map(position).collect()).collect();
        Measured { experts, channels: None }
    }

    #[test]
    fn magnitude_is_a_mean_of_means_of_ratios() {
        let m = measured(&[&[([3.0, 4.0], [1.0, 0.0]), ([0.0, 0.0], [0.0, 0.0])], &[([2.0, 0.0], [0.0, 4.0])]]);
        assert_eq!(m.ratios(Norm::L1), [4.0, 0.5]);
        assert_eq!(m.factor(Fit::Magnitude, Norm::L1), 2.25);
        assert_eq!(m.ratios(Norm::L2), [3.0, 0.5]);
        assert_eq!(m.ratios(Norm::Linf), [2.5, 0.5]);
        // x/0 counts as 1.
        assert_eq!(measured(&[&[([1.0, 0.0], [0.0, 0.0])]]).factor(Fit::Magnitude, Norm::L1), 1.0);
    }

    #[test]
    fn projection_is_the_least_squares_scale() {
        // c = a / 3: the scale is 3, whatever the size of a. Where c is orthogonal to a, it is 0.
        let third = measured(&[&[([3.0, 6.0], [1.0, 2.0])], &[([30.0, 0.0], [10.0, 0.0])]]);
        assert!((third.factor(Fit::Projection, Norm::L1) - 3.0).abs() < 1e-12);
        assert_eq!(measured(&[&[([1.0, 0.0], [0.0, 1.0])]]).factor(Fit::Projection, Norm::L1), 0.0);
        assert_eq!(measured(&[&[([0.0, 0.0], [0.0, 1.0])]]).factor(Fit::Projection, Norm::L1), 1.0);
    }
}
