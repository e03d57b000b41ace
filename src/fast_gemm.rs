//! `--fast-gemm`: products of the forward pass by cooperative matrices, and how far they are from those in f32.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::error::Error;
use crate::kernels::Kernel;
use crate::kernels::matmul_coop::{MATMUL_COOP8, MATMUL_COOP16};

/// What an executor that was opened for it computes products with.
pub struct FastGemm {
    /// The kernel.
    pub kernel: &'static Kernel,
    side: u32,
    found: Mutex<Vec<Found>>,
}

/// A product that was computed both ways.
struct Found {
    name: String,
    /// ‖fast − f32‖².
    off: f64,
    /// ‖f32‖².
    size: f64,
}

/// How far products were from those in f32, on up to eight rows of the first of each linear map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FastReport {
    /// Side of the cooperative matrices.
    pub side: u32,
    /// Products that were computed both ways.
    pub products: usize,
    /// ‖fast − f32‖ / ‖f32‖ over all of them.
    pub error: f64,
    /// The same for the worst.
    pub worst_error: f64,
    /// Its name.
    pub worst: String,
}

impl FastGemm {
    /// With matrices of `side`, 8 or 16.
    pub fn new(side: u32) -> Self {
        let kernel = if side == 16 { &MATMUL_COOP16 } else { &MATMUL_COOP8 };
        Self { kernel, side, found: Mutex::default() }
    }

    /// Whether no product called `name` was compared so far.
    pub fn is_new(&self, name: &str) -> bool {
        !self.found.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|found| found.name == name)
    }

    /// Takes down a comparison: ‖fast − f32‖² and ‖f32‖².
    pub fn add(&self, name: &str, off: f64, size: f64) {
        let found = Found { name: name.to_owned(), off, size };
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(found);
    }

    /// All comparisons together, if there were any.
    pub fn report(&self) -> Option<FastReport> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        // Zeros are never off.
        let error = |off: f64, size: f64| if off == 0.0 { 0.0 } else { (off / size).sqrt() };
        let worst = found.iter().max_by(|a, b| error(a.off, a.size).total_cmp(&error(b.off, b.size)))?;
        Some(FastReport {
            side: self.side,
            products: found.len(),
            error: error(found.iter().map(|f| f.off).sum(), found.iter().map(|f| f.size).sum()),
            worst_error: error(worst.off, worst.size),
            worst: worst.name.clone(),
        })
    }
}

/// That `device` cannot do it.
pub fn missing(device: &str) -> Error {
    let needs = "`--fast-gemm` needs cooperative matrices of f16 inputs and f32 sums";
    Error::device(format!("{needs}, and {device} has none"))
        .hint("leave `--fast-gemm` out; products are f32 then")
        .hint("`magic devices --json` tells which adapters have them: `cooperative`")
}

#[cfg(test)]
mod tests {
    use super::FastGemm;

    #[test]
    fn comparisons_are_summed_and_the_worst_is_named() {
        let fast = FastGemm::new(8);
        assert!(fast.report().is_none() && fast.is_new("a"));
        fast.add("a", 1.0, 100.0);
        fast.add("b", 8.0, 200.0);
        fast.add("zeros", 0.0, 0.0);
        let report = fast.report().unwrap();
        assert!(!fast.is_new("a"));
        assert_eq!((report.products, report.worst.as_str(), report.worst_error), (3, "b", 0.2));
        assert!((report.error - 0.03f64.sqrt()).abs() < 1e-12);
        // What overflowed is the worst, whatever else there is.
        fast.add("c", f64::INFINITY, 1.0);
        assert_eq!(fast.report().unwrap().worst, "c");
    }
}
