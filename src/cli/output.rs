//! The one place that prints.

use std::io::{self, ErrorKind, Write};

use magic_merge::{Error, Result};
use serde::Serialize;

use super::args::Global;
use super::text::harmless;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const CYAN: &str = "\x1b[1;36m";
const PLAIN: &str = "\x1b[0m";

/// Knows what may be printed where.
pub struct Printer {
    quiet: bool,
    json: bool,
}

impl Printer {
    /// Follows the flags; starts the log if one is wanted.
    pub fn new(global: &Global) -> Self {
        let mut log = env_logger::Builder::new();
        match global.verbose {
            0 => log.filter_level(log::LevelFilter::Off),
            1 => log.filter_module("magic", log::LevelFilter::Info),
            _ => log.filter_level(log::LevelFilter::Debug),
        };
        log.format_timestamp_millis().init();
        Self { quiet: global.quiet, json: global.json }
    }

    /// Whether a document is wanted instead of tables.
    pub fn json(&self) -> bool {
        self.json
    }

    /// What was asked for, to stdout.
    pub fn data(&self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Error::output(format!("cannot write to stdout: {error}")))
            }
            _ => Ok(()), // whoever closed the pipe has read enough
        }
    }

    /// The same as JSON.
    pub fn document(&self, document: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string_pretty(document).expect("a document is plain data");
        text.push('\n');
        self.data(&text)
    }

    /// What a person likes to know at the end, to stdout.
    pub fn summary(&self, text: &str) -> Result<()> {
        if self.quiet { Ok(()) } else { self.data(text) }
    }

    /// What is not as it should be, each a line on stderr.
    pub fn warnings(&self, warnings: &[String]) {
        for warning in warnings.iter().filter(|_| !self.quiet) {
            stderr(&format!("{YELLOW}warning:{PLAIN} {}\n", harmless(warning)));
        }
    }

    /// What went wrong, and what to do about it.
    pub fn error(&self, error: &Error) {
        let mut text = format!("{RED}error:{PLAIN} {}\n", harmless(&error.to_string()));
        for (number, hint) in error.hints().iter().enumerate() {
            let gap = if number == 0 { "\n" } else { "" };
            text += &format!("{gap}{CYAN}hint:{PLAIN} {}\n", harmless(hint));
        }
        stderr(&text);
    }
}

/// Wrong usage, as clap words it; its tips are hints.
pub fn usage(message: &str) {
    let message = harmless(message.strip_prefix("error: ").unwrap_or(message));
    let message = message.replace("\n  tip: ", &format!("\n{CYAN}hint:{PLAIN} "));
    stderr(&format!("{RED}error:{PLAIN} {message}"));
}

/// What there is to begin with, for whoever asked for nothing.
pub fn first_steps(text: &str) {
    stderr(text);
}

/// Colours are taken out where they are not wanted. What cannot be written has no one who would read it.
fn stderr(text: &str) {
    let _ = anstream::stderr().write_all(text.as_bytes());
}
