//! Merges on the sphere, and others that lengths and angles decide: every one is a linear combination of the task
//! vectors and the base, whose coefficients follow from inner products alone.

use crate::methods::gram::Gram;
use crate::methods::{Settings, Sphere};

/// Above this cosine `slerp` is linear interpolation (mergekit's bound).
const NEARLY_PARALLEL: f64 = 0.9995;

/// A sine below which directions count as one.
const PARALLEL: f64 = 1e-8;

/// ‖a + b‖ of unit vectors below which they count as opposite: there the plane between them is rounding, and the arc
/// would be of any direction.
const OPPOSITE: f64 = 5e-3;

/// A share of the base that is rounding.
const NOTHING: f64 = 1e-12;

/// Coefficients of the merged task vector: one for each τ_k, and θ_0's. The vectors are the task vectors, or the models
/// if `models`.
pub fn coefficients(rule: Sphere, gram: &Gram, settings: &Settings, models: bool) -> Vec<f64> {
    let experts = gram.experts();
    let vector = |k: usize| {
        let mut vector = vec![0.0; experts + 1];
        vector[k] = 1.0;
        vector[experts] = f64::from(u8::from(models));
        vector
    };
    let vectors: Vec<Vec<f64>> = (0..experts).map(vector).collect();
    let merged = match rule {
        Sphere::Stock => stock(gram, &vectors),
        Sphere::Pair => slerp(gram, &vectors[0], &vectors[1], share(&settings.weights), 1.0),
        Sphere::Rows => slerp(gram, &vectors[0], &vectors[1], settings.t, 1.0),
        Sphere::Several => several(gram, &vectors, settings),
        Sphere::Karcher => karcher(gram, &vectors, settings.steps),
    };
    difference(merged, models)
}

/// Coefficients of spherical interpolation from the base to the only expert.
pub fn from_base(gram: &Gram, t: f64) -> Vec<f64> {
    difference(slerp(gram, &[0.0, 1.0], &[1.0, 1.0], t, NEARLY_PARALLEL), true)
}

/// Of a merged model, its task vector.
fn difference(mut merged: Vec<f64>, models: bool) -> Vec<f64> {
    let base = merged.last_mut().expect("the base has a coefficient");
    *base -= f64::from(u8::from(models));
    if base.abs() < NOTHING {
        *base = 0.0; // what is the same in all models keeps its bits
    }
    merged
}

/// The second weight's share; a half where they cancel.
fn share(weights: &[f64]) -> f64 {
    let sum = weights[0] + weights[1];
    if sum.abs() < PARALLEL { 0.5 } else { weights[1] / sum }
}

fn sum<'a>(terms: impl Iterator<Item = (f64, &'a Vec<f64>)>, len: usize) -> Vec<f64> {
    let mut sum = vec![0.0; len];
    for (scale, vector) in terms {
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += scale * x);
    }
    sum
}

fn scaled(vector: &[f64], scale: f64) -> Vec<f64> {
    vector.iter().map(|x| scale * x).collect()
}

/// Unit vectors and lengths; a zero vector stays zero.
fn units(gram: &Gram, vectors: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<f64>) {
    let lengths: Vec<f64> = vectors.iter().map(|vector| gram.length(vector)).collect();
    let unit = |(vector, length): (&Vec<f64>, &f64)| scaled(vector, if *length > 0.0 { 1.0 / length } else { 0.0 });
    (vectors.iter().zip(&lengths).map(unit).collect(), lengths)
}

/// The angle between two unit vectors, with all digits where it is small or nearly π. With a zero vector it is π/2.
fn angle(gram: &Gram, a: &[f64], b: &[f64]) -> f64 {
    let (apart, along): (Vec<f64>, Vec<f64>) = a.iter().zip(b).map(|(a, b)| (a - b, a + b)).unzip();
    2.0 * gram.length(&apart).atan2(gram.length(&along))
}

/// From `a` (t = 0) to `b` (t = 1) along the arc; along the line where they are parallel, nearly so by `nearly`, or
/// opposite.
fn slerp(gram: &Gram, a: &[f64], b: &[f64], t: f64, nearly: f64) -> Vec<f64> {
    let (units, _) = units(gram, &[a.to_vec(), b.to_vec()]);
    let omega = angle(gram, &units[0], &units[1]);
    let (sine, straight) = (omega.sin(), omega.cos().abs() > nearly);
    let opposite = std::f64::consts::PI - omega < OPPOSITE;
    let (from, to) = match sine.abs() < PARALLEL || straight || opposite {
        true => (1.0 - t, t),
        false => (((1.0 - t) * omega).sin() / sine, (t * omega).sin() / sine),
    };
    a.iter().zip(b).map(|(a, b)| from * a + to * b).collect()
}

/// Model Stock: t Σ τ_k / K. As in mergekit, t may be negative where experts point apart; where that would be without
/// bounds it is zero, and a single expert is taken whole.
fn stock(gram: &Gram, vectors: &[Vec<f64>]) -> Vec<f64> {
    let count = vectors.len() as f64;
    let (units, _) = units(gram, vectors);
    let pairs = (0..units.len()).flat_map(|j| (0..j).map(move |i| (i, j)));
    let cosines: Vec<f64> = pairs.map(|(i, j)| gram.product(&units[i], &units[j]).clamp(-1.0, 1.0)).collect();
    let cosine = if cosines.is_empty() { 1.0 } else { cosines.iter().sum::<f64>() / cosines.len() as f64 };
    let divisor = 1.0 + (count - 1.0) * cosine;
    let t = if divisor > 1e-6 { count * cosine / divisor } else { 0.0 };
    sum(vectors.iter().map(|vector| (t / count, vector)), vectors.len() + 1)
}

/// Spherical interpolation of several about their mean direction: one step of the logarithm and the exponential there.
/// Where the directions cancel it is the weighted sum.
fn several(gram: &Gram, vectors: &[Vec<f64>], settings: &Settings) -> Vec<f64> {
    let len = vectors.len() + 1;
    let total: f64 = settings.weights.iter().sum();
    let divisor = if settings.normalize_weights && total.abs() >= PARALLEL { total } else { 1.0 };
    let weights: Vec<f64> = settings.weights.iter().map(|weight| weight / divisor).collect();
    let (units, lengths) = units(gram, vectors);
    let mean = sum(weights.iter().copied().zip(&units), len);
    let length = gram.length(&mean);
    if length <= settings.eps {
        return sum(weights.iter().copied().zip(vectors), len);
    }
    let mean = scaled(&mean, 1.0 / length);
    let tangents: Vec<Vec<f64>> = units.iter().map(|unit| tangent(gram, unit, &mean)).collect();
    let step = sum(weights.iter().copied().zip(&tangents), len);
    let size: f64 = weights.iter().zip(&lengths).map(|(weight, length)| weight * length).sum();
    scaled(&exponential(gram, &mean, &step), size)
}

/// The part of `unit` across `mean`.
fn tangent(gram: &Gram, unit: &[f64], mean: &[f64]) -> Vec<f64> {
    let along = gram.product(unit, mean);
    unit.iter().zip(mean).map(|(unit, mean)| unit - along * mean).collect()
}

/// The point that a tangent vector leads to from `mean`.
fn exponential(gram: &Gram, mean: &[f64], step: &[f64]) -> Vec<f64> {
    let length = gram.length(step);
    if length <= NOTHING {
        return mean.to_vec();
    }
    mean.iter().zip(step).map(|(mean, step)| length.cos() * mean + length.sin() / length * step).collect()
}

/// The point of the sphere with the least sum of squared arcs, times the mean length. Zero vectors take no part.
fn karcher(gram: &Gram, vectors: &[Vec<f64>], (most, tolerance): (u32, f64)) -> Vec<f64> {
    let len = vectors.len() + 1;
    let (units, lengths) = units(gram, vectors);
    let part: Vec<&Vec<f64>> = units.iter().zip(&lengths).filter(|(_, l)| **l > 0.0).map(|(unit, _)| unit).collect();
    let Some(first) = part.first() else { return vec![0.0; len] };
    let share = 1.0 / part.len() as f64;
    let mean = sum(part.iter().map(|unit| (share, *unit)), len);
    let length = gram.length(&mean);
    let mut point = if length < tolerance { (*first).clone() } else { scaled(&mean, 1.0 / length) };
    for _ in 0..most {
        let mut step = vec![0.0; len];
        for unit in &part {
            let omega = angle(gram, unit, &point);
            if omega >= tolerance && std::f64::consts::PI - omega > OPPOSITE {
                let across = tangent(gram, unit, &point);
                let scale = share * omega / omega.sin();
                step.iter_mut().zip(&across).for_each(|(step, x)| *step += scale * x);
            }
        }
        if gram.length(&step) < tolerance {
            break;
        }
        point = exponential(gram, &point, &step);
        let length = gram.length(&point);
        point = scaled(&point, 1.0 / length);
    }
    scaled(&point, lengths.iter().sum::<f64>() * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inner products of two task vectors and a base.
    fn gram(a: [f64; 2], b: [f64; 2], rounding: f64) -> Gram {
        let vectors = [a, b, [1.0, 1.0]];
        let pair =
            |i: usize, j: usize| (vectors[i][0] * vectors[j][0] + vectors[i][1] * vectors[j][1]) * (1.0 + rounding);
        Gram::new(3, [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)].map(|(i, j)| pair(i, j)).to_vec())
    }

    #[test]
    fn opposite_vectors_are_joined_by_a_line() {
        let (a, b) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]);
        for (x, y) in [([1.0, 0.0], [-2.0, 0.0]), ([1.0, 0.0], [-1.0, 1e-4]), ([3.0, 0.0], [-1.0, 0.0])] {
            for rounding in [0.0, 1e-7, -1e-7] {
                assert_eq!(slerp(&gram(x, y, rounding), &a, &b, 0.25, 1.0), [0.75, 0.25, 0.0], "{x:?} {y:?}");
            }
        }
        // At right angles it is the arc.
        let arc = slerp(&gram([1.0, 0.0], [0.0, 1.0], 0.0), &a, &b, 0.5, 1.0);
        assert!(arc[..2].iter().all(|x| (x - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-12), "{arc:?}");
    }
}
