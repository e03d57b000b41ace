//! `magic verify`.

use std::cmp::Reverse;
use std::sync::Arc;

use magic_merge::Result;
use magic_merge::progress::Progress;
use magic_merge::verify::{self, Difference, Element, Files, Tensors, Verification};

use super::args::{Global, Verify};
use super::interrupt;
use super::output::Printer;
use super::progress::steps;
use super::tables::pairs;
use super::text::{bytes, harmless, plural};

/// Lines about what is wrong, of each kind.
const SHOWN: usize = 10;

/// Verifies, and prints what was found.
pub fn run(args: &Verify, global: &Global, printer: &Printer) -> Result<()> {
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let line = steps(global);
    let say = |what: String| {
        log::info!("{what}");
        line.set_message(what);
    };
    let found = verify::verify(&args.dir, args.all, &args.recovery.wanted(global.wanted()), &progress, &say);
    line.finish_and_clear();
    let found = found?;
    if printer.json() {
        printer.document(&found)?;
    } else {
        printer.summary(&text(&found))?;
    }
    found.verdict()
}

/// The verdict, what was looked at, and what differs.
fn text(found: &Verification) -> String {
    let verdict = if found.passed { "verified" } else { "not what its receipt says" };
    let receipt = if found.receipt.is_empty() { "as the output is" } else { "differs" };
    let mut text = format!("{verdict}: {}\n\n", found.dir);
    text += &pairs([
        ("files", files(&found.files)),
        ("inputs", files(&found.inputs)),
        ("receipt", receipt.to_owned()),
        ("tensors", tensors(&found.tensors)),
    ]);
    for (what, wrong) in [("files", &found.files.wrong), ("inputs", &found.inputs.wrong), ("receipt", &found.receipt)] {
        text += &list(what, wrong.iter().cloned());
    }
    let mut differences: Vec<&Difference> = found.tensors.differences.iter().collect();
    differences.sort_by_key(|difference| Reverse(difference.different));
    text += &list("tensors", differences.into_iter().map(difference));
    found.notes.iter().for_each(|note| text += &format!("\nnote: {note}\n"));
    harmless(&text)
}

fn files(files: &Files) -> String {
    let (good, size) = (files.count.saturating_sub(files.wrong.len()), bytes(files.bytes));
    format!("{good} of {} as recorded, {size}, {} by SHA-256", files.count, files.hashed)
}

fn tensors(tensors: &Tensors) -> String {
    let Some(device) = &tensors.device else { return format!("0 of {} computed again", tensors.count) };
    let (some, all) = (bytes(tensors.recomputed_bytes), bytes(tensors.bytes));
    let same = match tensors.different {
        0 => "the same".to_owned(),
        different => format!("{} not the same", plural(different, "tensor")),
    };
    let how = match (tensors.bit_for_bit, tensors.within_tolerance) {
        (_, 0) => "bit for bit".to_owned(),
        (0, _) => "within tolerance".to_owned(),
        (bits, near) => format!("({bits} compared bit for bit, {near} within tolerance)"),
    };
    format!("{} of {} computed again on {device}, {some} of {all}: {same} {how}", tensors.recomputed, tensors.count)
}

fn difference(difference: &Difference) -> String {
    let Difference { tensor, different, index, found, expected } = difference;
    let (count, found, expected) = (plural(*different as usize, "element"), element(found), element(expected));
    format!("`{tensor}` differs in {count}: element {index} is {found}, and should be {expected}")
}

fn element(element: &Element) -> String {
    match element.value {
        Some(value) => format!("{value:e} ({:#x})", element.bits),
        None => format!("{:#x}", element.bits),
    }
}

/// The first lines under a heading, and how many more there are.
fn list(what: &str, lines: impl ExactSizeIterator<Item = String>) -> String {
    let more = lines.len().saturating_sub(SHOWN);
    let mut text = if lines.len() > 0 { format!("\nwhat differs in the {what}:\n") } else { String::new() };
    lines.take(SHOWN).for_each(|line| text += &format!("  {line}\n"));
    if more > 0 { text + &format!("  … and {more} more; --json lists all\n") } else { text }
}
