//! What a merge did to the task vectors, by part of the network.

use std::path::Path;

use magic_merge::calibrate::feature::CandidateReport;
use magic_merge::fast_gemm::FastReport;
use magic_merge::part::Part;
use magic_merge::report::{Report, TensorReport};

use super::tables::{Column, table};
use super::text::{bytes, number, plural};

/// Norms of task vectors over several tensors together.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// Tensors that were merged.
    pub tensors: usize,
    /// Mean over the experts of their ‖τ‖.
    pub experts: f64,
    /// ‖τ‖ of the merge.
    pub merged: f64,
    /// The same after calibration.
    pub calibrated: f64,
    /// Mean over the calibrated tensors of their mean ξ.
    pub xi: Option<f64>,
}

impl Norms {
    /// Over the merged ones among `tensors`.
    pub fn of<'a>(tensors: impl IntoIterator<Item = &'a TensorReport>) -> Self {
        let tensors: Vec<_> = tensors.into_iter().filter(|tensor| !tensor.experts.is_empty()).collect();
        let norm = |of: &dyn Fn(&TensorReport) -> f64| tensors.iter().map(|t| of(t).powi(2)).sum::<f64>().sqrt();
        let experts = tensors.first().map_or(0, |tensor| tensor.experts.len());
        let xi: Vec<f64> = tensors.iter().filter_map(|tensor| Some(tensor.xi?.mean)).collect();
        Self {
            tensors: tensors.len(),
            experts: (0..experts).map(|k| norm(&|t| t.experts[k])).sum::<f64>() / experts.max(1) as f64,
            merged: norm(&|t| t.merged),
            calibrated: norm(&|t| t.calibrated),
            xi: (!xi.is_empty()).then(|| xi.iter().sum::<f64>() / xi.len() as f64),
        }
    }

    /// ‖τ‖ of the merge in units of the experts' mean, unless that is zero.
    pub fn ratio(&self) -> Option<f64> {
        (self.experts != 0.0).then(|| self.merged / self.experts)
    }

    /// The same after calibration.
    pub fn calibrated_ratio(&self) -> Option<f64> {
        (self.experts != 0.0).then(|| self.calibrated / self.experts)
    }
}

/// What is said at the end of a merge into `out`.
pub fn text(report: &Report, out: &Path) -> String {
    // Without a base, the differences are from the first model, and say little.
    let norms = if report.base.is_some() || report.lora.is_some() { norms(report) + "\n" } else { String::new() };
    let fast = report.features.as_ref().and_then(|features| features.fast_gemm.as_ref());
    candidates(report) + &norms + &adapter(report) + &fast_gemm(fast) + &line(report, out)
}

/// The table of norms.
fn norms(report: &Report) -> String {
    let mut columns = vec![
        Column::Left(""),
        Column::Right("tensors"),
        Column::Right("‖τ‖ experts"),
        Column::Right("merged"),
        Column::Right("ratio"),
    ];
    let calibrated = report.tensors.iter().any(|tensor| tensor.xi.is_some());
    if calibrated {
        columns.extend([Column::Right("calibrated"), Column::Right("ratio"), Column::Right("mean ξ")]);
    }
    let row = |name: &str, norms: &Norms| {
        let mut row = vec![name.to_owned(), norms.tensors.to_string()];
        row.extend([Some(norms.experts), Some(norms.merged), norms.ratio()].map(cell));
        if calibrated {
            row.extend([Some(norms.calibrated), norms.calibrated_ratio(), norms.xi].map(cell));
        }
        row
    };
    let groups = Part::ALL
        .map(|part| (part.as_str(), Norms::of(report.tensors.iter().filter(|tensor| Part::of(&tensor.name) == part))));
    let mut rows: Vec<_> =
        groups.iter().filter(|(_, norms)| norms.tensors > 0).map(|(name, norms)| row(name, norms)).collect();
    rows.push(row("all", &Norms::of(&report.tensors)));
    table(&columns, rows)
}

/// What `auto` tried, if it did: the nearest first.
fn candidates(report: &Report) -> String {
    let Some(features) = report.features.as_ref().filter(|features| !features.candidates.is_empty()) else {
        return String::new();
    };
    let columns = [Column::Left("candidate"), Column::Right("distance from the experts"), Column::Left("")];
    let row = |candidate: &CandidateReport| {
        let chosen = if candidate.chosen { "← taken" } else { "" };
        vec![candidate.name.clone(), number(candidate.distance), chosen.to_owned()]
    };
    table(&columns, features.candidates.iter().map(row)) + "\n"
}

/// What an adapter leaves out of the merge.
fn adapter(report: &Report) -> String {
    let Some(lora) = &report.lora else { return String::new() };
    let (count, error) = (plural(lora.tensors, "tensor"), number(lora.error));
    let worst = format!("at worst {} in {}", number(lora.worst_error), lora.worst);
    format!("adapter of {count}, rank {} at most: ‖ΔW − BA‖ / ‖ΔW‖ is {error} overall, {worst}\n", lora.rank)
}

/// What products by cooperative matrices erred by, if any were compared.
pub fn fast_gemm(report: Option<&FastReport>) -> String {
    let Some(FastReport { side, products, error, worst_error, worst }) = report else { return String::new() };
    let (count, error, worst_error) = (plural(*products, "product"), number(*error), number(*worst_error));
    let what = format!("{count} by matrices of {side} × {side} in f16, summed in f32");
    format!("{what}: ‖fast − f32‖ / ‖f32‖ is {error} overall, at worst {worst_error} in {worst}\n")
}

/// A number that there may not be.
pub fn cell(x: Option<f64>) -> String {
    x.map_or("–".to_owned(), number)
}

/// The last lines of a merge: what was done, and the page about it.
fn line(report: &Report, out: &Path) -> String {
    let moved = report.bytes.read + report.bytes.written;
    let kept = if report.kept > 0 { format!(" ({} of them by an earlier run)", report.kept) } else { String::new() };
    format!(
        "{}{kept}, {} read and {} written in {:.2} s ({:.2} GB/s) on {}: {}\na page about it: {}\n",
        plural(report.tensors.len(), "tensor"),
        bytes(report.bytes.read),
        bytes(report.bytes.written),
        report.seconds,
        moved as f64 / 1e9 / report.seconds.max(1e-9),
        report.device,
        out.display(),
        out.join("report.html").display(),
    )
}
