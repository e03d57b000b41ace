//! A page about several merges: what each gets right.

use super::escape::escape;
use super::frame;
use super::table::{Cell, Group, Row, groups};

/// What a merge gets right.
pub struct Score {
    /// Merges of the same group follow each other.
    pub group: String,
    /// What tells it from others of its group.
    pub name: String,
    /// The page about it, beside this one.
    pub page: Option<String>,
    /// Its mean accuracy, from 0 to 1.
    pub mean: f64,
    /// What else there is to say, as the columns have it.
    pub cells: Vec<String>,
}

/// The page: a table of `scores`, the best of each group marked; `columns` are those of their cells.
pub fn scores(title: &str, about: &str, columns: &[&str], scores: &[Score]) -> String {
    let columns: Vec<String> = ["", "#mean accuracy, %"]
        .map(str::to_owned)
        .into_iter()
        .chain(columns.iter().map(|name| format!("#{name}")))
        .collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let group = |scores: &[Score]| {
        let best = scores.iter().map(|score| score.mean).fold(0.0, f64::max);
        let row = |score: &Score| {
            let name = match &score.page {
                Some(page) => Cell::Link(score.name.clone(), page.clone()),
                None => Cell::Text(score.name.clone()),
            };
            let mean = Cell::Bar(format!("{:.2}", 100.0 * score.mean), score.mean);
            let cells = [name, mean].into_iter().chain(score.cells.iter().cloned().map(Cell::Number)).collect();
            Row { cells, marked: scores.len() > 2 && score.mean == best }
        };
        Group { name: scores[0].group.clone(), rows: scores.iter().map(row).collect() }
    };
    let table = groups("scores", &columns, scores.chunk_by(|a, b| a.group == b.group).map(group).collect());
    let header = format!(
        "<header>\n<p class=\"eyebrow\">magic · scores</p>\n<h1>{}</h1>\n<p>{}</p>\n</header>\n",
        escape(title),
        escape(about)
    );
    frame(title, &format!("{header}<section>\n{table}</section>\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_each_group_is_marked() {
        let score = |group: &str, name: &str, mean: f64| Score {
            group: group.into(),
            name: name.into(),
            page: Some(format!("{name}/report.html")),
            mean,
            cells: vec!["1".into()],
        };
        let rows = [score("a", "<x>", 0.5), score("a", "y", 0.75), score("a", "z", 0.25), score("b", "y", 0.5)];
        let page = scores("t", "about", &["c"], &rows);
        let (before, marked) = page.split_once("class=\"marked\"").expect("one is");
        assert!(
            marked.contains(">75.00<") && !marked.contains("class=\"marked\"") && before.contains("&lt;x&gt;"),
            "{page}"
        );
        assert_eq!(page.matches("class=\"group\"").count(), 2);
    }
}
