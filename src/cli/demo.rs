//! `magic demo`: the vision experts that come with the program, merged by several methods, without and with calibration,
//! and what each merge gets right.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use include_dir::{Dir, include_dir};
use magic_merge::checkpoint::{Checkpoint, target};
use magic_merge::device::{self, Opened};
use magic_merge::evaluate::{Evaluation, Model};
use magic_merge::html::Score;
use magic_merge::job::{Job, Output};
use magic_merge::progress::Progress;
use magic_merge::recipe::{Quick, Recipe};
use magic_merge::report::Report;
use magic_merge::scores::Subject;
use magic_merge::{Error, Result, data, html};
use serde_json::{Value, json};

use super::args::{Demo, Global};
use super::folder::Folder;
use super::interrupt;
use super::output::Printer;
use super::summary::{Norms, cell};
use super::tables::{Column, table};
use super::text::plural;

static ASSETS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/assets/demo");

/// The methods, each with the parameters it is shown with.
const SHOWN: [(&str, &[&str]); 4] = [
    ("linear", &[]),
    ("task_arithmetic", &["lambda=0.4"]),
    ("ties", &["density=0.2"]),
    ("dare_linear", &["density=0.2"]),
];

/// The calibrations.
const SPACES: [&str; 5] = ["none", "wsc", "fsc", "dsc", "auto"];

/// Unlabelled images of each task that calibration sees.
const SAMPLES: usize = 20;

/// Test images of each task.
const TESTS: usize = 250;

/// Every expert has a head of its own, for its own classes: heads are not merged.
const HEADS: &str = "classifier.*";

const COMMANDS: &str = "\
The same with models of your own:
  magic merge --base BASE --model A --model B --method ties --param density=0.2 --calibrate wsc --out DIR
  magic merge --base BASE --model A --model B --method linear --calibrate auto --data A.txt --data B.txt --out DIR
  magic merge RECIPE.yml --out DIR
";

/// Runs it.
pub fn run(args: &Demo, global: &Global, printer: &Printer) -> Result<()> {
    let started = Instant::now();
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let folder = Folder::new(args.out.as_deref())?;
    let models = Models::unpack(&folder.add("models")?)?;
    let methods: Vec<&str> = match args.methods.is_empty() {
        true => SHOWN.iter().map(|(method, _)| *method).collect(),
        false => args.methods.iter().map(String::as_str).collect(),
    };
    let opened = device::open(&global.wanted())?;
    let evaluate = |model: &str| models.evaluate(model, &opened, &progress);
    let base = accuracy(&evaluate(&models.base)?);
    let mut experts = Vec::new();
    for (task, expert) in models.experts.iter().enumerate() {
        experts.push(models.evaluate_on(task, expert, &opened, &progress)?.accuracy);
    }
    let mut rows = Vec::new();
    for method in methods {
        for space in SPACES {
            let dir = folder.add(&name(method, space))?;
            let job = Job::new(models.recipe(method, space)?, None, &args.recovery.wanted(global.wanted()))?;
            let output = Output { shard_size: u64::MAX, ..Output::new(&dir) };
            let report = job.run(&output, &progress)?;
            let found = evaluate(dir.to_str().ok_or_else(|| not_utf8(&dir))?)?;
            rows.push(Row { method, space, report, accuracy: accuracy(&found) });
            // Where merges stay, each page shows what was found.
            if args.out.is_some() {
                models.keep(&dir, &found, &opened.name)?;
            }
        }
    }
    let shown = Shown { models: &models, base, experts, rows, device: opened.name, seconds: started.elapsed() };
    let out = args.out.as_deref();
    if let Some(out) = out {
        let write = |name: &str, text: String| {
            let path = out.join(name);
            folder.add(name)?;
            target::write(&path, false, text.as_bytes())
        };
        write("demo.json", serde_json::to_string_pretty(&shown.document(Some(out))).expect("plain data") + "\n")?;
        write("report.md", shown.markdown())?;
        write("report.html", shown.page())?;
    }
    folder.keep();
    if printer.json() { printer.document(&shown.document(out)) } else { printer.summary(&shown.text(out)) }
}

fn accuracy(found: &[Evaluation]) -> Vec<f64> {
    found.iter().map(|found| found.accuracy).collect()
}

/// The folder of a merge.
fn name(method: &str, space: &str) -> String {
    if space == "none" { method.to_owned() } else { format!("{method}_{space}") }
}

/// The models, unpacked.
struct Models {
    base: String,
    experts: Vec<String>,
    samples: PathBuf,
}

impl Models {
    fn unpack(to: &Path) -> Result<Self> {
        let samples = to.join("samples");
        let mut models = Self { base: String::new(), experts: Vec::new(), samples };
        for dir in ASSETS.dirs() {
            let name = dir.path().to_string_lossy();
            let path = to.join(dir.path());
            let text = || path.to_str().map(str::to_owned).ok_or_else(|| not_utf8(&path));
            match &*name {
                "base" => models.base = text()?,
                "samples" => {}
                _ if name.starts_with("expert_") => models.experts.push(text()?),
                _ => continue,
            }
            std::fs::create_dir_all(&path).and_then(|()| dir.extract(to)).map_err(|e| Error::write(&path, &e))?;
        }
        models.experts.sort_unstable();
        if models.base.is_empty() || models.experts.is_empty() {
            return Err(Error::input("this build of the program comes without the demo's models")
                .hint("build it with the folder `assets/demo`"));
        }
        Ok(models)
    }

    /// A model on every task, with the head of the task's expert.
    fn evaluate(&self, model: &str, opened: &Opened, progress: &Progress) -> Result<Vec<Evaluation>> {
        (0..self.experts.len()).map(|task| self.evaluate_on(task, model, opened, progress)).collect()
    }

    /// Puts what was found on every task beside the merge in `dir`.
    fn keep(&self, dir: &Path, found: &[Evaluation], device: &str) -> Result<()> {
        let name = dir.to_str().ok_or_else(|| not_utf8(dir))?;
        let merge = Checkpoint::open(name, &[])?;
        for (found, head) in found.iter().zip(&self.experts) {
            let head = (head.as_str(), &Checkpoint::open(head, &[])?);
            Subject::new(dir, (name, &merge), Some(head))?.add(device, std::slice::from_ref(found))?;
        }
        Ok(())
    }

    /// A model on one task.
    fn evaluate_on(&self, task: usize, model: &str, opened: &Opened, progress: &Progress) -> Result<Evaluation> {
        let checkpoints = [Checkpoint::open(model, &[])?, Checkpoint::open(&self.experts[task], &[])?];
        let model = Model::new(&checkpoints, &opened.executor, opened.memory.parameters())?;
        let samples = self.samples.join(format!("{}.test.safetensors", self.tasks()[task]));
        let samples = data::load(&samples, &model.network.wants, &checkpoints[0], None)?;
        opened.memory.pool()?.install(|| model.evaluate(samples, progress))
    }

    fn recipe(&self, method: &str, space: &str) -> Result<Recipe> {
        let data = |task: &str| {
            let path = self.samples.join(format!("{task}.calib.safetensors"));
            path.to_str().map(str::to_owned).ok_or_else(|| not_utf8(&path))
        };
        let params = SHOWN.iter().find(|(shown, _)| *shown == method).map_or(&[][..], |(_, params)| params);
        let quick = Quick {
            base: Some(self.base.clone()),
            models: self.experts.clone(),
            method: Some(method.to_owned()),
            params: params.iter().map(|&param| param.to_owned()).collect(),
            calibrate: Some(space.to_owned()),
            samples: Some(SAMPLES),
            data: self.tasks().into_iter().map(data).collect::<Result<_>>()?,
            exclude: vec![HEADS.to_owned()],
            ..Quick::default()
        };
        quick.recipe()
    }

    /// Names of the experts' tasks.
    fn tasks(&self) -> Vec<&str> {
        self.experts.iter().filter_map(|path| path.rsplit_once("expert_")).map(|(_, task)| task).collect()
    }
}

fn not_utf8(path: &Path) -> Error {
    Error::usage(format!("`{}` is not valid UTF-8, which recipes are written in", path.display()))
}

/// One merge.
struct Row<'a> {
    method: &'a str,
    space: &'a str,
    report: Report,
    /// Of each task.
    accuracy: Vec<f64>,
}

impl Row<'_> {
    /// The method with its parameters.
    fn method(&self) -> String {
        let params = SHOWN.iter().find(|(shown, _)| *shown == self.method).map_or(&[][..], |(_, params)| params);
        [&[self.method], params].concat().join(" ")
    }

    /// The calibration; for `auto`, what it took.
    fn calibration(&self) -> String {
        let features = self.report.features.as_ref();
        match features.and_then(|features| features.candidates.iter().find(|candidate| candidate.chosen)) {
            Some(taken) => format!("{} → {}", self.space, taken.name),
            None => self.space.to_owned(),
        }
    }

    fn norms(&self) -> Norms {
        Norms::of(&self.report.tensors)
    }
}

/// All that was found.
struct Shown<'a> {
    models: &'a Models,
    base: Vec<f64>,
    experts: Vec<f64>,
    rows: Vec<Row<'a>>,
    device: String,
    seconds: Duration,
}

fn mean(accuracy: &[f64]) -> f64 {
    accuracy.iter().sum::<f64>() / accuracy.len().max(1) as f64
}

fn percent(x: f64) -> String {
    format!("{:.1}", 100.0 * x)
}

impl Shown<'_> {
    /// Header and cells of the table.
    fn cells(&self) -> (Vec<&str>, Vec<Vec<String>>) {
        let mut header = vec!["method", "calibration", "‖τ‖ ÷ expert's"];
        header.extend(self.models.tasks());
        header.push("mean");
        let line = |method: String, calibration: String, ratio: String, of: &[f64]| {
            let accuracy = of.iter().map(|x| percent(*x)).chain([format!("{:.2}", 100.0 * mean(of))]);
            [method, calibration, ratio].into_iter().chain(accuracy).collect::<Vec<_>>()
        };
        let mut rows = vec![
            line("base".into(), String::new(), String::new(), &self.base),
            line("experts, each its own".into(), String::new(), String::new(), &self.experts),
        ];
        let mut last = "";
        for row in &self.rows {
            let method = if row.method == last { String::new() } else { row.method() };
            last = row.method;
            rows.push(line(method, row.calibration(), cell(row.norms().calibrated_ratio()), &row.accuracy));
        }
        (header, rows)
    }

    fn text(&self, out: Option<&Path>) -> String {
        let (header, rows) = self.cells();
        let columns: Vec<Column<'_>> = header
            .iter()
            .enumerate()
            .map(|(i, name)| if i < 2 { Column::Left(name) } else { Column::Right(name) })
            .collect();
        let kept = out.map(|out| {
            format!(
                "All models, merges and this table are in `{}`, with a page for each: `report.html`.\n",
                out.display()
            )
        });
        format!(
            "{tasks} fine-tuned from one base, merged on {device}; accuracy in percent on {count} test images of each \
             task\n\n{table}\n\
             τ is what fine-tuning changed: weights minus the base's. WSC rescales the merged τ row by row from the \
             weights alone,\nFSC operation by operation from {samples} unlabelled images of each task, DSC does both; \
             auto tries them and milder ones,\nand takes what lies nearest the experts, without labels. \
             {seconds:.1} s in all.\n\n\
             {COMMANDS}{kept}",
            tasks = plural(self.models.experts.len(), "expert"),
            device = self.device,
            count = TESTS,
            table = table(&columns, rows),
            samples = SAMPLES,
            seconds = self.seconds.as_secs_f64(),
            kept = kept.unwrap_or_default(),
        )
    }

    /// The table for a document.
    fn markdown(&self) -> String {
        let (header, rows) = self.cells();
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let header_line = line(header.iter().map(|name| (*name).to_owned()).collect());
        let rule = line(header.iter().enumerate().map(|(i, _)| if i < 2 { "---" } else { "--:" }.to_owned()).collect());
        let rows: String = rows.into_iter().map(line).collect();
        format!(
            "# Six experts, merged and calibrated\n\nAccuracy in percent, on {}.\n\n{header_line}{rule}{rows}",
            self.device
        )
    }

    /// The table as a page, which leads to those about the merges.
    fn page(&self) -> String {
        let cells = |ratio: Option<f64>, of: &[f64]| {
            [cell(ratio)].into_iter().chain(of.iter().map(|x| percent(*x))).collect::<Vec<_>>()
        };
        let other = |name: &str, of: &[f64]| {
            let (group, name) = ("for comparison".to_owned(), name.to_owned());
            Score { group, name, page: None, mean: mean(of), cells: cells(None, of) }
        };
        let merge = |row: &Row<'_>| Score {
            group: row.method(),
            name: row.calibration(),
            page: Some(format!("{}/report.html", name(row.method, row.space))),
            mean: mean(&row.accuracy),
            cells: cells(row.norms().calibrated_ratio(), &row.accuracy),
        };
        let others = [other("base", &self.base), other("experts, each its own task", &self.experts)];
        let all: Vec<Score> = others.into_iter().chain(self.rows.iter().map(merge)).collect();
        let about = format!(
            "{} fine-tuned from one base, merged on {}: accuracy on {TESTS} test images of each task. τ is what fine-tuning \
             changed; calibration sees {SAMPLES} unlabelled images of each task.",
            plural(self.models.experts.len(), "expert"),
            self.device
        );
        let columns: Vec<&str> = ["‖τ‖ ÷ expert’s"].into_iter().chain(self.models.tasks()).collect();
        html::scores("Six experts, merged and calibrated", &about, &columns, &all)
    }

    fn document(&self, out: Option<&Path>) -> Value {
        let merge = |row: &Row<'_>| {
            let norms = row.norms();
            json!({
                "method": row.method,
                "recipe": row.method(),
                "calibrate": row.space,
                "experts": norms.experts,
                "merged": norms.merged,
                "ratio": norms.ratio(),
                "calibrated": norms.calibrated,
                "calibrated_ratio": norms.calibrated_ratio(),
                "accuracy": row.accuracy,
                "mean_accuracy": mean(&row.accuracy),
                "candidates": row.report.features.as_ref().map(|features| &features.candidates),
                "seconds": row.report.seconds,
            })
        };
        json!({
            "schema": "magic-demo/2",
            "version": env!("CARGO_PKG_VERSION"),
            "device": self.device,
            "tasks": self.models.tasks(),
            "base": {"accuracy": self.base, "mean_accuracy": mean(&self.base)},
            "experts": {"accuracy": self.experts, "mean_accuracy": mean(&self.experts)},
            "merges": self.rows.iter().map(merge).collect::<Vec<_>>(),
            "seconds": self.seconds.as_secs_f64(),
            "out": out.map(|out| out.display().to_string()),
        })
    }
}
