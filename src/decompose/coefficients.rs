//! Functions of one singular value that take all of [l, 1] near 1: odd polynomials of degree 5, each the best after those
//! before it (Amsel et al., "The Polar Express", 2025), and Zolotarev's rational functions (Nakatsukasa and Freund,
//! "Computing fundamental matrix decompositions accurately via the matrix sign function in two iterations", 2016).

/// p(x) = a·x + b·x³ + c·x⁵.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quintic {
    /// Of x.
    pub a: f64,
    /// Of x³.
    pub b: f64,
    /// Of x⁵.
    pub c: f64,
}

impl Quintic {
    /// The step that takes 1 + e to 1 + O(e³).
    pub const LAST: Self = Self { a: 15.0 / 8.0, b: -10.0 / 8.0, c: 3.0 / 8.0 };

    /// p(x).
    pub fn at(&self, x: f64) -> f64 {
        let square = x * x;
        x * (self.a + square * (self.b + square * self.c))
    }

    /// The one with the least |p(x) − 1| over [low, high], by Remez' exchange of its two inner extremes.
    pub fn best(low: f64, high: f64) -> Self {
        if low > 0.999 * high {
            let Self { a, b, c } = Self::LAST;
            let mid = f64::midpoint(low, high);
            return Self { a: a / mid, b: b / mid.powi(3), c: c / mid.powi(5) };
        }
        let mut points = [low, (3.0 * low + high) / 4.0, (low + 3.0 * high) / 4.0, high];
        let mut best = Self::LAST;
        for _ in 0..60 {
            best = Self::through(&points);
            let root = (9.0 * best.b * best.b - 20.0 * best.a * best.c).max(0.0).sqrt();
            let extreme = |sign: f64| ((-3.0 * best.b + sign * root) / (10.0 * best.c)).max(0.0).sqrt();
            let moved = [low, extreme(-1.0), extreme(1.0), high];
            let change = (1..3).map(|i| (moved[i] - points[i]).abs()).fold(0.0, f64::max);
            points = moved;
            if change < 1e-12 {
                break;
            }
        }
        best
    }

    /// p with p(x_i) = 1 − (−1)^i·e for some e, by Gauss' elimination.
    fn through(points: &[f64; 4]) -> Self {
        let mut m: Vec<[f64; 5]> = (0..4)
            .map(|i| {
                let x = points[i];
                [x, x.powi(3), x.powi(5), if i % 2 == 0 { 1.0 } else { -1.0 }, 1.0]
            })
            .collect();
        for i in 0..4 {
            let pivot = (i..4).max_by(|&a, &b| m[a][i].abs().total_cmp(&m[b][i].abs())).unwrap_or(i);
            m.swap(i, pivot);
            for j in 0..4 {
                if j != i {
                    let factor = m[j][i] / m[i][i];
                    (i..5).for_each(|k| m[j][k] -= factor * m[i][k]);
                }
            }
        }
        let [a, b, c] = [0, 1, 2].map(|i| m[i][4] / m[i][i]);
        Self { a, b, c }
    }
}

/// The part of the range that a polynomial is made for, at least: the best one for [1e-4, 1] has minima of 1e-3 in the
/// midst of it, and what large singular values lose there in f32 does not come back. Smaller ones grow as fast as it is
/// steep at zero, which costs a step or two.
const FLOOR: f64 = 0.1;

/// Polynomials that together take [low, high] to within `error` of 1.
pub fn polynomials(mut low: f64, mut high: f64, error: f64) -> Vec<Quintic> {
    let mut list = Vec::new();
    while (1.0 - low).max(high - 1.0) > error && list.len() < 60 {
        let least = low.max(FLOOR * high);
        let next = Quintic::best(least, high);
        high = 2.0 - next.at(least);
        low = next.at(low).min(next.at(least));
        list.push(next);
    }
    list
}

/// h(x²) = scale · (1 + Σ weight / (x² + shift)); x·h(x²) is near 1.
#[derive(Clone, Debug)]
pub struct Rational {
    /// Of all.
    pub scale: f64,
    /// Weight and shift of each pole.
    pub poles: Vec<(f64, f64)>,
    /// Least and greatest x·h(x²) for x from l to a little above 1.
    pub range: (f64, f64),
}

impl Rational {
    /// Zolotarev's function of `count` poles for [low, 1].
    pub fn best(low: f64, count: usize) -> Self {
        let step = std::f64::consts::FRAC_PI_2 / mean(1.0, low) / (2 * count + 1) as f64;
        let points: Vec<f64> = (1..=2 * count)
            .map(|i| {
                let (sn, cn) = elliptic(i as f64 * step, low * low);
                (low * sn / cn).powi(2)
            })
            .collect();
        let pole = |j: usize| {
            let shift = points[2 * j];
            let over: f64 = (0..count).map(|k| shift - points[2 * k + 1]).product();
            let under: f64 = (0..count).filter(|k| *k != j).map(|k| shift - points[2 * k]).product();
            (-over / under, shift)
        };
        let mut own = Self { scale: 1.0, poles: (0..count).map(pole).collect(), range: (0.0, 0.0) };
        let (least, most) = own.sample(low);
        own.scale = 2.0 / (least + most);
        own.range = (least * own.scale, most * own.scale);
        own
    }

    /// x·h(x²).
    pub fn at(&self, x: f64) -> f64 {
        self.scale * x * (1.0 + self.poles.iter().map(|(weight, shift)| weight / (x * x + shift)).sum::<f64>())
    }

    fn sample(&self, low: f64) -> (f64, f64) {
        const SAMPLES: i32 = 2000;
        let values = (0..=SAMPLES).map(|i| self.at(low * (1.02 / low).powf(f64::from(i) / f64::from(SAMPLES))));
        values.fold((f64::INFINITY, 0.0), |(least, most), x| (x.min(least), x.max(most)))
    }
}

/// The arithmetic-geometric mean.
fn mean(mut a: f64, mut b: f64) -> f64 {
    for _ in 0..60 {
        (a, b) = (f64::midpoint(a, b), (a * b).sqrt());
    }
    a
}

/// Jacobi's sn and cn at `u`, for the squared complementary modulus `complement`, by descending Landen transformations.
fn elliptic(u: f64, complement: f64) -> (f64, f64) {
    let (mut a, mut b) = (1.0, complement.sqrt());
    let mut stages = Vec::new();
    for _ in 0..40 {
        let c = (a - b) / 2.0;
        (a, b) = (f64::midpoint(a, b), (a * b).sqrt());
        stages.push((a, c));
        if c <= 1e-17 * a {
            break;
        }
    }
    let mut phase = u * a * (stages.len() as f64).exp2();
    for (a, c) in stages.iter().rev() {
        phase = f64::midpoint(phase, (c / a * phase.sin()).clamp(-1.0, 1.0).asin());
    }
    phase.sin_cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_reach_one() {
        for low in [1e-6, 1e-4, 1e-2, 0.3, 0.9, 0.9999] {
            let list = polynomials(low, 1.0, 1e-8);
            assert!(list.len() <= 16, "{low}: {}", list.len());
            for i in 0..=1000 {
                let x = low * (1.0 / low).powf(f64::from(i) / 1000.0);
                let y = list.iter().fold(x, |x, p| p.at(x));
                assert!((y - 1.0).abs() < 2e-8, "{low}: {x} to {y}");
            }
        }
    }

    #[test]
    fn rational_functions_reach_one() {
        for (low, count, error) in [(0.1, 4, 1e-4), (0.3, 5, 1e-7), (1e-4, 2, 0.6), (1e-4, 6, 2e-2)] {
            let own = Rational::best(low, count);
            assert!(1.0 - own.range.0 < error && own.range.1 - 1.0 < error, "{low} {count}: {:?}", own.range);
            assert!(own.poles.iter().all(|(weight, shift)| *weight > 0.0 && *shift > 0.0));
        }
        assert!((elliptic(0.7, 1.0).0 - 0.7f64.sin()).abs() < 1e-14);
        assert!((elliptic(0.7, 0.0001).0 - 0.7f64.tanh()).abs() < 1e-3);
    }
}
