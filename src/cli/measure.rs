//! `magic eval` and `magic sensitivity`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use magic_merge::checkpoint::{Checkpoint, target};
use magic_merge::evaluate::{Evaluation, Model};
use magic_merge::fast_gemm::{FastGemm, FastReport};
use magic_merge::job::Job;
use magic_merge::progress::Progress;
use magic_merge::recipe::Quick;
use magic_merge::scores::Subject;
use magic_merge::sensitivity::{Metric, Sensitivity};
use magic_merge::{Error, Result, device, lora};
use serde::Serialize;

use super::args::{Eval, Global, SensitivityArgs};
use super::output::Printer;
use super::progress::{Bar, Total};
use super::tables::{Column, table};
use super::text::{harmless, number};
use super::{interrupt, summary};

/// What `magic eval --json` prints.
#[derive(Serialize)]
struct Document {
    schema: &'static str,
    model: String,
    device: String,
    sets: Vec<Evaluation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fast_gemm: Option<FastReport>,
}

/// Loss and accuracy of a model.
pub fn eval(args: &Eval, global: &Global, printer: &Printer) -> Result<()> {
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let specs = [Some(&args.model), args.head.as_ref()];
    let checkpoints: Vec<Checkpoint> =
        specs.into_iter().flatten().map(|spec| lora::open(spec, &[])).collect::<Result<_>>()?;
    let head = args.head.as_deref().zip(checkpoints.get(1));
    printer.warnings(&checkpoints.iter().flat_map(Checkpoint::notes).collect::<Vec<_>>());
    let subject = |dir: &PathBuf| Subject::new(dir, (&args.model, &checkpoints[0]), head);
    let subject = args.report.as_ref().map(subject).transpose()?;
    printer.warnings(subject.as_ref().map_or(&[], |subject| &subject.warnings));
    let opened = device::open(&args.products.wanted(global.wanted()))?;
    let model = Model::new(&checkpoints, &opened.executor, opened.memory.parameters())?;
    let mut sets = Vec::new();
    let bar = Bar::start(global, &progress, Total::default());
    for path in &args.data {
        let samples = model.samples(Path::new(path), args.samples)?;
        printer.warnings(&samples.warnings);
        sets.push(opened.memory.pool()?.install(|| model.evaluate(samples, &progress))?);
    }
    drop(bar);
    // What was found is printed, whether or not it can be kept.
    let page = subject.map(|subject| subject.add(&opened.name, &sets)).transpose();
    let fast_gemm = opened.executor.fast_gemm().and_then(FastGemm::report);
    if printer.json() {
        let (schema, model, device) = ("magic-eval/1", args.model.clone(), opened.name);
        printer.document(&Document { schema, model, device, sets, fast_gemm })?;
        return page.map(drop);
    }
    let tokens = sets.iter().any(|set| set.perplexity.is_some());
    let mut columns = vec![Column::Left("data"), Column::Right("samples"), Column::Right("predictions")];
    columns.push(Column::Right("loss"));
    columns.push(if tokens { Column::Right("perplexity") } else { Column::Right("accuracy") });
    let row = |set: &Evaluation| {
        let Evaluation { data, samples, predictions, loss, perplexity, accuracy, .. } = set;
        let last = perplexity.map_or_else(|| format!("{:.1} %", 100.0 * accuracy), number);
        vec![data.clone(), samples.to_string(), predictions.to_string(), number(*loss), last]
    };
    printer.data(&table(&columns, sets.iter().map(row)))?;
    let page = page?.map_or(String::new(), |page| harmless(&format!("shown in {}\n", page.display())));
    printer.summary(&(summary::fast_gemm(fast_gemm.as_ref()) + &page))
}

/// The tensors that a merge is sensitive to.
pub fn sensitivity(args: &SensitivityArgs, global: &Global, printer: &Printer) -> Result<()> {
    let progress = Arc::new(Progress::default());
    interrupt::stops(&progress)?;
    let metric = Metric::named(&args.metric).expect("one of the words");
    let factor = args.factor as f32; // as it is multiplied by
    if !factor.is_finite() || factor == 1.0 {
        return Err(
            Error::usage(format!("`--factor` is {}, which shows nothing", args.factor)).hint("the paper's is 1.1")
        );
    }
    if args.top == 0 {
        return Err(Error::usage("`--top` is 0").hint("it takes a whole number from 1"));
    }
    if let Some(path) = &args.out {
        target::check(path, args.overwrite)?;
    }
    let quick = Quick {
        base: Some(args.base.clone()),
        models: args.models.clone(),
        method: Some(args.method.clone()),
        params: args.params.clone(),
        exclude: args.exclude.clone(),
        calibrate: Some("fsc".into()),
        data: args.data.clone(),
        samples: args.samples,
        ..Quick::default()
    };
    let job = Job::new(quick.recipe()?, None, &args.products.wanted(global.wanted()))?;
    args.out.as_deref().map_or(Ok(()), |path| job.spares_inputs(path))?;
    printer.warnings(&job.features.as_ref().map_or(Vec::new(), |features| features.warnings(&job.plan)));
    let bar = Bar::start(global, &progress, Total::default());
    let found = job.sensitivity(metric, args.factor, args.top, &progress)?;
    drop(bar);
    if let Some(path) = &args.out {
        let mut text = serde_json::to_string_pretty(&found).expect("plain data");
        text.push('\n');
        target::write(path, args.overwrite, text.as_bytes())?;
    }
    if printer.json() {
        return printer.document(&found);
    }
    printer.summary(&text(&found, args.out.as_deref()))
}

fn text(found: &Sensitivity, out: Option<&Path>) -> String {
    let heading = match found.metric {
        "loss" => "loss grows by",
        "accuracy" => "accuracy falls by",
        _ => "hidden state moves by",
    };
    let shown = found.tensors.iter().take(found.sensitive.len().max(10));
    let rows = shown.map(|scored| vec![scored.tensor.clone(), number(scored.worse)]);
    let mut text = table(&[Column::Left("tensor"), Column::Right(heading)], rows);
    let more = found.tensors.len().saturating_sub(found.sensitive.len().max(10));
    if more > 0 {
        text += &format!("… and {more} more\n");
    }
    if let Some(out) = out {
        let (count, out) = (found.sensitive.len(), out.display());
        text += &format!("\n{count} named as sensitive; to use it: --sensitive {out}\n");
    }
    text + &summary::fast_gemm(found.fast_gemm.as_ref())
}
