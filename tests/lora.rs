//! Adapters: what PEFT makes of them, as experts, and back to adapters.

#[path = "common/cli.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod cli;
mod common;
#[path = "lora/diffusion.rs"]
mod diffusion;
#[path = "lora/output.rs"]
mod output;
#[path = "common/recorded.rs"]
mod recorded;
#[path = "lora/refused.rs"]
mod refused;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cli::Sandbox;
use magic_merge::lora;
use recorded::{Tensors, golden, tensors};

/// Adapters that were recorded with PEFT, and their bases.
const CASES: [(&str, &str); 8] = [
    ("plain", "llama"),
    ("second", "llama"),
    ("rslora", "llama"),
    ("patterns", "llama"),
    ("embedding", "llama"),
    ("saved", "llama"),
    ("fan", "gpt2"),
    ("conv", "convs"),
];

fn recorded_path(path: &str) -> String {
    golden(&format!("adapters/{path}")).to_str().unwrap().to_owned()
}

fn base(kind: &str) -> String {
    recorded_path(kind)
}

fn adapter(name: &str) -> String {
    recorded_path(&format!("{name}/adapter"))
}

fn merged(name: &str) -> String {
    recorded_path(&format!("{name}/merged.safetensors"))
}

/// Largest difference, in parts of the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0f32, |most, x| most.max(x.abs()));
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0f32, f32::max) / largest.max(1e-30)
}

fn assert_near(what: &str, got: &Tensors, expected: &Tensors, bound: f32) {
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, (shape, values)) in expected {
        assert_eq!(&got[name].0, shape, "{what}: {name}");
        let d = distance(&got[name].1, values);
        assert!(d <= bound, "{what}: `{name}` is off by {d:.1e}");
    }
}

/// All tensors of an opened checkpoint of f32.
fn read(spec: &str, piece: usize) -> Tensors {
    let opened = lora::open(spec, &[]).unwrap_or_else(|e| panic!("{e}"));
    let mut all = BTreeMap::new();
    for (number, info) in opened.tensors().iter().enumerate() {
        let mut bytes = vec![0; info.bytes as usize];
        for (i, part) in bytes.chunks_mut(piece).enumerate() {
            opened.read_at(number, (i * piece) as u64, part).unwrap();
        }
        let values = bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        all.insert(info.name.clone(), (info.shape.iter().map(|dim| *dim as usize).collect(), values));
    }
    all
}

#[test]
fn an_adapter_over_its_base_is_what_peft_merges() {
    for (name, kind) in CASES {
        let spec = format!("{}+{}", base(kind), adapter(name));
        let whole = read(&spec, 1 << 20);
        assert_near(name, &whole, &tensors(Path::new(&merged(name))), 1e-6);
        // Any range gives the same bits.
        for piece in [7, 64, 1000] {
            assert_eq!(read(&spec, piece), whole, "{name} in pieces of {piece}");
        }
    }
}

#[test]
fn one_adapter_of_weight_one_gives_the_merged_model() {
    let sandbox = Sandbox::empty();
    for (name, kind) in CASES {
        let (base, model) = (base(kind), adapter(name));
        let args = ["merge", "--device", "cpu", "--method", "task_arithmetic", "--base", &base, "--model", &model];
        sandbox.run(&[&args, &["--out", name][..]].concat()).good();
        let out = tensors(&sandbox.path(&format!("{name}/model.safetensors")));
        assert_near(name, &out, &tensors(Path::new(&merged(name))), 1e-6);
    }
    // The base's configuration goes with it, and the recipe runs again.
    assert!(sandbox.path("plain/config.json").exists());
    sandbox.run(&["merge", "plain/recipe.yml", "--device", "cpu", "--out", "again"]).good();
    assert_eq!(sandbox.read("plain/model.safetensors"), sandbox.read("again/model.safetensors"));
    let receipt = fs::read_to_string(sandbox.path("plain/magic.json")).unwrap();
    assert!(receipt.contains("adapter_model.safetensors"));
}

/// Values that depend on the seed alone.
fn noise(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// Writes a file of f32 tensors.
fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.expect("data has the length of the shape"))
    });
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn merge(sandbox: &Sandbox, models: &[&str], args: &[&str], out: &str) -> cli::Run {
    let mut all = vec!["merge", "--device", "cpu", "--out", out];
    models.iter().for_each(|model| all.extend(["--model", *model]));
    all.extend(args);
    sandbox.run(&all)
}

fn output(sandbox: &Sandbox, out: &str) -> Tensors {
    tensors(&sandbox.path(&format!("{out}/model.safetensors")))
}

/// `adapter` over `base` as the written folder `out` has it.
fn applied(sandbox: &Sandbox, base: &str, out: &str) -> Tensors {
    read(&format!("{base}+{}", sandbox.path(out).to_str().unwrap()), 1 << 20)
}

#[test]
fn adapters_merge_as_their_whole_models_do() {
    let sandbox = Sandbox::empty();
    let base = base("llama");
    let (adapters, wholes) = (["plain", "second", "rslora"].map(adapter), ["plain", "second", "rslora"].map(merged));
    for (name, args) in [
        ("ties", &["--method", "ties", "--param", "density=0.5", "--calibrate", "wsc"][..]),
        ("dare", &["--method", "dare_linear", "--param", "density=0.5"]),
        ("sphere", &["--method", "linear", "--calibrate", "wsc", "--manifold", "sphere"]),
    ] {
        let args = [args, &["--base", &base]].concat();
        merge(&sandbox, &adapters.each_ref().map(String::as_str), &args, name).good();
        let whole = format!("{name}-whole");
        merge(&sandbox, &wholes.each_ref().map(String::as_str), &args, &whole).good();
        assert_near(name, &output(&sandbox, name), &output(&sandbox, &whole), 2e-5);
        // Neither memory nor threads change a bit.
        for (i, more) in [["--threads", "1"], ["--threads", "3"], ["--memory", "64MB"]].iter().enumerate() {
            let again = format!("{name}-{i}");
            merge(&sandbox, &adapters.each_ref().map(String::as_str), &[&args[..], more].concat(), &again).good();
            assert_eq!(output(&sandbox, name), output(&sandbox, &again), "{name} {more:?}");
        }
    }
}

#[test]
fn the_gpu_sees_the_same_adapters() {
    if common::gpu().is_none() {
        return;
    }
    let sandbox = Sandbox::empty();
    let (base, a, b) = (base("llama"), adapter("plain"), adapter("patterns"));
    let args = ["--base", &base, "--method", "ties", "--param", "density=0.5", "--calibrate", "wsc"];
    merge(&sandbox, &[&a, &b], &args, "cpu").good();
    let run = ["merge", "--device", "gpu", "--out", "gpu", "--model", &a, "--model", &b];
    sandbox.run(&[&run[..], &args].concat()).good();
    assert_near("gpu", &output(&sandbox, "gpu"), &output(&sandbox, "cpu"), 1e-6);
    let run = ["merge", "--device", "gpu", "--out", "out", "--lora-out", "16", "--model", &a, "--model", &b];
    sandbox.run(&[&run[..], &args].concat()).good();
    assert_near("adapter", &applied(&sandbox, &base, "out"), &output(&sandbox, "cpu"), 1e-5);
}

#[test]
fn other_forms_of_the_same_adapter() {
    let sandbox = Sandbox::empty();
    let (base, adapter) = (base("llama"), adapter("plain"));
    merge(&sandbox, &[&adapter], &["--base", &base, "--method", "linear"], "one").good();
    // The file of the adapter, mergekit's form, and a base whose names lack the prefix.
    merge(
        &sandbox,
        &[&format!("{adapter}/adapter_model.safetensors")],
        &["--base", &base, "--method", "linear"],
        "two",
    )
    .good();
    sandbox.write(
        "r.yml",
        &format!("merge_method: linear\nbase_model: {base}\nmodels: [{{model: \"{base}+{adapter}\"}}]\n"),
    );
    sandbox.run(&["merge", "r.yml", "--device", "cpu", "--out", "three"]).good();
    for other in ["two", "three"] {
        assert_eq!(output(&sandbox, "one"), output(&sandbox, other), "{other}");
    }
    sandbox.run(&["merge", "three/recipe.yml", "--device", "cpu", "--out", "four"]).good();
    let bare: Vec<_> = tensors(Path::new(&format!("{base}/model.safetensors")))
        .into_iter()
        .map(|(name, (shape, values))| (name.trim_start_matches("model.").to_owned(), shape, values))
        .collect();
    write(&sandbox.path("bare/model.safetensors"), &bare);
    merge(&sandbox, &[&adapter], &["--base", "bare", "--method", "linear"], "five").good();
    let five: Tensors = output(&sandbox, "five");
    for (name, (_, values)) in &output(&sandbox, "one") {
        assert_eq!(&five[name.trim_start_matches("model.")].1, values, "{name}");
    }
    let shown = sandbox.run(&["inspect", "--json", &adapter]).good().json();
    assert_eq!(shown["models"][0]["tensors"].as_array().unwrap().len(), 8);
    let shown = sandbox.run(&["inspect", "--json", "--base", &base, &adapter]).good().json();
    assert_eq!(shown["models"][0]["tensors"].as_array().unwrap().len(), 29);
}

#[test]
fn adapters_where_other_commands_take_models() {
    let sandbox = Sandbox::empty();
    let (base, a, b) = (base("llama"), adapter("plain"), adapter("second"));
    let ids: Vec<u8> = (0..40i64).flat_map(|i| (i * 7 % 24).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![4, 10], &ids).unwrap();
    safetensors::serialize_to_file([("input_ids", view)], None, &sandbox.path("data.safetensors")).unwrap();
    let loss = |spec: &str| {
        let run = sandbox.run(&["eval", "--device", "cpu", "--json", spec, "--data", "data.safetensors"]).good();
        run.json()["sets"][0]["loss"].as_f64().unwrap()
    };
    merge(&sandbox, &[&a], &["--base", &base, "--method", "task_arithmetic"], "whole").good();
    let (adapted, whole) = (loss(&format!("{base}+{a}")), loss("whole"));
    assert!((adapted - whole).abs() < 1e-5 && (adapted - loss(&base)).abs() > 1e-4);
    let models = ["--device", "cpu", "--base", &base, "--model", &a, "--model", &b];
    merge(&sandbox, &[&a, &b], &["--base", &base, "--method", "linear"], "merged").good();
    let args =
        [&["calibrate"], &models[..], &["--merged", "merged", "--calibrate", "wsc", "--out", "calibrated"]].concat();
    sandbox.run(&args).good();
    merge(&sandbox, &[&a, &b], &["--base", &base, "--method", "linear", "--calibrate", "wsc"], "once").good();
    assert_near("calibrated", &output(&sandbox, "calibrated"), &output(&sandbox, "once"), 1e-5);
    sandbox.run(&[&["sensitivity"], &models[..], &["--data", "data.safetensors"]].concat()).good();
}
