//! `magic diff` and `magic inspect --base`: their numbers, against sums that are written out here.

#[path = "common/cli.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod common;

use std::fs;

use common::Sandbox;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

/// A tensor: name, type, shape, bytes.
type Stored<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

fn write(sandbox: &Sandbox, name: &str, tensors: &[Stored<'_>]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("the bytes are of the shape"))
    });
    safetensors::serialize_to_file(views, None, &sandbox.path(name)).expect("a model can be written");
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn halves(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

fn diff(sandbox: &Sandbox, args: &[&str]) -> Value {
    sandbox.run(&[&["diff", "--json"], args].concat()).good().json()
}

/// The entry of a tensor.
fn entry<'a>(found: &'a Value, name: &str) -> &'a Value {
    let tensors = found["tensors"].as_array().unwrap();
    tensors.iter().find(|tensor| tensor["name"] == name).unwrap_or_else(|| panic!("{name} in {found}"))
}

fn close(found: &Value, wanted: f64) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{found} is no number"));
    assert!((found - wanted).abs() <= 1e-12 * wanted.abs().max(1.0), "{found}, not {wanted}");
}

/// Numbers without a pattern.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn distances_are_those_of_all_elements_whatever_the_pieces() {
    let sandbox = Sandbox::empty();
    // Longer than the pieces in which it is read, and no multiple of anything.
    let (rows, cols) = (1231, 457);
    let a = noise(rows * cols, 1);
    let mut b = a.clone();
    for (at, value) in b.iter_mut().enumerate().filter(|(at, _)| at % 10 == 3) {
        *value += 1e-3 * (at % 7) as f32;
    }
    b[777 * cols + 13] += 3.0;
    let model = |x: &[f32]| [("x", Dtype::F32, vec![rows, cols], bytes(x))];
    write(&sandbox, "a.safetensors", &model(&a));
    write(&sandbox, "b.safetensors", &model(&b));
    let files = ["a.safetensors", "b.safetensors"];
    let found = diff(&sandbox, &files);
    let x = entry(&found, "x");
    let pairs = || a.iter().zip(&b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let (of_a, of_b) = (norm(pairs().map(|(a, _)| a)), norm(pairs().map(|(_, b)| b)));
    let distance = norm(pairs().map(|(a, b)| a - b));
    close(&x["measures"]["relative"], distance / of_a);
    close(&x["measures"]["cosine"], pairs().map(|(a, b)| a * b).sum::<f64>() / (of_a * of_b));
    assert_eq!(x["measures"]["changed"], pairs().filter(|(a, b)| a != b).count());
    assert_eq!(x["largest"]["index"], serde_json::json!([777, 13]));
    let at = 777 * cols + 13;
    close(&x["largest"]["difference"], (f64::from(a[at]) - f64::from(b[at])).abs());
    assert_eq!((&found["same"], &x["same"]), (&false.into(), &false.into()));
    // Pieces are smaller where the memory is, and sums the same but for their order.
    for more in [&["--threads", "1"][..], &["--threads", "3"]] {
        assert_eq!(diff(&sandbox, &[&files[..], more].concat()), found, "{more:?}");
    }
    let small = diff(&sandbox, &[&files[..], &["--memory", "17MB", "--threads", "32"]].concat());
    close(&entry(&small, "x")["measures"]["relative"], distance / of_a);
    assert_eq!(entry(&small, "x")["largest"], x["largest"]);
}

#[test]
fn types_shapes_and_what_is_missing() {
    let sandbox = Sandbox::empty();
    let ints = |ints: [i64; 3]| ints.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>();
    write(
        &sandbox,
        "a.safetensors",
        &[
            ("same", Dtype::F32, vec![2], bytes(&[1.0, 2.0])),
            ("half", Dtype::BF16, vec![2], halves(&[1.0, 2.0])),
            ("ints", Dtype::I64, vec![3], ints([1, 2, 3])),
            ("kind", Dtype::I64, vec![3], ints([1, 2, 3])),
            ("shape", Dtype::F32, vec![1, 2], bytes(&[1.0, 2.0])),
            ("empty", Dtype::F32, vec![0, 4], Vec::new()),
            ("scalar", Dtype::F32, Vec::new(), bytes(&[1.0])),
            ("zero", Dtype::F32, vec![1], bytes(&[0.0])),
            ("nan", Dtype::F32, vec![3], bytes(&[f32::NAN, 3.0, 4.0])),
            ("gone", Dtype::F32, vec![1], bytes(&[0.0])),
        ],
    );
    write(
        &sandbox,
        "b.safetensors",
        &[
            ("same", Dtype::F32, vec![2], bytes(&[1.0, 2.0])),
            ("half", Dtype::F32, vec![2], bytes(&[1.0, 2.5])),
            ("ints", Dtype::I64, vec![3], ints([1, 5, 4])),
            ("kind", Dtype::F32, vec![3], bytes(&[1.0, 2.0, 3.0])),
            ("shape", Dtype::F32, vec![2, 1], bytes(&[1.0, 2.0])),
            ("empty", Dtype::F32, vec![0, 4], Vec::new()),
            ("scalar", Dtype::F32, Vec::new(), bytes(&[2.0])),
            ("zero", Dtype::F32, vec![1], bytes(&[1.0])),
            ("nan", Dtype::F32, vec![3], bytes(&[f32::NAN, 3.0, 0.0])),
            ("new", Dtype::F32, vec![1], bytes(&[0.0])),
        ],
    );
    let files = ["a.safetensors", "b.safetensors"];
    let found = diff(&sandbox, &files);
    let same = |name: &str| entry(&found, name)["same"] == true;
    assert_eq!(["same", "empty", "half", "ints", "nan"].map(same), [true, true, false, false, false]);
    let half = &entry(&found, "half");
    assert_eq!((&half["measures"]["changed"], &half["largest"]["difference"]), (&1.into(), &0.5.into()));
    let ints = &entry(&found, "ints");
    assert_eq!((&ints["measures"]["changed"], &ints["measures"]["relative"]), (&2.into(), &Value::Null));
    for unlike in ["kind", "shape"] {
        assert_eq!(entry(&found, unlike)["measures"], Value::Null);
    }
    let scalar = &entry(&found, "scalar");
    assert_eq!((&scalar["measures"]["relative"], &scalar["largest"]["index"]), (&1.0.into(), &serde_json::json!([])));
    let nan = &entry(&found, "nan")["measures"];
    assert_eq!((&nan["not_finite"], &nan["changed"], &nan["relative"]), (&1.into(), &1.into(), &0.8.into()));
    assert_eq!(entry(&found, "zero")["measures"]["cosine"], Value::Null);
    assert_eq!((&found["only_a"][0]["name"], &found["only_b"][0]["name"]), (&"gone".into(), &"new".into()));
    // What cannot be compared, and then what was zero, comes first.
    let text = sandbox.run(&[&["diff"], &files[..]].concat()).good().stdout;
    let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word} in {text}"));
    let order =
        ["kind: I64 3 in A, F32 3 in B", "gone: F32 1", "new: F32 1", "\nzero ", "\nscalar ", "\nnan ", "\nints "];
    assert!(order.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{text}");
    assert!(!text.contains("\nsame ") && text.contains("inf"), "{text}");
}

#[test]
fn types_that_nobody_knows_are_bytes() {
    let sandbox = Sandbox::empty();
    let file = |name: &str, data: &[u8]| {
        let header = format!(r#"{{"x":{{"dtype":"Q9","shape":[4],"data_offsets":[0,{}]}}}}"#, data.len());
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
        fs::write(sandbox.path(name), bytes).unwrap();
    };
    file("a.safetensors", &[1, 2, 3, 4]);
    file("b.safetensors", &[1, 9, 3, 9]);
    file("c.safetensors", &[0; 8]);
    let found = diff(&sandbox, &["a.safetensors", "b.safetensors"]);
    assert_eq!((&found["total"]["changed"], &found["total"]["elements"]), (&2.into(), &4.into()));
    let other = diff(&sandbox, &["a.safetensors", "c.safetensors"]);
    assert_eq!((&other["same"], &entry(&other, "x")["measures"]), (&false.into(), &Value::Null));
}

#[test]
fn the_exit_code_tells_if_it_is_asked_to() {
    let sandbox = Sandbox::new();
    let code = |args: &[&str]| sandbox.run(&[&["diff"], args].concat()).code;
    assert_eq!(code(&["base", "a"]), Some(0));
    assert_eq!(code(&["base", "a", "--exit-code"]), Some(1));
    assert_eq!(code(&["base", "base", "--exit-code"]), Some(0));
    // Of tensors that are left out nothing is said.
    assert_eq!(code(&["base", "a", "--exit-code", "--exclude", "*"]), Some(2));
    let found = diff(&sandbox, &["base", "a", "--include", "*.mlp.*", "--include", "classifier.*", "--exclude", "cl*"]);
    assert_eq!(found["tensors"].as_array().unwrap().len(), 1);
    assert_eq!(found["schema"], "magic-diff/1");
}

#[test]
fn formats_and_adapters_are_models_too() {
    let sandbox = Sandbox::empty();
    let golden = |name: &str| format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let same = diff(&sandbox, &[&golden("torch/ordered.pt"), &golden("torch/ordered.safetensors")]);
    assert_eq!(same["same"], true, "{same}");
    let base = golden("adapters/llama");
    let found = diff(&sandbox, &[&base, &golden("adapters/plain/adapter"), "--base", &base]);
    let tensors = found["tensors"].as_array().unwrap();
    let changed = tensors.iter().filter(|tensor| tensor["same"] == false).count();
    assert!(0 < changed && changed < tensors.len(), "{changed} of {}", tensors.len());
    let merged = diff(
        &sandbox,
        &[&golden("adapters/plain/merged.safetensors"), &golden("adapters/plain/adapter"), "--base", &base],
    );
    assert!(merged["total"]["relative"].as_f64().unwrap() < 1e-6, "{}", merged["total"]);
}

/// Values of a tensor of float32.
fn values(sandbox: &Sandbox, model: &str, tensor: &str) -> Vec<f64> {
    let bytes = fs::read(sandbox.path(model).join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(tensor).unwrap().data().to_vec();
    data.chunks(4).map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap()))).collect()
}

#[test]
fn task_vectors_are_measured_as_a_merge_would() {
    let sandbox = Sandbox::new();
    let shown = sandbox.run(&["inspect", "--device", "cpu", "--json", "--base", "base", "a", "b"]).good().json();
    let merge = ["merge", "--device", "cpu", "--base", "base", "--model", "a", "--model", "b", "--method", "linear"];
    let merged = sandbox.run(&[&merge[..], &["--calibrate", "wsc", "--json", "--out", "out"]].concat()).good().json();
    let found = shown["task_vectors"]["tensors"].as_array().unwrap();
    assert_eq!(found.len(), merged["tensors"].as_array().unwrap().len());
    for (found, merged) in found.iter().zip(merged["tensors"].as_array().unwrap()) {
        let name = found["name"].as_str().unwrap();
        assert_eq!((&found["name"], &found["xi"]), (&merged["name"], &merged["xi"]), "{name}");
        let [base, a, b] = ["base", "a", "b"].map(|model| values(&sandbox, model, name));
        let tau = |x: &[f64]| x.iter().zip(&base).map(|(x, base)| x - base).collect::<Vec<_>>();
        let (a, b) = (tau(&a), tau(&b));
        let (of_a, of_b) = (norm(a.iter().copied()), norm(b.iter().copied()));
        let near = |found: &Value, wanted: f64| {
            let found = found.as_f64().unwrap();
            assert!((found - wanted).abs() < 1e-5 * wanted.abs().max(1e-2), "{name}: {found}, not {wanted}");
        };
        near(&found["base"], norm(base.iter().copied()));
        near(&found["norms"][0], of_a);
        near(&found["norms"][1], of_b);
        near(&found["cosines"][0], a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>() / (of_a * of_b));
        near(&found["mean"], norm(a.iter().zip(&b).map(|(a, b)| (a + b) / 2.0)));
    }
    assert_eq!(shown["models"].as_array().unwrap().len(), 2);
}

#[test]
fn manual_pages_are_there_for_every_command() {
    let sandbox = Sandbox::empty();
    let page = sandbox.run(&["man"]).good().stdout;
    assert!(page.contains(".TH magic 1") && page.contains("magic\\-merge(1)"), "{page}");
    // The folder is made, and those above it.
    sandbox.run(&["man", "share/man/man1"]).good();
    assert!(!sandbox.read("share/man/man1/magic.1").is_empty());
    sandbox.run(&["man", "man1"]).good();
    for command in ["merge", "diff", "inspect", "verify", "completions"] {
        let page = String::from_utf8(sandbox.read(&format!("man1/magic-{command}.1"))).unwrap();
        assert!(page.contains("\\-\\-device"), "{command}: {page}");
    }
    let run = sandbox.run(&["man", "man1/magic.1"]);
    assert!(run.code == Some(1) && run.stderr.contains("is not a folder"), "{}", run.stderr);
    // Pages of another version are replaced, and links are not followed.
    sandbox.write("man1/magic-diff.1", "old");
    sandbox.run(&["man", "man1"]).good();
    assert!(sandbox.read("man1/magic-diff.1") != b"old");
    #[cfg(unix)]
    {
        // No other name helps where nothing may be made.
        std::os::unix::fs::symlink("/proc/self", sandbox.path("shut")).unwrap();
        if cfg!(target_os = "linux") {
            let run = sandbox.run(&["man", "shut/attr/man1"]);
            assert!(run.code == Some(1) && run.stderr.contains("cannot write `shut/attr/man1`"), "{}", run.stderr);
        }
        sandbox.write("precious", "mine");
        fs::remove_file(sandbox.path("man1/magic-diff.1")).unwrap();
        std::os::unix::fs::symlink("../precious", sandbox.path("man1/magic-diff.1")).unwrap();
        let run = sandbox.run(&["man", "man1"]);
        assert!(run.code == Some(1) && run.stderr.contains("magic-diff.1` is a link"), "{}", run.stderr);
        assert_eq!(sandbox.read("precious"), b"mine");
    }
}
