//! `magic`, the command line of [`magic_merge`].

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::silence_wayland();
    let args = match cli::Args::read() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let printer = cli::Printer::new(&args.global);
    match cli::run(&args, &printer) {
        Ok(code) => code,
        Err(error) => {
            printer.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
