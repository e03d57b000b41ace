//! Iso-C and Iso-CTS: every direction at the same, mean, singular value.

use super::experts::Experts;
use super::host::Singular;
use super::matrix::Matrix;
use super::solver::Solver;
use super::tsv::{Directions, each};
use crate::error::Result;

/// Iso-C: P·⟨P, S⟩/r.
pub fn merge(solver: &mut Solver<'_>, experts: &mut Experts<'_>) -> Result<Matrix> {
    let sum = experts.sum()?;
    let mut out = solver.polar(&sum)?;
    out.scale(out.dot(&sum) / sum.rank() as f64);
    Ok(out)
}

/// Iso-CTS.
pub fn merge_with_tasks(solver: &mut Solver<'_>, experts: &mut Experts<'_>, fraction: f64) -> Result<Matrix> {
    let all = experts.rank();
    let (common, own) = split(all, experts.count, fraction);
    let sum = experts.sum()?;
    let Singular { left, values, right } = solver.truncated(&[sum], common, &[0.0])?.remove(0);
    let mut directions = Directions::default();
    if own > 0 {
        let rest = |x: Matrix| {
            // What rounding leaves of x where nothing should be left, in its largest singular value.
            let floor = 4.0 * f64::from(f32::EPSILON) * (all as f64).sqrt() * x.norm();
            (without(x, &left), floor)
        };
        each(solver, experts, own, &rest, &mut directions)?;
    }
    directions.append(Singular { left, values, right });
    let mean = directions.values.iter().sum::<f64>() / (common + own * experts.count) as f64;
    directions.values.iter_mut().for_each(|value| *value = mean);
    directions.merged(solver, experts.shape)
}

/// Common directions, and those of each expert: c = ⌊f·k⌋, then c ← k − K·round((k − c)/K), with Python's `round`, which
/// takes halves to the even side. Never below zero: with more experts than directions some get none.
fn split(all: usize, experts: usize, fraction: f64) -> (usize, usize) {
    let common = ((fraction * all as f64).floor() as usize).min(all);
    let own = ((all - common) as f64 / experts as f64).round_ties_even() as usize;
    let own = own.min(all / experts);
    (all - experts * own, own)
}

/// x − U·Uᵀ·x, with the columns of U in the rows of `left`.
fn without(mut x: Matrix, left: &Matrix) -> Matrix {
    if left.rows > 0 {
        let part = left.transposed_times(&left.times(&x));
        x.values.iter_mut().zip(&part.values).for_each(|(x, part)| *x -= part);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn directions_are_split_as_in_the_reference() {
        assert_eq!(split(24, 4, 0.8), (20, 1)); // 19, 5/4
        assert_eq!(split(17, 4, 0.8), (13, 1)); // 13, 4/4
        assert_eq!(split(768, 8, 0.8), (616, 19)); // 614, 154/8 = 19.25
        assert_eq!(split(10, 4, 0.0), (2, 2)); // 2.5 goes to 2
        assert_eq!(split(14, 4, 0.0), (2, 3)); // 3.5 would go to 4: 16 of 14
        assert_eq!(split(3, 8, 0.0), (3, 0));
        assert_eq!(split(5, 1, 1.0), (5, 0));
        assert_eq!(split(1, 1, 0.8), (0, 1));
    }
}
