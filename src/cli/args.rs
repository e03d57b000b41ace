//! Every command and flag.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use magic_merge::device::Wanted;
use magic_merge::methods::METHODS;
use magic_merge::recipe::{DTYPES, Fit, Manifold, NonFinite, Norm, Propagate, Quick, Space};
use magic_merge::sensitivity::Metric;

use super::output;
use super::terminal::{self, Color};

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 could not be done, 2 wrong usage, 130 interrupted.
Data goes to stdout; progress, warnings and errors go to stderr.
Environment: NO_COLOR, CLICOLOR_FORCE, TERM=dumb and COLUMNS; MAGIC_NO_PROGRESS; HF_HUB_CACHE and HF_HOME, \
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

/// Heading of flags that replace files or let pass what is refused without them.
const DANGEROUS: &str = "Dangerous";

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
    /// Takes what `magic merge` takes, and writes plan.json into a folder that all machines see. Then, in any order and
    /// anywhere: `magic work DIR --shard I` for each shard, and at the end `magic finalize DIR`. What comes of it is byte
    /// for byte what `magic merge` writes.
    Plan(Box<Merge>),
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
    /// Every merge writes one beside its result: norms, factors and directions along the depth of the network, what stands
    /// out, what went in. It is made from magic.json alone, and needs neither network nor scripts to be read.
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
        /// A folder that is there
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Flags of all commands.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Device: auto, cpu, gpu, an index or a part of a name
    ///
    /// `auto` is the best hardware GPU, else the CPU; `gpu` the best GPU, a software driver if there is no other. Index
    /// and name are those that `magic devices` lists.
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Most host memory to use, such as 2GB
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// Most GPU memory to use, such as 4GB
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub vram: Option<u64>,
    /// Threads of the CPU device
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    /// Print one JSON document instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// What computes a tensor at which the GPU fails twice [default: nothing, the run ends]
    #[arg(long, global = true, value_name = "DEVICE", value_parser = ["cpu"])]
    pub fallback: Option<String>,
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

/// `magic measure`.
#[derive(Debug, clap::Args)]
pub struct Measure {
    /// The folder of the plan
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `magic work`.
#[derive(Debug, clap::Args)]
pub struct Work {
    /// The folder of the plan
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Number of the shard, from 0 [default: `SLURM_ARRAY_TASK_ID`, `JOB_COMPLETION_INDEX` or `RANK`]
    #[arg(long, value_name = "I")]
    pub shard: Option<usize>,
}

/// `magic finalize`.
#[derive(Debug, clap::Args)]
pub struct Finalize {
    /// The folder of the plan
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Take shards that different devices have made, whose last bits may differ from those of one
    #[arg(long)]
    pub mixed: bool,
    /// Record SHA-256 of inputs of more than 1 GB too
    #[arg(long)]
    pub hash: bool,
}

/// `magic merge`.
#[derive(Debug, clap::Args)]
pub struct Merge {
    /// A recipe; without it, --base, --model and --method say what is merged
    #[arg(value_name = "RECIPE.yml")]
    pub recipe: Option<PathBuf>,

    /// The model that the others were fine-tuned from
    #[arg(long, value_name = "PATH", value_parser = utf8(), help_heading = "What is merged")]
    pub base: Option<String>,
    /// A fine-tuned model, with a weight if it has one; once for each
    #[arg(long = "model", value_name = "PATH[=WEIGHT]", value_parser = utf8(), help_heading = "What is merged")]
    pub models: Vec<String>,
    /// How; `magic methods` lists them
    #[arg(long, value_name = "NAME", value_parser = method(), hide_possible_values = true)]
    #[arg(help_heading = "What is merged")]
    pub method: Option<String>,
    /// A parameter of the method, such as density=0.2 or lambda=[0.2,0.5]; once for each
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = utf8(), help_heading = "What is merged")]
    pub params: Vec<String>,
    /// Tensors to copy from the base, such as 'classifier.*'; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8(), help_heading = "What is merged")]
    pub exclude: Vec<String>,
    /// Seed of the random masks [default: 0]
    #[arg(long, value_name = "N", help_heading = "What is merged")]
    pub seed: Option<u64>,

    /// Calibration.
    #[command(flatten)]
    pub calibration: Calibration,
    /// Output.
    #[command(flatten)]
    pub output: OutputFlags,
    /// Write a LoRA adapter of at most this rank instead of a model
    ///
    /// What the merge adds to each matrix is refactored by singular values; the summary and magic.json say what is lost.
    /// Adapters alone need no `--base` for this.
    #[arg(long, value_name = "RANK", help_heading = "Output")]
    pub lora_out: Option<usize>,
    /// Check everything and show the plan, but write nothing
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,
    /// Print the recipe that the flags amount to, and do nothing else
    #[arg(long, conflicts_with = "dry_run", help_heading = "Output")]
    pub emit_recipe: bool,
}

/// Flags of a calibration.
#[derive(Debug, clap::Args)]
pub struct Calibration {
    /// Where magnitudes are measured and put back
    ///
    /// `wsc`: in weight space, which needs no data; `fsc`: in feature space; `dsc`: in weight space and then in feature
    /// space; `auto`: the best of them and of milder ones, by unlabelled data, which is what we recommend where there is some. What is not given is not calibrated.
    #[arg(long, value_name = "SPACE", value_parser = words(Space::WORDS), help_heading = "Calibration")]
    pub calibrate: Option<String>,
    /// Geometry of the weight-space calibration
    ///
    /// `mixed` (the default) weighs the parts of a row along the experts and across them; `sphere` gives each row, and
    /// `tensor` each tensor, the mean norm of the experts; `spectral` their mean largest singular value.
    #[arg(long, value_name = "NAME", value_parser = words(Manifold::WORDS), help_heading = "Calibration")]
    pub manifold: Option<String>,
    /// Norm of the manifolds sphere and tensor [default: l1]
    #[arg(long, value_name = "NAME", value_parser = words(Norm::WORDS), help_heading = "Calibration")]
    pub norm: Option<String>,
    /// How feature space reads its features [default: magnitude]
    ///
    /// `magnitude` is the paper's: the ratio of their norms. `projection` is the least-squares scale, which counts
    /// direction too and shrinks where experts contradict each other.
    #[arg(long, value_name = "NAME", value_parser = words(Fit::WORDS), help_heading = "Calibration")]
    pub fit: Option<String>,
    /// Unlabelled samples for feature space: once for all experts, or once for each in their order
    ///
    /// A `.safetensors` file with `input_ids` or `pixel_values`, `.txt` or `.jsonl` text (`tokenizer.json` lies with the
    /// base), or a folder of PNG and JPEG images (`preprocessor_config.json` does).
    #[arg(long, value_name = "PATH", value_parser = utf8(), help_heading = "Calibration")]
    pub data: Vec<String>,
    /// Most samples of each set [default: 10]
    #[arg(long, value_name = "N", help_heading = "Calibration")]
    pub samples: Option<usize>,
    /// Hidden states that feature space sees [default: merged]
    ///
    /// `merged`: those of the merge as it is, as in the paper; `calibrated`: those that the calibrated operations before give.
    #[arg(long, value_name = "NAME", value_parser = words(Propagate::WORDS), help_heading = "Calibration")]
    pub propagate: Option<String>,
    /// JSON list of tensors that may only shrink; in weight space all others may then only grow
    #[arg(long, value_name = "FILE.json", value_parser = utf8(), help_heading = "Calibration")]
    pub sensitive: Option<String>,
    /// Compute products of the forward pass by the GPU's cooperative matrices: f16 inputs, f32 sums
    ///
    /// For speed (tensor cores, simdgroup matrices), and less exact: rows are scaled to the range of f16 and rounded to its
    /// 11 bits. What that errs by is measured in the run and reported. `magic devices --json` tells which adapters have them
    /// (`cooperative`); on any other it is an error.
    #[arg(long, help_heading = "Calibration")]
    pub fast_gemm: bool,
}

/// Flags of what is written.
#[derive(Debug, clap::Args)]
pub struct OutputFlags {
    /// Folder to write
    #[arg(short, long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Element type of the output [default: that of the base]
    #[arg(long, value_name = "TYPE", value_parser = words(&DTYPES), help_heading = "Output")]
    pub dtype: Option<String>,
    /// What becomes of NaN and infinities in the models, and of results too large for their type [default: error]
    ///
    /// `error`: nothing is written, and the message names the first; `propagate`: they are computed with; `base`: the
    /// base's own element stands there. All are counted. What no model has changed stays as it is.
    #[arg(long, value_name = "WHAT", value_parser = words(NonFinite::WORDS), help_heading = DANGEROUS)]
    pub non_finite: Option<String>,
    /// Most bytes of one file
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "5GB", help_heading = "Output")]
    pub shard_size: u64,
    /// Replace an earlier result in the folder
    #[arg(long, help_heading = DANGEROUS)]
    pub overwrite: bool,
    /// Go on with a merge that was interrupted
    ///
    /// The same command again, with this flag: tensors that are safe in the folder are not computed again, and the result
    /// is the same to the last byte. Where nothing was begun, it begins; where all is done, it says so. If recipe, inputs,
    /// device or anything else that decides the bytes has changed, it is an error.
    #[arg(long, help_heading = "Output")]
    pub resume: bool,
    /// Record the SHA-256 of inputs of more than 1 GB too, and of what comes of them
    ///
    /// The receipt, magic.json, holds the size of every file that went in or came out, and its SHA-256 if the inputs have
    /// at most 1 GB in all; with this flag always, which for large models takes longer than the merge.
    #[arg(long, help_heading = "Output")]
    pub hash: bool,
}

/// `magic calibrate`.
#[derive(Debug, clap::Args)]
pub struct CalibrateArgs {
    /// The model that the others were fine-tuned from
    #[arg(long, value_name = "PATH", value_parser = utf8(), help_heading = "What is calibrated")]
    pub base: String,
    /// A fine-tuned model that went into the merge; once for each
    #[arg(long = "model", required = true, value_name = "PATH", value_parser = utf8())]
    #[arg(help_heading = "What is calibrated")]
    pub models: Vec<String>,
    /// The merge, by whatever program
    #[arg(long, value_name = "PATH", value_parser = utf8(), help_heading = "What is calibrated")]
    pub merged: String,
    /// Tensors to copy from the merge as they are, such as 'classifier.*'; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8(), help_heading = "What is calibrated")]
    pub exclude: Vec<String>,
    /// Calibration.
    #[command(flatten)]
    pub calibration: Calibration,
    /// Output.
    #[command(flatten)]
    pub output: OutputFlags,
}

/// `magic eval`.
#[derive(Debug, clap::Args)]
pub struct Eval {
    /// The model
    #[arg(value_name = "MODEL", value_parser = utf8())]
    pub model: String,
    /// Samples: text or tokens for a language model, samples with labels for a classifier
    #[arg(long, value_name = "PATH", required = true, value_parser = utf8())]
    pub data: Vec<String>,
    /// A checkpoint whose classifier (tensors `classifier.*`) is used instead of the model's own
    #[arg(long, value_name = "CHECKPOINT", value_parser = utf8())]
    pub head: Option<String>,
    /// Most samples of each set [default: all]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Compute products of the forward pass by the GPU's cooperative matrices: f16 inputs, f32 sums
    ///
    /// For speed (tensor cores, simdgroup matrices), and less exact: rows are scaled to the range of f16 and rounded to its
    /// 11 bits. What that errs by is measured in the run and reported. `magic devices --json` tells which adapters have them
    /// (`cooperative`); on any other it is an error.
    #[arg(long)]
    pub fast_gemm: bool,
}

/// `magic sensitivity`.
#[derive(Debug, clap::Args)]
pub struct SensitivityArgs {
    /// The model that the others were fine-tuned from
    #[arg(long, value_name = "PATH", value_parser = utf8())]
    pub base: String,
    /// A fine-tuned model, with a weight if it has one; once for each
    #[arg(long = "model", required = true, value_name = "PATH[=WEIGHT]", value_parser = utf8())]
    pub models: Vec<String>,
    /// How they are merged
    #[arg(long, value_name = "NAME", value_parser = method(), hide_possible_values = true, default_value = "linear")]
    pub method: String,
    /// A parameter of the method; once for each
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = utf8())]
    pub params: Vec<String>,
    /// Tensors to copy from the base; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8())]
    pub exclude: Vec<String>,
    /// Samples: once for all experts, or once for each in their order
    #[arg(long, value_name = "PATH", required = true, value_parser = utf8())]
    pub data: Vec<String>,
    /// Most samples of each set [default: 10]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Compute products of the forward pass by the GPU's cooperative matrices: f16 inputs, f32 sums
    ///
    /// For speed (tensor cores, simdgroup matrices), and less exact: rows are scaled to the range of f16 and rounded to its
    /// 11 bits. What that errs by is measured in the run and reported. `magic devices --json` tells which adapters have them
    /// (`cooperative`); on any other it is an error.
    #[arg(long)]
    pub fast_gemm: bool,
    /// What is measured: growth of the loss, fall of the accuracy, or how far the last hidden state moves
    ///
    /// `drift` needs no labels; a language model's `loss` neither.
    #[arg(long, value_name = "NAME", value_parser = words(&Metric::WORDS), default_value = "drift")]
    pub metric: String,
    /// What each task vector is scaled by
    #[arg(long, value_name = "X", default_value_t = 1.1)]
    pub factor: f64,
    /// Tensors to name as sensitive, at most
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// JSON file to write, as `--sensitive` takes it
    #[arg(short, long, value_name = "FILE.json")]
    pub out: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "out", help_heading = DANGEROUS)]
    pub overwrite: bool,
}

/// `magic verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Output folder of a merge
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Compute all tensors again, and not only some
    ///
    /// Without it: the largest, the smallest, and others by chance, about a tenth of the bytes; of a merge that was
    /// calibrated in feature space always all.
    #[arg(long)]
    pub all: bool,
}

/// `magic report`.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// Output folder of a merge
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `magic inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The model that the others were fine-tuned from, or that adapters are put on
    #[arg(long, value_name = "PATH", value_parser = utf8())]
    pub base: Option<String>,
    /// Models: folders, `.safetensors` files, PyTorch checkpoints, or org/name in the local hub cache
    #[arg(required = true, value_name = "PATH", value_parser = utf8())]
    pub paths: Vec<String>,
    /// Show all tensors, each in a line
    #[arg(long)]
    pub all: bool,
    /// Tensors to leave out of what is learned; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8(), requires = "base")]
    pub exclude: Vec<String>,
}

/// `magic diff`.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// The model that distances are measured from
    #[arg(value_name = "A", value_parser = utf8())]
    pub a: String,
    /// The other model
    #[arg(value_name = "B", value_parser = utf8())]
    pub b: String,
    /// What adapters are put on; without it, their own tensors are compared
    #[arg(long, value_name = "PATH", value_parser = utf8())]
    pub base: Option<String>,
    /// Show all tensors, those that are the same too, and not only the twenty that differ most
    #[arg(long)]
    pub all: bool,
    /// Tensors to compare, such as '*.mlp.*'; once for each pattern [default: all]
    #[arg(long, value_name = "GLOB", value_parser = utf8())]
    pub include: Vec<String>,
    /// Tensors to leave out; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8())]
    pub exclude: Vec<String>,
    /// Exit with 1 if anything differs
    #[arg(long)]
    pub exit_code: bool,
}

/// `magic bench`.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Only kernels with this in their name; once for each
    #[arg(long = "filter", value_name = "NAME", value_parser = utf8())]
    pub filters: Vec<String>,
    /// All adapters, software ones too, and the CPU
    #[arg(long)]
    pub all: bool,
    /// Smaller planes and fewer samples: a first look
    #[arg(long)]
    pub quick: bool,
    /// Elements of a plane [default: 8388608 on GPUs, 4194304 and 32768 on the CPU]
    #[arg(long, value_name = "N")]
    pub elements: Option<u32>,
    /// Document of an earlier run, `magic bench --json > OLD.json`, to compare with
    #[arg(long, value_name = "OLD.json")]
    pub compare: Option<PathBuf>,
}

/// `magic demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Folder to keep the models, all merges and the table in; without it they are removed
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only this method; once for each
    #[arg(long = "method", value_name = "NAME", value_parser = method(), hide_possible_values = true)]
    pub methods: Vec<String>,
}

impl Args {
    /// Reads the command line; help, version and wrong usage are dealt with here and end with the code.
    pub fn read() -> Result<Self, ExitCode> {
        terminal::choose_color(std::env::args_os().skip(1));
        Self::try_parse().map_err(|error| {
            if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
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
    /// The device flags, as the library takes them.
    pub fn wanted(&self, fast_gemm: bool) -> Wanted {
        Wanted {
            device: self.device.clone(),
            memory: self.memory,
            vram: self.vram,
            threads: self.threads,
            fallback: self.fallback.is_some(),
            fast_gemm,
        }
    }
}

impl Merge {
    /// The flags that make or change a recipe, as the library takes them.
    pub fn quick(&self) -> Quick {
        Quick {
            base: self.base.clone(),
            models: self.models.clone(),
            method: self.method.clone(),
            params: self.params.clone(),
            seed: self.seed,
            exclude: self.exclude.clone(),
            lora_out: self.lora_out,
            ..self.calibration.quick(&self.output)
        }
    }
}

impl Calibration {
    /// These flags alone, with the output's type.
    pub fn quick(&self, output: &OutputFlags) -> Quick {
        Quick {
            calibrate: self.calibrate.clone(),
            manifold: self.manifold.clone(),
            norm: self.norm.clone(),
            fit: self.fit.clone(),
            samples: self.samples,
            propagate: self.propagate.clone(),
            data: self.data.clone(),
            sensitive: self.sensitive.clone(),
            dtype: output.dtype.clone(),
            non_finite: output.non_finite.clone(),
            ..Quick::default()
        }
    }
}

/// Text that goes into recipes and reports, which are UTF-8.
fn utf8() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().try_map(|text| text.into_string().map_err(|_| "it is not valid UTF-8"))
}

fn words(words: &'static [&'static str]) -> PossibleValuesParser {
    PossibleValuesParser::new(words)
}

fn method() -> PossibleValuesParser {
    PossibleValuesParser::new(METHODS.iter().map(|method| method.name))
}

/// `64MB`, `5GB`, `512KiB`, `1.5G` or plain bytes; `K`, `M` and `G` are powers of ten, `Ki`, `Mi` and `Gi` of two.
fn size(text: &str) -> Result<u64, &'static str> {
    text.parse()
        .map(|size: bytesize::ByteSize| size.as_u64())
        .map_err(|_| "a size is a number and a unit, such as 64MB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let read = |text| size(text).ok();
        assert_eq!(read("64MB"), Some(64_000_000));
        assert_eq!(read("5GB"), Some(5_000_000_000));
        assert_eq!(read("512KiB"), Some(512 << 10));
        assert_eq!(read("1.5GB"), Some(1_500_000_000));
        assert_eq!(read("2 gib"), Some(2 << 30));
        assert_eq!([read("7"), read("7B"), read("7K"), read("7M"), read("7G")].map(Option::unwrap), {
            [7, 7, 7_000, 7_000_000, 7_000_000_000]
        });
        assert_eq!([read(""), read("GB"), read("-1GB"), read("5XB"), read("1e3"), read("1.2.3")], [None; 6]);
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
