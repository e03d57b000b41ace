//! The command line: flags in, tables and documents out. All arithmetic is the library's.
//!
//! stdout carries data only; progress, warnings, errors and logs go to stderr.

mod args;
mod bench;
mod demo;
mod devices;
mod diff;
mod distribute;
mod dry_run;
mod environment;
mod folder;
mod inspect;
mod interrupt;
mod measure;
mod methods;
mod output;
mod parts;
mod progress;
mod report;
mod run;
mod shell;
mod summary;
mod survey;
mod tables;
mod terminal;
mod text;
mod verify;

pub use args::Args;
pub use environment::silence_wayland;
pub use output::Printer;
pub use run::run;
