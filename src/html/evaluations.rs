//! What was measured on the finished merge, and on other models beside it.

use super::escape::code;
use super::table::{Cell, Group, Row, groups};
use crate::scores::{Score, Scores};

/// Most scores that are shown.
const MOST: usize = 200;

/// A table for each set of samples; nothing if nothing was measured.
pub fn section(scores: Option<&Scores>) -> String {
    let scores: Vec<&Score> = scores.iter().flat_map(|scores| &scores.scores).take(MOST).collect();
    if scores.is_empty() {
        return String::new();
    }
    let tokens = scores.iter().any(|score| score.found.perplexity.is_some());
    let mut sets: Vec<(&str, Vec<&Score>)> = Vec::new();
    for score in scores {
        match sets.iter_mut().find(|(data, _)| *data == score.found.data) {
            Some((_, set)) => set.push(score),
            None => sets.push((&score.found.data, vec![score])),
        }
    }
    let group = |(data, set): (&str, Vec<&Score>)| {
        let best = set.iter().copied().max_by(|a, b| worth(a).total_cmp(&worth(b))).map_or(f64::NAN, worth);
        let rows = set.iter().map(|score| row(score, tokens, set.len() > 1 && worth(score) == best)).collect();
        Group { name: data.to_owned(), rows }
    };
    let mut columns = vec!["model", "#accuracy, %", "#loss"];
    columns.extend(tokens.then_some("#perplexity"));
    columns.extend(["#samples", "#predictions", "head"]);
    format!(
        "<section><h2>Scores</h2>\n<p>Measured by <code>magic eval</code> on the finished merge and, for comparison, on other \
         models; the best on each set of samples is marked.</p>\n{}<p class=\"note\">From {}. <code>magic verify</code> does not \
         measure them again.</p>\n</section>\n",
        groups("scores", &columns, sets.into_iter().map(group).collect()),
        code("scores.json"),
    )
}

/// What is to be large: accuracy of a classifier; of a language model what makes its loss small.
fn worth(score: &Score) -> f64 {
    if score.found.perplexity.is_some() { -score.found.loss } else { score.found.accuracy }
}

fn row(score: &Score, tokens: bool, marked: bool) -> Row {
    let model = match score.merge {
        true => Cell::Text("this merge".into()),
        false => Cell::Name(score.model.clone()),
    };
    let head = score.head.clone().map_or(Cell::Text("its own".into()), Cell::Name);
    let found = &score.found;
    let mut cells = vec![model, Cell::Bar(format!("{:.2}", 100.0 * found.accuracy), found.accuracy)];
    cells.push(Cell::number(found.loss));
    cells.extend(tokens.then(|| Cell::number(found.perplexity.unwrap_or(f64::NAN))));
    cells.extend([found.samples, found.predictions].map(|n| Cell::Number(n.to_string())));
    cells.push(head);
    Row { cells, marked }
}
