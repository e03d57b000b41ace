//! `magic diff`.

use std::process::ExitCode;
use std::sync::Arc;

use magic_merge::device::{self, Wanted};
use magic_merge::diff::{self, Alone, Measures, Selection, TensorDiff};
use magic_merge::lora::models::shown_as;
use magic_merge::progress::Progress;
use magic_merge::{Result, diff::Diff as Found};

use super::args::{Diff, Global};
use super::interrupt;
use super::output::Printer;
use super::parts::groups;
use super::progress::{Bar, Total};
use super::summary::cell;
use super::tables::{Column, table};
use super::text::{count, harmless, number, percent, plural, shape};

/// Tensors that are listed without `--all`.
const SHOWN: usize = 20;

/// Compares, and prints what differs; the code is 1 if that is asked for and anything does.
pub fn run(args: &Diff, global: &Global, printer: &Printer) -> Result<ExitCode> {
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let [a, b] = [&args.a, &args.b].map(|path| shown_as(path, args.base.as_deref()));
    let (a, b) = (a?, b?);
    printer.warnings(&[a.notes(), b.notes()].concat());
    let selection = Selection { include: args.include.clone(), exclude: args.exclude.clone() };
    let memory = device::open(&Wanted { device: "cpu".into(), ..global.wanted() })?.memory;
    let bytes = a.tensors().iter().chain(b.tensors()).map(|tensor| tensor.bytes).sum();
    let bar = Bar::start(global, &progress, Total { tensors: 0, bytes });
    let found = diff::diff([&a, &b], &selection, &memory, &progress);
    drop(bar);
    let found = found?;
    if printer.json() {
        printer.document(&found)?;
    } else {
        printer.summary(&text(&found, args.all))?;
    }
    Ok(if args.exit_code && !found.same { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn text(found: &Found, all: bool) -> String {
    let mut text = format!("{}\nA  {}\nB  {}\n", summary(found), harmless(&found.a), harmless(&found.b));
    let mut order: Vec<&TensorDiff> = found.tensors.iter().filter(|tensor| all || !tensor.same).collect();
    order.sort_by(|a, b| b.weight().total_cmp(&a.weight()).then_with(|| a.same.cmp(&b.same)));
    let unlike: Vec<&TensorDiff> = order.iter().copied().filter(|tensor| tensor.measures.is_none()).collect();
    let measured = &order[unlike.len()..];
    text += &list(&unlike, all, "cannot be compared", |tensor| {
        let [a, b] = [0, 1].map(|side| format!("{} {}", tensor.dtypes[side], shape(&tensor.shapes[side])));
        format!("{}: {a} in A, {b} in B", tensor.name)
    });
    for (side, alone) in [("A", &found.only_a), ("B", &found.only_b)] {
        let alone: Vec<&Alone> = alone.iter().collect();
        text += &list(&alone, all, &format!("in {side} alone"), |tensor| {
            format!("{}: {} {}", tensor.name, tensor.dtype, shape(&tensor.shape))
        });
    }
    if measured.is_empty() {
        return text;
    }
    let rows = groups(&found.tensors, |tensor| &tensor.name).into_iter().map(|(name, tensors)| part(name, &tensors));
    let whole = part("all".into(), &found.tensors.iter().collect::<Vec<_>>());
    if !found.same {
        text += &format!("\n{}", table(&PARTS, rows.chain([whole])));
    }
    let shown = if all { measured.len() } else { measured.len().min(SHOWN) };
    text += &format!("\n{}", table(&COLUMNS, measured[..shown].iter().map(|tensor| row(tensor))));
    if shown < measured.len() {
        text += &format!("… and {} that differ less; --all shows all\n", measured.len() - shown);
    }
    text
}

/// The first line.
fn summary(found: &Found) -> String {
    let total = found.tensors.len();
    let unlike = found.tensors.iter().filter(|tensor| tensor.measures.is_none()).count();
    let same = found.tensors.iter().filter(|tensor| tensor.same).count();
    if found.same {
        return format!("the same: {}, bit for bit", plural(total, "tensor"));
    }
    let Measures { elements, changed, not_finite, relative, cosine, .. } = found.total;
    let mut text = match total {
        0 => "no tensor in common".to_owned(),
        _ => format!("{}: {same} the same, {} changed", plural(total, "tensor"), total - same - unlike),
    };
    for (count, what) in
        [(unlike, "of another shape or type"), (found.only_a.len(), "in A alone"), (found.only_b.len(), "in B alone")]
    {
        text += &if count > 0 { format!(", {count} {what}") } else { String::new() };
    }
    if unlike == total {
        return text;
    }
    text += &format!("\n{} of {} elements changed", percent(changed, elements), self::count(elements));
    if let Some(relative) = relative {
        text += &format!("; ‖A−B‖/‖A‖ {}, cosine {}", number(relative), cosine.map_or("–".into(), angle));
    }
    text + &if not_finite > 0 { format!("; {not_finite} NaN or infinite") } else { String::new() }
}

/// Lines under a heading, if there are any.
fn list<T>(items: &[&T], all: bool, what: &str, line: impl Fn(&T) -> String) -> String {
    let shown = if all { items.len() } else { items.len().min(SHOWN) };
    let mut text = if items.is_empty() { String::new() } else { format!("\n{what}:\n") };
    items[..shown].iter().for_each(|item| text += &format!("  {}\n", line(item)));
    if shown < items.len() {
        text += &format!("  … and {} more; --all shows all\n", items.len() - shown);
    }
    text
}

const PARTS: [Column<'_>; 5] = [
    Column::Left("part"),
    Column::Right("tensors"),
    Column::Right("changed"),
    Column::Right("‖A−B‖/‖A‖"),
    Column::Right("cosine"),
];

/// Several tensors as one.
fn part(name: String, tensors: &[&TensorDiff]) -> Vec<String> {
    let measures = Measures::together(tensors.iter().filter_map(|tensor| tensor.measures.as_ref()));
    [vec![name, tensors.len().to_string()], cells(&measures)].concat()
}

const COLUMNS: [Column<'_>; 6] = [
    Column::Left("tensor"),
    Column::Right("changed"),
    Column::Right("‖A−B‖/‖A‖"),
    Column::Right("cosine"),
    Column::Right("max |A−B|"),
    Column::Left("at"),
];

fn row(tensor: &TensorDiff) -> Vec<String> {
    let largest = tensor.largest.as_ref();
    let at = |index: &[u64]| index.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let place =
        [cell(largest.map(|largest| largest.difference)), largest.map_or(String::new(), |largest| at(&largest.index))];
    let measures = tensor.measures.as_ref().map_or_else(Vec::new, cells);
    [vec![tensor.name.clone()], measures, place.into()].concat()
}

/// Changed part, distance and cosine.
fn cells(measures: &Measures) -> Vec<String> {
    let changed = percent(measures.changed, measures.elements);
    vec![changed, cell(measures.relative), measures.cosine.map_or("–".into(), angle)]
}

/// A cosine, whose digits that count come late.
fn angle(cosine: f64) -> String {
    format!("{cosine:.6}")
}
