//! What a shell takes from the program: completions and manual pages.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use clap::CommandFactory;
use magic_merge::checkpoint::target;
use magic_merge::{Error, Result};

use super::args::Args;
use super::output::Printer;

/// What to name.
const FOLDER: &str = "name a folder, such as ~/.local/share/man/man1";

/// A completion script for `shell`.
pub fn completions(shell: clap_complete::Shell, printer: &Printer) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "magic", &mut script);
    printer.data(&String::from_utf8_lossy(&script))
}

/// The page of the program to stdout, or those of all commands, each a file, to `dir`.
pub fn man(dir: Option<&Path>, printer: &Printer) -> Result<()> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut page).expect("nothing fails in memory");
        return printer.data(&String::from_utf8_lossy(&page));
    };
    if !dir.exists() {
        fs::create_dir_all(dir).map_err(|e| match e.kind() {
            // Of those above it, one leads nowhere.
            ErrorKind::NotFound | ErrorKind::AlreadyExists => Error::write(dir, &e).hint(FOLDER),
            _ => Error::write(dir, &e),
        })?;
    }
    if !dir.is_dir() {
        return Err(Error::output(format!("`{}` is not a folder", dir.display())).hint(FOLDER));
    }
    let made = tempfile::tempdir().map_err(|e| Error::write(&std::env::temp_dir(), &e))?;
    let failed = |e| Error::write(made.path(), &e);
    clap_mangen::generate_to(Args::command(), made.path()).map_err(failed)?;
    for page in fs::read_dir(made.path()).map_err(failed)? {
        let page = page.map_err(failed)?;
        // Pages of another version are there to be replaced.
        target::write(&dir.join(page.file_name()), true, &fs::read(page.path()).map_err(failed)?)?;
    }
    Ok(())
}
