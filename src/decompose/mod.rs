//! stub
use crate::error::Result;
use crate::executor::Executor;
/// How a decomposition merges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Task Singular Vectors.
    TsvM,
    /// Isotropic merging.
    IsoC,
    /// Isotropic merging in common and task-specific subspaces.
    IsoCts {
        /// Share of the common space.
        common_fraction: f64,
    },
}
/// Route.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub enum Route {
    /// p
    Products,
    /// h
    Host(String),
}
/// D.
pub struct Decomposed {
    /// t
    pub tau: Vec<f32>,
    /// r
    pub route: Route,
}
/// m
pub fn merge(
    _rule: Rule,
    _executor: &Executor,
    _budget: u64,
    _shape: (usize, usize),
    _experts: usize,
    _expert: &mut dyn FnMut(usize) -> Result<Vec<f32>>,
) -> Result<Decomposed> {
    unimplemented!()
}
/// w
pub fn working_bytes(_rule: Rule, _shape: (usize, usize), _experts: usize) -> u64 {
    0
}
