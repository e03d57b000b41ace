//! The experts beside each other: where they have learned the same, and where they contradict each other.

use super::chart::{Point, Series};
use super::depth::{Axis, panels, range};
use super::document::{Document, Tensor};
use super::layers::{Layers, Stack, stacks};
use super::table::{Cell, Row, table};
use crate::angles::{MOST, pairs};
use crate::figures::{count, plural};

/// Tensors that are named.
const SHOWN: usize = 8;
/// Most experts whose columns have room for more than a number.
const FEW: usize = 6;

/// The cosine of every pair of `experts` over `tensors` as one: the sample's in each tensor, by its whole lengths. Tensors
/// in which it is not known are left out of that pair's.
fn cosines<'a>(experts: usize, tensors: impl Iterator<Item = &'a Tensor> + Clone) -> Vec<f64> {
    let pair = |(at, (i, j)): (usize, (usize, usize))| {
        let (mut dot, mut squares) = (0.0, [0.0, 0.0]);
        for tensor in tensors.clone() {
            let (Some(&a), Some(&b)) = (tensor.experts.get(i), tensor.experts.get(j)) else { continue };
            let known = tensor.between.as_ref().and_then(|between| between.cosines.get(at)).copied();
            let product = match known {
                // Where either has learned nothing, the other's length counts.
                _ if a * b == 0.0 => 0.0,
                Some(cosine) if (a * b * cosine).is_finite() => a * b * cosine,
                _ => continue,
            };
            dot += product;
            squares = [squares[0] + a * a, squares[1] + b * b];
        }
        dot / (squares[0].sqrt() * squares[1].sqrt())
    };
    pairs(experts).enumerate().map(pair).collect()
}

/// Mean of what is finite.
fn mean(cosines: &[f64]) -> f64 {
    let known: Vec<f64> = cosines.iter().copied().filter(|cosine| cosine.is_finite()).collect();
    known.iter().sum::<f64>() / known.len() as f64
}

/// The least cosine of a pair, and the numbers of its experts.
fn least(cosines: &[f64], experts: usize) -> Option<(f64, String)> {
    let known = cosines.iter().copied().zip(pairs(experts)).filter(|(cosine, _)| cosine.is_finite());
    let (cosine, (i, j)) = known.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    Some((cosine, format!("{} and {}", i + 1, j + 1)))
}

/// Whether there are task vectors: differences from the first model are none.
fn is_based(document: &Document) -> bool {
    document.base.is_some() || document.lora.is_some()
}

/// Tensors in which experts were compared with each other.
fn compared(document: &Document) -> impl Iterator<Item = &Tensor> + Clone {
    let shown = is_based(document) && document.experts.len() <= MOST;
    document.tensors.iter().filter(move |tensor| shown && tensor.between.is_some())
}

/// Mean cosine of all pairs of experts, over all tensors; not a number where none was taken.
pub fn overall(document: &Document) -> f64 {
    mean(&cosines(document.experts.len().min(MOST), compared(document)))
}

/// The section; nothing where there are no experts to compare.
pub fn section(document: &Document) -> String {
    let experts = document.experts.len();
    if experts < 2 || !is_based(document) || document.merged().next().is_none() {
        return String::new();
    }
    let heading = "<section><h2>Between the experts</h2>\n";
    if compared(document).next().is_none() {
        let why = match experts > MOST {
            true => format!("More than {MOST} experts are not compared with each other here"),
            false => "This receipt tells nothing of the experts’ cosines with each other".to_owned(),
        };
        return format!(
            "{heading}<p class=\"note\">{why}: <code>magic inspect --base</code> takes them.</p>\n</section>\n"
        );
    }
    let sampled = compared(document).filter_map(|tensor| tensor.between.as_ref()).map(|between| between.elements);
    let (sample, largest) = (sampled.clone().fold(0, u64::saturating_add), sampled.max().unwrap_or(1).max(1));
    let sample = match compared(document).map(|tensor| tensor.elements).fold(0, u64::saturating_add) {
        all if all == sample => "Over all elements.".to_owned(),
        _ => format!(
            "A sample of {} elements, up to {} of each tensor; chance alone gives about ±{:.3} in one of so many. <code>magic \
             inspect --base</code> takes every element.",
            count(sample),
            count(largest),
            1.0 / (largest as f64).sqrt()
        ),
    };
    let (stacks, _) = stacks(compared(document), |tensor: &Tensor| &tensor.name);
    let axis = Axis { up: "cosine", reference: Some(0.0), shared: true };
    let depth = match stacks.is_empty() {
        true => String::new(),
        false => format!(
            "<h3>Along the depth</h3>\n<p class=\"note\">A mark is the mean over all pairs, its bar reaches from the least to \
             the largest; the line across is 0.</p>\n{}",
            panels(&stacks, axis, |stack, layers| vec![line(experts, stack, layers)])
        ),
    };
    format!(
        "{heading}<p>The cosine of each expert’s τ with every other’s: 1 where both have learned the same, 0 where they have \
         learned different things, below 0 where they contradict each other.</p>\n{}<p class=\"note\">{sample}</p>\n\
         {depth}{}</section>\n",
        matrix(&cosines(experts, compared(document)), experts),
        conflicts(document),
    )
}

/// Every expert beside every other.
fn matrix(cosines: &[f64], experts: usize) -> String {
    let long = |k: usize| format!("expert\u{a0}{}", k + 1);
    let short = |k: usize| if experts > FEW { (k + 1).to_string() } else { long(k) };
    let columns: Vec<String> = (0..experts).map(|k| format!("#{}", short(k))).collect();
    let columns: Vec<&str> = [""].into_iter().chain(columns.iter().map(String::as_str)).collect();
    let cell = |i: usize, j: usize| match pairs(experts).position(|pair| pair == (i.min(j), i.max(j))) {
        Some(at) => Cell::Cosine(cosines[at]),
        None => Cell::Number(String::new()),
    };
    let row = |i: usize| [Cell::Text(long(i))].into_iter().chain((0..experts).map(|j| cell(i, j))).collect::<Vec<_>>();
    table("cosines between experts", &columns, (0..experts).map(|i| row(i).into()).collect())
}

/// The mean of all pairs, layer by layer.
fn line(experts: usize, stack: &Stack<'_, Tensor>, layers: &Layers<Vec<&Tensor>>) -> Series {
    let point = |(at, tensors): (&u32, &Vec<&Tensor>)| {
        let cosines = cosines(experts, tensors.iter().copied());
        let value = mean(&cosines);
        let least = least(&cosines, experts).map(|(cosine, pair)| format!(", least {cosine:+.3} of {pair}"));
        let tip = format!("{}: mean cosine {value:+.3}{}", stack.layer(*at), least.unwrap_or_default());
        Point { at: *at, value, range: range(&cosines), tip }
    };
    Series { style: 1, points: layers.iter().map(point).collect() }
}

/// The tensors with the least cosines: matrices, unless there are none.
fn conflicts(document: &Document) -> String {
    let experts = document.experts.len();
    let matrices = compared(document).filter(|tensor| tensor.is_matrix()).count();
    let mut found: Vec<(f64, String, &Tensor)> = compared(document)
        .filter(|tensor| matrices == 0 || tensor.is_matrix())
        .filter_map(|tensor| {
            let (cosine, pair) = least(&tensor.between.as_ref()?.cosines, experts)?;
            Some((cosine, pair, tensor))
        })
        .collect();
    if found.is_empty() {
        return String::new();
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let row = |(cosine, pair, tensor): (f64, String, &Tensor)| -> Row {
        let of = tensor.between.as_ref().map_or(0, |between| between.elements);
        let [of, elements] = [of, tensor.elements].map(|n| Cell::Number(count(n)));
        let cells = [Cell::Name(tensor.name.clone()), Cell::Cosine(cosine), Cell::Number(pair)];
        cells.into_iter().chain([Cell::number(tensor.expert()), of, elements]).collect::<Vec<_>>().into()
    };
    let left = compared(document).count() - matrices;
    let note = match (matrices, left) {
        (0, _) | (_, 0) => String::new(),
        (_, left) => format!("<p class=\"note\">{} (biases, norms) not looked at here.</p>\n", plural(left, "vector")),
    };
    let columns = ["tensor", "#least cosine", "#of experts", "#‖τ‖ experts", "#sample", "#elements"];
    let rows = found.into_iter().take(SHOWN).map(row).collect();
    format!("<h3>Where they conflict most</h3>\n{}{note}", table("conflicts", &columns, rows))
}

#[cfg(test)]
mod tests {
    use super::super::document::Between;
    use super::*;

    #[test]
    fn cosines_of_tensors_together_are_those_of_one_long_vector() {
        let tensor = |experts: [f64; 2], cosine: f64| Tensor {
            experts: experts.into(),
            between: Some(Between { elements: 1, cosines: vec![cosine] }),
            ..Tensor::default()
        };
        let of = |tensors: &[Tensor]| cosines(2, tensors.iter())[0];
        assert_eq!(of(&[tensor([3.0, 3.0], 1.0), tensor([4.0, 4.0], 0.0)]), 9.0 / 25.0);
        // Nothing learned is known; what is not known says nothing.
        assert_eq!(of(&[tensor([3.0, 3.0], 1.0), tensor([0.0, 4.0], f64::NAN)]), 3.0 / 5.0);
        assert_eq!(of(&[tensor([3.0, 3.0], 0.5), tensor([7.0, 4.0], f64::NAN)]), 0.5);
        assert!(of(&[]).is_nan() && mean(&[f64::NAN]).is_nan());
        assert_eq!(least(&[0.5, f64::NAN, -0.25], 3), Some((-0.25, "2 and 3".to_owned())));
    }
}
