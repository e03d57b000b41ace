//! Whole merges against what the peers made of the same inputs, on the CPU device and on the GPU.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use magic_merge::device::Wanted;
use magic_merge::job::{Job, Output};
use magic_merge::progress::Progress;
use magic_merge::recipe::Recipe;
use safetensors::SafeTensors;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a valid file");
    let value = |view: safetensors::tensor::TensorView<'_>| {
        let floats = view.data().chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        (view.shape().to_vec(), floats)
    };
    file.iter().map(|(name, view)| (name.to_owned(), value(view))).collect()
}

fn merge(yaml: &str, folder: &str, device: &str) -> Tensors {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let recipe = Recipe::from_yaml(yaml, "recipe.yml").expect("a valid recipe");
    let wanted = Wanted { device: device.to_owned(), ..Wanted::default() };
    let job = Job::new(recipe, Some(&golden(folder)), &wanted).expect("a valid merge");
    let output = Output { dir: dir.path().join("out"), shard_size: 5_000_000_000, overwrite: false, hash: false };
    job.run(&output, &Progress::default()).expect("a merge");
    tensors(&output.dir.join("model.safetensors"))
}

fn norm(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// The error as the README of the recorded outputs defines it.
fn error(out: &[f32], expected: &[f32], base: &[f32]) -> f64 {
    let difference = norm(out.iter().zip(expected).map(|(a, b)| a - b));
    let excess = (difference - 1.2e-7 * norm(expected.iter().copied())).max(0.0);
    if excess == 0.0 { 0.0 } else { excess / norm(expected.iter().zip(base).map(|(a, b)| a - b)) }
}

fn assert_close(what: &str, out: &Tensors, expected: &Tensors, base: &Tensors, bound: f64) {
    assert_eq!(out.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, (shape, values)) in expected {
        assert_eq!(&out[name].0, shape, "{what}: `{name}`");
        let e = error(&out[name].1, values, &base[name].1);
        assert!(e <= bound, "{what}: `{name}` is off by {e:.2e}, at most {bound:.0e}");
    }
}

/// The CPU device, and the GPU where there is one to test with.
fn devices() -> Vec<&'static str> {
    if common::gpu().is_some() { vec!["cpu", "gpu"] } else { vec!["cpu"] }
}

#[test]
fn mergekit() {
    let base = tensors(&golden("mergekit/models/base/model.safetensors"));
    let methods = [
        "linear",
        "linear_raw",
        "task_arithmetic",
        "task_arithmetic_normalized",
        "ties",
        "ties_sum",
        "slerp",
        "gradient",
    ];
    for device in devices() {
        for method in methods {
            let recipe = golden(&format!("mergekit/recipes/{method}.yml"));
            let yaml = std::fs::read_to_string(recipe).expect("a recipe");
            let expected = tensors(&golden(&format!("mergekit/expected/{method}.safetensors")));
            let out = merge(&yaml, "mergekit", device);
            assert_close(&format!("{method} on {device}"), &out, &expected, &base, 1e-5);
        }
    }
}

/// A recipe for the mean of the four experts, as the reference computes it.
fn mean(calibrate: &str) -> String {
    let models: String = (0..4).map(|i| format!("- model: expert{i}.safetensors\n")).collect();
    format!("merge_method: linear\nbase_model: base.safetensors\nmodels:\n{models}{calibrate}")
}

#[test]
fn reference_of_the_paper() {
    let base = tensors(&golden("magic/base.safetensors"));
    let cases = [
        ("mean", "", 1e-5),
        ("mean_wsc", "calibrate: {space: wsc}\n", 1e-4),
        ("mean_wsc_sensitive", "calibrate: {space: wsc, sensitive: ratios.json}\n", 1e-4),
        ("mean_sphere_L1", "calibrate: {space: wsc, manifold: sphere, norm: l1}\n", 1e-4),
        ("mean_sphere_L2", "calibrate: {space: wsc, manifold: sphere, norm: l2}\n", 1e-4),
        ("mean_sphere_Linf", "calibrate: {space: wsc, manifold: sphere, norm: linf}\n", 1e-4),
        ("mean_spectral", "calibrate: {space: wsc, manifold: spectral}\n", 1e-4),
    ];
    for device in devices() {
        for (name, calibrate, bound) in cases {
            let expected = tensors(&golden(&format!("magic/expected_{name}.safetensors")));
            let out = merge(&mean(calibrate), "magic", device);
            assert_close(&format!("{name} on {device}"), &out, &expected, &base, bound);
        }
    }
}

/// The reference's TIES keeps one entry more than ours: all rows but the few that hold it must agree.
#[test]
fn ties_of_the_reference_but_for_one_entry() {
    let base = tensors(&golden("magic/base.safetensors"));
    // The reference adds 1e-8 to squared norms, which shows in single rows of trimmed task vectors.
    let cases = [("ties_layerwise", "", 1e-4), ("ties_layerwise_wsc", "calibrate: {space: wsc}\n", 1e-3)];
    for (name, calibrate, bound) in cases {
        let expected = tensors(&golden(&format!("magic/expected_{name}.safetensors")));
        let yaml = mean(calibrate).replace("linear", "ties") + "parameters: {density: 0.2}\n";
        for device in devices() {
            let out = merge(&yaml, "magic", device);
            for (tensor, (shape, values)) in &expected {
                let len = values.len() / shape[0];
                let rows = |x: &Tensors| x[tensor].1.chunks(len).map(<[f32]>::to_vec).collect::<Vec<_>>();
                let rows = rows(&out).into_iter().zip(rows(&expected)).zip(rows(&base));
                // Four experts hold at most one such entry each.
                let off = rows.filter(|((a, b), c)| error(a, b, c) > bound).count();
                assert!(off <= 4, "{name} on {device}: {off} rows of `{tensor}` differ");
            }
        }
    }
}
