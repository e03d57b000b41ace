//! A matrix of f32 on the host, and the little that is done with it element by element.

use rayon::prelude::*;

use crate::kernels::vector;

/// Elements that are worth a task of their own.
const PART: usize = 1 << 16;

/// Row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub cols: usize,
    /// `rows * cols` elements.
    pub values: Vec<f32>,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, values: vec![0.0; rows * cols] }
    }

    /// The smaller side: the most singular values that it can have.
    pub fn rank(&self) -> usize {
        self.rows.min(self.cols)
    }

    /// The transpose.
    pub fn transposed(&self) -> Self {
        // Tiles, so that what is read and what is written both stay in cache.
        const SIDE: usize = 32;
        let mut out = Self::zeros(self.cols, self.rows);
        out.values.par_chunks_mut((SIDE * self.rows).max(1)).enumerate().for_each(|(at, part)| {
            let height = part.len() / self.rows;
            for first in (0..self.rows).step_by(SIDE) {
                for row in first..(first + SIDE).min(self.rows) {
                    let from = &self.values[row * self.cols + at * SIDE..][..height];
                    from.iter().enumerate().for_each(|(i, x)| part[i * self.rows + row] = *x);
                }
            }
        });
        out
    }

    /// The matrix with its smaller side down, and whether it was turned for that.
    pub fn short(&self) -> (std::borrow::Cow<'_, Self>, bool) {
        if self.rows <= self.cols {
            (std::borrow::Cow::Borrowed(self), false)
        } else {
            (std::borrow::Cow::Owned(self.transposed()), true)
        }
    }

    /// self · other.
    pub fn times(&self, other: &Self) -> Self {
        let mut out = Self::zeros(self.rows, other.cols);
        let of = |m: &Self| (m.cols, 1);
        self.product(of(self), other, of(other), (self.rows, other.cols, self.cols), &mut out, false);
        out
    }

    /// selfᵀ · other.
    pub fn transposed_times(&self, other: &Self) -> Self {
        let mut out = Self::zeros(self.cols, other.cols);
        self.product((1, self.cols), other, (other.cols, 1), (self.cols, other.cols, self.rows), &mut out, false);
        out
    }

    /// out += self · other.
    pub fn times_onto(&self, other: &Self, out: &mut Self) {
        let sides = (self.rows, other.cols, self.cols);
        self.product((self.cols, 1), other, (other.cols, 1), sides, out, true);
    }

    fn product(
        &self,
        (down, right): (usize, usize),
        other: &Self,
        (other_down, other_right): (usize, usize),
        sides: (usize, usize, usize),
        out: &mut Self,
        add: bool,
    ) {
        let x = vector::Matrix { values: &self.values, down, right };
        let y = vector::Matrix { values: &other.values, down: other_down, right: other_right };
        if sides.2 > 0 {
            vector::product(sides, x, y, (&mut out.values, sides.1, add), true);
        }
    }

    /// Multiplies every element.
    pub fn scale(&mut self, factor: f64) {
        self.values.par_iter_mut().with_min_len(PART).for_each(|x| *x = (f64::from(*x) * factor) as f32);
    }

    /// Σ self ∘ other.
    pub fn dot(&self, other: &Self) -> f64 {
        let part = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let parts: Vec<f64> = self.values.par_chunks(PART).zip(other.values.par_chunks(PART)).map(part).collect();
        parts.iter().sum()
    }

    /// The Frobenius norm.
    pub fn norm(&self) -> f64 {
        self.dot(self).sqrt()
    }

    /// A power of two that brings the largest element near 1, so that no square leaves the range; 0 for a zero matrix.
    pub fn unit(&self) -> f64 {
        let part = |part: &[f32]| part.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(self.values.par_chunks(PART).map(part).max().unwrap_or(0));
        if largest == 0.0 { 0.0 } else { (-f64::from(largest).log2().floor()).exp2() }
    }

    /// Its elements in f64.
    pub fn wide(&self) -> Vec<f64> {
        self.values.par_iter().with_min_len(PART).map(|x| f64::from(*x)).collect()
    }
}

/// `count` numbers from −½ to ½ without structure, always the same for a `seed`: what no matrix is orthogonal to.
pub(super) fn unstructured(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    (0..count).map(|_| next()).collect()
}
