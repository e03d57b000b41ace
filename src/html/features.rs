//! Feature space: how far the merge's features move compared with the experts', before and after, and what `auto` tried.

use super::chart::{Point, Series, legend};
use super::depth::{Axis, panels, range};
use super::document::{Candidate, Document, Features, Leaf};
use super::escape::{code, escape};
use super::layers::stacks;
use super::table::{Cell, Row, table};
use crate::figures::{number, plural};

/// Most sets of samples and most candidates that are shown.
const MOST: usize = 100;

/// What says in a fingerprint that some tensors may only shrink.
const SENSITIVE: &str = "list of sensitive tensors";

/// What was measured; nothing if nothing was.
pub fn section(document: &Document) -> String {
    let Some(features) = &document.features else { return String::new() };
    let data: Vec<String> = features
        .data
        .iter()
        .take(MOST)
        .map(|set| format!("{} ({})", code(&set.name), plural(set.samples as usize, "sample")))
        .collect();
    let stages = stages(document, features);
    let mut text = format!(
        "<section><h2>Features</h2>\n<p>On the samples, the features of an expert move away from the base’s, and those of the \
         merge do too. Shown is how far the merge’s move, in units of that expert’s (norm {}, fit {}): 1 is as far as the \
         experts’, less is what merging loses. A mark is the mean over the operations of a layer and all experts, its bar \
         reaches from the smallest to the largest.</p>\n<p class=\"note\">Samples: {}.</p>\n",
        escape(&features.norm),
        escape(&features.fit),
        data.join(", "),
    );
    if features.leaves.is_empty() {
        text += "<p class=\"note\">No operation was measured.</p>\n";
    } else {
        text += &legend(stages.iter().enumerate().map(|(style, stage)| (style, stage.name)));
        text += &charts(features, &stages);
        text += "<p class=\"note\">Measured: the merge that the factors ξ are for. Computed: that times ξ, on the inputs that the \
                 operation had then; the network is not run again to measure what comes of all factors together.</p>\n";
    }
    text + &candidates(&features.candidates) + "</section>\n"
}

/// A state of the merge.
struct Stage {
    name: &'static str,
    /// Movement of each expert's features in units of the merge's, as it was measured.
    ratios: fn(&Leaf) -> &[f64],
    /// What the merge's is multiplied by since: `factor[0] + factor[1] · ξ`.
    factor: [f64; 2],
}

impl Stage {
    /// Movement of the merge's features in units of each expert's.
    fn of<'a>(&self, leaf: &'a Leaf) -> impl Iterator<Item = f64> + use<'a> {
        let factor = self.factor[0] + self.factor[1] * leaf.xi;
        (self.ratios)(leaf).iter().map(move |ratio| factor / ratio)
    }
}

fn stages(document: &Document, features: &Features) -> Vec<Stage> {
    let chosen = features.candidates.iter().find(|candidate| candidate.chosen);
    let space = chosen.map_or(document.calibrate.as_str(), |candidate| candidate.space.as_str());
    let weighed = matches!(space, "wsc" | "dsc");
    let measured = |name, ratios| Stage { name, ratios, factor: [1.0, 0.0] };
    let mut stages = Vec::new();
    if features.leaves.iter().any(|leaf| !leaf.uncalibrated.is_empty()) {
        stages.push(measured("merge, measured", |leaf| &leaf.uncalibrated));
    }
    let name = if weighed { "after weight space, measured" } else { "merge, measured" };
    stages.push(measured(name, |leaf| &leaf.experts));
    let factor = match chosen {
        None => Some([0.0, 1.0]),
        Some(&Candidate { strength, scale, .. }) => match space {
            "none" | "wsc" if scale == 1.0 && strength == 1.0 => None,
            // Half of a calibration in weight space is no multiple of what was measured.
            "wsc" | "dsc" if strength != 1.0 => None,
            // Sensitive tensors take no part in what lengthens.
            _ if scale > 1.0 && document.fingerprint.contains_key(SENSITIVE) => None,
            _ => Some([scale * (1.0 - strength), scale * strength]),
        },
    };
    stages.extend(factor.map(|factor| Stage {
        name: "after all factors, computed",
        ratios: |leaf| &leaf.experts,
        factor,
    }));
    stages
}

fn charts(features: &Features, stages: &[Stage]) -> String {
    let (stacks, _) = stacks(features.leaves.iter(), |leaf: &Leaf| &leaf.leaf);
    let axis = Axis { up: "merge ÷ expert", reference: Some(1.0), shared: true };
    panels(&stacks, axis, |stack, layers| {
        let series = |(style, stage): (usize, &Stage)| {
            let point = |(at, leaves): (&u32, &Vec<&Leaf>)| {
                let values: Vec<f64> = leaves.iter().flat_map(|leaf| stage.of(leaf)).collect();
                let (value, range) = (values.iter().sum::<f64>() / values.len().max(1) as f64, range(&values));
                let [mean, low, high] = [value, range[0], range[1]].map(number);
                let tip = format!("{}, {}: {mean}, {low} to {high}", stack.layer(*at), stage.name);
                Point { at: *at, value, range, tip }
            };
            Series { style, points: layers.iter().map(point).collect() }
        };
        stages.iter().enumerate().map(series).collect()
    })
}

fn candidates(candidates: &[Candidate]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let most = candidates.iter().map(|candidate| candidate.distance).filter(|x| x.is_finite()).fold(0.0, f64::max);
    let logits = candidates.iter().any(|candidate| candidate.logits.is_some());
    let mut columns = vec!["candidate", "#distance from the experts", "#hidden state"];
    columns.extend(logits.then_some("#logits"));
    let row = |candidate: &Candidate| {
        let taken = if candidate.chosen { " ← taken" } else { "" };
        let mut cells = vec![
            Cell::Text(format!("{}{taken}", candidate.name)),
            Cell::Bar(number(candidate.distance), candidate.distance / most),
            Cell::number(candidate.hidden),
        ];
        cells.extend(logits.then(|| Cell::number(candidate.logits.unwrap_or(f64::NAN))));
        Row { cells, marked: candidate.chosen }
    };
    format!(
        "<h3>What <code>auto</code> tried</h3>\n<p>Mean relative distance of the merge’s results from the experts’ own, on \
         unlabelled samples. The nearest is taken.</p>\n{}",
        table("candidates", &columns, candidates.iter().take(MOST).map(row).collect())
    )
}
