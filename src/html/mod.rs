//! `report.html`: a merge as a page for people, made from `magic.json` and, where `magic eval --report` wrote it,
//! `scores.json`, and nothing else, so that the same documents give the same bytes. It needs neither network nor scripts:
//! charts are SVG, and colours follow the reader's.

mod between;
mod chart;
mod depth;
mod document;
mod escape;
mod evaluations;
mod features;
mod head;
mod layers;
mod provenance;
mod scale;
mod scores;
mod surprises;
mod table;

use std::path::{Path, PathBuf};

use document::Document;
use escape::escape;
pub use scores::{Score, scores};
use serde_json::Value;

use crate::checkpoint::text::path;
use crate::checkpoint::{Finished, RECEIPT, REPORT, alone};
use crate::error::Result;
use crate::report;
use crate::scores::Scores;

/// The page of the receipt `document`, which was read from `at`, of `evaluated`, the scores beside it, and of what is wrong
/// with the receipt's own SHA-256, if anything is: `edited`.
///
/// # Errors
/// A document of another kind, or in which something is missing.
pub fn page(document: &Value, evaluated: Option<&Scores>, edited: Option<&str>, at: &str) -> Result<String> {
    let document: Document = report::read(document, at)?;
    let sections = [
        head::header(&document),
        head::warnings(&document, edited),
        head::numbers(&document),
        head::models(&document),
        evaluations::section(evaluated),
        head::parts(&document),
        depth::sections(&document),
        surprises::section(&document),
        between::section(&document),
        features::section(&document),
        head::tensors(&document),
        provenance::section(&document),
    ];
    Ok(frame(&head::title(&document), &sections.concat()))
}

/// A page around `body`, which is HTML.
fn frame(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<meta name=\"generator\" content=\"{}\"/>\n\
         <title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
        GENERATOR,
        escape(title),
        include_str!("style.css"),
        body,
    )
}

/// The page of the finished merge in `dir`.
///
/// # Errors
/// As [`page`].
pub(crate) fn of(finished: &Finished, dir: &Path) -> Result<String> {
    let edited = report::broken_seal(&finished.receipt, &finished.text);
    page(&finished.receipt, Scores::of(finished).ok().flatten().as_ref(), edited.as_deref(), &path(&dir.join(RECEIPT)))
}

/// What is wrong with what the page of a finished merge is made from, each a line.
pub(crate) fn faults(finished: &Finished) -> Vec<String> {
    let edited = report::broken_seal(&finished.receipt, &finished.text).map(|what| format!("`{RECEIPT}`: {what}"));
    edited.into_iter().chain(Scores::of(finished).err()).collect()
}

/// Writes the page about the finished merge in `dir` anew: all of it or nothing. Returns where it is, its bytes, and what is
/// wrong with what it is made from, each a line.
///
/// # Errors
/// What is no finished merge or has a receipt of another kind, a folder in which another run keeps writing, a failed write.
pub fn write(dir: &Path) -> Result<(PathBuf, u64, Vec<String>)> {
    let _alone = alone(dir)?;
    let finished = Finished::open(dir)?;
    let page = of(&finished, dir)?;
    finished.replace(REPORT, page.as_bytes())?;
    Ok((dir.join(REPORT), page.len() as u64, faults(&finished)))
}

/// What a page says made it: another version may make another page of the same document.
const GENERATOR: &str = concat!("magic ", env!("CARGO_PKG_VERSION"));

/// Whether `page` says that this version made it.
pub fn is_ours(page: &str) -> bool {
    page.contains(&format!("<meta name=\"generator\" content=\"{GENERATOR}\"/>"))
}
