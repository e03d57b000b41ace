//! Combination: how the task vectors of one tensor become the merged one.

use crate::error::Result;
use crate::kernels::{combine, elect, norms, widen};
use crate::methods::{Combine, Settings};
use crate::recording::{Recording, Size};
use crate::stack::Stack;
use crate::stream::Stream;
use crate::totals::totals;

/// Below this a sum of weights counts as zero, and weights are left as they are (mergekit's bound).
const ZERO_SUM: f64 = 1e-8;

/// Above this cosine slerp is linear interpolation (mergekit's bound).
const NEARLY_PARALLEL: f64 = 0.9995;

/// A combination with all numbers known.
#[derive(Clone, Debug)]
pub enum Combination {
    /// Σ w_k τ_k + base_weight · θ_0.
    Sum {
        /// One an expert.
        weights: Vec<f32>,
        /// Share of the base in the merged task vector: zero wherever the weights of all models sum to one.
        base_weight: f32,
    },
    /// Sign election and disjoint merge.
    Elect {
        /// One an expert.
        weights: Vec<f32>,
        /// Scale of the result.
        scale: f32,
        /// Division by the weights that took part.
        normalize: bool,
    },
}

impl Combination {
    /// The combination of one tensor. Slerp reads the tensor once for the angle.
    pub fn new(stream: &Stream<'_>, rule: Combine, settings: &Settings) -> Result<Self> {
        let sum: f64 = settings.weights.iter().sum();
        let divided = settings.normalize && sum.abs() >= ZERO_SUM;
        let divisor = if divided { sum } else { 1.0 };
        let scaled = |scale: f64| settings.weights.iter().map(|w| (w * scale / divisor) as f32).collect();
        Ok(match rule {
            Combine::TaskVectors => Self::Sum { weights: scaled(settings.lambda), base_weight: 0.0 },
            Combine::Models => {
                Self::Sum { weights: scaled(1.0), base_weight: if divided { 0.0 } else { (sum - 1.0) as f32 } }
            }
            Combine::Elect => Self::Elect {
                weights: settings.weights.iter().map(|&w| w as f32).collect(),
                scale: settings.lambda as f32,
                normalize: settings.normalize,
            },
            Combine::Slerp => {
                let (base, model) = slerp_weights(cosine(stream)?, settings.t);
                let base_weight = base + model - 1.0;
                Self::Sum { weights: vec![model as f32], base_weight: base_weight as f32 }
            }
            // The model is its own reference: its task vector is zero.
            Combine::Scale => Self::Sum { weights: vec![0.0], base_weight: (settings.scale - 1.0) as f32 },
        })
    }

    /// Appends `stack.tau[last]` = the merged task vector.
    pub fn record(&self, list: &mut Recording, stack: &Stack) {
        match self {
            Self::Sum { weights, base_weight } => {
                let weights = list.floats("weights", weights);
                combine::record(list, stack.base, weights, *base_weight, stack.tau);
            }
            Self::Elect { weights, scale, normalize } => {
                let weights = list.floats("weights", weights);
                elect::record(list, weights, *scale, *normalize, stack.tau);
            }
        }
    }
}

/// Weights of both ends at `t`; they sum to exactly one where the interpolation is linear.
fn slerp_weights(cosine: f64, t: f64) -> (f64, f64) {
    if cosine.abs() > NEARLY_PARALLEL {
        return (1.0 - t, t);
    }
    let angle = cosine.acos();
    (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
}

/// Cosine between the base and the only expert, whole tensors; zero if either is zero.
fn cosine(stream: &Stream<'_>) -> Result<f64> {
    let mut list = Recording::new(2);
    let tensor = stream.tensor;
    let tau = list.scratch("tau", Size::Planes(2));
    for i in 0..2 {
        let model = list.input("model", i, tensor.sources[i].dtype);
        widen::record(&mut list, model, tau, i as u32);
    }
    let stats = list.result("stats", norms::size(2));
    norms::record(&mut list, tau, stats);
    let planes = &totals(stream, &list)?[0];
    let (base, model, dot) = (planes[0].square, planes[1].square, planes[0].dot);
    Ok(if base > 0.0 && model > 0.0 { (dot / (base.sqrt() * model.sqrt())).clamp(-1.0, 1.0) } else { 0.0 })
}
