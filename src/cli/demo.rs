//! `magic demo`: the vision experts that come with the program, merged by several methods, without and with
//! calibration.

use std::path::Path;
use std::sync::Arc;

use include_dir::{Dir, include_dir};
use magic_merge::job::{Job, Output};
use magic_merge::progress::Progress;
use magic_merge::recipe::{Quick, Recipe};
use magic_merge::report::Report;
use magic_merge::{Error, Result};
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

/// Every expert has a head of its own, for its own classes: heads are not merged.
const HEADS: &str = "classifier.*";

const COMMANDS: &str = "\
The same with models of your own:
  magic merge --base BASE --model A --model B --method ties --param density=0.2 --calibrate wsc --out DIR
  magic merge RECIPE.yml --out DIR
";

/// Runs it.
pub fn run(args: &Demo, global: &Global, printer: &Printer) -> Result<()> {
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let folder = Folder::new(args.out.as_deref())?;
    let models = Models::unpack(&folder.add("models")?)?;
    let methods: Vec<&str> = match args.methods.is_empty() {
        true => SHOWN.iter().map(|(method, _)| *method).collect(),
        false => args.methods.iter().map(String::as_str).collect(),
    };
    let mut rows = Vec::new();
    for method in methods {
        let merge = |space: &str| {
            let dir = folder.add(&if space == "none" { method.to_owned() } else { format!("{method}_{space}") })?;
            let job = Job::new(models.recipe(method, space)?, None, &global.wanted())?;
            job.run(&Output { dir, shard_size: u64::MAX, overwrite: false, hash: false }, &progress)
        };
        rows.push(Row { method, merged: merge("none")?, calibrated: merge("wsc")? });
    }
    folder.keep();
    if printer.json() {
        return printer.document(&document(&models, &rows, args.out.as_deref()));
    }
    printer.summary(&text(&models, &rows, args.out.as_deref()))
}

/// The models, unpacked.
struct Models {
    base: String,
    experts: Vec<String>,
}

impl Models {
    fn unpack(to: &Path) -> Result<Self> {
        let mut models = Self { base: String::new(), experts: Vec::new() };
        for dir in ASSETS.dirs() {
            let name = dir.path().to_string_lossy();
            let path = to.join(dir.path());
            let text = || path.to_str().map(str::to_owned).ok_or_else(|| not_utf8(&path));
            match &*name {
                "base" => models.base = text()?,
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

    fn recipe(&self, method: &str, space: &str) -> Result<Recipe> {
        let params = SHOWN.iter().find(|(shown, _)| *shown == method).map_or(&[][..], |(_, params)| params);
        let quick = Quick {
            base: Some(self.base.clone()),
            models: self.experts.clone(),
            method: Some(method.to_owned()),
            params: params.iter().map(|&param| param.to_owned()).collect(),
            calibrate: Some(space.to_owned()),
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

/// One method.
struct Row<'a> {
    method: &'a str,
    merged: Report,
    calibrated: Report,
}

impl Row<'_> {
    fn name(&self) -> String {
        let params = SHOWN.iter().find(|(shown, _)| *shown == self.method).map_or(&[][..], |(_, params)| params);
        [&[self.method], params].concat().join(" ")
    }

    /// Norms without and with calibration.
    fn norms(&self) -> (Norms, Norms) {
        (Norms::of(&self.merged.tensors), Norms::of(&self.calibrated.tensors))
    }
}

fn text(models: &Models, rows: &[Row<'_>], out: Option<&Path>) -> String {
    let columns = [
        Column::Left("method"),
        Column::Right("‖τ‖ experts"),
        Column::Right("merged"),
        Column::Right("÷ experts"),
        Column::Right("with WSC"),
        Column::Right("÷ experts"),
        Column::Right("mean ξ"),
    ];
    let row = |row: &Row<'_>| {
        let (plain, calibrated) = row.norms();
        let mut cells = vec![row.name()];
        cells.extend([Some(plain.experts), Some(plain.merged), plain.ratio()].map(cell));
        cells.extend([Some(calibrated.calibrated), calibrated.calibrated_ratio(), calibrated.xi].map(cell));
        cells
    };
    let range = |of: &dyn Fn(&Row<'_>) -> Option<f64>| {
        let least = rows.iter().filter_map(of).fold(f64::INFINITY, f64::min);
        let most = rows.iter().filter_map(of).fold(f64::NEG_INFINITY, f64::max);
        if rows.len() == 1 { format!("{most:.2}") } else { format!("{least:.2} to {most:.2}") }
    };
    let kept = out.map(|out| format!("All models and merges are in `{}`.\n", out.display())).unwrap_or_default();
    format!(
        "{tasks} ({names}), fine-tuned from one base, merged on {device}\n\n{table}\n\
         τ is what fine-tuning changed: a model's weights minus the base's. Merged, it is {plain} times as long as an \
         expert's.\nCalibration in weight space (WSC) rescales it row by row, from the weights alone, to \
         {calibrated} times.\n\n\
         {COMMANDS}{kept}",
        tasks = plural(models.experts.len(), "expert"),
        names = models.tasks().join(", "),
        device = rows[0].merged.device,
        table = table(&columns, rows.iter().map(row)),
        plain = range(&|row| row.norms().0.ratio()),
        calibrated = range(&|row| row.norms().1.calibrated_ratio()),
    )
}

fn document(models: &Models, rows: &[Row<'_>], out: Option<&Path>) -> Value {
    let merge = |row: &Row<'_>| {
        let (plain, calibrated) = row.norms();
        json!({
            "method": row.method,
            "recipe": row.name(),
            "experts": plain.experts,
            "merged": plain.merged,
            "ratio": plain.ratio(),
            "calibrated": calibrated.calibrated,
            "calibrated_ratio": calibrated.calibrated_ratio(),
            "xi": calibrated.xi,
            "seconds": [row.merged.seconds, row.calibrated.seconds],
        })
    };
    json!({
        "schema": "magic-demo/1",
        "version": env!("CARGO_PKG_VERSION"),
        "device": rows[0].merged.device,
        "experts": models.tasks(),
        "merges": rows.iter().map(merge).collect::<Vec<_>>(),
        "out": out.map(|out| out.display().to_string()),
    })
}
