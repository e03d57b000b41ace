//! Merges that take a matrix apart: TSV-M, Iso-C and Iso-CTS, one tensor at a time.
//!
//! - **Iso-C** (Marczak et al., "No Task Left Behind", 2025), S = Στ_k = UΣVᵀ: Δ = mean(σ)·UVᵀ. With P = UVᵀ the polar
//!   factor of S this is P·⟨P, S⟩/r, r = min(rows, cols): no decomposition at all.
//! - **Iso-CTS**: the c largest directions of S, and of each τ_k less its part among them the p largest, all made
//!   orthogonal together, at the mean of their singular values.
//! - **TSV-M** (Gargiulo et al., "Task Singular Vectors", 2025): the ⌊r/K⌋ largest directions of each τ_k, made orthogonal
//!   together: Δ = polar(Û)·Σ̂·polar(V̂).
//!
//! Two routes, one result. **Products** (on a GPU): polar factors by odd polynomials of degree 5 ([`polar`]), truncated
//! spaces by block power iterations ([`subspace`]), both lists of kernel calls in f32. **Host** ([`host`]): the Gram
//! matrix of the smaller side in f64. The host takes over, tensor by tensor and for each step by itself,
//! - on the CPU device, where it is the quicker one;
//! - where the device's share of memory is too small, or a matrix larger than it can bind;
//! - where singular values are zero, or so small that products do not reach them: the polynomials end away from
//!   orthogonality;
//! - where a spectrum is flat, or more than a quarter of it is wanted (always so for the common part of Iso-CTS): power
//!   iterations would not end.
//!
//! Singular values up to √max(rows, cols)·2⁻²³·σ1 (16·2⁻²³·σ1 at least) count as zero, and their directions contribute
//! nothing: an SVD would put arbitrary ones there. So duplicates of an expert, sums of low-rank updates and zero matrices
//! have one defined result. Against an SVD in f64, relative to ‖Δ‖: 1e-6 to 3e-6 on the host, measured up to σ1/σ_r of
//! 8000; by products about 2e-6 where σ1/σ_r is 100 and 5e-6 where it is 1000, by a model of the iteration in f32. Results
//! do not depend on the number of threads.

pub mod coefficients;
mod device;
mod experts;
pub mod host;
mod iso;
pub mod matrix;
pub mod polar;
mod solver;
pub mod subspace;
mod tsv;

use std::fmt;

pub use device::Device;

use crate::error::{Error, Result};
use crate::executor::Executor;
use experts::Experts;
use matrix::Matrix;
use solver::Solver;

/// How a decomposition merges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Task singular vectors.
    TsvM,
    /// One singular value for all directions of the sum.
    IsoC,
    /// The same for common and task-specific directions.
    IsoCts {
        /// The part of all directions that is common, about; 0.8 by default.
        common_fraction: f64,
    },
}

/// Why the host did what the device could not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is the device.
    Device,
    /// This many bytes of device memory would be needed.
    Budget(u64),
    /// Singular values that are zero or nearly so.
    Singular,
    /// Singular values that lie close to each other, or too many wanted.
    Flat,
}

/// Where the work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By matrix products on the device.
    Products,
    /// On the host, at least in part; the first reason for it.
    Host(Why),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => write!(f, "the CPU is the device"),
            Self::Budget(bytes) => write!(f, "it takes {} MB of device memory", bytes.div_ceil(1_000_000)),
            Self::Singular => write!(f, "it has singular values that are zero or nearly so"),
            Self::Flat => write!(f, "too many of its singular values are wanted, or they lie too close to each other"),
        }
    }
}

/// The merged task vector of a matrix.
#[derive(Clone, Debug)]
pub struct Decomposed {
    /// `[rows, cols]`, row by row.
    pub tau: Vec<f32>,
    /// Where it was computed.
    pub route: Route,
}

/// Bytes that a merge takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Working {
    /// In host memory.
    pub host: u64,
    /// In device memory, if the device is to do it.
    pub device: u64,
}

/// Merges the experts' task vectors of one tensor: `expert(k)` gives τ_k, weighted, `[rows, cols]` row by row; it is asked
/// once for each, or twice (Iso-CTS); and once more to say what is wrong with it. `budget` is what the device may take; on the CPU device it bounds how many experts
/// are decomposed at a time.
///
/// # Errors
/// Numbers that are not finite, a task vector of another size, and what the device fails at.
pub fn merge(
    rule: Rule,
    executor: &Executor,
    budget: u64,
    shape: (usize, usize),
    experts: usize,
    expert: &mut dyn FnMut(usize) -> Result<Vec<f32>>,
) -> Result<Decomposed> {
    if let Rule::IsoCts { common_fraction } = rule
        && !(0.0..=1.0).contains(&common_fraction)
    {
        return Err(Error::usage(format!("a common fraction of {common_fraction} is not between 0 and 1")));
    }
    let mut experts = Experts { shape, count: experts, get: expert };
    let mut solver = Solver::new(executor, budget);
    let tau = if shape.0 * shape.1 * experts.count == 0 {
        Matrix::zeros(shape.0, shape.1)
    } else {
        match rule {
            Rule::TsvM => tsv::merge(&mut solver, &mut experts)?,
            Rule::IsoC => iso::merge(&mut solver, &mut experts)?,
            Rule::IsoCts { common_fraction } => iso::merge_with_tasks(&mut solver, &mut experts, common_fraction)?,
        }
    };
    if !experts::is_finite(&tau.values) {
        return Err(Error::input("the merged task vector is beyond the range of f32"));
    }
    Ok(Decomposed { tau: tau.values, route: solver.route() })
}

/// What [`merge`] takes at most, with one expert at a time.
pub fn working_bytes(rule: Rule, (rows, cols): (usize, usize), experts: usize) -> Working {
    let (all, side) = ((rows as u64) * (cols as u64), rows.min(cols) as u64);
    let (square, experts) = (side * side, experts as u64);
    // A Gram matrix, its vectors twice and what computes them, or inverses of poles; the matrix in f64 and what comes out.
    let step = 28 * all + 72 * square;
    let held = match rule {
        Rule::IsoC => 12 * all,
        // Directions of all experts on both sides; the sum, and one expert's.
        Rule::TsvM => 16 * all + 8 * experts,
        Rule::IsoCts { .. } => 24 * all,
    };
    Working {
        host: step + held,
        device: Device::polar_bytes(rows, cols).max(subspace::bytes(rows, cols, side as usize / 4)),
    }
}
