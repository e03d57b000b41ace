//! One function for each command.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use magic_merge::job::{Job, Output};
use magic_merge::methods::Method;
use magic_merge::progress::Progress;
use magic_merge::recipe::{MAX_BYTES as MAX_RECIPE, Quick, Recipe, Space};
use magic_merge::{Error, Result};

use super::args::{Args, CalibrateArgs, Command, Global, Merge, OutputFlags, RunFlags};
use super::devices::Devices;
use super::output::Printer;
use super::progress::{Bar, Total};
use super::text::plural;
use super::{
    bench, demo, diff, distribute, dry_run, inspect, interrupt, measure, methods, report, shell, summary, verify,
};

/// For whoever names a model where a recipe is expected.
const MODELS: &str = "name a recipe that is there, or give models as `--base PATH` and `--model PATH`";

/// Does what the command line says. The code is that of a run in which nothing went wrong.
pub fn run(args: &Args, printer: &Printer) -> Result<ExitCode> {
    let global = &args.global;
    match &args.command {
        Command::Merge(merge) => self::merge(merge, global, printer),
        Command::Calibrate(calibrate) => self::calibrate(calibrate, global, printer),
        Command::Eval(eval) => measure::eval(eval, global, printer),
        Command::Sensitivity(sensitivity) => measure::sensitivity(sensitivity, global, printer),
        Command::Verify(verify) => verify::run(verify, global, printer),
        Command::Plan(plan) => distribute::plan(plan, global, printer),
        Command::Measure(measure) => distribute::measure(measure, global, printer),
        Command::Work(work) => distribute::work(work, global, printer),
        Command::Finalize(finalize) => distribute::finalize(finalize, global, printer),
        Command::Report(report) => report::run(report, printer),
        Command::Inspect(inspect) => inspect::run(inspect, global, printer),
        Command::Diff(diff) => return diff::run(diff, global, printer),
        Command::Devices => devices(printer),
        Command::Methods => methods(printer),
        Command::Bench(bench) => bench::run(bench, global, printer),
        Command::Demo(demo) => demo::run(demo, global, printer),
        Command::Completions { shell } => shell::completions(*shell, printer),
        Command::Man { dir } => shell::man(dir.as_deref(), printer),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn merge(args: &Merge, global: &Global, printer: &Printer) -> Result<()> {
    let (recipe, folder) = recipe(args.what.recipe.as_deref(), &args.quick())?;
    if args.emit_recipe {
        return printer.data(&recipe.to_yaml());
    }
    let output = output(args)?;
    printer.warnings(args.what.calibration.idle(&recipe).as_slice());
    if let (Some(recipe), Some(output)) = (&args.what.recipe, &output) {
        keeps_recipe(recipe, &output.dir)?;
    }
    let job = Job::new(recipe, folder.as_deref(), &args.products.wanted(args.recovery.wanted(global.wanted())))?;
    for checkpoint in &job.checkpoints {
        let (tensors, bytes) = (plural(checkpoint.tensors().len(), "tensor"), checkpoint.total_bytes());
        log::info!("{}: {tensors}, {bytes} bytes", checkpoint.name());
    }
    log::info!("{} on {}", plural(job.plan.tensors.len(), "tensor"), job.opened.title());
    if args.dry_run {
        return plan(&job, output.as_ref(), args.what.output.shard_size, printer);
    }
    write(&job, &output.ok_or_else(no_output)?, global, printer)
}

/// A recipe in the output folder would be replaced by the one that is written there.
fn keeps_recipe(recipe: &Path, dir: &Path) -> Result<()> {
    let folder = recipe.canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned()));
    if folder.is_none() || folder != dir.canonicalize().ok() {
        return Ok(());
    }
    let what = format!("the recipe `{}` lies in the output folder, which a merge writes anew", recipe.display());
    Err(Error::output(what).hint("choose another folder, or move the recipe elsewhere"))
}

/// A merge that was made by another program.
fn calibrate(args: &CalibrateArgs, global: &Global, printer: &Printer) -> Result<()> {
    let Some(dir) = &args.output.out else {
        return Err(Error::usage("no output folder").hint("add `--out DIR`"));
    };
    let quick = Quick {
        base: Some(args.base.clone()),
        models: args.models.clone(),
        method: Some("given".into()),
        exclude: args.exclude.clone(),
        ..args.calibration.quick(&args.output)
    };
    let recipe = quick.recipe()?;
    if recipe.calibrate.space == Space::None {
        return Err(
            Error::usage("nothing to do without calibration").hint("add `--calibrate wsc`, `fsc`, `dsc` or `auto`")
        );
    }
    printer.warnings(args.calibration.idle(&recipe).as_slice());
    let job = Job::given(recipe, &args.merged, &args.products.wanted(args.recovery.wanted(global.wanted())))?;
    write(&job, &args.run.to(dir, &args.output), global, printer)
}

/// Runs a job, and says what it did.
fn write(job: &Job, output: &Output, global: &Global, printer: &Printer) -> Result<()> {
    if done(job, output, printer)? {
        return Ok(());
    }
    if output.resume && !job.resumes() {
        printer.warnings(&["a merge into an adapter does not resume: it starts from the beginning".into()]);
    }
    let report = watched(job, output, global)?;
    printer.warnings(&report.warnings);
    if printer.json() {
        return printer.document(&report);
    }
    printer.summary(&summary::text(&report, &output.dir))
}

/// Whether the merge is done already, which is then said.
fn done(job: &Job, output: &Output, printer: &Printer) -> Result<bool> {
    let Some(receipt) = job.done(output)? else { return Ok(false) };
    let what = format!("already done, with the same inputs: {}\n", output.dir.display());
    let said = if printer.json() { printer.document(&receipt) } else { printer.summary(&what) };
    said.map(|()| true)
}

/// A merge with a progress bar, and with Ctrl-C to stop it.
fn watched(job: &Job, output: &Output, global: &Global) -> Result<magic_merge::report::Report> {
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let bytes = job.plan.bytes_in() + job.layout(output.shard_size)?.total_bytes();
    let bar = Bar::start(global, &progress, Total { tensors: job.plan.tensors.len() as u64, bytes });
    let report = job.run(output, &progress);
    drop(bar);
    report
}

/// `--dry-run`: all checks, and the plan.
fn plan(job: &Job, output: Option<&Output>, shard_size: u64, printer: &Printer) -> Result<()> {
    let layout = job.layout(shard_size)?;
    if let Some(output) = output {
        if done(job, output, printer)? {
            return Ok(());
        }
        job.check(output)?;
    }
    printer.warnings(&job.warnings(shard_size)?);
    let out = output.map(|output| output.dir.as_path());
    if printer.json() {
        return printer.document(&dry_run::document(job, &layout, out));
    }
    printer.summary(&dry_run::text(job, &layout, out))
}

/// The recipe from its file or from flags, and the folder that the file lies in.
pub(super) fn recipe(path: Option<&Path>, quick: &Quick) -> Result<(Recipe, Option<PathBuf>)> {
    let Some(path) = path else {
        if *quick == Quick::default() {
            return Err(nothing_to_merge());
        }
        let recipe = quick.recipe()?;
        Method::find(&recipe.method)?;
        return Ok((recipe, None));
    };
    if path.is_dir() {
        return Err(Error::usage(format!("`{}` is a folder, not a recipe", path.display())).hint(MODELS));
    }
    let mut recipe = Recipe::from_yaml(&text_of(path)?, &path.to_string_lossy())?;
    quick.override_recipe(&mut recipe)?;
    Method::find(&recipe.method)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((recipe, folder.map(Path::to_path_buf)))
}

/// The text of a recipe. It may come through a pipe, as from another program; of what is too long for a recipe no more
/// is read than it takes to see that.
fn text_of(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::read(path, &e).hint(MODELS))?;
    file.take(MAX_RECIPE as u64 + 1).read_to_end(&mut bytes).map_err(|e| Error::read(path, &e))?;
    if bytes.len() > MAX_RECIPE {
        let most = MAX_RECIPE >> 20;
        let what = format!("`{}` is larger than a recipe can be ({most} MiB)", path.display());
        return Err(Error::usage(what).hint(MODELS));
    }
    String::from_utf8(bytes)
        .map_err(|_| Error::usage(format!("`{}` is not a recipe: it is no UTF-8 text", path.display())).hint(MODELS))
}

fn output(args: &Merge) -> Result<Option<Output>> {
    match &args.what.output.out {
        Some(dir) => Ok(Some(args.run.to(dir, &args.what.output))),
        None if args.dry_run => Ok(None),
        None => Err(no_output()),
    }
}

impl RunFlags {
    /// The folder `dir`, and how it is written.
    fn to(&self, dir: &Path, output: &OutputFlags) -> Output {
        let Self { overwrite, resume, hash } = *self;
        Output { dir: dir.to_owned(), shard_size: output.shard_size, overwrite, resume, hash }
    }
}

fn no_output() -> Error {
    Error::usage("no output folder").hint("add `--out DIR`, or `--dry-run` to see what would be done")
}

fn nothing_to_merge() -> Error {
    Error::usage("nothing to merge: name models, or a recipe")
        .hint(
            "models by flags\n        magic merge --base base/ --model math/ --model code/ \\\n            \
             --method ties --calibrate wsc --out merged/",
        )
        .hint("a recipe, in mergekit's format\n        magic merge recipe.yml --out merged/")
        .hint(
            "a merge that another program made\n        magic calibrate --base base/ --model math/ --model code/ \\\n            \
             --merged merged/ --calibrate wsc --out calibrated/",
        )
}

fn devices(printer: &Printer) -> Result<()> {
    let devices = Devices::list()?;
    if printer.json() { printer.document(&devices.document()) } else { printer.data(&devices.text()) }
}

fn methods(printer: &Printer) -> Result<()> {
    if printer.json() { printer.document(&methods::document()) } else { printer.data(&methods::text()) }
}
