//! The experts' task vectors of one tensor, as they are asked for.

use rayon::prelude::*;

use super::matrix::Matrix;
use crate::error::{Error, Result};

/// What the caller gives.
pub struct Experts<'a> {
    /// Rows and columns.
    pub shape: (usize, usize),
    /// How many.
    pub count: usize,
    /// τ_k.
    pub get: &'a mut dyn FnMut(usize) -> Result<Vec<f32>>,
}

impl Experts<'_> {
    /// min(rows, cols).
    pub fn rank(&self) -> usize {
        self.shape.0.min(self.shape.1)
    }

    fn get(&mut self, k: usize) -> Result<Matrix> {
        let values = (self.get)(k)?;
        let (rows, cols) = self.shape;
        if values.len() != rows * cols {
            let message = format!("the task vector of expert {k} has {} elements, not {rows} × {cols}", values.len());
            return Err(Error::input(message));
        }
        Ok(Matrix { rows, cols, values })
    }

    /// τ_k.
    pub fn load(&mut self, k: usize) -> Result<Matrix> {
        let own = self.get(k)?;
        if let Some(at) = own.values.par_chunks(PART).position_first(|part| !is_finite(part)) {
            let at = at * PART + own.values[at * PART..].iter().position(|x| !x.is_finite()).unwrap_or(0);
            let (value, row) = (own.values[at], at / own.cols);
            let message = format!("the task vector of expert {k} holds {value} in row {row}");
            return Err(Error::input(message).hint("leave that expert or that tensor out: it cannot be decomposed"));
        }
        Ok(own)
    }

    /// Στ_k.
    pub fn sum(&mut self) -> Result<Matrix> {
        let mut sum = self.get(0)?;
        for k in 1..self.count {
            let own = self.get(k)?;
            let parts = sum.values.par_chunks_mut(PART).zip(own.values.par_chunks(PART));
            parts.for_each(|(sum, own)| sum.iter_mut().zip(own).for_each(|(sum, x)| *sum += x));
        }
        // What is not finite in one of them is not in the sum.
        if !sum.values.par_chunks(PART).all(is_finite) {
            for k in 0..self.count {
                self.load(k)?;
            }
            return Err(Error::input("the sum of all task vectors is beyond the range of f32"));
        }
        Ok(sum)
    }
}

/// Elements that are worth a task of their own.
const PART: usize = 1 << 16;

/// True if all of `part` are numbers.
pub fn is_finite(part: &[f32]) -> bool {
    // Without a branch for each: the exponent bits of the largest magnitude.
    part.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff)) < f32::INFINITY.to_bits()
}
