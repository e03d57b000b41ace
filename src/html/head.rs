//! The top of the page: what was merged and how, what to know of it, and the whole in a few numbers.

use std::collections::BTreeMap;

use super::between;
use super::document::{Document, Tensor};
use super::escape::{code, escape, prose};
use super::layers::Sums;
use super::table::{Cell, Row, capped, table};
use crate::checkpoint::RECEIPT;
use crate::figures::{bytes, count, number, plural};
use crate::methods::{GIVEN, METHODS, Method};
use crate::part::Part;

/// Most warnings and most rows of a table.
const MOST: usize = 100;

/// What the page is called.
pub fn title(document: &Document) -> String {
    match document.calibrate.as_str() {
        "none" => format!("{} merge", document.method),
        space => format!("{} merge, {space} calibration", document.method),
    }
}

/// Heading and facts.
pub fn header(document: &Document) -> String {
    let method: Option<&Method> = METHODS.iter().chain([&GIVEN]).find(|method| method.name == document.method);
    let about = method.filter(|method| !method.paper.is_empty()).map(|method| {
        format!("<p class=\"formula\">{}</p>\n<p class=\"note\">{}</p>\n", escape(method.formula), escape(method.paper))
    });
    let moved = document.bytes.read.saturating_add(document.bytes.written) as f64;
    // Of less, the time is that of everything else.
    let speed = match moved > 1e8 {
        true => format!(", {:.2} GB/s", moved / 1e9 / document.seconds.max(1e-9)),
        false => String::new(),
    };
    let kind = if document.lora.is_some() { "adapter" } else { "model" };
    let calibration = match (document.calibrate.as_str(), &document.features) {
        ("none", _) => "none".to_owned(),
        (space, None) => space.to_owned(),
        (space, Some(features)) => match features.candidates.iter().find(|candidate| candidate.chosen) {
            Some(taken) => format!("{space}, which took {}, on features of {}", taken.name, features.family),
            None => format!("{space}, on features of {}", features.family),
        },
    };
    let facts = [
        ("Result", format!("{kind}, {}, {}", plural(document.tensors.len(), "tensor"), bytes(document.bytes.written))),
        ("Calibration", calibration),
        ("Device", document.device.clone()),
        ("Read", bytes(document.bytes.read)),
        ("Time", format!("{:.2} s{speed}", document.seconds)),
        ("Made by", format!("magic {}", document.version)),
    ];
    let facts: String =
        facts.iter().map(|(name, what)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(what))).collect();
    format!(
        "<header>\n<p class=\"eyebrow\">magic · merge report</p>\n<h1>{}</h1>\n{}<dl class=\"facts\">\n{facts}</dl>\n</header>\n",
        escape(&title(document)),
        about.unwrap_or_default(),
    )
}

/// Warnings, if there are any; before all others what is wrong with the receipt's own SHA-256, if anything is: `edited`.
pub fn warnings(document: &Document, edited: Option<&str>) -> String {
    let edited = edited.map(|what| format!("`{RECEIPT}`: {what}. This page may tell of what was never merged."));
    let count = document.warnings.len() + usize::from(edited.is_some());
    if count == 0 {
        return String::new();
    }
    let shown = edited.iter().chain(document.warnings.iter().take(MOST));
    let items: String = shown.map(|warning| format!("<li>{}</li>\n", prose(warning))).collect();
    let more = document.warnings.len().saturating_sub(MOST);
    let more =
        if more > 0 { format!("<p>… and {more} more in <code>magic.json</code>.</p>\n") } else { String::new() };
    format!("<section class=\"warnings\"><h2>{}</h2>\n<ul>\n{items}</ul>\n{more}</section>\n", plural(count, "warning"))
}

/// The whole in a few numbers.
pub fn numbers(document: &Document) -> String {
    let all = Sums::of(document.merged());
    if all.tensors == 0 {
        return String::new();
    }
    let ratio = |norm: f64| if all.expert() == 0.0 { "–".to_owned() } else { short(norm / all.expert()) };
    let mut cards = vec![(ratio(all.merged()), "length of the merged τ, in units of the experts’ mean")];
    if document.is_calibrated() {
        cards.push((ratio(all.calibrated()), "the same after calibration"));
        cards.push((short(all.xi().unwrap_or(f64::NAN)), "mean ξ of the calibrated tensors"));
    }
    let cosines: Vec<f64> = all.cosines();
    let mean = cosines.iter().sum::<f64>() / cosines.len().max(1) as f64;
    cards.push((cosine(mean), "mean cosine of the experts with the merge"));
    let between = between::overall(document);
    if between.is_finite() {
        cards.push((cosine(between), "mean cosine of the experts with each other"));
    }
    let cards: String = cards
        .iter()
        .map(|(value, name)| format!("<div><dd>{}</dd><dt>{}</dt></div>\n", escape(value), escape(name)))
        .collect();
    let origin = match (&document.base, &document.lora) {
        (Some(_), _) => "τ is what fine-tuning changed: weights minus the base’s.",
        (None, Some(_)) => "τ is all that an adapter adds.",
        (None, None) => {
            "No base was named: τ is the difference from the first model, whose own is zero, and lengths say little."
        }
    };
    let rounded = " Norms are of results before they are rounded to the element type of the output.";
    let factored = document.lora.as_ref().map_or(String::new(), |lora| {
        format!(
            " All these figures are of the whole merge. The adapter holds it as factors, with ‖ΔW − BA‖ / ‖ΔW‖ {} over all \
             matrices, and at worst {}, in {}.",
            number(lora.error),
            number(lora.worst_error),
            code(&lora.worst)
        )
    });
    format!(
        "<section>\n<dl class=\"cards\">\n{cards}</dl>\n<p class=\"note\">{origin}{rounded}{factored}</p>\n</section>\n"
    )
}

/// Two digits: less of a cosine is nothing.
fn cosine(x: f64) -> String {
    if x.is_finite() { format!("{:.2}", (100.0 * x).round() / 100.0 + 0.0) } else { short(x) }
}

/// Three digits.
fn short(x: f64) -> String {
    if !x.is_finite() {
        "–".into()
    } else if (0.0095..100.0).contains(&x.abs()) {
        format!("{x:.2}")
    } else {
        number(x)
    }
}

/// The models, and how far each went.
pub fn models(document: &Document) -> String {
    let all = Sums::of(document.merged());
    let (norms, cosines) = (all.experts(), all.cosines());
    let at = |list: &[f64], k: usize| Cell::number(list.get(k).copied().unwrap_or(f64::NAN));
    let mut rows: Vec<Row> = Vec::new();
    if let Some(base) = &document.base {
        rows.push(vec![Cell::Text("base".into()), Cell::Name(base.clone()), at(&[], 0), at(&[], 0)].into());
    }
    for (k, expert) in document.experts.iter().enumerate() {
        let cells = vec![
            Cell::Text(format!("expert\u{a0}{}", k + 1)),
            Cell::Name(expert.clone()),
            at(&norms, k),
            at(&cosines, k),
        ];
        rows.push(cells.into());
    }
    let (rows, more) = capped(rows, MOST);
    let table = table("models", &["", "model", "#‖τ‖", "#cosine with the merge"], rows);
    format!("<section><h2>Models</h2>\n{table}{more}</section>\n")
}

/// The norms of each part.
pub fn parts(document: &Document) -> String {
    let calibrated = document.is_calibrated();
    let mut columns = vec!["part", "#tensors", "#parameters", "#‖τ‖ experts", "#merged", "#÷ experts"];
    if calibrated {
        columns.extend(["#calibrated", "#÷ experts", "#mean ξ"]);
    }
    let row = |name: &str, sums: &Sums| {
        let ratio = |norm: f64| Cell::number(norm / sums.expert());
        let mut cells = vec![
            Cell::Text(name.into()),
            Cell::Number(sums.tensors.to_string()),
            Cell::Number(count(sums.elements)),
            Cell::number(sums.expert()),
            Cell::number(sums.merged()),
            ratio(sums.merged()),
        ];
        if calibrated {
            let xi = Cell::number(sums.xi().unwrap_or(f64::NAN));
            cells.extend([Cell::number(sums.calibrated()), ratio(sums.calibrated()), xi]);
        }
        Row { cells, marked: name == "all" }
    };
    let of = |part: Part| Sums::of(document.merged().filter(|tensor| Part::of(&tensor.name) == part));
    let sums = Part::ALL.map(|part| (part.as_str(), of(part)));
    let mut rows: Vec<Row> =
        sums.iter().filter(|(_, sums)| sums.tensors > 0).map(|(name, sums)| row(name, sums)).collect();
    if rows.is_empty() {
        return String::new();
    }
    rows.push(row("all", &Sums::of(document.merged())));
    format!("<section><h2>By part of the network</h2>\n{}</section>\n", table("parts", &columns, rows))
}

/// What became of the tensors, as far as it is worth a word.
pub fn tensors(document: &Document) -> String {
    let sum = |of: fn(&Tensor) -> u64| document.tensors.iter().map(of).fold(0, u64::saturating_add);
    let mut actions: BTreeMap<&str, usize> = BTreeMap::new();
    document.tensors.iter().for_each(|tensor| *actions.entry(&tensor.action).or_default() += 1);
    let mut facts: Vec<(String, String)> =
        actions.into_iter().take(MOST).map(|(action, count)| (action.to_owned(), plural(count, "tensor"))).collect();
    let recovered = document.tensors.iter().filter(|tensor| tensor.recovered.is_some()).count() as u64;
    let counts = [
        ("rows without any length, whose ξ is 1", sum(|tensor| tensor.degenerate_rows)),
        ("results that are NaN", sum(|tensor| tensor.nan)),
        ("results that are infinite", sum(|tensor| tensor.infinite)),
        ("results too large for their type", sum(|tensor| tensor.overflow)),
        ("tensors computed again after the device failed", recovered),
        ("tensors of experts that took no part", document.ignored.len() as u64),
    ];
    facts.extend(counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| ((*what).to_owned(), n.to_string())));
    if let Some(lora) = &document.lora {
        let of = |error: f64| number(error);
        facts.push(("adapter".into(), format!("{}, rank {} at most", plural(lora.tensors, "matrix pair"), lora.rank)));
        facts.push((
            "‖ΔW − BA‖ / ‖ΔW‖".into(),
            format!("{} overall, {} in {}", of(lora.error), of(lora.worst_error), lora.worst),
        ));
    }
    let rows = facts.into_iter().map(|(what, n)| vec![Cell::Text(what), Cell::Number(n)].into()).collect();
    let ignored: String = document.ignored.iter().take(20).map(|name| code(name) + " ").collect();
    let ignored = if ignored.is_empty() { ignored } else { format!("<p class=\"note\">Took no part: {ignored}</p>\n") };
    format!("<section><h2>Tensors</h2>\n{}{ignored}</section>\n", table("tensors", &["what became of them", "#"], rows))
}
