//! `magic plan`, `measure`, `work` and `finalize`: a merge by several machines.

use std::env;
use std::path::Path;
use std::sync::Arc;

use magic_merge::distribute::{self, Manifest};
use magic_merge::job::Job;
use magic_merge::progress::Progress;
use magic_merge::{Error, Result};

use super::args::{Finalize, Global, Measure, Plan, Work};
use super::output::Printer;
use super::progress::{Bar, Total};
use super::run::recipe;
use super::tables::{aligned, pairs};
use super::text::{bytes, harmless, plural};
use super::{interrupt, summary};

/// Where engines say which of their jobs this is.
const RANKS: [&str; 3] = ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "RANK"];

/// Plans a merge.
pub fn plan(args: &Plan, global: &Global, printer: &Printer) -> Result<()> {
    let args = &args.what;
    let (recipe, folder) = recipe(args.recipe.as_deref(), &args.quick())?;
    let dir = args.output.out.as_ref().ok_or_else(|| {
        Error::usage("no folder for the plan").hint("add `--out DIR`, a folder that all machines see")
    })?;
    printer.warnings(args.calibration.idle(&recipe).as_slice());
    let wanted = global.wanted();
    let job = Job::new(recipe, folder.as_deref(), &wanted)?;
    let manifest = Manifest::new(&job, args.output.shard_size, &wanted)?;
    let (id, space) = manifest.write(&job, dir)?;
    let mut warnings = job.warnings(args.output.shard_size)?;
    warnings.extend(space);
    printer.warnings(&warnings);
    if printer.json() {
        let document = serde_json::json!({"schema": "magic-planned/1", "plan": id, "out": dir, "shards": manifest.shards.len(),
            "tensors": manifest.tensors, "measure": manifest.measured, "bytes": {"read": manifest.read, "written": manifest.written},
            "memory": {"host": manifest.host_memory, "device": manifest.device_memory},
            "largest": manifest.largest.as_ref().map(|(name, blocks)| serde_json::json!({"tensor": name, "blocks": blocks}))});
        return printer.document(&document);
    }
    printer.summary(&said(&manifest, &id, dir))
}

/// What was planned, and the commands that do it.
fn said(manifest: &Manifest, id: &str, dir: &Path) -> String {
    let largest = manifest.largest.as_ref().map(|(name, blocks)| format!("{name}, in {}", plural(*blocks, "block")));
    let mut facts = vec![
        ("plan", id[..16].to_owned()),
        ("tensors", manifest.tensors.to_string()),
        ("reads", format!("{} of files", bytes(manifest.read))),
        ("writes", format!("{} in {}", bytes(manifest.written), plural(manifest.shards.len(), "shard"))),
        ("memory", format!("{} a worker", bytes(manifest.host_memory + manifest.device_memory))),
    ];
    facts.extend(largest.map(|largest| ("largest", largest)));
    let at = dir.display();
    let (shard, when) = match manifest.shards.len() {
        1 => (0.to_string(), "anywhere".to_owned()),
        count => ("I".to_owned(), format!("for I = 0 to {}, in any order, anywhere", count - 1)),
    };
    let mut commands = vec![
        (format!("  magic work {at} --shard {shard}"), when),
        (format!("  magic finalize {at}"), "when all is done".to_owned()),
    ];
    if manifest.measured {
        commands.insert(0, (format!("  magic measure {at}"), "once, first".to_owned()));
    }
    harmless(&format!("{}\n{}", pairs(facts), aligned(&commands)))
}

/// Measures the factors of feature space of a plan.
pub fn measure(args: &Measure, global: &Global, printer: &Printer) -> Result<()> {
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let bar = Bar::start(global, &progress, Total { tensors: 0, bytes: 0 });
    let done = distribute::measure(&args.dir, &args.recovery.wanted(global.wanted()), &progress);
    drop(bar);
    let done = done?;
    if printer.json() {
        return printer.document(&serde_json::json!({"schema": "magic-measured/1", "measured": done}));
    }
    let how = if done.already { "measured already" } else { "measured" };
    printer.summary(&harmless(&format!("{how}: {} on {}\n", plural(done.leaves, "factor"), done.device)))
}

/// Makes a shard.
pub fn work(args: &Work, global: &Global, printer: &Printer) -> Result<()> {
    let shard = match args.shard {
        Some(shard) => shard,
        None => rank()?,
    };
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let total = match Manifest::read(&args.dir) {
        Ok((manifest, _)) => {
            let own = manifest.shard(shard)?;
            Total { tensors: own.tensors.len() as u64, bytes: own.read + own.bytes }
        }
        Err(_) => Total::default(), // it is finished, or the work says what is wrong
    };
    let bar = Bar::start(global, &progress, total);
    let done = distribute::work(&args.dir, shard, &args.recovery.wanted(global.wanted()), &progress);
    drop(bar);
    let done = done?;
    if printer.json() {
        return printer.document(&serde_json::json!({"schema": "magic-worked/1", "worked": done}));
    }
    let Some(done) = done else {
        return printer.summary(&harmless(&format!("the merge in {} is finished already\n", args.dir.display())));
    };
    printer.summary(&harmless(&match done.already {
        true => format!("shard {shard} is done already: {}\n", done.file),
        false => format!(
            "shard {shard}: {}, {} read and {} written in {:.2} s on {}\n",
            done.file,
            bytes(done.read),
            bytes(done.bytes),
            done.seconds,
            done.device
        ),
    }))
}

/// The number of this job among those of an engine.
fn rank() -> Result<usize> {
    for name in RANKS {
        let Some(value) = env::var_os(name) else { continue };
        let number = value.to_str().and_then(|value| value.parse().ok());
        return number.ok_or_else(|| {
            Error::usage(format!("`{name}` is `{}`, which is no shard", value.to_string_lossy()))
                .hint("add `--shard I`")
        });
    }
    Err(Error::usage("which shard?").hint(format!("add `--shard I`, or set one of {}", RANKS.join(", "))))
}

/// Completes a planned merge.
pub fn finalize(args: &Finalize, global: &Global, printer: &Printer) -> Result<()> {
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let bar = Bar::start(global, &progress, Total { tensors: 0, bytes: 0 });
    let report = distribute::finalize(&args.dir, args.mixed, args.hash, &global.wanted(), &progress);
    drop(bar);
    let dir = args.dir.display().to_string();
    let Some(report) = report? else {
        if printer.json() {
            return printer.document(&serde_json::json!({"schema": "magic-finished/1", "out": dir, "already": true}));
        }
        return printer.summary(&harmless(&format!("the merge in `{dir}` is finished already\n")));
    };
    printer.warnings(&report.warnings);
    if printer.json() {
        return printer.document(&report);
    }
    printer.summary(&summary::text(&report, &args.dir))
}
