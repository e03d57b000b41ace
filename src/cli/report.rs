//! `magic report`.

use magic_merge::{Result, html};
use serde_json::json;

use super::args::Report;
use super::output::Printer;
use super::text::bytes;

/// Writes the page, and says where it is.
pub fn run(args: &Report, printer: &Printer) -> Result<()> {
    let (path, len, faults) = html::write(&args.dir)?;
    printer.warnings(&faults);
    if printer.json() {
        return printer.document(&json!({"schema": "magic-report/1", "report": path.to_string_lossy(), "bytes": len}));
    }
    printer.summary(&format!("{}, {}\n", super::text::harmless(&path.to_string_lossy()), bytes(len)))
}
