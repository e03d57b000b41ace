//! What experts have learned, and where they conflict: lengths and angles of their task vectors, and the factors that
//! weight-space calibration would give their mean.

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use crate::angles::pairs;
use crate::checkpoint::Sink;
use crate::device::Wanted;
use crate::error::Result;
use crate::methods::gram::{self, Gram};
use crate::part::is_matrix;
use crate::plan::{Action, Tensor};
use crate::recover;
use crate::report::{Factors, TensorReport};
use crate::stream::{Engine, Stream};

/// A tensor of every expert, or many tensors together.
#[derive(Clone, Debug, Serialize)]
pub struct TaskVectors {
    /// Name of the tensor.
    pub name: String,
    /// Its elements.
    pub elements: u64,
    /// Whether it has rows.
    pub matrix: bool,
    /// ‖θ_0‖.
    pub base: f64,
    /// ‖τ_k‖ of each expert.
    pub norms: Vec<f64>,
    /// Cosines of the experts' task vectors, by pairs: (0,1), (0,2), …, (1,2), …; none where either is zero.
    pub cosines: Vec<Option<f64>>,
    /// ‖Σ τ_k / K‖.
    pub mean: f64,
    /// ξ of weight-space calibration of the mean, if it calibrates this tensor.
    pub xi: Option<Factors>,
    /// Elements of models and mean that are no numbers.
    pub not_finite: u64,
}

impl TaskVectors {
    fn new(tensor: &Tensor, report: &TensorReport, gram: &Gram) -> Self {
        let experts = gram.experts();
        let unit = |k: usize| (0..=experts).map(|i| f64::from(u8::from(i == k))).collect::<Vec<_>>();
        let norms: Vec<f64> = (0..experts).map(|k| gram.length(&unit(k))).collect();
        let mut mean = vec![1.0 / experts as f64; experts];
        mean.push(0.0);
        Self {
            name: report.name.clone(),
            elements: report.elements,
            matrix: is_matrix(&tensor.shape),
            base: gram.length(&unit(experts)),
            cosines: pairs(experts).map(|(i, j)| gram.cosine(i, j)).collect(),
            mean: gram.length(&mean),
            xi: report.xi,
            not_finite: report.nan + report.infinite,
            norms,
        }
    }

    /// Several tensors as one; their ξ are averaged, each tensor's counting once.
    pub fn together<'a>(name: &str, tensors: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let tensors: Vec<&Self> = tensors.into_iter().collect();
        let experts = tensors.first()?.norms.len();
        let length = |of: &dyn Fn(&Self) -> f64| tensors.iter().map(|t| of(t).powi(2)).sum::<f64>().sqrt();
        let norms: Vec<f64> = (0..experts).map(|k| length(&|t| t.norms[k])).collect();
        let cosine = |(pair, (i, j)): (usize, (usize, usize))| {
            let product = |t: &&Self| t.cosines[pair].map_or(0.0, |cosine| cosine * t.norms[i] * t.norms[j]);
            let length = norms[i] * norms[j];
            (length > 0.0).then(|| (tensors.iter().map(product).sum::<f64>() / length).clamp(-1.0, 1.0))
        };
        let factors: Vec<Factors> = tensors.iter().filter_map(|tensor| tensor.xi).collect();
        Some(Self {
            name: name.to_owned(),
            elements: tensors.iter().map(|t| t.elements).sum(),
            matrix: tensors.iter().any(|t| t.matrix),
            base: length(&|t| t.base),
            cosines: pairs(experts).enumerate().map(cosine).collect(),
            mean: length(&|t| t.mean),
            xi: (!factors.is_empty()).then(|| Factors {
                min: factors.iter().map(|xi| xi.min).fold(f64::INFINITY, f64::min),
                mean: factors.iter().map(|xi| xi.mean).sum::<f64>() / factors.len() as f64,
                max: factors.iter().map(|xi| xi.max).fold(0.0, f64::max),
            }),
            not_finite: tensors.iter().map(|t| t.not_finite).sum(),
            norms,
        })
    }

    /// The root of the mean square of ‖τ_k‖, in units of ‖θ_0‖; none where the base is zero.
    pub fn relative(&self) -> Option<f64> {
        let square = self.norms.iter().map(|norm| norm * norm).sum::<f64>() / self.norms.len().max(1) as f64;
        (self.base > 0.0).then(|| square.sqrt() / self.base)
    }

    /// The least of the cosines, and its pair of experts.
    pub fn least_cosine(&self) -> Option<(f64, (usize, usize))> {
        let known =
            self.cosines.iter().zip(pairs(self.norms.len())).filter_map(|(cosine, pair)| Some(((*cosine)?, pair)));
        known.min_by(|(a, _), (b, _)| a.total_cmp(b))
    }
}

/// The task vectors of the tensors that were merged, as `reports` of a mean of all experts tell of them. Reads each once
/// more.
pub(crate) fn survey(
    engine: &Engine<'_>,
    wanted: &Wanted,
    tensors: &[Tensor],
    reports: &[(usize, TensorReport)],
) -> Result<Vec<TaskVectors>> {
    let merged: Vec<_> = reports.iter().filter(|(place, _)| tensors[*place].action == Action::Merge).collect();
    let measure = |(place, report): &&(usize, TensorReport)| {
        engine.progress.check()?;
        let gram = |tensor: &Tensor, engine: &Engine<'_>| gram::whole(&Stream::new(engine, tensor));
        let (gram, _) = recover::tensor(wanted, &tensors[*place], engine, gram)?;
        Ok(TaskVectors::new(&tensors[*place], report, &gram))
    };
    let mut found = merged.par_iter().map(|entry| Ok((entry.0, measure(entry)?))).collect::<Result<Vec<_>>>()?;
    found.sort_by_key(|(place, _)| *place);
    Ok(found.into_iter().map(|(_, vectors)| vectors).collect())
}

/// Takes all tensors, and forgets them.
pub(crate) struct Forget;

impl Sink for Forget {
    fn wants(&self, _: usize) -> bool {
        true
    }

    fn write_at(&self, _: usize, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn complete(&self, _: usize, _: &dyn Fn() -> Value) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(norms: [f64; 2], cosine: f64) -> TaskVectors {
        TaskVectors {
            name: "x".into(),
            elements: 1,
            matrix: false,
            base: 10.0,
            norms: norms.into(),
            cosines: vec![Some(cosine)],
            mean: 0.0,
            xi: None,
            not_finite: 0,
        }
    }

    #[test]
    fn tensors_together_are_one_long_vector() {
        // (3, 0 | 0, 4) and (3, 0 | 4, 0).
        let all = TaskVectors::together("all", &[vectors([3.0, 3.0], 1.0), vectors([4.0, 4.0], 0.0)]).unwrap();
        assert_eq!(all.norms, [5.0, 5.0]);
        assert!((all.cosines[0].unwrap() - 9.0 / 25.0).abs() < 1e-12);
        assert!((all.base - 200f64.sqrt()).abs() < 1e-12);
        assert!(TaskVectors::together("none", []).is_none());
        assert_eq!(pairs(3).collect::<Vec<_>>(), [(0, 1), (0, 2), (1, 2)]);
    }
}
