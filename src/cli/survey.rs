//! `magic inspect --base`: what experts have learned, and where they conflict.

use std::sync::Arc;

use magic_merge::Result;
use magic_merge::angles::pairs;
use magic_merge::job::Job;
use magic_merge::progress::Progress;
use magic_merge::recipe::Quick;
use magic_merge::survey::TaskVectors;
use serde::Serialize;

use super::args::{Global, Inspect};
use super::interrupt;
use super::output::Printer;
use super::parts::groups;
use super::progress::{Bar, Total};
use super::summary::cell;
use super::tables::{Column, table};
use super::text::{count, harmless, plural};

/// Tensors of each list.
const SHOWN: usize = 10;

/// Most experts whose cosines are a table; of more, the extremes are named.
const MATRIX: usize = 6;

/// What was found, as a document has it.
#[derive(Serialize)]
pub struct Survey {
    base: String,
    experts: Vec<String>,
    device: String,
    /// All tensors as one.
    total: Option<TaskVectors>,
    tensors: Vec<TaskVectors>,
}

impl Survey {
    /// Measures the task vectors of `args.paths` over `base`.
    pub fn new(args: &Inspect, base: &str, global: &Global, printer: &Printer) -> Result<Self> {
        let quick = Quick {
            base: Some(base.to_owned()),
            models: args.paths.clone(),
            method: Some("linear".into()),
            calibrate: Some("wsc".into()),
            // What is no number is shown, and is no reason to stop.
            non_finite: Some("propagate".into()),
            exclude: args.exclude.clone(),
            ..Quick::default()
        };
        let progress = Arc::new(Progress::default());
        interrupt::stops(&progress)?;
        let job = Job::new(quick.recipe()?, None, &args.recovery.wanted(global.wanted()))?;
        printer.warnings(&job.plan.warnings);
        let total = Total { tensors: job.plan.tensors.len() as u64, bytes: job.plan.bytes_in() };
        let bar = Bar::start(global, &progress, total);
        let tensors = job.survey(&progress);
        drop(bar);
        let tensors = tensors?;
        Ok(Self {
            base: base.to_owned(),
            experts: args.paths.clone(),
            device: job.opened.name.clone(),
            total: TaskVectors::together("all", &tensors),
            tensors,
        })
    }

    /// At a glance; with `all`, every tensor.
    pub fn text(&self, all: bool) -> String {
        let experts = self.experts.len();
        let head = |total: &TaskVectors| {
            let (tensors, elements) = (plural(self.tensors.len(), "tensor"), count(total.elements));
            format!("{} of {}: {tensors}, {elements} parameters", plural(experts, "expert"), harmless(&self.base))
        };
        let Some(total) = &self.total else { return "no tensor is merged: there are no task vectors\n".into() };
        let mut text = format!("{}\n\n{}", head(total), self.models(total));
        // Of one expert there is nothing to compare.
        let shown = if experts > 1 { MEASURES.len() } else { 1 };
        let parts = groups(&self.tensors, |tensor| &tensor.name);
        let part = |(name, tensors): (String, Vec<&TaskVectors>)| {
            let part = TaskVectors::together(&name, tensors.iter().copied())?;
            Some([vec![name, tensors.len().to_string()], cells(&part, shown)].concat())
        };
        let whole = [vec!["all".to_owned(), self.tensors.len().to_string()], cells(total, shown)].concat();
        let columns = [&[Column::Left("part"), Column::Right("tensors")][..], &MEASURES[..shown]].concat();
        text += &format!("\n{}", table(&columns, parts.into_iter().filter_map(part).chain([whole])));
        if experts > 1 {
            text += "cos: the least of all pairs; left: ‖mean τ‖/‖τ‖; ξ: what WSC gives the mean\n";
        }
        if all {
            return text + &list("all tensors", &self.tensors.iter().collect::<Vec<_>>(), shown);
        }
        // Vectors would fill the lists by chance.
        let matrices = || self.tensors.iter().filter(|tensor| tensor.matrix);
        let ranked = |key: &dyn Fn(&TaskVectors) -> Option<f64>| {
            let mut order: Vec<_> = matrices().filter_map(|tensor| Some((key(tensor)?, tensor))).collect();
            order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            order.into_iter().map(|(_, tensor)| tensor).take(SHOWN).collect::<Vec<_>>()
        };
        if experts > 1 {
            text += &list("matrices that conflict most", &ranked(&|t| Some(t.least_cosine()?.0)), shown);
        }
        text += &list("matrices that changed most", &ranked(&|t| Some(-t.relative()?)), shown);
        let strange = self.tensors.iter().filter(|tensor| tensor.not_finite > 0).count();
        if strange > 0 {
            text += &format!("\n{} with NaN or infinities; --json says which\n", plural(strange, "tensor"));
        }
        text
    }

    /// Every expert, with its cosines to those before it.
    fn models(&self, total: &TaskVectors) -> String {
        let experts = self.experts.len();
        let matrix = (2..=MATRIX).contains(&experts);
        let numbers: Vec<String> = (1..experts).map(|k| format!("cos {k}")).collect();
        let mut columns = vec![Column::Right("#"), Column::Left("expert"), Column::Right("‖τ‖")];
        columns.push(Column::Right("‖τ‖/‖θ‖"));
        columns.extend(numbers.iter().filter(|_| matrix).map(|number| Column::Right(number)));
        let row = |k: usize| {
            let norm = total.norms[k];
            let mut row = vec![(k + 1).to_string(), harmless(&self.experts[k])];
            row.extend([Some(norm), (total.base > 0.0).then(|| norm / total.base)].map(cell));
            let of = pairs(experts).zip(&total.cosines).filter(|((_, j), _)| matrix && *j == k);
            row.extend(of.map(|(_, cosine)| angle(*cosine)));
            row
        };
        let mut text = table(&columns, (0..experts).map(row));
        if experts > MATRIX {
            let mut known: Vec<_> =
                pairs(experts).zip(&total.cosines).filter_map(|(pair, cosine)| Some(((*cosine)?, pair))).collect();
            known.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            for (word, found) in [("least", known.first()), ("largest", known.last())] {
                if let Some((cosine, (i, j))) = found {
                    text += &format!("{word} cosine {}: {} and {}\n", angle(Some(*cosine)), i + 1, j + 1);
                }
            }
        }
        text
    }
}

/// Tensors under a title, if there are any, with the first `shown` measures of each.
fn list(title: &str, tensors: &[&TaskVectors], shown: usize) -> String {
    if tensors.is_empty() {
        return String::new();
    }
    let columns = [&[Column::Left(title)][..], &MEASURES[..shown]].concat();
    format!("\n{}", table(&columns, tensors.iter().map(|t| [vec![t.name.clone()], cells(t, shown)].concat())))
}

const MEASURES: [Column<'_>; 5] =
    [Column::Right("‖τ‖/‖θ‖"), Column::Right("cos"), Column::Right("pair"), Column::Right("left"), Column::Right("ξ")];

fn cells(tensor: &TaskVectors, shown: usize) -> Vec<String> {
    let least = tensor.least_cosine();
    let square = tensor.norms.iter().map(|norm| norm * norm).sum::<f64>() / tensor.norms.len() as f64;
    let mut cells = vec![
        cell(tensor.relative()),
        angle(least.map(|(cosine, _)| cosine)),
        least.map_or("–".into(), |(_, (i, j))| format!("{}·{}", i + 1, j + 1)),
        if square > 0.0 { format!("{:.3}", tensor.mean / square.sqrt()) } else { "–".into() },
        tensor.xi.map_or("–".into(), |xi| format!("{:.3}", xi.mean)),
    ];
    cells.truncate(shown);
    cells
}

fn angle(cosine: Option<f64>) -> String {
    cosine.map_or("–".into(), |cosine| format!("{cosine:+.3}"))
}
