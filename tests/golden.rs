//! Whole merges against what the peers made of the same inputs, on the CPU device and on the GPU.

mod common;
#[path = "common/recorded.rs"]
mod recorded;

use magic_merge::device::Wanted;
use magic_merge::job::{Job, Output};
use magic_merge::progress::Progress;
use magic_merge::recipe::Recipe;
use recorded::{Tensors, assert_close, devices, error, golden, tensors};

fn merge(yaml: &str, folder: &str, device: &str) -> Tensors {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let recipe = Recipe::from_yaml(yaml, "recipe.yml").expect("a valid recipe");
    let wanted = Wanted { device: device.to_owned(), ..Wanted::default() };
    let job = Job::new(recipe, Some(&golden(folder)), &wanted).expect("a valid merge");
    let output = Output { dir: dir.path().join("out"), shard_size: 5_000_000_000, overwrite: false, hash: false };
    job.run(&output, &Progress::default()).expect("a merge");
    tensors(&output.dir.join("model.safetensors"))
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
