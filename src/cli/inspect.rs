//! What is in a checkpoint.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use magic_merge::checkpoint::{Checkpoint, TensorInfo};
use serde_json::{Value, json};

use super::tables::{Column, table};
use super::text::{bytes, count, plural};

/// Every tensor in a line, every file in a line, and a line in all.
pub fn text(checkpoint: &Checkpoint) -> String {
    let tensors = checkpoint.tensors().iter().map(|tensor| {
        vec![tensor.name.clone(), tensor.dtype.header_name().to_owned(), shape(tensor), bytes(tensor.bytes)]
    });
    let columns = [Column::Left("tensor"), Column::Left("type"), Column::Left("shape"), Column::Right("bytes")];
    let files = files(checkpoint);
    let rows = files.iter().map(|file| vec![name(file.path), file.tensors.to_string(), bytes(file.bytes)]);
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
pub fn document(checkpoints: &[Checkpoint]) -> Value {
    let tensor = |checkpoint: &Checkpoint, place: usize, tensor: &TensorInfo| {
        json!({
            "name": tensor.name,
            "dtype": tensor.dtype.header_name(),
            "shape": tensor.shape,
            "bytes": tensor.bytes,
            "file": name(checkpoint.file_of(place)),
        })
    };
    let file = |file: &FileTotal| json!({"file": name(file.path), "tensors": file.tensors, "bytes": file.bytes});
    let model = |checkpoint: &Checkpoint| {
        let tensors = checkpoint.tensors().iter().enumerate();
        json!({
            "model": checkpoint.name(),
            "parameters": checkpoint.tensors().iter().map(TensorInfo::elements).sum::<u64>(),
            "bytes": checkpoint.total_bytes(),
            "files": files(checkpoint).iter().map(file).collect::<Vec<_>>(),
            "tensors": tensors.map(|(place, info)| tensor(checkpoint, place, info)).collect::<Vec<_>>(),
        })
    };
    json!({"schema": "magic-inspect/1", "models": checkpoints.iter().map(model).collect::<Vec<_>>()})
}

/// The tensors of one file.
struct FileTotal<'a> {
    path: &'a Path,
    tensors: usize,
    bytes: u64,
}

fn files(checkpoint: &Checkpoint) -> Vec<FileTotal<'_>> {
    let mut totals: Vec<_> = checkpoint.files().map(|path| FileTotal { path, tensors: 0, bytes: 0 }).collect();
    let places: HashMap<&Path, usize> = checkpoint.files().enumerate().map(|(place, path)| (path, place)).collect();
    for (number, tensor) in checkpoint.tensors().iter().enumerate() {
        let total = &mut totals[places[checkpoint.file_of(number)]];
        total.tensors += 1;
        total.bytes += tensor.bytes;
    }
    totals
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn shape(tensor: &TensorInfo) -> String {
    let dims: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
    if dims.is_empty() { "scalar".to_owned() } else { dims.join("×") }
}
