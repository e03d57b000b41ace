//! What machine this is, in words that can be put beside a table.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The machine around the devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Operating system and its version, as far as it tells.
    pub os: String,
    /// Instruction set that the program was built for.
    pub arch: String,
    /// Name of the processor, or nothing.
    pub cpu: String,
    /// Threads that it runs at a time.
    pub threads: usize,
    /// `ac`, `battery` or `unknown`.
    #[serde(default)]
    pub power: String,
}

impl Host {
    /// Asks the system.
    pub fn ask() -> Self {
        Self {
            os: os(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu: cpu(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            power: power().to_owned(),
        }
    }
}

/// The value of the first line `key … = value` or `key : value`, without quotes.
fn field(text: &str, key: &str, mark: char) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(mark)?.1.trim().trim_matches('"').to_owned())
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn command(program: &str, args: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn os() -> String {
    let name = match std::env::consts::OS {
        "linux" => field(&file("/etc/os-release"), "PRETTY_NAME", '=').map(|name| format!("Linux, {name}")),
        "macos" => command("sw_vers", &["-productVersion"]).map(|version| format!("macOS {version}")),
        "windows" => command("cmd", &["/C", "ver"]),
        _ => None,
    };
    name.unwrap_or_else(|| std::env::consts::OS.to_owned())
}

fn cpu() -> String {
    let name = match std::env::consts::OS {
        "linux" => field(&file("/proc/cpuinfo"), "model name", ':'),
        "macos" => command("sysctl", &["-n", "machdep.cpu.brand_string"]),
        "windows" => std::env::var("PROCESSOR_IDENTIFIER").ok(),
        _ => None,
    };
    name.unwrap_or_default()
}

/// What the machine lives on: batteries make processors slow.
fn power() -> &'static str {
    let (mains, battery) = match std::env::consts::OS {
        "linux" => {
            let supplies = std::fs::read_dir("/sys/class/power_supply").into_iter().flatten().flatten();
            let says: Vec<[String; 2]> = supplies
                .map(|supply| ["online", "status"].map(|what| file(&supply.path().join(what).to_string_lossy())))
                .collect();
            let any = |i: usize, word: &str| says.iter().any(|says| says[i].trim() == word);
            (any(0, "1"), any(1, "Discharging"))
        }
        "macos" => {
            let says = command("pmset", &["-g", "batt"]).unwrap_or_default();
            (says.contains("AC Power"), says.contains("Battery Power"))
        }
        _ => (false, false),
    };
    match (mains, battery) {
        (_, true) => "battery",
        (true, false) => "ac",
        (false, false) => "unknown",
    }
}

/// Version of wgpu that this program was built with.
pub fn wgpu() -> String {
    let mut lines = include_str!("../../Cargo.lock").lines().skip_while(|line| *line != "name = \"wgpu\"");
    lines.nth(1).and_then(|line| field(line, "version", '=')).unwrap_or_default()
}

/// The time as `2026-01-31T12:00:00Z`.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    stamp(seconds)
}

fn stamp(seconds: u64) -> String {
    let (days, second) = ((seconds / 86400) as i64, seconds % 86400);
    // Years that begin in March: Howard Hinnant, chrono-compatible low-level date algorithms.
    let z = days + 719_468;
    let (era, day) = (z / 146_097, z % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_wgpu_is_that_of_the_lock_file() {
        assert!(wgpu().starts_with("30."), "{}", wgpu());
    }

    #[test]
    fn dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(stamp(seconds), wanted);
        }
    }

    #[test]
    fn fields_of_system_files() {
        let text = "NAME=x\nPRETTY_NAME=\"Some Linux 12\"\nmodel name\t: A CPU\n";
        assert_eq!(field(text, "PRETTY_NAME", '=').unwrap(), "Some Linux 12");
        assert_eq!(field(text, "model name", ':').unwrap(), "A CPU");
        assert_eq!(field(text, "absent", ':'), None);
    }
}
