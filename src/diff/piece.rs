//! Two pieces of stored elements side by side: what differs in their bits, and by how much in value.

use bytemuck::{Pod, cast_slice};

use crate::checkpoint::Dtype;
use crate::kernels::convert::{CHUNK, widen};

/// Partial sums side by side, so that the compiler can use vectors.
const LANES: usize = 8;

/// The elements of a piece. All sums are of pairs of finite numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Elements whose bits differ; where the types do, whose values do.
    pub changed: u64,
    /// Elements of which either is NaN or infinite.
    pub not_finite: u64,
    /// Σa².
    pub a: f64,
    /// Σb².
    pub b: f64,
    /// Σab.
    pub dot: f64,
    /// Σ(a − b)².
    pub square: f64,
    /// max|a − b|.
    pub largest: f64,
    /// Its first place.
    pub at: u64,
}

impl Sums {
    /// Adds those of elements that come later, `offset` elements on.
    pub fn add(&mut self, later: &Self, offset: u64) {
        self.changed += later.changed;
        self.not_finite += later.not_finite;
        self.a += later.a;
        self.b += later.b;
        self.dot += later.dot;
        self.square += later.square;
        if later.largest > self.largest {
            (self.largest, self.at) = (later.largest, offset + later.at);
        }
    }
}

/// Bytes of an element: of what is smaller than a byte, or of unknown size, a byte.
pub fn unit(dtype: Dtype) -> usize {
    match dtype.bits() {
        bits if bits >= 8 && bits.is_multiple_of(8) => bits as usize / 8,
        _ => 1,
    }
}

/// Compares as many elements of both. What is no float is compared by its bits alone, and must be of one type.
pub fn compare((of_a, of_b): (Dtype, Dtype), a: &[u8], b: &[u8]) -> Sums {
    if !(of_a.is_float() && of_b.is_float()) {
        return Sums { changed: if a == b { 0 } else { differing(unit(of_a), a, b) }, ..Sums::default() };
    }
    let (mut x, mut y) = ([0f32; CHUNK], [0f32; CHUNK]);
    let mut sums = Sums::default();
    let chunks = a.chunks(CHUNK * of_a.size()).zip(b.chunks(CHUNK * of_b.size()));
    for (number, (a, b)) in chunks.enumerate() {
        let x = &mut x[..a.len() / of_a.size()];
        widen(of_a, a, 0, x);
        let part = if of_a == of_b && a == b {
            same(x)
        } else {
            let y = &mut y[..x.len()];
            widen(of_b, b, 0, y);
            let changed = if of_a == of_b { differing(of_a.size(), a, b) } else { unlike(x, y) };
            Sums { changed, ..pair(x, y) }
        };
        sums.add(&part, (number * CHUNK) as u64);
    }
    sums
}

/// Elements of `size` bytes that differ.
fn differing(size: usize, a: &[u8], b: &[u8]) -> u64 {
    match size {
        2 => count::<u16>(a, b),
        4 => count::<u32>(a, b),
        // Nothing promises the alignment of what is longer.
        8 => count::<[u8; 8]>(a, b),
        _ => count::<u8>(a, b),
    }
}

#[multiversion::multiversion(targets = "simd")]
fn count<T: Pod + PartialEq>(a: &[u8], b: &[u8]) -> u64 {
    cast_slice::<_, T>(a).iter().zip(cast_slice::<_, T>(b)).map(|(a, b)| u64::from(a != b)).sum()
}

#[multiversion::multiversion(targets = "simd")]
fn unlike(x: &[f32], y: &[f32]) -> u64 {
    x.iter().zip(y).map(|(x, y)| u64::from(x.to_bits() != y.to_bits())).sum()
}

/// Of elements that are the same in both.
fn same(x: &[f32]) -> Sums {
    let square = squares(x);
    if square.is_finite() {
        return Sums { a: square, b: square, dot: square, ..Sums::default() };
    }
    one_by_one(x, x)
}

/// The sums of two runs of values.
fn pair(x: &[f32], y: &[f32]) -> Sums {
    let mut sums = lanes(x, y);
    // Every value is in one of them, and squares of finite ones are in the range of f64.
    if !(sums.a.is_finite() && sums.b.is_finite()) {
        return one_by_one(x, y);
    }
    if sums.largest > 0.0 {
        let here = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).abs() == sums.largest;
        sums.at = x.iter().zip(y).position(here).unwrap_or_default() as u64;
    }
    sums
}

#[multiversion::multiversion(targets = "simd")]
fn squares(x: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    for x in chunks {
        for j in 0..LANES {
            sums[j] += f64::from(x[j]) * f64::from(x[j]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[multiversion::multiversion(targets = "simd")]
fn lanes(x: &[f32], y: &[f32]) -> Sums {
    let [mut a, mut b, mut dot, mut square, mut largest] = [[0f64; LANES]; 5];
    let mut add = |j: usize, x: f32, y: f32| {
        let (x, y) = (f64::from(x), f64::from(y));
        let difference = x - y;
        a[j] += x * x;
        b[j] += y * y;
        dot[j] += x * y;
        square[j] += difference * difference;
        largest[j] = if difference.abs() > largest[j] { difference.abs() } else { largest[j] };
    };
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    for (j, (x, y)) in xs.remainder().iter().zip(ys.remainder()).enumerate() {
        add(j, *x, *y);
    }
    for (x, y) in xs.zip(ys) {
        for j in 0..LANES {
            add(j, x[j], y[j]);
        }
    }
    let [a, b, dot, square] = [a, b, dot, square].map(|lanes| lanes.iter().sum());
    Sums { a, b, dot, square, largest: largest.into_iter().fold(0.0, f64::max), ..Sums::default() }
}

/// The same where some are no numbers.
fn one_by_one(x: &[f32], y: &[f32]) -> Sums {
    let mut sums = Sums::default();
    for (at, (x, y)) in x.iter().zip(y).enumerate() {
        if x.is_finite() && y.is_finite() {
            let largest = (f64::from(*x) - f64::from(*y)).abs();
            sums.add(&Sums { largest, ..lanes(&[*x], &[*y]) }, at as u64);
        } else {
            sums.not_finite += 1;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn sums_are_of_finite_pairs() {
        let n = 2 * CHUNK + 5;
        let a: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
        let mut b = a.clone();
        (b[3], b[CHUNK + 9], b[n - 1]) = (5.0, -4.0, f32::NAN);
        let sums = compare((Dtype::F32, Dtype::F32), &bytes(&a), &bytes(&b));
        let square = |x: &[f32]| x[..n - 1].iter().map(|x| f64::from(x * x)).sum::<f64>();
        assert_eq!((sums.changed, sums.not_finite), (3, 1));
        assert_eq!((sums.a, sums.b), (square(&a), square(&b)));
        let far = f64::from(a[CHUNK + 9] + 4.0);
        assert_eq!((sums.largest, sums.at), (far, CHUNK as u64 + 9));
        assert_eq!(sums.square, far * far + 4.0);
        assert_eq!(sums.dot, (sums.a + sums.b - sums.square) / 2.0);
    }

    #[test]
    fn huge_and_tiny_numbers_have_distances() {
        let huge = compare((Dtype::F32, Dtype::F32), &bytes(&[3e38]), &bytes(&[-3e38]));
        assert!((huge.square.sqrt() / huge.a.sqrt() - 2.0).abs() < 1e-6, "{huge:?}");
        let tiny = compare((Dtype::F32, Dtype::F32), &bytes(&[1e-40, 0.0]), &bytes(&[-1e-40, -0.0]));
        assert!((tiny.square.sqrt() / tiny.a.sqrt() - 2.0).abs() < 1e-6, "{tiny:?}");
        assert_eq!(tiny.changed, 2, "the sign of zero is a bit");
    }

    #[test]
    fn types_are_compared_by_value_and_integers_by_bits() {
        let half: Vec<u8> = [0x3f80u16, 0x4000].iter().flat_map(|x| x.to_le_bytes()).collect();
        let mixed = compare((Dtype::BF16, Dtype::F32), &half, &bytes(&[1.0, 2.5]));
        assert_eq!((mixed.changed, mixed.largest, mixed.at), (1, 0.5, 1));
        let ints = Dtype::from_header("I64");
        let [a, b] = [[1i64, 2, 3], [1, 5, 4]].map(|ints| ints.map(i64::to_le_bytes).concat());
        assert_eq!(compare((ints, ints), &a, &b), Sums { changed: 2, ..Sums::default() });
    }
}
