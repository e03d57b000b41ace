//! The experts' task vectors of one tensor, as they are asked for.

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

    /// τ_k.
    pub fn load(&mut self, k: usize) -> Result<Matrix> {
        let values = (self.get)(k)?;
        let (rows, cols) = self.shape;
        if values.len() != rows * cols {
            let message = format!("the task vector of expert {k} has {} elements, not {rows} × {cols}", values.len());
            return Err(Error::input(message));
        }
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            let message = format!("the task vector of expert {k} holds {} in row {}", values[at], at / cols);
            return Err(Error::input(message).hint("leave that expert or that tensor out: it cannot be decomposed"));
        }
        Ok(Matrix { rows, cols, values })
    }

    /// Στ_k.
    pub fn sum(&mut self) -> Result<Matrix> {
        let (rows, cols) = self.shape;
        let mut sum = vec![0f64; rows * cols];
        for k in 0..self.count {
            let own = self.load(k)?;
            sum.iter_mut().zip(&own.values).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let values: Vec<f32> = sum.iter().map(|x| *x as f32).collect();
        if !values.iter().all(|x| x.is_finite()) {
            return Err(Error::input("the sum of all task vectors is beyond the range of f32"));
        }
        Ok(Matrix { rows, cols, values })
    }
}
