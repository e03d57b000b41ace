//! Tables that scroll inside their own box.

use crate::figures::number;

use super::escape::{code, escape};

/// What is in a cell.
pub enum Cell {
    /// Text of this program's.
    Text(String),
    /// A name that others gave.
    Name(String),
    /// Text that leads to a page beside this one.
    Link(String, String),
    /// A number, or a dash if there is none.
    Number(String),
    /// A cosine, on a ground that tells its size; a dash if there is none.
    Cosine(f64),
    /// A number, and a bar of a length between 0 and 1.
    Bar(String, f64),
}

impl Cell {
    /// A norm or a ratio; a dash for what is none, as all is that is counted in units of nothing.
    pub fn number(x: f64) -> Self {
        Self::Number(if x.is_finite() { number(x) } else { "–".into() })
    }

    fn html(&self, head: bool) -> String {
        let tag = if head { "th scope=\"row\"" } else { "td" };
        let end = if head { "th" } else { "td" };
        match self {
            Self::Text(text) => format!("<{tag}>{}</{end}>", escape(text)),
            Self::Name(name) => format!("<{tag}>{}</{end}>", code(name)),
            Self::Link(text, page) => format!("<{tag}><a href=\"{}\">{}</a></{end}>", escape(page), escape(text)),
            Self::Cosine(cosine) if !cosine.is_finite() => Self::number(f64::NAN).html(head),
            Self::Cosine(cosine) => {
                let sign = if *cosine < 0.0 { 'm' } else { 'p' };
                let size = [0.05, 0.2, 0.5].iter().filter(|least| cosine.abs() >= **least).count();
                // Nothing has no sign.
                let rounded = (1e3 * cosine).round() / 1e3 + 0.0;
                format!("<td class=\"n {sign}{size}\">{rounded:+.3}</td>")
            }
            Self::Number(number) => format!("<td class=\"n\">{}</td>", escape(number)),
            Self::Bar(number, share) => {
                let width = if share.is_finite() { 100.0 * share.clamp(0.0, 1.0) } else { 0.0 };
                let number = escape(number);
                format!(
                    "<td class=\"n\">{number}<svg class=\"bar\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" \
                     aria-hidden=\"true\"><path d=\"M0 0H{width:.1}V6H0z\"/></svg></td>"
                )
            }
        }
    }
}

/// A row; `marked` ones stand out.
pub struct Row {
    /// Its cells.
    pub cells: Vec<Cell>,
    /// Whether it stands out.
    pub marked: bool,
}

impl From<Vec<Cell>> for Row {
    fn from(cells: Vec<Cell>) -> Self {
        Self { cells, marked: false }
    }
}

/// Rows under a heading of their own.
pub struct Group {
    /// The heading; none if it is empty.
    pub name: String,
    /// The rows.
    pub rows: Vec<Row>,
}

/// The table of `rows`; names of columns of numbers begin with `#`. Keyboards can scroll it.
pub fn table(label: &str, columns: &[&str], rows: Vec<Row>) -> String {
    groups(label, columns, vec![Group { name: String::new(), rows }])
}

/// The same in groups.
pub fn groups(label: &str, columns: &[&str], groups: Vec<Group>) -> String {
    let head: String = columns
        .iter()
        .map(|column| match column.strip_prefix('#') {
            Some(column) => format!("<th scope=\"col\" class=\"n\">{}</th>", escape(column)),
            None => format!("<th scope=\"col\">{}</th>", escape(column)),
        })
        .collect();
    let body: String = groups.iter().map(|group| body(group, columns.len())).collect();
    let label = escape(label);
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\"><table>\n<thead><tr>{head}</tr></thead>\n\
         {body}</table></div>\n"
    )
}

fn body(group: &Group, columns: usize) -> String {
    let heading = match group.name.as_str() {
        "" => String::new(),
        name => format!(
            "<tr class=\"group\"><th colspan=\"{columns}\" scope=\"rowgroup\"><span>{}</span></th></tr>\n",
            escape(name)
        ),
    };
    let row = |row: &Row| {
        let cells: String = row.cells.iter().enumerate().map(|(i, cell)| cell.html(i == 0)).collect();
        let class = if row.marked { " class=\"marked\"" } else { "" };
        format!("<tr{class}>{cells}</tr>\n")
    };
    format!("<tbody>{heading}{}</tbody>\n", group.rows.iter().map(row).collect::<String>())
}

/// `rows`, of more than `most` the first, and a line that says how many more `magic.json` has.
pub fn capped(rows: Vec<Row>, most: usize) -> (Vec<Row>, String) {
    let more = rows.len().saturating_sub(most);
    let rows = rows.into_iter().take(most).collect();
    let note = format!("<p class=\"note\">… and {more} more in <code>magic.json</code>.</p>\n");
    (rows, if more > 0 { note } else { String::new() })
}
