//! Plain tables: columns, no lines, nothing that a pipe would have to strip.

use std::iter;

use unicode_width::UnicodeWidthStr;

use super::terminal;
use super::text::{shorten, wrap};

/// Between two columns.
const GAP: usize = 2;

/// A column that has to give way becomes no narrower.
const LEAST: usize = 12;

/// How a column is set.
#[derive(Clone, Copy)]
pub enum Column<'a> {
    /// Text, of which the beginning is left out where the terminal is too narrow.
    Left(&'a str),
    /// Numbers.
    Right(&'a str),
}

/// The table as text, a line for each row.
pub fn table(columns: &[Column<'_>], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    fitted(columns, rows, terminal::width())
}

fn fitted(columns: &[Column<'_>], rows: impl IntoIterator<Item = Vec<String>>, width: Option<usize>) -> String {
    let name = |column: &Column<'_>| match *column {
        Column::Left(name) | Column::Right(name) => name.to_owned(),
    };
    let right = |place: usize| matches!(columns[place], Column::Right(_));
    let mut rows: Vec<Vec<String>> = iter::once(columns.iter().map(name).collect()).chain(rows).collect();
    if let Some(most) = width {
        let mut widths = widths(&rows);
        while widths.iter().map(|width| width + GAP).sum::<usize>() - GAP > most {
            let text = (0..columns.len()).filter(|place| !right(*place) && widths[*place] > LEAST);
            let Some(widest) = text.max_by_key(|place| widths[*place]) else { break };
            widths[widest] -= 1;
        }
        for (cell, width) in rows.iter_mut().flat_map(|row| row.iter_mut().zip(&widths)) {
            *cell = shorten(cell, *width);
        }
    }
    lines(&rows, right)
}

/// Pairs of a name and what it is, one below the other.
pub fn pairs(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let names = rows.iter().map(|(name, _)| name.width()).max().unwrap_or_default() + GAP;
    let width = terminal::width().map_or(usize::MAX, |width| width.saturating_sub(names));
    let row = |(name, value): &(&str, String)| {
        let gap = " ".repeat(names);
        let value = wrap(value, width).join(&format!("\n{gap}"));
        format!("{name}{}{value}\n", " ".repeat(names - name.width()))
    };
    rows.iter().map(row).collect()
}

/// The same for names that are long, each on one line with what it is.
pub fn aligned(rows: &[(String, String)]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
    lines(&rows, |_| false)
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.width().max(*width));
    }
    widths
}

/// Nothing after the last column.
fn lines(rows: &[Vec<String>], right: impl Fn(usize) -> bool) -> String {
    let widths = widths(rows);
    let mut text = String::new();
    for row in rows {
        for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = iter::repeat_n(' ', width - cell.width());
            match right(place) {
                true => text.extend(gap.chain(cell.chars())),
                false => text.extend(cell.chars().chain(gap)),
            }
            text.extend(iter::repeat_n(' ', GAP));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_gives_way_and_numbers_do_not() {
        let columns = [Column::Left("tensor"), Column::Right("cosine")];
        let row = || vec![vec!["model.layers.23.mlp.down_proj.weight".to_owned(), "0.123456".to_owned()]];
        let narrow = fitted(&columns, row(), Some(36));
        assert_eq!(narrow, format!("tensor{}cosine\n…s.23.mlp.down_proj.weight  0.123456\n", " ".repeat(24)));
    }
}
