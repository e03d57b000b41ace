//! `magic bench`.

use std::sync::Arc;

use magic_merge::bench::{self, Settings, changes, table};
use magic_merge::progress::Progress;
use magic_merge::{Error, Result};

use super::args::{Bench, Global};
use super::interrupt;
use super::output::Printer;
use super::progress::steps;

/// Measures, compares, and prints the table or the document.
pub fn run(args: &Bench, global: &Global, printer: &Printer) -> Result<()> {
    let settings = settings(args, global)?;
    let old = args.compare.as_deref().map(changes::read).transpose()?;
    if cfg!(debug_assertions) {
        printer.warnings(&["this is a debug build: its figures say little".to_owned()]);
    }
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let bar = steps(global);
    let report = bench::run(&settings, &mut |device, case| {
        log::info!("{} {} on {}", case.kernel, case.note, device.title());
        bar.set_message(format!("{} on {}", case.kernel, device.title()));
        progress.check()
    });
    bar.finish_and_clear();
    let mut report = report?;
    if let (Some(old), Some(path)) = (&old, &args.compare) {
        printer.warnings(&changes::compare(&mut report, old, &path.display().to_string()));
    }
    if printer.json() {
        printer.document(&report)?
    } else {
        printer.data(&table::markdown(&report))?
    }
    report.verdict()
}

fn settings(args: &Bench, global: &Global) -> Result<Settings> {
    if args.all && global.device != "auto" {
        let what = format!("`--all` and `--device {}` contradict each other", global.device);
        return Err(Error::usage(what).hint("leave one of them out"));
    }
    Ok(Settings {
        device: (!args.all).then(|| global.device.clone()),
        filters: args.filters.clone(),
        elements: args.elements,
        quick: args.quick,
        threads: global.threads,
        vram: global.vram,
    })
}
