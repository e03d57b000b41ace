//! The steps that all rules are made of, each on the device where it can be, else on the host.

use rayon::prelude::*;

use super::device::Device;
use super::host::{self, Singular};
use super::matrix::Matrix;
use super::{Route, Why, polar, subspace};
use crate::error::Result;
use crate::executor::Executor;

/// What computes.
pub struct Solver<'a> {
    executor: &'a Executor,
    budget: u64,
    why: Option<Why>,
}

impl<'a> Solver<'a> {
    /// One that has done nothing yet.
    pub fn new(executor: &'a Executor, budget: u64) -> Self {
        let why = matches!(executor, Executor::Cpu(_)).then_some(Why::Device);
        Self { executor, budget, why }
    }

    /// Where everything was done so far.
    pub fn route(&self) -> Route {
        self.why.map_or(Route::Products, Route::Host)
    }

    /// The device, for matrices of at most `largest` elements, `bytes` together.
    fn device(&mut self, largest: usize, bytes: u64) -> Result<Option<Device<'a>>> {
        let Executor::Gpu(gpu) = self.executor else { return Ok(None) };
        if bytes > self.budget || 4 * largest as u64 > gpu.limits().max_binding_bytes {
            self.host(Why::Budget(bytes));
            return Ok(None);
        }
        Device::new(self.executor).map(Some)
    }

    fn host(&mut self, why: Why) {
        self.why.get_or_insert(why);
    }

    /// The polar factor; zero for a zero matrix.
    pub fn polar(&mut self, x: &Matrix) -> Result<Matrix> {
        let unit = x.unit();
        if unit == 0.0 {
            return Ok(x.clone());
        }
        if let Some(mut device) = self.device(x.values.len(), Device::polar_bytes(x.rows, x.cols))? {
            if let Some(found) = polar::by_products(&mut device, x)? {
                return Ok(found);
            }
            self.host(Why::Singular);
        }
        let mut scaled = x.clone();
        scaled.scale(unit);
        host::polar(&scaled)
    }

    /// How many experts are decomposed at a time, each of so many bytes.
    pub fn at_a_time(&self, shape: (usize, usize)) -> usize {
        if matches!(self.executor, Executor::Gpu(_)) {
            return 1;
        }
        let (all, side) = (shape.0 as u64 * shape.1 as u64, shape.0.min(shape.1) as u64);
        let bytes = 28 * all + 48 * side * side;
        ((self.budget / bytes.max(1)) as usize).clamp(1, rayon::current_num_threads())
    }

    /// Of each matrix the `count` largest singular values above its floor, and their vectors.
    pub fn truncated(&mut self, all: &[Matrix], count: usize, floors: &[f64]) -> Result<Vec<Singular>> {
        let mut found: Vec<Option<Singular>> = Vec::new();
        for (x, floor) in all.iter().zip(floors) {
            found.push(self.truncated_by_products(x, count, *floor)?);
        }
        let on_host = |((x, floor), found): ((&Matrix, &f64), Option<Singular>)| match found {
            Some(found) => Ok(found),
            None => truncated(x, count, *floor),
        };
        all.par_iter().zip(floors).zip(found).map(on_host).collect()
    }

    fn truncated_by_products(&mut self, x: &Matrix, count: usize, floor: f64) -> Result<Option<Singular>> {
        let unit = x.unit();
        if unit == 0.0 || matches!(self.executor, Executor::Cpu(_)) {
            return Ok(None);
        }
        if !subspace::is_for(x.rank(), count) {
            self.host(Why::Flat);
            return Ok(None);
        }
        let bytes = subspace::bytes(x.rows, x.cols, count);
        let Some(mut device) = self.device(x.values.len(), bytes)? else { return Ok(None) };
        let mut scaled = x.clone();
        scaled.scale(unit);
        let found = subspace::truncated(&mut device, &scaled, count, floor * unit)?;
        if found.is_none() {
            self.host(Why::Flat);
        }
        Ok(found.map(|found| unscaled(found, unit)))
    }

    /// xᵀ·y.
    pub fn transposed_times(&mut self, x: &Matrix, y: &Matrix) -> Result<Matrix> {
        let largest = x.values.len().max(y.values.len()).max(x.cols * y.cols);
        let bytes = 4 * (x.values.len() + y.values.len() + x.cols * y.cols) as u64;
        if x.rows > 0
            && let Some(mut device) = self.device(largest, bytes)?
        {
            return device.multiply(&x.transposed(), &y.transposed());
        }
        Ok(x.transposed_times(y))
    }
}

fn truncated(x: &Matrix, count: usize, floor: f64) -> Result<Singular> {
    let unit = x.unit();
    if unit == 0.0 {
        let none = |cols| Matrix::zeros(0, cols);
        return Ok(Singular { left: none(x.rows), values: Vec::new(), right: none(x.cols) });
    }
    let mut scaled = x.clone();
    scaled.scale(unit);
    Ok(unscaled(host::truncated(&scaled, count, floor * unit)?, unit))
}

fn unscaled(mut found: Singular, unit: f64) -> Singular {
    found.values.iter_mut().for_each(|value| *value /= unit);
    found
}
