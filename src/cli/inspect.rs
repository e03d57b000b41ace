//! What is in a checkpoint.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::Path;

use magic_merge::checkpoint::{Checkpoint, TensorInfo};
use serde::Serialize;

use super::tables::{Column, table};
use super::text::{bytes, count, harmless, plural};

/// Every tensor in a line, every file in a line, and a line in all.
pub fn text(checkpoint: &Checkpoint) -> String {
    let tensors = checkpoint.tensors().iter().map(|tensor| {
        vec![tensor.name.clone(), tensor.dtype.header_name().to_owned(), shape(tensor), bytes(tensor.bytes)]
    });
    let columns = [Column::Left("tensor"), Column::Left("type"), Column::Left("shape"), Column::Right("bytes")];
    let files = files(checkpoint);
    let rows = files.iter().map(|file| vec![harmless(&file.file), file.tensors.to_string(), bytes(file.bytes)]);
    let file_columns = [Column::Left("file"), Column::Right("tensors"), Column::Right("bytes")];
    let parameters = checkpoint.tensors().iter().map(TensorInfo::elements).sum();
    let types: BTreeSet<&str> = checkpoint.tensors().iter().map(|tensor| tensor.dtype.header_name()).collect();
    format!(
        "{}\n{}\n{}: {}, {} parameters, {}, {}\n",
        table(&columns, tensors),
        table(&file_columns, rows),
        checkpoint.name(),
        plural(checkpoint.tensors().len(), "tensor"),
        count(parameters),
        bytes(checkpoint.total_bytes()),
        types.into_iter().collect::<Vec<_>>().join(" "),
    )
}

/// The same as a document.
pub fn document(checkpoints: &[Checkpoint]) -> impl Serialize {
    Document { schema: "magic-inspect/1", models: checkpoints.iter().map(model).collect() }
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

fn shape(tensor: &TensorInfo) -> String {
    let dims: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
    if dims.is_empty() { "scalar".to_owned() } else { dims.join("×") }
}
