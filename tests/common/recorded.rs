//! Recorded outputs, and the distance from them.
#![allow(dead_code, reason = "each test uses its own part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

/// Shape and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

pub fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a valid file");
    let value = |view: safetensors::tensor::TensorView<'_>| {
        let floats = view.data().chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        (view.shape().to_vec(), floats)
    };
    file.iter().map(|(name, view)| (name.to_owned(), value(view))).collect()
}

pub fn norm(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// The error as the README of the recorded outputs defines it.
pub fn error(out: &[f32], expected: &[f32], base: &[f32]) -> f64 {
    let difference = norm(out.iter().zip(expected).map(|(a, b)| a - b));
    let excess = (difference - 1.2e-7 * norm(expected.iter().copied())).max(0.0);
    if excess == 0.0 { 0.0 } else { excess / norm(expected.iter().zip(base).map(|(a, b)| a - b)) }
}

pub fn assert_close(what: &str, out: &Tensors, expected: &Tensors, base: &Tensors, bound: f64) {
    assert_eq!(out.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, (shape, values)) in expected {
        assert_eq!(&out[name].0, shape, "{what}: `{name}`");
        let e = error(&out[name].1, values, &base[name].1);
        assert!(e <= bound, "{what}: `{name}` is off by {e:.2e}, at most {bound:.0e}");
    }
}

/// The CPU device, and the GPU where there is one to test with.
pub fn devices() -> Vec<&'static str> {
    if super::common::gpu().is_some() { vec!["cpu", "gpu"] } else { vec!["cpu"] }
}
