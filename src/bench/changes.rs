//! A run against an earlier one.

use std::path::Path;

use super::document::{Change, Compared, Device, Report, Row, SCHEMA};
use super::time::Figures;
use crate::checkpoint::files::read_small;
use crate::error::{Error, Result};

/// Longest document of a run.
const MAX_DOCUMENT: u64 = 64 << 20;
/// Differences of less are put down to noise, whatever the samples say.
const LEAST: f64 = 0.05;

/// Reads an earlier run.
pub fn read(path: &Path) -> Result<Report> {
    std::fs::metadata(path).map_err(|e| Error::read(path, &e))?;
    let bytes = read_small(path, MAX_DOCUMENT)?;
    let wrong = |what: &str| {
        Error::input(format!("`{}` is not the document of an earlier run: {what}", path.display()))
            .hint(format!("make one with `magic bench --json > {}`", path.display()))
    };
    let document: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| wrong(&e.to_string()))?;
    match document.get("schema").and_then(|schema| schema.as_str()) {
        Some(SCHEMA) => serde_json::from_value(document).map_err(|e| wrong(&e.to_string())),
        Some(other) => Err(wrong(&format!("its schema is `{other}`, not `{SCHEMA}`"))),
        None => Err(wrong("it has no schema")),
    }
}

/// Writes into each row of `report` what has changed since `old`; returns what could not be compared.
pub fn compare(report: &mut Report, old: &Report, file: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let pairs = pairs(report, old);
    let titles = pairs.iter().map(|&(new, earlier)| [report.devices[new].title(), old.devices[earlier].title()]);
    let devices = titles.collect();
    for (new, earlier) in pairs {
        let (device, earlier) = (&mut report.devices[new], &old.devices[earlier]);
        let mut known = false;
        for row in &mut device.results {
            let same = |other: &&Row| {
                (&other.kernel, &other.case, other.n, other.blocks) == (&row.kernel, &row.case, row.n, row.blocks)
            };
            let earlier = earlier.results.iter().find(same);
            known |= earlier.is_some();
            row.change = earlier.and_then(|earlier| change(row, earlier));
        }
        if device.results.iter().all(|row| row.change.is_none()) {
            let message = if known {
                format!("no row was timed both here and in `{file}`; what is too short for the clock is not")
            } else {
                format!("no row has the same kernel and size as in `{file}`; `--elements` and `--quick` set sizes")
            };
            warnings.push(format!("{}: {message}", device.title()));
        }
    }
    if Vec::is_empty(&devices) {
        warnings.push(format!("no device is in `{file}` too"));
    }
    report.compared =
        Some(Compared { file: file.to_owned(), magic: old.magic.clone(), time: old.time.clone(), devices });
    warnings
}

/// The same device in both; and where each has just one GPU, those, whatever they are.
fn pairs(new: &Report, old: &Report) -> Vec<(usize, usize)> {
    let same = |a: &Device, b: &Device| (&a.name, &a.backend, a.threads) == (&b.name, &b.backend, b.threads);
    let found = |device: &Device| old.devices.iter().position(|other| same(device, other));
    let mut pairs: Vec<_> =
        new.devices.iter().enumerate().filter_map(|(i, device)| Some((i, found(device)?))).collect();
    let only = |report: &Report| {
        let mut gpus = report.devices.iter().enumerate().filter(|(_, device)| device.is_hardware()).map(|(i, _)| i);
        gpus.next().filter(|_| gpus.next().is_none())
    };
    if let (Some(a), Some(b)) = (only(new), only(old))
        && !pairs.contains(&(a, b))
    {
        pairs.push((a, b));
    }
    pairs
}

/// By the clock that both have; nothing where either drowned in noise.
fn change(new: &Row, old: &Row) -> Option<Change> {
    let (timer, a, b) = match (&new.gpu, &old.gpu) {
        (Some(a), Some(b)) => ("gpu", a, b),
        _ => ("wall", new.wall.as_ref()?, old.wall.as_ref()?),
    };
    let speed = (a.median_ns > 0.0 && b.median_ns > 0.0).then(|| b.median_ns / a.median_ns)?;
    Some(Change { timer: timer.to_owned(), speed, beyond_noise: differ(a, b) })
}

/// True if the middle halves of the samples do not meet, and the medians are some way apart.
fn differ(a: &Figures, b: &Figures) -> bool {
    let apart = a.p25_ns > b.p75_ns || b.p25_ns > a.p75_ns;
    apart && (a.median_ns / b.median_ns).ln().abs() > LEAST.ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(ns: f64) -> Figures {
        Figures::new((0..21).map(|i| (ns + f64::from(i) - 10.0) * 1e-9))
    }

    #[test]
    fn noise_is_told_from_change() {
        for (a, b, wanted) in
            [(1000.0, 1000.0, false), (1000.0, 1040.0, false), (1000.0, 1100.0, true), (30.0, 36.0, false)]
        {
            assert_eq!(differ(&around(a), &around(b)), wanted, "{a} {b}");
            assert_eq!(differ(&around(b), &around(a)), wanted, "{b} {a}");
        }
    }
}
