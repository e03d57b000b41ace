//! `magic inspect`: what is in a checkpoint.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::Path;

use magic_merge::Result;
use magic_merge::checkpoint::{Checkpoint, TensorInfo};
use magic_merge::lora::models::shown_as;
use magic_merge::part::Part;
use serde::Serialize;

use super::args::{Global, Inspect};
use super::output::Printer;
use super::survey::Survey;
use super::tables::{Column, table};
use super::text::{bytes, count, harmless, percent, plural, shape};

/// Tensors that are named without `--all`, if no more have the same shape and place.
const SHOWN: usize = 40;

/// Shows what is in models; over a base, what they have learned.
pub fn run(args: &Inspect, global: &Global, printer: &Printer) -> Result<()> {
    let survey = args.base.as_ref().map(|base| Survey::new(args, base, global, printer)).transpose()?;
    if let Some(survey) = survey.as_ref().filter(|_| !printer.json()) {
        return printer.data(&survey.text(args.all));
    }
    let checkpoints: Vec<Checkpoint> =
        args.paths.iter().map(|path| shown_as(path, args.base.as_deref())).collect::<Result<_>>()?;
    if survey.is_none() {
        printer.warnings(&checkpoints.iter().flat_map(Checkpoint::notes).collect::<Vec<_>>());
    }
    if printer.json() {
        let models = checkpoints.iter().map(model).collect();
        return printer.document(&Document { schema: "magic-inspect/1", models, task_vectors: survey });
    }
    let texts: Vec<String> = checkpoints.iter().map(|checkpoint| text(checkpoint, args.all)).collect();
    printer.data(&texts.join("\n"))
}

/// A line in all, then parts, files and tensors: those that are in all layers in one line.
fn text(checkpoint: &Checkpoint, all: bool) -> String {
    let tensors = checkpoint.tensors();
    let parameters = |tensors: &[&TensorInfo]| tensors.iter().map(|tensor| tensor.elements()).sum::<u64>();
    let types: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.dtype.header_name()).collect();
    let whole: u64 = tensors.iter().map(TensorInfo::elements).sum();
    let mut text = format!(
        "{}: {}, {} parameters, {}, {}\n",
        harmless(checkpoint.name()),
        plural(tensors.len(), "tensor"),
        count(whole),
        bytes(checkpoint.total_bytes()),
        types.into_iter().collect::<Vec<_>>().join(" "),
    );
    let part = |part: Part| {
        let of: Vec<&TensorInfo> = tensors.iter().filter(|tensor| Part::of(&tensor.name) == part).collect();
        let parameters = parameters(&of);
        (!of.is_empty()).then(|| {
            vec![part.as_str().to_owned(), of.len().to_string(), count(parameters), percent(parameters, whole)]
        })
    };
    let columns =
        [Column::Left("part"), Column::Right("tensors"), Column::Right("parameters"), Column::Right("of all")];
    text += &format!("\n{}", table(&columns, Part::ALL.into_iter().filter_map(part)));
    let files = files(checkpoint);
    if files.len() > 1 {
        let row = |file: &FileTotal<'_>| vec![harmless(&file.file), file.tensors.to_string(), bytes(file.bytes)];
        let columns = [Column::Left("file"), Column::Right("tensors"), Column::Right("bytes")];
        text += &format!("\n{}", table(&columns, files.iter().map(row)));
    }
    let families = if all {
        tensors.iter().map(|tensor| (tensor.name.clone(), vec![tensor])).collect()
    } else {
        families(tensors)
    };
    let row = |(name, tensors): &(String, Vec<&TensorInfo>)| {
        let number = if tensors.len() > 1 { format!("× {}", tensors.len()) } else { String::new() };
        let total = tensors.iter().map(|tensor| tensor.bytes).sum();
        vec![name.clone(), tensors[0].dtype.header_name().to_owned(), shape(&tensors[0].shape), number, bytes(total)]
    };
    let columns = [
        Column::Left("tensor"),
        Column::Left("type"),
        Column::Left("shape"),
        Column::Right(""),
        Column::Right("bytes"),
    ];
    let shown = if all { families.len() } else { families.len().min(SHOWN) };
    text += &format!("\n{}", table(&columns, families[..shown].iter().map(row)));
    if shown < families.len() {
        let more = plural(families.len() - shown, "line");
        text += &format!("… and {more} more; --all shows every tensor\n");
    }
    text
}

/// Tensors of one name but for its numbers, one type and one shape; in the order of the first of each. One alone keeps its
/// name.
fn families(tensors: &[TensorInfo]) -> Vec<(String, Vec<&TensorInfo>)> {
    let starred = |name: &str| {
        let star = |part| if str::bytes(part).all(|b| b.is_ascii_digit()) { "*" } else { part };
        name.split('.').map(star).collect::<Vec<_>>().join(".")
    };
    let mut places = HashMap::new();
    let mut families: Vec<(String, Vec<&TensorInfo>)> = Vec::new();
    for tensor in tensors {
        let name = starred(&tensor.name);
        let place = *places.entry((name.clone(), tensor.dtype, &tensor.shape)).or_insert(families.len());
        if place == families.len() {
            families.push((name, Vec::new()));
        }
        families[place].1.push(tensor);
    }
    for (name, tensors) in &mut families {
        if let [alone] = tensors[..] {
            name.clone_from(&alone.name);
        }
    }
    families
}

fn model(checkpoint: &Checkpoint) -> Model<'_> {
    let mut tensors = Vec::with_capacity(checkpoint.tensors().len());
    for (place, TensorInfo { name: tensor, dtype, shape, bytes, .. }) in checkpoint.tensors().iter().enumerate() {
        let file = name(checkpoint.file_of(place));
        tensors.push(Tensor { name: tensor, dtype: dtype.header_name(), shape, bytes: *bytes, file });
    }
    let parameters = checkpoint.tensors().iter().map(TensorInfo::elements).sum();
    let (model, bytes, files) = (checkpoint.name(), checkpoint.total_bytes(), files(checkpoint));
    Model { model, parameters, bytes, files, tensors }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    models: Vec<Model<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_vectors: Option<Survey>,
}

#[derive(Serialize)]
struct Model<'a> {
    model: &'a str,
    parameters: u64,
    bytes: u64,
    files: Vec<FileTotal<'a>>,
    tensors: Vec<Tensor<'a>>,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    dtype: &'a str,
    shape: &'a [u64],
    bytes: u64,
    file: Cow<'a, str>,
}

/// The tensors of one file.
#[derive(Serialize)]
struct FileTotal<'a> {
    file: Cow<'a, str>,
    tensors: usize,
    bytes: u64,
}

fn files(checkpoint: &Checkpoint) -> Vec<FileTotal<'_>> {
    let mut totals: Vec<_> =
        checkpoint.files().map(|path| FileTotal { file: name(path), tensors: 0, bytes: 0 }).collect();
    let places: HashMap<&Path, usize> = checkpoint.files().enumerate().map(|(place, path)| (path, place)).collect();
    for (number, tensor) in checkpoint.tensors().iter().enumerate() {
        let total = &mut totals[places[checkpoint.file_of(number)]];
        total.tensors += 1;
        total.bytes += tensor.bytes;
    }
    totals
}

fn name(path: &Path) -> Cow<'_, str> {
    path.file_name().map_or(Cow::Borrowed(""), OsStr::to_string_lossy)
}
