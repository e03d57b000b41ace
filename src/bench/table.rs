//! A run as markdown, to be read and to be posted.

use super::case::{EXPERTS, title};
use super::document::{Device, Report, Row, Status};
use super::time::Figures;

/// All of it.
pub fn markdown(report: &Report) -> String {
    let host = &report.host;
    let cpu = if host.cpu.is_empty() { "CPU of unknown name" } else { &host.cpu };
    let mut text =
        format!("magic {}, {}, {}, {cpu}, {} threads, {}", report.magic, host.os, host.arch, host.threads, report.time);
    text += if report.quick { ", quick\n" } else { "\n" };
    if let Some(old) = &report.compared {
        text += &format!("compared with {} (magic {}, {})\n", old.file, old.magic, old.time);
        for [new, old] in old.devices.iter().filter(|[new, old]| new != old) {
            text += &format!("{new}: compared with {old}\n");
        }
    }
    for device in &report.devices {
        text += &section(device, report.compared.is_some());
    }
    text + "\n" + &notes(report)
}

fn section(device: &Device, compared: bool) -> String {
    let software = if device.kind == "software" { "Software adapter, not to be ranked: " } else { "" };
    let mut text = format!("\n### {software}{}\n\n", device.title());
    if let Some(adapter) = &device.adapter {
        let mib = |bytes: u64| bytes >> 20;
        text += &format!(
            "{}, {}; vendor {}, device {}; bindings up to {} MiB, buffers {} MiB, workgroup memory {} KiB, subgroups {} to {}; {}\n\n",
            device.kind,
            adapter.driver,
            adapter.vendor_id,
            adapter.device_id,
            mib(adapter.max_binding_bytes),
            mib(adapter.max_buffer_bytes),
            adapter.workgroup_bytes >> 10,
            adapter.subgroup[0],
            adapter.subgroup[1],
            if adapter.timestamps { "timed by its own clock" } else { "it has no clock of its own: wall clock only" },
        );
    }
    if let Some(error) = &device.error {
        return text + &format!("not measured: {error}\n");
    }
    let clock = device.results.iter().any(|row| row.gpu.is_some());
    let mut columns = vec!["kernel", "elements"];
    columns.extend(clock.then_some("GPU time"));
    columns.extend(["wall time", "±", "N", "rate", "of copy"]);
    columns.extend(compared.then_some("speed now"));
    columns.push("check");
    text += &format!("| {} |\n|---|{}---|\n", columns.join(" | "), "---:|".repeat(columns.len() - 2));
    let shown = |row: &&Row| row.status != Status::Skipped;
    for row in device.results.iter().filter(shown) {
        text += &format!("| {} |\n", cells(row, clock, compared).join(" | "));
    }
    for row in &device.results {
        if let Some(distance) = row.from_f32 {
            text += &format!("\n{}: ‖a − b‖ / ‖b‖ of it and the f32 product is {distance:.1e}\n", name(row));
        }
    }
    for row in device.results.iter().filter(|row| !row.reason.is_empty()) {
        let status = match row.status {
            Status::Wrong => "WRONG",
            Status::Skipped => "not run",
            _ => "failed",
        };
        text += &format!("\n{status}: {}: {}\n", name(row), row.reason);
    }
    text
}

/// As a cell takes it.
fn name(row: &Row) -> String {
    title(&row.kernel, &row.case).replace('|', "\\|")
}

fn cells(row: &Row, clock: bool, compared: bool) -> Vec<String> {
    let nothing = || "–".to_owned();
    let of = |figures: &Option<Figures>| figures.as_ref().map_or_else(nothing, |figures| time(figures.median_ns));
    let known = row.figures().filter(|figures| figures.median_ns > 0.0);
    let blocks = if row.blocks == 1 { String::new() } else { format!("{} × ", row.blocks) };
    let mut cells = vec![name(row), format!("{blocks}{}", row.n)];
    cells.extend(clock.then(|| of(&row.gpu)));
    cells.push(of(&row.wall));
    cells.push(known.map_or_else(nothing, |figures| format!("{:.0} %", figures.spread())));
    cells.push(row.figures().map_or_else(nothing, |figures| figures.samples_ns.len().to_string()));
    cells.push(match (row.gb_per_s, row.gflop_per_s) {
        (Some(rate), _) => format!("{} GB/s", digits(rate)),
        (_, Some(rate)) => format!("{} GFLOP/s", digits(rate)),
        _ => nothing(),
    });
    cells.push(row.percent_of_copy.map_or_else(nothing, |percent| format!("{percent:.0} %")));
    cells.extend(compared.then(|| match &row.change {
        Some(change) => format!("{:.2} ×{}", change.speed, if change.beyond_noise { " *" } else { "" }),
        None => nothing(),
    }));
    cells.push(match row.status {
        Status::Ok => "ok".to_owned(),
        Status::Wrong => "WRONG".to_owned(),
        Status::Error | Status::Skipped => "failed".to_owned(),
    });
    cells
}

/// Three digits that count.
fn digits(x: f64) -> String {
    let places = if x >= 100.0 {
        0
    } else if x >= 10.0 {
        1
    } else {
        2
    };
    format!("{x:.places$}")
}

/// `?` where the difference between many rounds and one drowned in noise.
fn time(ns: f64) -> String {
    match ns {
        ns if ns <= 0.0 => "?".to_owned(),
        ns if ns < 1e3 => format!("{} ns", digits(ns)),
        ns if ns < 1e6 => format!("{} µs", digits(ns / 1e3)),
        ns if ns < 1e9 => format!("{} ms", digits(ns / 1e6)),
        ns => format!("{} s", digits(ns / 1e9)),
    }
}

fn notes(report: &Report) -> String {
    let mut text = format!(
        "Elements are those of one plane; a round goes over {EXPERTS} experts and the merged plane where the kernel does. \
         Times are medians of N samples, ± half the width of their middle half; rates are of the bytes that must be read \
         and written, 1 GB = 10⁹ bytes, by the GPU's clock where it has one. The copy was measured in turn with each row. \
         Every result was checked in this run before it was timed: on GPUs against the twin on the CPU, on the CPU from \
         thread to thread.\n"
    );
    if report.compared.is_some() {
        text +=
            "Speed now: how many times as fast as before; * beyond noise (middle halves apart, by more than 5 %).\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let times = [-3.0, 0.0, 5.25, 999.0, 12_345.0, 1.5e6, 2e9].map(time);
        assert_eq!(times.each_ref().map(|t| &**t), ["?", "?", "5.25 ns", "999 ns", "12.3 µs", "1.50 ms", "2.00 s"]);
    }
}
