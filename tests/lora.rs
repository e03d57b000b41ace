//! Adapters: what PEFT makes of them, as experts, and back to adapters.

#[path = "common/cli.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod cli;
#[allow(dead_code, reason = "each test uses its own part")]
mod common;
#[path = "common/recorded.rs"]
mod recorded;

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
