//! Inner products of a tensor's task vectors and its base: all that lengths and angles follow from.
//!
//! Models that were fine-tuned from one base are nearly parallel. Differences are taken first, and inner products of
//! those, so that small angles keep their digits.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::error::Result;
use crate::kernels::{gram, gram_t, widen};
use crate::recording::{Buf, Recording, Size};
use crate::stack::Stack;
use crate::stream::Stream;

/// Inner products of τ_1 … τ_K and, last, θ_0.
#[derive(Clone, Debug)]
pub struct Gram {
    /// Vectors.
    planes: usize,
    /// Of each pair i ≤ j, row by row.
    pairs: Vec<f64>,
}

impl Gram {
    fn zero(planes: usize) -> Self {
        Self { planes, pairs: vec![0.0; gram::pairs(planes as u32) as usize] }
    }

    /// Of these inner products, (0,0), (0,1), …, (1,1), ….
    #[cfg(test)]
    pub fn new(planes: usize, pairs: Vec<f64>) -> Self {
        Self { planes, pairs }
    }

    fn add(&mut self, pairs: &[f32]) {
        self.pairs.iter_mut().zip(pairs).for_each(|(sum, x)| *sum += f64::from(*x));
    }

    /// Number of experts.
    pub fn experts(&self) -> usize {
        self.planes - 1
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        let (i, j) = (i.min(j), i.max(j));
        self.pairs[i * self.planes - i * (i + 1) / 2 + j]
    }

    /// ⟨Σ a_i p_i, Σ b_j p_j⟩. What has no part in either is not looked at: it may be no number.
    pub fn product(&self, a: &[f64], b: &[f64]) -> f64 {
        let mut sum = 0.0;
        for (i, a) in a.iter().enumerate().filter(|(_, a)| **a != 0.0) {
            for (j, b) in b.iter().enumerate().filter(|(_, b)| **b != 0.0) {
                sum += a * b * self.at(i, j);
            }
        }
        sum
    }

    /// Length of Σ a_i p_i.
    pub fn length(&self, a: &[f64]) -> f64 {
        self.product(a, a).max(0.0).sqrt()
    }

    /// The cosine of experts i and j; none where either is zero.
    pub fn cosine(&self, i: usize, j: usize) -> Option<f64> {
        let length = self.at(i, i).max(0.0).sqrt() * self.at(j, j).max(0.0).sqrt();
        (length > 0.0).then(|| (self.at(i, j) / length).clamp(-1.0, 1.0))
    }
}

/// A list whose stack holds the task vectors and, in the last plane, the base.
fn vectors(stream: &Stream<'_>) -> (Recording, Buf) {
    let experts = stream.tensor.experts();
    let mut list = Recording::new(experts as u32 + 1);
    let stack = Stack::record(&mut list, stream.tensor, experts);
    widen::record(&mut list, stack.base, stack.tau, experts as u32);
    (list, stack.tau)
}

/// Of the whole tensor. Reads it once.
pub fn whole(stream: &Stream<'_>) -> Result<Gram> {
    let (mut list, tau) = vectors(stream);
    let planes = list.planes;
    let row_len = stream.tensor.row_len;
    let out = list.result("gram", gram::size(planes, row_len, row_len));
    gram::record(&mut list, tau, row_len, out);
    let blocks = stream.map(&list, 0..stream.tensor.blocks(), |_, results| Ok(results.floats(0).to_vec()))?;
    let mut sum = Gram::zero(planes as usize);
    let pairs = sum.pairs.len();
    blocks.iter().flat_map(|block| block.chunks(pairs)).for_each(|row| sum.add(row));
    Ok(sum)
}

/// Elements of a tensor that a sample has, if it is larger.
const SAMPLE: u64 = 16 << 10;

/// Elements that lie together in a sample.
const PIECE: u32 = 1024;

/// Of a sample of the tensor, and the number of its elements: all of a small tensor, else pieces from its beginning to its
/// end. It is read once more, and computed on the host, so that devices and blocks make no difference.
pub fn sample(stream: &Stream<'_>) -> Result<(u64, Gram)> {
    let elements = stream.tensor.elements;
    let (len, count) = if elements <= SAMPLE { (elements as u32, 1) } else { (PIECE, SAMPLE / u64::from(PIECE)) };
    let last = elements / u64::from(len) - 1;
    let (mut list, tau) = vectors(stream);
    let mut sum = Gram::zero(list.planes as usize);
    let out = list.result("gram", gram::size(list.planes, len, len));
    gram::record(&mut list, tau, len, out);
    let pieces: Vec<u64> = (0..count).map(|i| i * last / (count - 1).max(1)).collect();
    let pairs = sum.pairs.len();
    stream.sample(&list, len, &pieces, |_, results| results.floats(0).chunks(pairs).for_each(|row| sum.add(row)))?;
    Ok((u64::from(len) * count, sum))
}

/// What `of` makes of each run of `unit` elements, one after another. Reads the tensor once.
pub fn rows(stream: &Stream<'_>, unit: u32, of: impl Fn(&Gram) -> Vec<f32> + Sync) -> Result<Vec<f32>> {
    let (mut list, tau) = vectors(stream);
    let planes = list.planes as usize;
    let out = list.result("gram", gram::size(list.planes, stream.tensor.row_len, unit));
    gram::record(&mut list, tau, unit, out);
    let pairs = Gram::zero(planes).pairs.len();
    let blocks = stream.map(&list, 0..stream.tensor.blocks(), |_, results| {
        let gram = |row: &[f32]| Gram { planes, pairs: row.iter().map(|x| f64::from(*x)).collect() };
        Ok(results.floats(0).chunks(pairs).flat_map(|row| of(&gram(row))).collect::<Vec<f32>>())
    })?;
    Ok(blocks.concat())
}

/// What `of` makes of each column of the view, one after another. Reads the tensor twice.
pub fn columns(stream: &Stream<'_>, of: impl Fn(&Gram) -> Vec<f32>) -> Result<Vec<f32>> {
    let whole = whole(stream)?;
    let largest = (0..whole.planes).map(|i| whole.at(i, i)).fold(0.0, f64::max);
    let (mut list, tau) = vectors(stream);
    let (planes, pairs, cols) = (whole.planes, whole.pairs.len(), stream.tensor.row_len as usize);
    let out = list.result("gram", Size::Groups(pairs as u32));
    gram_t::record(&mut list, tau, out);
    // Partial sums are added as multiples of a fixed quantum, so that their order does not matter.
    let quantum = if largest > 0.0 { largest / (1u64 << 60) as f64 } else { 1.0 };
    let sums: Vec<AtomicI64> = (0..pairs * cols).map(|_| AtomicI64::new(0)).collect();
    stream.map(&list, 0..stream.tensor.blocks(), |_, results| {
        for (at, x) in results.floats(0).iter().enumerate() {
            let (group, column) = (at / cols, at % cols);
            sums[group % pairs * cols + column].fetch_add((f64::from(*x) / quantum).round() as i64, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let column = |c: usize| Gram {
        planes,
        pairs: (0..pairs).map(|pair| sums[pair * cols + c].load(Ordering::Relaxed) as f64 * quantum).collect(),
    };
    Ok((0..cols).flat_map(|c| of(&column(c))).collect())
}
