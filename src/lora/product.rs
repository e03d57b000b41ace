//! Low-rank products for just the elements that are asked for.

/// Columns in work at a time: two registers of sixteen floats for each of [`TALL`] rows.
const WIDE: usize = 32;
/// Rows in work at a time.
const TALL: usize = 4;

/// `left · right · scale`, ready to be added to pieces of a matrix.
#[derive(Debug)]
pub struct Factors {
    /// `[rows, rank]`.
    pub left: Vec<f32>,
    /// `[rank, cols]`.
    pub right: Vec<f32>,
    /// Number of products that an element sums.
    pub rank: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Factor of the sum.
    pub scale: f32,
}

impl Factors {
    /// Adds the elements from `start` on, row by row, to `out`. Each is summed in one order, whatever the piece.
    pub fn add(&self, start: u64, out: &mut [f32]) {
        let (mut at, mut done) = (start, 0);
        while done < out.len() {
            let (row, col) = ((at / self.cols as u64) as usize, (at % self.cols as u64) as usize);
            let left = out.len() - done;
            // Whole rows at once, or a part of one.
            let (rows, width) = if col == 0 && left >= self.cols {
                (left / self.cols, self.cols)
            } else {
                (1, left.min(self.cols - col))
            };
            let piece = &mut out[done..done + rows * width];
            let own = &self.left[row * self.rank..(row + rows) * self.rank];
            add(piece, width, own, (self.rank, self.cols), &self.right[col..], self.scale);
            (at, done) = (at + (rows * width) as u64, done + rows * width);
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        4 * (self.left.len() + self.right.len())
    }
}

/// `out[i, j] += scale · Σ_k left[i, k] · right[k, j]`, rows of `out` being `width` long and those of `right` `cols`.
#[multiversion::multiversion(targets = "simd")]
fn add(out: &mut [f32], width: usize, left: &[f32], (rank, cols): (usize, usize), right: &[f32], scale: f32) {
    let rows = out.len() / width.max(1);
    for first in (0..rows).step_by(TALL) {
        let tall = TALL.min(rows - first);
        for col in (0..width).step_by(WIDE) {
            let wide = WIDE.min(width - col);
            let mut sums = [[0f32; WIDE]; TALL];
            if tall == TALL && wide == WIDE {
                for k in 0..rank {
                    let row = &right[k * cols + col..][..WIDE];
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let x = left[(first + i) * rank + k];
                        for j in 0..WIDE {
                            sums[j] += x * row[j];
                        }
                    }
                }
            } else {
                for k in 0..rank {
                    let row = &right[k * cols + col..][..wide];
                    for (i, sums) in sums.iter_mut().take(tall).enumerate() {
                        let x = left[(first + i) * rank + k];
                        sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += x * y);
                    }
                }
            }
            for (i, sums) in sums.iter().take(tall).enumerate() {
                let out = &mut out[(first + i) * width + col..][..wide];
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += scale * sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole_bit_for_bit() {
        let (rows, cols, rank) = (13, 67, 5);
        let value = |i: usize| ((i * 7919 % 1013) as f32).sin();
        let factors = Factors {
            left: (0..rows * rank).map(value).collect(),
            right: (0..rank * cols).map(|i| value(i + 5)).collect(),
            rank,
            cols,
            scale: 0.5,
        };
        let mut whole = vec![1.0; rows * cols];
        factors.add(0, &mut whole);
        for size in [1, 3, 66, 67, 68, 150, 400] {
            let mut pieces = vec![1.0; rows * cols];
            for (i, piece) in pieces.chunks_mut(size).enumerate() {
                factors.add((i * size) as u64, piece);
            }
            assert_eq!(whole, pieces, "{size}");
        }
        let expected: f32 = (0..rank).map(|k| factors.left[7 * rank + k] * factors.right[k * cols + 40]).sum();
        assert!((whole[7 * cols + 40] - 1.0 - 0.5 * expected).abs() < 1e-6);
    }
}
