//! Every command and flag.

mod distribute;
mod merge;
mod shared;
mod tools;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use magic_merge::device::Wanted;

pub use distribute::{Finalize, Measure, Plan, Work};
pub use merge::{CalibrateArgs, Merge, OutputFlags, RunFlags};
pub use tools::{Bench, Demo, Diff, Eval, Inspect, Report, SensitivityArgs, Verify};
use values::size;

use super::output;
use super::terminal::{self, Color};

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 could not be done, 2 wrong usage, 130 interrupted.
Data goes to stdout; progress, warnings and errors go to stderr.
Environment: NO_COLOR, CLICOLOR_FORCE, TERM=dumb and COLUMNS; MAGIC_NO_PROGRESS; HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME, \
where `org/name` is looked for.";

/// What `magic` alone says.
const FIRST_STEPS: &str = "\
Merge fine-tuned checkpoints, and put back the magnitudes that merging loses.

  magic demo                      merges small models that come with the program
  magic merge                     shows the commands that a merge takes
  magic inspect --base BASE A B   what models have learned, where they conflict
  magic diff A B                  how two models differ
  magic --help                    all commands and flags
";

/// Merge fine-tuned checkpoints on any GPU, and put back the magnitudes that merging loses.
#[derive(Debug, Parser)]
#[command(name = "magic", version, after_help = EXIT_CODES, arg_required_else_help = true)]
#[command(max_term_width = 120)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Merge models, by a recipe or by flags
    ///
    /// A recipe is mergekit's YAML, and a `calibrate` section. A PATH is a Hugging Face folder, one `.safetensors` file
    /// or PyTorch checkpoint, `org/name` in the local hub cache, or the folder of a LoRA adapter; the network is never
    /// used. Files get their names in the output folder when the merge is complete; one that was interrupted can go on:
    /// `--resume`.
    Merge(Box<Merge>),
    /// Calibrate a merge that another program made
    ///
    /// The same factors as `magic merge --calibrate` would give, for a merge that is there already: it need only come from
    /// the base and the models that are named.
    Calibrate(Box<CalibrateArgs>),
    /// Measure a model: loss and perplexity of a language model, accuracy of a classifier
    Eval(Eval),
    /// Find the tensors that a merge is most sensitive to, for `--sensitive`
    ///
    /// Each tensor's merged task vector is scaled in turn, and what that does is measured.
    Sensitivity(Box<SensitivityArgs>),
    /// Check a finished merge: its files, its inputs, and its tensors, computed again
    ///
    /// Every file that the receipt lists, magic.json, must be there as it was recorded, and so must every input. Then tensors
    /// are computed again from the inputs and compared, without writing anything: bit for bit on the device that made them,
    /// which `--device auto` means here if it is there; on another within 1e-5 of each task vector and one rounding.
    /// Exit code 1 if anything differs.
    Verify(Verify),
    /// Plan a merge for several machines
    ///
    /// Takes a recipe, or the flags that make one, and writes plan.json into a folder that all machines see. Then, in any order and
    /// anywhere: `magic work DIR --shard I` for each shard, and at the end `magic finalize DIR`. What comes of it is byte
    /// for byte what `magic merge` writes.
    Plan(Box<Plan>),
    /// Measure the factors of feature space for a plan; once, before the work
    Measure(Measure),
    /// Make one shard of a plan
    ///
    /// Does nothing if the shard is there and its receipt and digest stand. Any number of workers may run at a time, on
    /// the same shard too; one that is killed leaves nothing that counts.
    Work(Work),
    /// Complete a planned merge: check every receipt and shard, and give the files their names
    Finalize(Finalize),
    /// Write the page about a finished merge, report.html, anew
    ///
    /// Every merge writes one beside its result: norms, factors and directions along the depth of the network, experts beside
    /// each other, what stands out, what went in. It is made from magic.json and the scores that `magic eval --report` has
    /// added, and needs neither network nor scripts to be read.
    Report(Report),
    /// Show what is in models; with `--base`, what they have learned and where they conflict
    ///
    /// Without `--base`: names, types and shapes, tensors of the same kind in one line. With it: the length of every model's
    /// task vector, the cosines between them, and the factors ξ that weight-space calibration would give their mean, by
    /// kind and by layer; then the tensors that conflict most, and those that changed most. All tensors are read, once
    /// or twice.
    Inspect(Inspect),
    /// Show how two models differ, tensor by tensor
    ///
    /// What differs most comes first. Floats of different types are compared by value; all else by its bits. Both are read
    /// once, on the CPU. Exit code 0, whatever differs, unless `--exit-code` is given.
    Diff(Diff),
    /// List the devices that a merge can run on
    Devices,
    /// List the merge methods, with formula and paper
    Methods,
    /// Measure every kernel, and check it against its twin
    ///
    /// Prints a markdown table: time, useful bytes a second, and that as a part of what a plain copy reaches on the same
    /// device in the same run. `--device` chooses the device. Exit code 1 if any result is wrong.
    Bench(Bench),
    /// Merge small models that come with the program, and show what calibration does
    ///
    /// The models are six vision experts of 0.3 million parameters. They are merged by several methods, each without and
    /// with every calibration; a table shows what each merge gets right on test images of every task. It needs no
    /// download, no GPU and less than two minutes.
    Demo(Demo),
    /// Print a completion script for a shell
    ///
    /// For instance: `magic completions bash > ~/.local/share/bash-completion/completions/magic`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write a page for each command into a folder
    ///
    /// For instance: `magic man ~/.local/share/man/man1`, and then `man magic-merge`
    Man {
        /// The folder; it and those above it are made if they are not there
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Flags of all commands.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Device: auto, cpu, gpu, all, an index or a part of a name
    ///
    /// `auto` is the best hardware GPU, else the CPU; `gpu` the best GPU, a software driver if there is no other; `all` that
    /// and every other of the same kind, which merge tensors side by side. Index and name are those that `magic devices`
    /// lists.
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Most host memory to use, such as 2GB [default: 384MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// Most GPU memory to use, such as 4GB [default: 1GiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub vram: Option<u64>,
    /// Threads of the CPU device
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    /// Print one JSON document instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours: auto, always or never
    ///
    /// `auto`: on a terminal, unless NO_COLOR is set or TERM is dumb; CLICOLOR_FORCE=1 stands for `always`. Nothing is said
    /// by colour alone.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = true)]
    pub color: Color,
    /// Print errors only: no progress, no warnings, no summary
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log what is done; twice, also what the GPU libraries say
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Args {
    /// Reads the command line; help, version and wrong usage are dealt with here and end with the code.
    pub fn read() -> Result<Self, ExitCode> {
        terminal::choose_color(std::env::args_os().skip(1));
        Self::try_parse().map_err(|error| {
            let alone = [ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ErrorKind::MissingSubcommand];
            if alone.contains(&error.kind()) {
                output::first_steps(FIRST_STEPS);
            } else if error.use_stderr() {
                output::usage(&error.to_string());
            } else {
                let _ = error.print(); // where nobody reads, there is nobody to tell
            }
            ExitCode::from(error.exit_code() as u8)
        })
    }
}

impl Global {
    /// The device flags, as the library takes them; `recovery` and `products` of a command add to them.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            device: self.device.clone(),
            memory: self.memory,
            vram: self.vram,
            threads: self.threads,
            fallback: false,
            fast_gemm: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use magic_merge::device::{HOST, VRAM};

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        assert_eq!([size("384MiB"), size("1GiB")], [Ok(HOST), Ok(VRAM)], "as the help says");
    }
}
