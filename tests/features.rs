//! Forward passes and feature-space calibration against PyTorch's, on the CPU device and on the GPU.

mod common;
#[path = "common/recorded.rs"]
mod recorded;

use std::collections::BTreeMap;
use std::path::Path;

use magic_merge::checkpoint::Checkpoint;
use magic_merge::data::{self, Samples};
use magic_merge::device::{self, Wanted};
use magic_merge::evaluate::Model;
use magic_merge::job::{Job, Output};
use magic_merge::progress::Progress;
use magic_merge::recipe::{Calibrate, Fit, ModelEntry, Norm, Propagate, Recipe, Space};
use magic_merge::report::Report;
use recorded::{Tensors, assert_close, devices, golden, tensors};

const FAMILIES: [&str; 6] = ["llama", "qwen2", "qwen3", "bert", "vit", "clip_vision"];

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

fn model(family: &str, name: &str) -> String {
    text(&golden(&format!("fsc/{family}/{name}")))
}

fn wanted(device: &str) -> Wanted {
    Wanted { device: device.to_owned(), ..Wanted::default() }
}

fn samples(family: &str, checkpoint: &Checkpoint, limit: Option<usize>) -> Samples {
    let network = magic_merge::forward::network(checkpoint).expect("a known architecture");
    data::load(&golden(&format!("fsc/{family}/task0.safetensors")), &network.wants, checkpoint, limit).expect("samples")
}

/// Last hidden states of the samples of task 0; for language models, their logits.
fn outputs(family: &str, path: &Path, device: &str) -> Vec<Vec<f32>> {
    let checkpoints = [Checkpoint::open(&text(path), &[]).expect("a model")];
    let opened = device::open(&wanted(device)).expect("a device");
    let model = Model::new(&checkpoints, &opened.executor, 1 << 20).expect("a known architecture");
    let values = model.values(samples(family, &checkpoints[0], None), model.network.hidden, &Progress::default());
    let values = values.expect("a forward pass");
    if !["llama", "qwen2", "qwen3"].contains(&family) {
        return values;
    }
    let (shape, head) = &tensors(&path.join("model.safetensors"))["lm_head.weight"];
    let logit = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(x * w)).sum::<f64>() as f32;
    let rows = |values: &Vec<f32>| {
        let rows = values.chunks(shape[1]);
        rows.flat_map(|x| head.chunks(shape[1]).map(|w| logit(x, w)).collect::<Vec<_>>()).collect()
    };
    values.iter().map(rows).collect()
}

fn assert_forward(family: &str, what: &str, found: &[Vec<f32>]) {
    let expected = tensors(&golden(&format!("fsc/{family}/expected_forward_task0.safetensors")));
    assert_eq!(found.len(), 4, "{family}");
    for (i, found) in found.iter().enumerate() {
        let expected = &expected[&format!("{what}.{i}")].1;
        assert_eq!(found.len(), expected.len(), "{family} {what} {i}");
        let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let off = found.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off <= 1e-4 * largest, "{family} {what}.{i}: off by {off:e} of {largest}");
    }
}

#[test]
fn forward() {
    for device in devices() {
        for family in FAMILIES {
            for (what, folder) in [("base", "base"), ("merged", "merged"), ("fsc_l1", "expected_fsc_l1")] {
                assert_forward(family, what, &outputs(family, &golden(&format!("fsc/{family}/{folder}")), device));
            }
        }
    }
}

/// Averaging of the three experts, calibrated in `space`.
fn recipe(family: &str, space: Space, fit: Fit, feature_norm: Norm) -> Recipe {
    let entry = |k: usize| ModelEntry {
        model: model(family, &format!("expert{k}")),
        data: Some(model(family, &format!("task{k}.safetensors"))),
        ..ModelEntry::default()
    };
    Recipe {
        method: "linear".into(),
        base: Some(model(family, "base")),
        models: (0..3).map(entry).collect(),
        calibrate: Calibrate { space, fit, feature_norm, ..Calibrate::default() },
        ..Recipe::default()
    }
}

fn run(job: Job) -> (Tensors, Report) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = Output::new(dir.path().join("out"));
    let report = job.run(&output, &Progress::default()).expect("a merge");
    (tensors(&output.dir.join("model.safetensors")), report)
}

fn merge(recipe: Recipe, wanted: &Wanted) -> (Tensors, Report) {
    run(Job::new(recipe, None, wanted).expect("a valid merge"))
}

/// The name of a PyTorch module in the checkpoint.
fn on_disk(family: &str, module: &str) -> String {
    if family != "vit" {
        return module.to_owned();
    }
    let names = [
        ("layers.", "encoder.layer."),
        ("attention.q_proj", "attention.attention.query"),
        ("attention.k_proj", "attention.attention.key"),
        ("attention.v_proj", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ];
    names.iter().fold(module.to_owned(), |name, (from, to)| name.replace(from, to))
}

fn expected_xi(family: &str, what: &str) -> BTreeMap<String, f64> {
    let bytes = std::fs::read(golden(&format!("fsc/{family}/expected_xi.json"))).expect("recorded factors");
    let document: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    let leaves = document[what].as_object().expect("leaves");
    leaves.iter().map(|(leaf, of)| (on_disk(family, leaf), of["xi"].as_f64().expect("a number"))).collect()
}

fn assert_xi(what: &str, report: &Report, expected: &BTreeMap<String, f64>) {
    let features = report.features.as_ref().expect("measured");
    let found: BTreeMap<String, f64> = features.leaves.iter().map(|leaf| (leaf.leaf.clone(), leaf.xi)).collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (leaf, xi) in expected {
        let off = (found[leaf] - xi).abs() / xi;
        assert!(off <= 1e-3, "{what}: ξ of `{leaf}` is {}, expected {xi}", found[leaf]);
    }
}

#[test]
fn factors_and_folded_checkpoints() {
    for device in devices() {
        for family in FAMILIES {
            let base = tensors(&golden(&format!("fsc/{family}/base/model.safetensors")));
            for (what, fit, norm) in [
                ("l1", Fit::Magnitude, Norm::L1),
                ("l2", Fit::Magnitude, Norm::L2),
                ("projection", Fit::Projection, Norm::L1),
            ] {
                let place = format!("{family} {what}, {device}");
                let (merged, report) = merge(recipe(family, Space::Fsc, fit, norm), &wanted(device));
                assert_xi(&place, &report, &expected_xi(family, what));
                let folder = golden(&format!("fsc/{family}/expected_fsc_{what}"));
                if folder.exists() {
                    let expected = tensors(&folder.join("model.safetensors"));
                    assert_close(&place, &merged, &expected, &base, 1e-3);
                }
            }
        }
    }
}

#[test]
fn a_merge_made_elsewhere_is_calibrated_alike() {
    for family in ["qwen3", "vit"] {
        let base = tensors(&golden(&format!("fsc/{family}/base/model.safetensors")));
        let recipe = recipe(family, Space::Fsc, Fit::Magnitude, Norm::L1);
        let job = Job::given(recipe, &model(family, "merged"), &wanted("cpu")).expect("a valid calibration");
        let (found, report) = run(job);
        assert_xi(family, &report, &expected_xi(family, "l1"));
        let expected = tensors(&golden(&format!("fsc/{family}/expected_fsc_l1/model.safetensors")));
        assert_close(family, &found, &expected, &base, 1e-3);
    }
}

#[test]
fn dual_space_is_weight_space_and_then_feature_space() {
    for device in devices() {
        let family = "qwen2";
        let once = |space| recipe(family, space, Fit::Magnitude, Norm::L1);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let output = Output::new(dir.path().join("wsc"));
        let job = Job::new(once(Space::Wsc), None, &wanted(device)).expect("a valid merge");
        job.run(&output, &Progress::default()).expect("a merge");
        let (twice, _) = run(Job::given(once(Space::Fsc), &text(&output.dir), &wanted(device)).expect("a valid merge"));
        let (dual, _) = merge(once(Space::Dsc), &wanted(device));
        let base = tensors(&golden("fsc/qwen2/base/model.safetensors"));
        assert_close(device, &dual, &twice, &base, 1e-5);
    }
}

#[test]
fn factors_do_not_depend_on_memory_or_threads() {
    let family = "llama";
    for space in [Space::Fsc, Space::Dsc, Space::Auto] {
        let once = |wanted: &Wanted| merge(recipe(family, space, Fit::Magnitude, Norm::L1), wanted).0;
        let whole = once(&wanted("cpu"));
        for (memory, threads) in [(Some(16 << 20), 1), (None, 1), (None, 3)] {
            let other = once(&Wanted { memory, threads: Some(threads), ..wanted("cpu") });
            assert!(whole == other, "{space} in {memory:?} bytes on {threads} threads");
        }
    }
}

#[test]
fn propagating_the_calibrated_states_changes_later_leaves_alone() {
    let family = "llama";
    let run_with = |propagate| {
        let mut recipe = recipe(family, Space::Fsc, Fit::Magnitude, Norm::L1);
        recipe.calibrate.propagate = propagate;
        merge(recipe, &wanted("cpu")).1.features.expect("measured").leaves
    };
    let (merged, calibrated) = (run_with(Propagate::Merged), run_with(Propagate::Calibrated));
    assert_eq!(merged[0].xi, calibrated[0].xi, "nothing stands before the embedding");
    assert!(merged.iter().zip(&calibrated).skip(1).all(|(a, b)| a.xi != b.xi));
}
