//! What weight-space calibration compares, tensor by tensor.

use crate::kernels::factor::{Bounds, Rule};
use crate::recipe::{Manifold, Norm};

/// How the rows or the whole of one tensor are calibrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A factor for each row, known as soon as the row is merged.
    Rows(Rule),
    /// One factor: mean ‖τ_k‖_p / ‖τ_m‖_p over the whole tensor.
    Tensor(Norm),
    /// One factor: mean σ₁(τ_k) / σ₁(τ_m).
    Spectral,
}

/// The calibration of one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// What is compared.
    pub measure: Measure,
    /// Where ξ may lie.
    pub bounds: Bounds,
}

impl Measure {
    /// The measure of a manifold, for a tensor that it applies to.
    pub fn new(manifold: Manifold, norm: Norm) -> Self {
        match (manifold, norm) {
            (Manifold::Mixed, _) => Self::Rows(Rule::Mixed),
            (Manifold::Sphere, Norm::L1) => Self::Rows(Rule::SphereL1),
            (Manifold::Sphere, Norm::L2) => Self::Rows(Rule::SphereL2),
            (Manifold::Sphere, Norm::Linf) => Self::Rows(Rule::SphereLinf),
            (Manifold::Tensor, norm) => Self::Tensor(norm),
            (Manifold::Spectral, _) => Self::Spectral,
        }
    }

    /// True if the tensor must be seen as [out, everything else].
    pub fn needs_rows(self) -> bool {
        matches!(self, Self::Rows(_) | Self::Spectral)
    }
}
