//! What went in, what came out, and how to do it again.

use super::document::Document;
use super::escape::{escape, lines};
use super::table::{Cell, Row, capped, table};
use crate::checkpoint::FileRecord;
use crate::figures::bytes;

/// Most rows of a table.
const MOST: usize = 200;
/// Longest recipe that is shown.
const LONGEST: usize = 64 << 10;

/// Files with their hashes, and the recipe.
pub fn section(document: &Document) -> String {
    let hash = |record: &FileRecord| match &record.sha256 {
        Some(sha256) => Cell::Name(sha256.clone()),
        None => Cell::Text("not taken".into()),
    };
    let inputs: Vec<Row> = document
        .inputs
        .iter()
        .flat_map(|input| &input.files)
        .map(|file| {
            vec![Cell::Name(file.path.clone()), Cell::Number(bytes(file.record.bytes)), hash(&file.record)].into()
        })
        .collect();
    let outputs: Vec<Row> = document
        .files
        .iter()
        .map(|record| vec![Cell::Name(record.file.clone()), Cell::Number(bytes(record.bytes)), hash(record)].into())
        .collect();
    let files = |label: &str, rows: Vec<Row>| {
        let (rows, more) = capped(rows, MOST);
        table(label, &[label, "#size", "SHA-256"], rows) + &more
    };
    let recipe = document.fingerprint.get("recipe").filter(|recipe| recipe.len() <= LONGEST).map_or(String::new(), |recipe| {
        format!(
            "<h3>Recipe</h3>\n<div class=\"scroll\" role=\"region\" aria-label=\"recipe\" tabindex=\"0\"><pre>{}</pre></div>\n",
            lines(recipe)
        )
    });
    format!(
        "<section><h2>Where it comes from</h2>\n{}{}{recipe}<p class=\"note\">Seed {}; numbers that are none: {}. \
         <code>magic verify</code> compares all of this{}.</p>\n</section>\n",
        files("files that went in", inputs),
        files("files that came out", outputs),
        document.seed,
        escape(&document.non_finite),
        if document.lora.is_some() {
            "; the factors of an adapter are not computed again"
        } else {
            ", and computes tensors again"
        },
    )
}
