//! Plain tables: columns, no lines, nothing that a pipe would have to strip.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

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
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| match column {
        Column::Left(name) | Column::Right(name) => *name,
    }));
    table.add_rows(rows);
    for (place, column) in columns.iter().enumerate() {
        let column_of = table.column_mut(place).expect("every column has a header");
        column_of.set_padding((0, 2));
        if matches!(column, Column::Right(_)) {
            column_of.set_cell_alignment(CellAlignment::Right);
        }
    }
    lines(&table)
}

/// Pairs of a name and what it is, one below the other.
pub fn pairs(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    lines(&table)
}

fn lines(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
