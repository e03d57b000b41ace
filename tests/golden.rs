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
    let output = Output::new(dir.path().join("out"));
    job.run(&output, &Progress::default()).expect("a merge");
    tensors(&output.dir.join("model.safetensors"))
}

#[test]
fn mergekit() {
    let base = tensors(&golden("mergekit/models/base/model.safetensors"));
    for device in devices() {
        for recipe in std::fs::read_dir(golden("mergekit/recipes")).expect("recipes") {
            let recipe = recipe.expect("a recipe").path();
            let name = recipe.file_stem().and_then(|stem| stem.to_str()).expect("a name");
            let yaml = std::fs::read_to_string(&recipe).expect("a recipe");
            let expected = tensors(&golden(&format!("mergekit/expected/{name}.safetensors")));
            let out = merge(&yaml, "mergekit", device);
            // Those two compute angles in float32.
            let bound = if matches!(name, "karcher" | "multislerp") { 1e-4 } else { 1e-5 };
            assert_close(&format!("{name} on {device}"), &out, &expected, &base, bound);
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

#[test]
fn slerp_by_rows_of_the_reference() {
    let base = tensors(&golden("magic/base.safetensors"));
    let expected = tensors(&golden("magic/expected_slerp_rows_2models.safetensors"));
    let models = "base_model: base.safetensors\nmodels: [{model: expert0.safetensors}, {model: expert1.safetensors}]\n";
    for device in devices() {
        for method in ["slerp_rows", "nuslerp\nparameters: {nuslerp_flatten: false}"] {
            let out = merge(&format!("{models}merge_method: {method}\n"), "magic", device);
            assert_close(&format!("{method} on {device}"), &out, &expected, &base, 1e-5);
        }
    }
}

/// The reference decomposes position embeddings too, with `iso_c` and `iso_cts`.
#[test]
fn decompositions_of_the_reference() {
    let base = tensors(&golden("magic/base.safetensors"));
    let spaces = [
        ("", "", 1e-3),
        ("_wsc", "calibrate: {space: wsc}\n", 1e-3),
        ("_wsc_sensitive", "calibrate: {space: wsc, sensitive: ratios.json}\n", 1e-3),
    ];
    for device in devices() {
        for (method, params) in [("tsv_m", ""), ("iso_c", "{embeddings: true}"), ("iso_cts", "{embeddings: true}")] {
            for (suffix, calibrate, bound) in spaces {
                let expected = tensors(&golden(&format!("magic/expected_{method}{suffix}.safetensors")));
                let yaml = mean(calibrate).replace("linear", method);
                let yaml = if params.is_empty() { yaml } else { format!("{yaml}parameters: {params}\n") };
                let out = merge(&yaml, "magic", device);
                assert_close(&format!("{method}{suffix} on {device}"), &out, &expected, &base, bound);
            }
        }
    }
}

/// The reference's TIES keeps one entry more than ours: all rows but the few that hold it must agree.
#[test]
fn ties_of_the_reference_but_for_one_entry() {
    let base = tensors(&golden("magic/base.safetensors"));
    // The reference adds 1e-8 to squared norms, which shows in single rows of trimmed task vectors.
    let cases = [
        ("ties_layerwise", "", 1e-4),
        ("ties_layerwise_wsc", "calibrate: {space: wsc}\n", 1e-3),
        ("ties_layerwise_wsc_sensitive", "calibrate: {space: wsc, sensitive: ratios.json}\n", 1e-3),
    ];
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
