//! What the terminal is like: its width, and whether it shows colours.

use std::ffi::OsStr;
use std::io::{IsTerminal, stdout};
use std::sync::OnceLock;

use anstream::ColorChoice;
use clap::ValueEnum;

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal that shows them, unless the environment says otherwise.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// Obeys `--color` from here on, wherever it stands on the command line: wrong usage is in colour too.
pub fn choose_color(args: impl IntoIterator<Item = impl AsRef<OsStr>>) {
    let mut args = args.into_iter();
    let mut wanted = Color::Auto;
    while let Some(arg) = args.next() {
        let value = match arg.as_ref().to_str() {
            Some("--") => break,
            Some("--color") => args.next().and_then(|value| value.as_ref().to_str().map(str::to_owned)),
            Some(arg) => arg.strip_prefix("--color=").map(str::to_owned),
            None => None,
        };
        if let Some(named) = value.and_then(|value| Color::from_str(&value, false).ok()) {
            wanted = named;
        }
    }
    match wanted {
        // NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM and whether it is a terminal decide.
        Color::Auto => {}
        Color::Always => ColorChoice::Always.write_global(),
        Color::Never => ColorChoice::Never.write_global(),
    }
}

/// Columns that a line may have: those of the terminal, else what COLUMNS says; any number where nobody says.
pub fn width() -> Option<usize> {
    static WIDTH: OnceLock<Option<usize>> = OnceLock::new();
    *WIDTH.get_or_init(|| {
        let own = || Some(usize::from(terminal_size::terminal_size_of(stdout())?.0.0));
        let named = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns >= 40);
        if stdout().is_terminal() { own() } else { None }.or_else(named)
    })
}
