//! Along the depth of the network: norms, factors and cosines of its layers, a chart for each part.

use super::chart::{Chart, Point, STYLES, Series, legend};
use super::document::{Document, Tensor};
use super::layers::{Layers, Stack, Sums, stacks};
use super::scale::Scale;
use crate::figures::{number, plural};
use crate::part::Part;

/// The sections, one after another.
pub fn sections(document: &Document) -> String {
    let merged = document.tensors.iter().filter(|tensor| !tensor.experts.is_empty());
    let (stacks, outside) = stacks(merged, |tensor: &Tensor| &tensor.name);
    if stacks.is_empty() {
        return "<section><h2>Along the depth</h2>\n<p class=\"note\">No layers follow each other, as far as the names of tensors tell.</p>\
                </section>\n"
            .into();
    }
    let calibrated = document.is_calibrated();
    let mut names = vec![(0, "experts, mean"), (1, "merge")];
    if calibrated {
        names.push((2, "merge, calibrated"));
    }
    let mut text = format!(
        "<section><h2>Length along the depth</h2>\n<p>How far fine-tuning moved each layer, and how far the merge moves it: \
         ‖τ‖, τ being weights minus the base’s. Bars reach from the shortest expert to the longest.{}</p>\n{}",
        match outside {
            0 => String::new(),
            n => format!(" {} outside of these layers are in the table above only.", plural(n, "tensor")),
        },
        legend(names)
    );
    text += &panels(&stacks, Axis { up: "‖τ‖", reference: None, shared: false }, |stack, layers| {
        norms(stack, &sums(layers), calibrated)
    });
    text += "</section>\n";
    if calibrated {
        text += "<section><h2>ξ along the depth</h2>\n<p>What calibration multiplies the merged τ by. A mark is the mean \
                 over the tensors of a layer, its bar reaches from the smallest mean of a tensor to the largest. The line \
                 across is 1: unchanged.</p>\n";
        text += &panels(&stacks, Axis { up: "ξ", reference: Some(1.0), shared: true }, |stack, layers| {
            vec![factors(stack, &sums(layers))]
        });
        text += "</section>\n";
    }
    text + &cosines(document, &stacks)
}

fn cosines(document: &Document, stacks: &[Stack<'_, Tensor>]) -> String {
    let count = document.experts.len();
    let each = count <= STYLES;
    let names: Vec<String> = (1..=count).map(|k| format!("expert {k}")).collect();
    let legend =
        if each { legend(names.iter().enumerate().map(|(k, name)| (k, name.as_str()))) } else { String::new() };
    let what = match each {
        true => "",
        false => " A mark is the mean over the experts, its bar reaches from the least to the largest.",
    };
    format!(
        "<section><h2>Direction along the depth</h2>\n<p>The cosine of each expert’s τ with the merged τ: 1 where the merge \
         goes the expert’s way, 0 where it goes another.{what}</p>\n{legend}{}</section>\n",
        panels(stacks, Axis { up: "cosine", reference: None, shared: true }, |stack, layers| directions(
            stack,
            &sums(layers),
            each
        )),
    )
}

/// A layer, and what its tensors sum up to.
type Layer = (u32, Sums);

/// A value, with the smallest and the largest of what it sums up.
type Spread = (f64, [f64; 2]);

/// A grid of charts for each stack, a chart for each part; `series` makes them of what the layers hold.
pub fn panels<T>(
    stacks: &[Stack<'_, T>],
    axis: Axis,
    series: impl Fn(&Stack<'_, T>, &Layers<Vec<&T>>) -> Vec<Series>,
) -> String {
    let mut text = String::new();
    for stack in stacks {
        if stacks.len() > 1 {
            text += &format!("<h3>{}</h3>\n", super::escape::code(stack.name));
        }
        let part = |(part, layers): (&Part, &Layers<Vec<&T>>)| (*part, series(stack, layers));
        text += &grid(&stack.parts.iter().map(part).collect::<Vec<_>>(), stack.last, axis);
    }
    text
}

/// What the tensors of each layer sum up to.
fn sums(layers: &Layers<Vec<&Tensor>>) -> Vec<Layer> {
    layers.iter().map(|(at, tensors)| (*at, Sums::of(tensors.iter().copied()))).collect()
}

/// The vertical axis of charts that lie side by side.
#[derive(Clone, Copy)]
pub struct Axis {
    /// What is measured.
    pub up: &'static str,
    /// A value that has a line of its own.
    pub reference: Option<f64>,
    /// Whether it is the same for all of them.
    pub shared: bool,
}

/// Charts side by side.
fn grid(parts: &[(Part, Vec<Series>)], last: u32, axis: Axis) -> String {
    let Axis { up, reference, shared } = axis;
    let scale = |parts: &[(Part, Vec<Series>)]| {
        let values = parts.iter().flat_map(|(_, series)| series).flat_map(Series::values);
        Scale::new(values.chain(reference))
    };
    let all = scale(parts);
    let figure = |part: &(Part, Vec<Series>)| {
        let scale = if shared { all } else { scale(std::slice::from_ref(part)) };
        Chart { title: part.0.as_str(), up, along: "layer", last, series: &part.1, reference, scale }.figure()
    };
    // Of parts that are not calibrated there are no factors.
    let parts = parts.iter().filter(|(_, series)| series.iter().any(|series| !series.points.is_empty()));
    format!("<div class=\"charts\">\n{}</div>\n", parts.map(figure).collect::<String>())
}

/// The smallest and the largest of what is finite.
pub fn range(values: &[f64]) -> [f64; 2] {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    [finite().fold(f64::NAN, f64::min), finite().fold(f64::NAN, f64::max)]
}

fn norms(stack: &Stack<'_, Tensor>, layers: &[Layer], calibrated: bool) -> Vec<Series> {
    let series = |style: usize, name: &str, of: &dyn Fn(&Sums) -> Spread| {
        let point = |(at, sums): &Layer| {
            let (value, range) = of(sums);
            let tip = format!("{}, {name}: ‖τ‖ {}", stack.layer(*at), number(value));
            Point { at: *at, value, range, tip }
        };
        Series { style, points: layers.iter().map(point).collect() }
    };
    let mut all = vec![
        series(0, "experts, mean", &|sums| (sums.expert(), range(&sums.experts()))),
        series(1, "merge", &|sums| (sums.merged(), [sums.merged(); 2])),
    ];
    if calibrated {
        all.push(series(2, "merge, calibrated", &|sums| (sums.calibrated(), [sums.calibrated(); 2])));
    }
    all
}

fn factors(stack: &Stack<'_, Tensor>, layers: &[Layer]) -> Series {
    let point = |(at, sums): &Layer| {
        let (value, [low, high]) = (sums.xi()?, sums.xi_range);
        let (mean, from, to) = (number(value), number(low), number(high));
        let tip =
            format!("{}: mean ξ {mean}, {from} to {to} over {}", stack.layer(*at), plural(sums.tensors, "tensor"));
        Some(Point { at: *at, value, range: [low, high], tip })
    };
    Series { style: 2, points: layers.iter().filter_map(point).collect() }
}

fn directions(stack: &Stack<'_, Tensor>, layers: &[Layer], each: bool) -> Vec<Series> {
    let cosines: Vec<(u32, Vec<f64>)> = layers.iter().map(|(at, sums)| (*at, sums.cosines())).collect();
    let series = |style: usize, name: String, of: &dyn Fn(&[f64]) -> Spread| {
        let point = |(at, cosines): &(u32, Vec<f64>)| {
            let (value, range) = of(cosines);
            let tip = format!("{}, {name}: cosine {}", stack.layer(*at), number(value));
            Point { at: *at, value, range, tip }
        };
        Series { style, points: cosines.iter().map(point).collect() }
    };
    if !each {
        let mean = |cosines: &[f64]| (cosines.iter().sum::<f64>() / cosines.len().max(1) as f64, range(cosines));
        return vec![series(1, "mean".into(), &mean)];
    }
    let most = cosines.iter().map(|(_, cosines)| cosines.len()).max().unwrap_or(0).min(STYLES);
    let expert = |k: usize| {
        let of = move |cosines: &[f64]| {
            let cosine = cosines.get(k).copied().unwrap_or(f64::NAN);
            (cosine, [cosine; 2])
        };
        series(k, format!("expert {}", k + 1), &of)
    };
    (0..most).map(expert).collect()
}
