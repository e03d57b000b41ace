//! Plain tables: columns, no lines, nothing that a pipe would have to strip.

use std::iter;

use unicode_width::UnicodeWidthStr;

/// How a column is set.
#[derive(Clone, Copy)]
pub enum Column<'a> {
    /// Text.
    Left(&'a str),
    /// Numbers.
    Right(&'a str),
}

/// The table as text, a line for each row.
pub fn table(columns: &[Column<'_>], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let name = |column: &Column<'_>| match *column {
        Column::Left(name) | Column::Right(name) => name.to_owned(),
    };
    let rows: Vec<Vec<String>> = iter::once(columns.iter().map(name).collect()).chain(rows).collect();
    lines(&rows, |place| matches!(columns[place], Column::Right(_)))
}

/// Pairs of a name and what it is, one below the other.
pub fn pairs(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    lines(&rows, |_| false)
}

/// Two spaces between columns, nothing after the last.
fn lines(rows: &[Vec<String>], right: impl Fn(usize) -> bool) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.width().max(*width));
    }
    let mut text = String::new();
    for row in rows {
        for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = iter::repeat_n(' ', width - cell.width());
            match right(place) {
                true => text.extend(gap.chain(cell.chars())),
                false => text.extend(cell.chars().chain(gap)),
            }
            text += "  ";
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}
