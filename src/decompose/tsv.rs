//! TSV-M: the largest directions of every expert, made orthogonal together.

use super::experts::Experts;
use super::host::Singular;
use super::matrix::Matrix;
use super::solver::Solver;
use crate::error::Result;

/// Directions of several matrices, one below the other: Ûᵀ, Σ̂ and V̂ᵀ.
#[derive(Default)]
pub struct Directions {
    left: Vec<f32>,
    /// A singular value for each.
    pub values: Vec<f64>,
    right: Vec<f32>,
}

impl Directions {
    /// Adds those of one more matrix.
    pub fn append(&mut self, own: Singular) {
        self.left.extend(own.left.values);
        self.values.extend(own.values);
        self.right.extend(own.right.values);
    }

    /// Leaves the `most` with the largest values, of equal ones the first.
    fn keep(&mut self, most: usize, (rows, cols): (usize, usize)) {
        if self.values.len() <= most {
            return;
        }
        let mut order: Vec<usize> = (0..self.values.len()).collect();
        order.sort_by(|a, b| self.values[*b].total_cmp(&self.values[*a]));
        order.truncate(most);
        order.sort_unstable();
        let of = |all: &[f32], width: usize| order.iter().flat_map(|i| all[i * width..][..width].to_vec()).collect();
        (self.left, self.right) = (of(&self.left, rows), of(&self.right, cols));
        self.values = order.iter().map(|i| self.values[*i]).collect();
    }

    /// polar(Û)·Σ̂·polar(V̂).
    pub fn merged(self, solver: &mut Solver<'_>, (rows, cols): (usize, usize)) -> Result<Matrix> {
        let count = self.values.len();
        if count == 0 {
            return Ok(Matrix::zeros(rows, cols));
        }
        let left = solver.polar(&Matrix { rows: count, cols: rows, values: self.left })?;
        let mut right = solver.polar(&Matrix { rows: count, cols, values: self.right })?;
        for (row, value) in right.values.chunks_mut(cols).zip(&self.values) {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) * value) as f32);
        }
        solver.transposed_times(&left, &right)
    }
}

/// TSV-M with ⌊r/K⌋ directions of each expert. With more experts than directions, the largest of each, and of those the
/// r largest.
pub fn merge(solver: &mut Solver<'_>, experts: &mut Experts<'_>) -> Result<Matrix> {
    let count = (experts.rank() / experts.count).max(1);
    let mut directions = Directions::default();
    each(solver, experts, count, &|x| (x, 0.0), &mut directions)?;
    directions.keep(experts.rank(), experts.shape);
    directions.merged(solver, experts.shape)
}

/// Appends the `count` largest directions of each expert, of what `change` makes of it, above a floor.
pub fn each(
    solver: &mut Solver<'_>,
    experts: &mut Experts<'_>,
    count: usize,
    change: &dyn Fn(Matrix) -> (Matrix, f64),
    directions: &mut Directions,
) -> Result<()> {
    let step = solver.at_a_time(experts.shape);
    for first in (0..experts.count).step_by(step) {
        let loaded: Result<Vec<_>> =
            (first..(first + step).min(experts.count)).map(|k| experts.load(k).map(change)).collect();
        let (all, floors): (Vec<Matrix>, Vec<f64>) = loaded?.into_iter().unzip();
        for own in solver.truncated(&all, count, &floors)? {
            directions.append(own);
        }
    }
    Ok(())
}
