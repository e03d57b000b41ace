//! What was measured on the finished merge, and on other models beside it.

use super::escape::code;
use super::table::{Cell, Group, Row, groups};
use crate::figures::plural;
use crate::scores::{Role, Score, Scores};

/// Most scores that are shown.
const MOST: usize = 200;

/// A table for each set of samples; nothing if nothing was measured.
pub fn section(scores: Option<&Scores>) -> String {
    let scores: Vec<&Score> = scores.iter().flat_map(|scores| &scores.scores).take(MOST).collect();
    if scores.is_empty() {
        return String::new();
    }
    let tokens = scores.iter().any(|score| score.found.perplexity.is_some());
    // What was found on some samples of a set is not compared with what was found on others.
    let same = |a: &Score, b: &Score| (&a.data_path, a.found.samples) == (&b.data_path, b.found.samples);
    let mut sets: Vec<Vec<&Score>> = Vec::new();
    for score in scores {
        match sets.iter_mut().find(|set| same(set[0], score)) {
            Some(set) => set.push(score),
            None => sets.push(vec![score]),
        }
    }
    let group = |set: &Vec<&Score>| {
        let best = best(set);
        let rows = set.iter().map(|score| row(score, tokens, is_known(score) && Some(worth(score)) == best)).collect();
        Group { name: format!("{}, {}", set[0].found.data, plural(set[0].found.samples, "sample")), rows }
    };
    let mut why = String::new();
    if sets.iter().flatten().any(|score| score.role != Role::Merge) {
        why += " and, for comparison, on other models";
    }
    if sets.iter().any(|set| best(set).is_some()) {
        why += "; of the merge and its inputs, the best on each set of samples is marked";
    }
    let mut columns = vec!["", "model", "#accuracy, %", "#loss"];
    columns.extend(tokens.then_some("#perplexity"));
    columns.extend(["#samples", "#predictions", "head"]);
    format!(
        "<section><h2>Scores</h2>\n<p>Measured by <code>magic eval</code> on the finished merge{why}.</p>\n{}<p class=\"note\">From {}. <code>magic verify</code> does not \
         measure them again.</p>\n</section>\n",
        groups("scores", &columns, sets.iter().map(group).collect()),
        code("scores.json"),
    )
}

/// What is to be large: accuracy of a classifier; of a language model what makes its loss small.
fn worth(score: &Score) -> f64 {
    if score.found.perplexity.is_some() { -score.found.loss } else { score.found.accuracy }
}

/// Whether it is the merge or went into it.
fn is_known(score: &Score) -> bool {
    score.role != Role::Other
}

/// What the best of several is worth; `None` where there is nothing to compare.
fn best(set: &[&Score]) -> Option<f64> {
    let known: Vec<f64> = set.iter().filter(|score| is_known(score)).map(|score| worth(score)).collect();
    if known.len() > 1 { known.into_iter().max_by(f64::total_cmp) } else { None }
}

fn row(score: &Score, tokens: bool, marked: bool) -> Row {
    let role = match score.role {
        Role::Merge => "this merge".into(),
        Role::Base => "base".into(),
        Role::Expert(number) => format!("expert\u{a0}{number}"),
        Role::Below => "under an adapter".into(),
        Role::Other => "another model".into(),
    };
    let head = score.head.clone().map_or(Cell::Text("its own".into()), Cell::Name);
    let found = &score.found;
    let mut cells = vec![
        Cell::Text(role),
        Cell::Name(score.model.clone()),
        Cell::Bar(format!("{:.2}", 100.0 * found.accuracy), found.accuracy),
    ];
    cells.push(Cell::number(found.loss));
    cells.extend(tokens.then(|| Cell::number(found.perplexity.unwrap_or(f64::NAN))));
    cells.extend([found.samples, found.predictions].map(|n| Cell::Number(n.to_string())));
    cells.push(head);
    Row { cells, marked }
}
