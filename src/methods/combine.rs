//! Combination: how the task vectors of one tensor become the merged one.

use crate::error::Result;
use crate::kernels::blend::{self, Along};
use crate::kernels::{clip, combine, consensus, elect, norms, widen};
use crate::methods::sparsify::Masks;
use crate::methods::{Combine, Settings, Sphere, gram, sphere};
use crate::plan::Tensor;
use crate::recording::Recording;
use crate::stack::Stack;
use crate::stream::Stream;
use crate::totals::totals;

/// Below this a sum of weights counts as zero, and weights are left as they are (mergekit's bound).
const ZERO_SUM: f64 = 1e-8;

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
    /// The same with weights of their own for parts of the tensor.
    Blend {
        /// Those of the experts and the base's, for each part.
        weights: Vec<f32>,
        /// Elements of a part, where parts are runs along rows.
        unit: u32,
        /// What the parts are.
        along: Along,
    },
    /// Sign election and disjoint merge.
    Elect {
        /// One an expert.
        weights: Vec<f32>,
        /// Scale of the result.
        scale: f32,
        /// Division by the weights that took part.
        normalize: bool,
        /// Whether votes count by weight.
        weighted: bool,
    },
    /// λ Σ u_k where enough experts hold a large share.
    Consensus {
        /// One an expert.
        weights: Vec<f32>,
        /// What a share must exceed.
        cut: f32,
        /// How many must.
        votes: u32,
        /// Scale of the result.
        scale: f32,
    },
    /// The only task vector, no entry larger than this.
    Clip(f32),
    /// It was computed from the whole tensor: the stream's last input.
    Whole,
}

impl Combination {
    /// The combination of one tensor. What follows from angles or energies reads the tensor once; what follows from a
    /// decomposition is computed here and given to the stream.
    pub fn new(stream: &Stream<'_>, rule: Combine, masks: &Masks, settings: &Settings, models: bool) -> Result<Self> {
        let sum: f64 = settings.weights.iter().sum();
        let divided = settings.normalize && sum.abs() >= ZERO_SUM;
        let divisor = if divided { sum } else { 1.0 };
        let scaled = |scale: f64| settings.weights.iter().map(|w| (w * scale) as f32).collect();
        let plain = |weights: Vec<f32>| Self::Sum { weights, base_weight: 0.0 };
        let experts = settings.weights.len();
        Ok(match rule {
            Combine::TaskVectors => plain(scaled(settings.lambda / divisor)),
            Combine::Mean => plain(scaled(settings.lambda / experts as f64)),
            Combine::Models => Self::Sum {
                weights: scaled(1.0 / divisor),
                base_weight: if divided { 0.0 } else { (sum - 1.0) as f32 },
            },
            Combine::Elect => Self::Elect {
                weights: scaled(1.0),
                scale: settings.lambda as f32,
                normalize: settings.normalize,
                weighted: true,
            },
            Combine::Energies => Self::Elect {
                weights: energies(stream, masks)?,
                scale: settings.lambda as f32,
                normalize: true,
                weighted: false,
            },
            // A lone expert cannot find a second vote.
            Combine::Consensus => Self::Consensus {
                weights: scaled(1.0),
                cut: settings.votes.0 as f32,
                votes: settings.votes.1.min(experts as u32),
                scale: settings.lambda as f32,
            },
            Combine::Slerp => {
                let weights = single(&sphere::from_base(&gram::whole(stream)?, settings.t));
                Self::Sum { weights: weights[..experts].to_vec(), base_weight: weights[experts] }
            }
            Combine::Sphere(rule) => Self::on_sphere(stream, rule, settings, models)?,
            Combine::Near => Self::Clip(settings.t.max(0.0) as f32),
            // The model is its own reference: its task vector is zero.
            Combine::Scale => Self::Sum { weights: vec![0.0], base_weight: (settings.scale - 1.0) as f32 },
            Combine::Decompose(_) => Self::Whole,
        })
    }

    fn on_sphere(stream: &Stream<'_>, rule: Sphere, settings: &Settings, models: bool) -> Result<Self> {
        let of = |gram: &gram::Gram| single(&sphere::coefficients(rule, gram, settings, models));
        Ok(match parts(rule, settings, stream.tensor) {
            None => {
                let mut weights = of(&gram::whole(stream)?);
                let base_weight = weights.pop().expect("the base has a coefficient");
                Self::Sum { weights, base_weight }
            }
            Some((along, unit)) => {
                let weights = match along {
                    Along::Rows => gram::rows(stream, unit, of)?,
                    Along::Columns => gram::columns(stream, of)?,
                };
                Self::Blend { weights, unit, along }
            }
        })
    }

    /// Appends `stack.tau[last]` = the merged task vector.
    pub fn record(&self, list: &mut Recording, stack: &Stack, tensor: &Tensor) {
        match self {
            Self::Sum { weights, base_weight } => {
                let weights = list.floats("weights", weights);
                combine::record(list, stack.base, weights, *base_weight, stack.tau);
            }
            Self::Blend { weights, unit, along } => {
                let weights = match along {
                    Along::Rows => list.table("weights", tensor.row_len / unit * list.planes, weights),
                    Along::Columns => list.floats("weights", weights),
                };
                blend::record(list, stack.base, weights, stack.tau, *unit, *along);
            }
            Self::Elect { weights, scale, normalize, weighted } => {
                let weights = list.floats("weights", weights);
                elect::record(list, weights, *scale, *normalize, *weighted, stack.tau);
            }
            Self::Consensus { weights, cut, votes, scale } => {
                let weights = list.floats("weights", weights);
                consensus::record(list, weights, *cut, *votes, *scale, stack.tau);
            }
            Self::Clip(limit) => clip::record(list, stack.tau, *limit),
            Self::Whole => {
                let merged = list.input("merged", tensor.sources.len(), crate::checkpoint::Dtype::F32);
                widen::record(list, merged, stack.tau, list.planes - 1);
            }
        }
    }
}

/// What vectors on the sphere are, where they are not whole tensors: runs of elements, or columns.
pub fn parts(rule: Sphere, settings: &Settings, tensor: &Tensor) -> Option<(Along, u32)> {
    let last = tensor.shape.last().copied().filter(|_| tensor.shape.len() > 1)?;
    match rule {
        Sphere::Stock if settings.filter_wise => Some((Along::Rows, tensor.row_len)),
        Sphere::Pair if !settings.flatten && settings.columns => Some((Along::Columns, tensor.row_len)),
        Sphere::Pair if settings.flatten => None,
        // As in PyTorch, a row is what the last dimension runs over.
        Sphere::Pair | Sphere::Rows => Some((Along::Rows, last as u32)),
        Sphere::Stock | Sphere::Several | Sphere::Karcher => None,
    }
}

fn single(coefficients: &[f64]) -> Vec<f32> {
    coefficients.iter().map(|x| *x as f32).collect()
}

/// Each expert's share of the squares that are left of all.
fn energies(stream: &Stream<'_>, masks: &Masks) -> Result<Vec<f32>> {
    let experts = stream.tensor.experts();
    let mut list = Recording::new(experts as u32 + 1);
    let stack = Stack::record(&mut list, stream.tensor, experts);
    masks.record(&mut list, stack.tau);
    clip::record(&mut list, stack.tau, 0.0); // the last plane holds nothing yet
    let stats = list.result("stats", norms::size(list.planes));
    norms::record(&mut list, stack.tau, stats);
    let squares: Vec<f64> = totals(stream, &list)?[0][..experts].iter().map(|plane| plane.square).collect();
    let sum: f64 = squares.iter().sum();
    Ok(squares.iter().map(|square| if sum > 0.0 { (square / sum) as f32 } else { 1.0 / experts as f32 }).collect())
}
