//! The tensors with which a merge did the most, or the least.

use super::document::{Document, Tensor};
use super::table::{Cell, Group, groups};
use crate::figures::{count, number, plural};

/// Tensors of each kind.
const MOST: usize = 5;
/// Merges of no more tensors are shown whole.
const FEW: usize = 12;

/// A kind of surprise: its name, what decides, and whether the largest come first.
type Kind = (&'static str, fn(&Tensor) -> f64, bool);

/// The table.
pub fn section(document: &Document) -> String {
    let calibrated = document.is_calibrated();
    let mut tensors: Vec<&Tensor> = document.merged().collect();
    let left = small(&mut tensors);
    if tensors.is_empty() {
        return String::new();
    }
    let mut kinds: Vec<Kind> = vec![
        ("Shortest merge, compared with the experts", Tensor::ratio, false),
        ("Longest merge, compared with the experts", Tensor::ratio, true),
        ("Farthest from one of the experts’ directions", Tensor::least_cosine, false),
    ];
    if calibrated {
        let xi = |tensor: &Tensor| tensor.xi.map_or(f64::NAN, |xi| xi.mean);
        let largest = |tensor: &Tensor| tensor.xi.filter(|xi| xi.min < xi.max).map_or(f64::NAN, |xi| xi.max);
        kinds.splice(
            0..0,
            [
                ("Largest mean ξ", xi as fn(&Tensor) -> f64, true),
                ("Smallest mean ξ", xi, false),
                ("Largest ξ of a row", largest, true),
            ],
        );
    }
    let mut columns = vec!["tensor"];
    if calibrated {
        columns.extend(["#mean ξ", "#ξ of its rows"]);
    }
    columns.push("#merged ÷ experts");
    columns.extend(calibrated.then_some("#calibrated ÷ experts"));
    columns.extend(["#least cosine", "#‖τ‖ experts", "#elements"]);
    let row = |tensor: &&Tensor| {
        let mut cells = vec![Cell::Name(tensor.name.clone())];
        if calibrated {
            cells.push(Cell::number(tensor.xi.map_or(f64::NAN, |xi| xi.mean)));
            cells.push(Cell::Number(match tensor.xi {
                Some(xi) if xi.min < xi.max => format!("{} – {}", number(xi.min), number(xi.max)),
                _ => "–".into(),
            }));
        }
        cells.push(Cell::number(tensor.ratio()));
        cells.extend(calibrated.then(|| Cell::number(tensor.calibrated / tensor.expert())));
        cells.extend([Cell::number(tensor.least_cosine()), Cell::number(tensor.expert())]);
        cells.push(Cell::Number(count(tensor.elements)));
        cells.into()
    };
    let (heading, found) = if tensors.len() <= FEW {
        let group = Group { name: String::new(), rows: tensors.iter().map(row).collect() };
        (if left.is_empty() { "Every tensor" } else { "Every matrix" }, vec![group])
    } else {
        let group = |(name, of, largest): Kind| {
            let mut order: Vec<&Tensor> = tensors.iter().copied().filter(|tensor| !of(tensor).is_nan()).collect();
            // Where all are alike, none stands out.
            if order.iter().all(|tensor| of(tensor) == of(order[0])) {
                order.clear();
            }
            order.sort_by(|a, b| if largest { of(b).total_cmp(&of(a)) } else { of(a).total_cmp(&of(b)) });
            Group { name: name.into(), rows: order.iter().take(MOST).map(row).collect() }
        };
        ("What stands out", kinds.into_iter().map(group).filter(|group| !group.rows.is_empty()).collect())
    };
    format!("<section><h2>{heading}</h2>\n{}{left}</section>\n", groups(heading, &columns, found))
}

/// Takes vectors out of what is ranked, which they would fill by chance, and says so; not where all can be shown or nothing
/// else is there.
fn small(tensors: &mut Vec<&Tensor>) -> String {
    let all = tensors.len();
    let matrices: Vec<&Tensor> = tensors.iter().copied().filter(|tensor| tensor.is_matrix()).collect();
    if all <= FEW || matrices.is_empty() || matrices.len() == all {
        return String::new();
    }
    let sum = |tensors: &[&Tensor]| tensors.iter().map(|tensor| tensor.elements).fold(0, u64::saturating_add);
    let part = 100.0 * (1.0 - sum(&matrices) as f64 / sum(tensors).max(1) as f64);
    *tensors = matrices;
    let what = plural(all - tensors.len(), "vector");
    format!(
        "<p class=\"note\">Matrices only: {what} (biases, norms), {part:.2} % of the parameters, are left out.</p>\n"
    )
}
