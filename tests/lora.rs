//! Adapters: what PEFT makes of them, as experts, and back to adapters.

#[path = "common/cli.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod cli;
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

/// `adapter` over `base` as the written folder `out` has it.
fn applied(sandbox: &Sandbox, base: &str, out: &str) -> Tensors {
    read(&format!("{base}+{}", sandbox.path(out).to_str().unwrap()), 1 << 20)
}

#[test]
fn adapters_in_adapter_out() {
    let sandbox = Sandbox::empty();
    let base = base("llama");
    let (a, b) = (adapter("plain"), adapter("patterns"));
    let method = ["--method", "task_arithmetic", "--calibrate", "wsc"];
    merge(&sandbox, &[&a, &b], &[&method[..], &["--base", &base]].concat(), "whole").good();
    let expected = output(&sandbox, "whole");
    // With the base and without it: the sum of the ranks holds everything.
    let run =
        merge(&sandbox, &[&a, &b], &[&method[..], &["--base", &base, "--lora-out", "64"]].concat(), "with").good();
    assert!(run.stdout.contains("‖ΔW − BA‖"), "{}", run.stdout);
    merge(&sandbox, &[&a, &b], &[&method[..], &["--lora-out", "64"]].concat(), "alone").good();
    for out in ["with", "alone"] {
        assert_near(out, &applied(&sandbox, &base, out), &expected, 1e-5);
        let config: serde_json::Value =
            serde_json::from_slice(&sandbox.read(&format!("{out}/adapter_config.json"))).unwrap();
        assert_eq!((&config["peft_type"], &config["bias"]), (&"LORA".into(), &"none".into()));
        assert_eq!(config["lora_alpha"], config["r"]);
        assert_eq!(config["base_model_name_or_path"], "llama");
        let receipt: serde_json::Value = serde_json::from_slice(&sandbox.read(&format!("{out}/magic.json"))).unwrap();
        assert!(receipt["lora"]["error"].as_f64().unwrap() < 1e-5);
        assert_eq!(receipt["tensors"].as_array().unwrap().len(), 14);
        assert!(!sandbox.path(&format!("{out}/config.json")).exists());
        let rank = receipt["lora"]["rank"].as_u64().unwrap();
        assert!(rank <= 8, "no rank for rounding: {rank}");
    }
    // A recipe that is written runs again to the same bytes; it says what comes out.
    assert!(String::from_utf8(sandbox.read("alone/recipe.yml")).unwrap().contains("lora_out: 64"));
    sandbox.run(&["merge", "alone/recipe.yml", "--device", "cpu", "--out", "again"]).good();
    assert_eq!(sandbox.read("alone/adapter_model.safetensors"), sandbox.read("again/adapter_model.safetensors"));
    // A rank that is too small loses something, and says so.
    merge(&sandbox, &[&a, &b], &[&method[..], &["--lora-out", "2", "--dtype", "bfloat16"]].concat(), "small").good();
    let receipt: serde_json::Value = serde_json::from_slice(&sandbox.read("small/magic.json")).unwrap();
    assert!(receipt["lora"]["error"].as_f64().unwrap() > 0.01);
    assert_eq!(receipt["lora"]["rank"], 2);
    // Replaced by a whole model, no trace of the adapter is left.
    merge(&sandbox, &[&a, &b], &["--method", "linear", "--base", &base, "--overwrite"], "small").good();
    assert!(!sandbox.path("small/adapter_config.json").exists());
}

#[test]
fn every_form_of_pair_comes_out_again() {
    let sandbox = Sandbox::empty();
    for (name, kind, changed) in [("embedding", "llama", true), ("fan", "gpt2", true), ("conv", "convs", true)] {
        let (base, adapter) = (base(kind), adapter(name));
        let args = ["--method", "linear", "--base", &base, "--lora-out", "9"];
        merge(&sandbox, &[&adapter], &args, name).good();
        assert!(changed);
        assert_near(name, &applied(&sandbox, &base, name), &tensors(Path::new(&merged(name))), 2e-6);
    }
    // Weights that do not sum to one leave a share of the base in the merge, which has more rank than the adapters.
    let (llama, plain) = (base("llama"), adapter("plain"));
    let args = ["--method", "linear", "--param", "normalize=false", "--param", "weight=0.5", "--base", &llama];
    merge(&sandbox, &[&plain], &args, "half").good();
    merge(&sandbox, &[&plain], &[&args[..], &["--lora-out", "24"]].concat(), "half-lora").good();
    let (got, whole) = (applied(&sandbox, &llama, "half-lora"), output(&sandbox, "half"));
    for (name, (shape, values)) in whole.iter().filter(|(_, (shape, _))| shape.len() == 2) {
        assert!(distance(&got[name].1, values) < 2e-6, "{name} {shape:?}");
    }
    // What no B·A expresses is named.
    let (base, adapter) = (base("llama"), adapter("saved"));
    let run =
        merge(&sandbox, &[&adapter], &["--method", "linear", "--base", &base, "--lora-out", "24"], "saved").good();
    assert!(run.stderr.contains("q_proj.bias` is left out"), "{}", run.stderr);
}

#[test]
fn an_adapter_is_extracted_from_whole_models() {
    let sandbox = Sandbox::empty();
    let base = base("llama");
    let (a, b) = (merged("plain"), merged("second"));
    let args = ["--method", "task_arithmetic", "--base", &base];
    merge(&sandbox, &[&a, &b], &args, "whole").good();
    merge(&sandbox, &[&a, &b], &[&args[..], &["--lora-out", "16"]].concat(), "out").good();
    assert_near("extracted", &applied(&sandbox, &base, "out"), &output(&sandbox, "whole"), 1e-5);
    let config: serde_json::Value = serde_json::from_slice(&sandbox.read("out/adapter_config.json")).unwrap();
    assert_eq!(config["target_modules"].as_array().unwrap().len(), 3);
    let run = merge(&sandbox, &[&a, &b], &[&args[..], &["--lora-out", "4", "--dry-run"]].concat(), "dry").good();
    assert!(run.stdout.contains("rank 4 at most") && !sandbox.path("dry").exists(), "{}", run.stdout);
    sandbox
        .run(&["merge", "--emit-recipe", "--base", &base, "--model", &a, "--method", "linear", "--lora-out", "4"])
        .good();
}

#[test]
fn feature_space_and_an_adapter_out() {
    let sandbox = Sandbox::empty();
    let base = base("llama");
    let (a, b) = (adapter("plain"), adapter("second"));
    let ids: Vec<u8> = (0..40i64).flat_map(|i| (i * 7 % 24).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![4, 10], &ids).unwrap();
    safetensors::serialize_to_file([("input_ids", view)], None, &sandbox.path("data.safetensors")).unwrap();
    for space in ["fsc", "dsc", "auto"] {
        let args = ["--method", "linear", "--base", &base, "--calibrate", space, "--data", "data.safetensors"];
        merge(&sandbox, &[&a, &b], &args, space).good();
        let out = format!("{space}-lora");
        merge(&sandbox, &[&a, &b], &[&args[..], &["--lora-out", "16"]].concat(), &out).good();
        assert_near(space, &applied(&sandbox, &base, &out), &output(&sandbox, space), 1e-5);
    }
}

/// A LoRA of a diffusion tool: for each module its down and up names, shapes, alpha.
type Module<'a> = (&'a str, [usize; 2], usize, Option<f32>);

fn kohya(path: &Path, modules: &[Module<'_>], seed: u64) -> Vec<(String, Vec<f32>)> {
    single(path, modules, seed, (".lora_down.weight", ".lora_up.weight"))
}

/// Writes the file, and gives each module's ΔW.
fn single(path: &Path, modules: &[Module<'_>], seed: u64, ends: (&str, &str)) -> Vec<(String, Vec<f32>)> {
    let mut file = Vec::new();
    let mut deltas = Vec::new();
    for (i, (module, [outputs, inputs], rank, alpha)) in modules.iter().enumerate() {
        let down: Vec<f32> = noise(seed * 100 + i as u64).take(rank * inputs).collect();
        let up: Vec<f32> = noise(seed * 100 + 50 + i as u64).take(outputs * rank).collect();
        let scale = alpha.map_or(1.0, |alpha| alpha / *rank as f32);
        let delta = (0..outputs * inputs).map(|e| {
            scale * (0..*rank).map(|k| up[e / inputs * rank + k] * down[k * inputs + e % inputs]).sum::<f32>()
        });
        deltas.push(((*module).to_owned(), delta.collect()));
        let conv = module.contains("conv");
        let (a, b) = match conv {
            true => (vec![*rank, inputs / 9, 3, 3], vec![*outputs, *rank, 1, 1]),
            false => (vec![*rank, *inputs], vec![*outputs, *rank]),
        };
        file.push((format!("{module}{}", ends.0), a, down));
        file.push((format!("{module}{}", ends.1), b, up));
        file.extend(alpha.map(|alpha| (format!("{module}.alpha"), Vec::new(), vec![alpha])));
    }
    write(path, &file);
    deltas
}

/// ΔW of a module of a written file.
fn delta(file: &Tensors, module: &str, ends: (&str, &str)) -> Vec<f32> {
    let ((_, down), (_, up)) = (&file[&format!("{module}{}", ends.0)], &file[&format!("{module}{}", ends.1)]);
    let rank = file[&format!("{module}{}", ends.0)].0[0];
    let scale = file.get(&format!("{module}.alpha")).map_or(1.0, |(_, alpha)| alpha[0] / rank as f32);
    let inputs = down.len() / rank;
    let sum = |e: usize| (0..rank).map(|k| up[e / inputs * rank + k] * down[k * inputs + e % inputs]).sum::<f32>();
    (0..up.len() / rank * inputs).map(|e| scale * sum(e)).collect()
}

const A: &[Module<'_>] = &[
    ("lora_unet_mid_attn1_to_q", [12, 10], 3, Some(1.5)),
    ("lora_unet_mid_conv", [6, 18], 2, Some(2.0)),
    ("lora_te_text_model_q_proj", [8, 8], 2, None),
];
const B: &[Module<'_>] =
    &[("lora_unet_mid_attn1_to_q", [12, 10], 2, Some(4.0)), ("lora_unet_mid_conv", [6, 18], 3, None)];

#[test]
fn files_of_diffusion_tools_are_merged_pair_by_pair() {
    let sandbox = Sandbox::empty();
    let a = kohya(&sandbox.path("a.safetensors"), A, 1);
    let b = kohya(&sandbox.path("b.safetensors"), B, 2);
    let run = merge(&sandbox, &["a.safetensors=0.75", "b.safetensors=0.25"], &["--method", "linear"], "out").good();
    assert!(run.stdout.contains("adapter of 3 tensors"), "{}", run.stdout);
    let file = tensors(&sandbox.path("out/pytorch_lora_weights.safetensors"));
    let ends = (".lora_down.weight", ".lora_up.weight");
    assert_eq!(file.len(), 9);
    for (i, (module, own)) in a.iter().enumerate() {
        let other = b.get(i).map(|(_, delta)| delta.clone()).unwrap_or(vec![0.0; own.len()]);
        let expected: Vec<f32> = own.iter().zip(&other).map(|(a, b)| 0.75 * a + 0.25 * b).collect();
        let d = distance(&delta(&file, module, ends), &expected);
        assert!(d < 2e-6, "{module}: {d:.1e}");
    }
    assert_eq!(file["lora_unet_mid_conv.lora_down.weight"].0, [5, 2, 3, 3]);
    assert_eq!(file["lora_unet_mid_conv.lora_up.weight"].0, [6, 5, 1, 1]);
    assert_eq!(file["lora_unet_mid_attn1_to_q.alpha"].1, [5.0]);
    // Calibrated: row by row as the formula says, and at a rank of choice.
    let args = ["--method", "linear", "--calibrate", "wsc", "--manifold", "sphere", "--norm", "l2"];
    merge(&sandbox, &["a.safetensors", "b.safetensors"], &args, "wsc").good();
    let file = tensors(&sandbox.path("wsc/pytorch_lora_weights.safetensors"));
    let got = delta(&file, "lora_unet_mid_attn1_to_q", ends);
    for row in 0..12 {
        let norm = |x: &[f32]| recorded::norm(x[row * 10..][..10].iter().copied());
        let mean = (norm(&a[0].1) + norm(&b[0].1)) / 2.0;
        assert!((norm(&got) / mean - 1.0).abs() < 1e-5);
    }
    merge(&sandbox, &["a.safetensors", "b.safetensors"], &[&args[..], &["--lora-out", "2"]].concat(), "two").good();
    let file = tensors(&sandbox.path("two/pytorch_lora_weights.safetensors"));
    assert_eq!(file["lora_unet_mid_attn1_to_q.alpha"].1, [2.0]);
    assert!(sandbox.path("two/magic.json").exists() && !sandbox.path("two/adapter_config.json").exists());
}

#[test]
fn an_adapter_does_not_depend_on_threads_or_memory() {
    let sandbox = Sandbox::empty();
    let modules: &[Module<'_>] = &[("lora_unet_x", [300, 420], 6, None), ("lora_unet_y", [210, 260], 6, None)];
    kohya(&sandbox.path("a.safetensors"), modules, 1);
    kohya(&sandbox.path("b.safetensors"), modules, 2);
    let args = ["--method", "ties", "--param", "density=0.5", "--calibrate", "wsc", "--lora-out", "8"];
    let bytes = |more: &[&str], out: &str| {
        merge(&sandbox, &["a.safetensors", "b.safetensors"], &[&args[..], more].concat(), out).good();
        sandbox.read(&format!("{out}/pytorch_lora_weights.safetensors"))
    };
    let one = bytes(&["--threads", "1"], "one");
    assert!(one == bytes(&["--threads", "3"], "three"));
    assert!(one == bytes(&["--threads", "2", "--memory", "64MB"], "small"));
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

#[test]
fn naming_schemes_meet() {
    let sandbox = Sandbox::empty();
    let a = kohya(&sandbox.path("a.safetensors"), A, 1);
    let ends = (".lora_A.weight", ".lora_B.weight");
    let modules: &[Module<'_>] =
        &[("unet.mid.attn1.to_q", [12, 10], 2, None), ("unet.mid.attn1.to_k", [12, 10], 2, None)];
    let b = single(&sandbox.path("b.safetensors"), modules, 2, ends);
    merge(&sandbox, &["a.safetensors", "b.safetensors"], &["--method", "task_arithmetic"], "out").good();
    let file = tensors(&sandbox.path("out/pytorch_lora_weights.safetensors"));
    let down = (".lora_down.weight", ".lora_up.weight");
    let expected: Vec<f32> = a[0].1.iter().zip(&b[0].1).map(|(a, b)| a + b).collect();
    assert!(distance(&delta(&file, "lora_unet_mid_attn1_to_q", down), &expected) < 2e-6);
    assert!(distance(&delta(&file, "lora_unet_mid_attn1_to_k", down), &b[1].1) < 2e-6);
    // The other way round, kohya's names cannot be spelled with points.
    let run = merge(&sandbox, &["b.safetensors", "a.safetensors"], &["--method", "task_arithmetic"], "bad");
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("kohya's names first"), "{}", run.stderr);
    single(&sandbox.path("c.safetensors"), &modules[..1], 3, (".lora.down.weight", ".lora.up.weight"));
    merge(&sandbox, &["b.safetensors", "c.safetensors"], &["--method", "task_arithmetic"], "dots").good();
    let file = tensors(&sandbox.path("dots/pytorch_lora_weights.safetensors"));
    assert_eq!(file["unet.mid.attn1.to_q.lora_A.weight"].0, [4, 10]);
    assert!(!file.keys().any(|name| name.ends_with("alpha")));
}

/// An adapter that cannot be used, and what the program has to say to it.
struct Bad {
    what: &'static str,
    /// Keys of `adapter_config.json` to change.
    config: &'static str,
    /// Tensors of the file: name, shape.
    tensors: &'static [(&'static str, &'static [usize])],
    phrase: &'static str,
    hint: &'static str,
}

const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj";
const PAIR: &[(&str, &[usize])] = &[("+.lora_A.weight", &[2, 16]), ("+.lora_B.weight", &[16, 2])];

const BAD: &[Bad] = &[
    Bad { what: "DoRA", config: r#"{"use_dora": true}"#, tensors: PAIR, phrase: "DoRA", hint: "merge_and_unload" },
    Bad {
        what: "a magnitude",
        config: "{}",
        tensors: &[("+.lora_magnitude_vector", &[16])],
        phrase: "is part of DoRA",
        hint: "merge_and_unload",
    },
    Bad {
        what: "LoHa",
        config: r#"{"peft_type": "LOHA"}"#,
        tensors: PAIR,
        phrase: "of type LOHA",
        hint: "merge_and_unload",
    },
    Bad { what: "a prompt", config: r#"{"peft_type": 7}"#, tensors: PAIR, phrase: "type nothing", hint: "merge_and" },
    Bad {
        what: "PiSSA",
        config: r#"{"init_lora_weights": "pissa_niter_4"}"#,
        tensors: PAIR,
        phrase: "initialised by pissa",
        hint: "path_initial_model_for_weight_conversion",
    },
    Bad {
        what: "copied layers",
        config: r#"{"layer_replication": [[0, 1], [0, 1]]}"#,
        tensors: PAIR,
        phrase: "`layer_replication`",
        hint: "merge_and_unload",
    },
    Bad { what: "a flag", config: r#"{"lora_bias": true}"#, tensors: PAIR, phrase: "`lora_bias`", hint: "merge_and" },
    Bad {
        what: "a bias",
        config: "{}",
        tensors: &[("+.lora_B.bias", &[16])],
        phrase: "a bias of a factor",
        hint: "merge_and_unload",
    },
    Bad {
        what: "parameters",
        config: r#"{"target_parameters": ["experts.w1"]}"#,
        tensors: PAIR,
        phrase: "no modules",
        hint: "merge_and_unload",
    },
    Bad {
        what: "tokens",
        config: r#"{"trainable_token_indices": [1]}"#,
        tensors: PAIR,
        phrase: "single trained tokens",
        hint: "merge_and_unload",
    },
    Bad {
        what: "no B",
        config: "{}",
        tensors: &[("+.lora_A.weight", &[2, 16])],
        phrase: "lacks its factor B (up)",
        hint: "incomplete",
    },
    Bad {
        what: "no A",
        config: "{}",
        tensors: &[("+.lora_B.weight", &[16, 2])],
        phrase: "lacks its factor A (down)",
        hint: "incomplete",
    },
    Bad {
        what: "factors of other ranks",
        config: "{}",
        tensors: &[("+.lora_A.weight", &[2, 16]), ("+.lora_B.weight", &[16, 3])],
        phrase: "A is [2, 16] and B [16, 3]",
        hint: "[r, in]",
    },
    Bad {
        what: "no elements",
        config: "{}",
        tensors: &[("+.lora_A.weight", &[2, 0]), ("+.lora_B.weight", &[16, 2])],
        phrase: "do not fit",
        hint: "[r, in]",
    },
    Bad {
        what: "another base",
        config: "{}",
        tensors: &[("+.lora_A.weight", &[2, 12]), ("+.lora_B.weight", &[16, 2])],
        phrase: "changes a weight of [16, 12], and `model.layers.0.self_attn.q_proj.weight` is [16, 16]",
        hint: "another base",
    },
    Bad {
        what: "another rank",
        config: r#"{"r": 4}"#,
        tensors: PAIR,
        phrase: "has rank 2, and `adapter_config.json` says 4",
        hint: "`rank_pattern`",
    },
    Bad { what: "alpha", config: r#"{"lora_alpha": 0}"#, tensors: PAIR, phrase: "`lora_alpha` is 0", hint: "leave" },
    Bad { what: "text", config: r#"{"lora_alpha": "x"}"#, tensors: PAIR, phrase: "is no number", hint: "" },
    Bad { what: "no rank", config: r#"{"r": -1}"#, tensors: PAIR, phrase: "`r` is no rank: -1", hint: "" },
    Bad { what: "null", config: r#"{"r": null}"#, tensors: PAIR, phrase: "`r` is no rank", hint: "" },
    Bad {
        what: "no pattern",
        config: r#"{"rank_pattern": {"(": 2}}"#,
        tensors: PAIR,
        phrase: "`(`, no regular expression",
        hint: "",
    },
    Bad {
        what: "a pattern without end",
        config: r#"{"rank_pattern": {"(?=x*)(\\w*\\w*\\w*\\w*\\w*\\w*\\w*)*\\1#": 2}}"#,
        tensors: PAIR,
        phrase: "takes too long",
        hint: "write the module names out",
    },
    Bad { what: "a list", config: r#"{"alpha_pattern": [1]}"#, tensors: PAIR, phrase: "is no object", hint: "" },
    Bad {
        what: "a module too many",
        config: "{}",
        tensors: &[
            ("base_model.model.model.layers.0.self_attn.q_prox.lora_A.weight", &[2, 16]),
            ("base_model.model.model.layers.0.self_attn.q_prox.lora_B.weight", &[16, 2]),
        ],
        phrase: "module `model.layers.0.self_attn.q_prox` of `bad` is not in",
        hint: "`model.layers.0.self_attn.q_proj.weight`",
    },
    Bad {
        what: "a name that several have",
        config: "{}",
        tensors: &[
            ("base_model.model.q_proj.lora_A.weight", &[2, 16]),
            ("base_model.model.q_proj.lora_B.weight", &[16, 2]),
        ],
        phrase: "could be any of",
        hint: "",
    },
    Bad {
        what: "a head of other labels",
        config: "{}",
        tensors: &[("base_model.model.lm_head.weight", &[9, 16])],
        phrase: "`lm_head.weight` is [24, 16] in",
        hint: "--exclude",
    },
    Bad { what: "nothing", config: "{}", tensors: &[], phrase: "holds no tensor", hint: "" },
];

#[test]
fn what_cannot_be_used_is_refused_with_a_remedy() {
    let base = base("llama");
    for Bad { what, config, tensors, phrase, hint } in BAD {
        let sandbox = Sandbox::empty();
        let mut document = serde_json::json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
        let changes: serde_json::Value = serde_json::from_str(config).unwrap();
        changes.as_object().unwrap().iter().for_each(|(key, value)| document[key] = value.clone());
        sandbox.write("bad/adapter_config.json", &document.to_string());
        let file: Vec<_> = tensors
            .iter()
            .map(|(name, shape)| {
                (name.replace('+', Q), shape.to_vec(), noise(1).take(shape.iter().product()).collect())
            })
            .collect();
        write(&sandbox.path("bad/adapter_model.safetensors"), &file);
        let run = merge(&sandbox, &["bad"], &["--base", &base, "--method", "linear"], "out");
        assert_eq!(run.code, Some(1), "{what}: {}", run.stderr);
        for words in [phrase, hint] {
            assert!(run.stderr.contains(words), "{what}: no `{words}` in {}", run.stderr);
        }
        assert!(run.stderr.contains("`bad`"), "{what}: {}", run.stderr);
        assert!(!sandbox.path("out").exists(), "{what}");
    }
}

#[test]
fn an_adapter_in_the_wrong_place() {
    let sandbox = Sandbox::empty();
    let (base, plain) = (base("llama"), adapter("plain"));
    let refused = |models: &[&str], args: &[&str], code: i32, phrases: &[&str]| {
        let run = merge(&sandbox, models, args, "out");
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        phrases.iter().for_each(|phrase| assert!(run.stderr.contains(phrase), "no `{phrase}` in {}", run.stderr));
        assert!(!sandbox.path("out").exists());
    };
    let linear = ["--method", "linear"];
    refused(&[&plain], &linear, 2, &["is an adapter, not a whole model", "--base", "--lora-out"]);
    refused(
        &[&base],
        &["--method", "linear", "--base", &plain],
        2,
        &["cannot be the base", "it was trained on `llama`"],
    );
    refused(&[&plain, &base], &linear, 2, &["others are whole models", "--base"]);
    refused(&[&base, &base], &["--method", "linear", "--lora-out", "4"], 2, &["none is named", "--base"]);
    refused(&[&plain], &["--method", "linear", "--lora-out", "0"], 2, &["`--lora-out` is 0"]);
    refused(&[&plain], &["--method", "passthrough", "--lora-out", "4"], 2, &["no adapter comes of it"]);
    refused(&[&plain], &["--method", "linear", "--lora-out", "4", "--calibrate", "fsc", "--data", "x"], 2, &["--base"]);
    refused(&[&adapter("saved")], &["--method", "linear", "--lora-out", "4"], 1, &["whole tensors", "--base"]);
    refused(&[&base], &["--method", "linear", "--base", &base, "--lora-out", "4"], 1, &["changes nothing"]);
    refused(&[&format!("{base}+{base}")], &linear, 2, &["is a whole model, not an adapter"]);
    refused(&[&format!("{base}+nowhere")], &linear, 2, &["`nowhere`"]);
    let run = sandbox.run(&["eval", &plain, "--data", "x"]);
    assert!(run.stderr.contains("BASE+ADAPTER"), "{}", run.stderr);

    sandbox.write("bin/adapter_config.json", "{}");
    sandbox.write("bin/adapter_model.bin", "");
    refused(&["bin"], &["--method", "linear", "--base", &base], 1, &["`bin/adapter_model.bin` is 0 bytes long"]);
    sandbox.write("none/adapter_config.json", "{}");
    refused(
        &["none"],
        &["--method", "linear", "--base", &base],
        1,
        &["`adapter_model.safetensors`", "download it again"],
    );
    for text in ["", "[]", "{", r#"{"r": 1e99999}"#] {
        sandbox.write("odd/adapter_config.json", text);
        fs::copy(format!("{plain}/adapter_model.safetensors"), sandbox.path("odd/adapter_model.safetensors")).unwrap();
        refused(&["odd"], &["--method", "linear", "--base", &base], 1, &["adapter_config.json", "odd"]);
    }
}

#[test]
fn files_that_are_no_plain_lora() {
    let sandbox = Sandbox::empty();
    let refused = |models: &[&str], args: &[&str], phrases: &[&str]| {
        let run = merge(&sandbox, models, &[&["--method", "linear"], args].concat(), "out");
        assert!(matches!(run.code, Some(1 | 2)), "{}", run.stderr);
        phrases.iter().for_each(|phrase| assert!(run.stderr.contains(phrase), "no `{phrase}` in {}", run.stderr));
        assert!(!sandbox.path("out").exists());
    };
    kohya(&sandbox.path("a.safetensors"), A, 1);
    for (name, kind) in [
        ("lora_unet_x.hada_w1_a", "LoHa"),
        ("lora_unet_x.lokr_w1", "LoKr"),
        ("lora_unet_x.lora_mid.weight", "Tucker"),
        ("lora_unet_x.dora_scale", "DoRA"),
    ] {
        let mut file = vec![(name.to_owned(), vec![2, 2], vec![0.0; 4])];
        file.push(("lora_unet_x.lora_down.weight".into(), vec![2, 4], vec![0.0; 8]));
        write(&sandbox.path("b.safetensors"), &file);
        refused(&["a.safetensors", "b.safetensors"], &[], &[kind, name, "plain LoRA"]);
    }
    let of = |modules: &[Module<'_>]| drop(kohya(&sandbox.path("b.safetensors"), modules, 2));
    of(&[("lora_unet_mid_attn1_to_q", [12, 8], 2, None)]);
    refused(&["a.safetensors", "b.safetensors"], &[], &["`lora_unet_mid_attn1_to_q`", "[12, 8]", "[12, 10]"]);
    of(&[("lora_unet_mid_attn1_to_q", [12, 10], 2, Some(0.0))]);
    refused(&["a.safetensors", "b.safetensors"], &[], &["alpha of `lora_unet_mid_attn1_to_q`", "is 0"]);
    of(&[("lora_unet_mid_attn1_to_q", [12, 10], 2, Some(f32::NAN))]);
    refused(&["a.safetensors", "b.safetensors"], &[], &["is not finite"]);
    refused(&["a.safetensors"], &["--base", &base("llama")], &["merged without a base", "--base"]);
    refused(&["a.safetensors", &adapter("plain")], &["--lora-out", "4"], &["cannot be merged with each other"]);
    let modules: &[Module<'_>] = &[("unet.other.to_q", [12, 10], 2, None)];
    single(&sandbox.path("c.safetensors"), modules, 3, (".lora_A.weight", ".lora_B.weight"));
    refused(&["a.safetensors", "c.safetensors"], &[], &["name their modules differently"]);
    // NaN goes into a merge like any number, but not through a decomposition.
    write(
        &sandbox.path("b.safetensors"),
        &[
            ("lora_unet_x.lora_down.weight".into(), vec![1, 2], vec![f32::NAN; 2]),
            ("lora_unet_x.lora_up.weight".into(), vec![2, 1], vec![1.0; 2]),
        ],
    );
    refused(&["b.safetensors"], &[], &["NaN", "lora_unet_x"]);
    assert_eq!(sandbox.listing().len(), 3);
}

/// Adapter `name`: a pair of rank 1 for each module of `[16, 16]`, and changes of its configuration.
fn small(sandbox: &Sandbox, name: &str, modules: &[&str], changes: serde_json::Value) {
    let mut config = serde_json::json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1});
    changes.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    sandbox.write(&format!("{name}/adapter_config.json"), &config.to_string());
    let pair = |module: &&str| {
        let factor = |end: &str, shape| (format!("base_model.model.{module}.{end}.weight"), shape, vec![0.5; 16]);
        [factor("lora_A", vec![1, 16]), factor("lora_B", vec![16, 1])]
    };
    let file: Vec<_> = modules.iter().flat_map(pair).collect();
    write(&sandbox.path(&format!("{name}/adapter_model.safetensors")), &file);
}

#[test]
fn adapters_that_do_not_belong_together_are_warned_of() {
    let sandbox = Sandbox::empty();
    let (q, o) = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj");
    let on = |base: &str| serde_json::json!({"base_model_name_or_path": base, "fan_in_fan_out": true});
    small(&sandbox, "a", &[q], on("org/one"));
    small(&sandbox, "b", &[o], on("two/"));
    let args = ["--method", "linear", "--lora-out", "4"];
    let config = |out: &str| -> serde_json::Value {
        serde_json::from_slice(&sandbox.read(&format!("{out}/adapter_config.json"))).unwrap()
    };
    let run = merge(&sandbox, &["a", "b"], &args, "out").good();
    for words in ["`a` was trained on `org/one`, and `b` on `two/`", "`a` and `b` share no module"] {
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    assert_eq!(
        (&config("out")["fan_in_fan_out"], &config("out")["base_model_name_or_path"]),
        (&true.into(), &"org/one".into())
    );
    // A base that was given is the one that is recorded, unless an adapter names it.
    let base = base("llama");
    merge(&sandbox, &["a", "b"], &[&args[..], &["--base", &base]].concat(), "given").good();
    assert_eq!(config("given")["base_model_name_or_path"], base.as_str());
    small(&sandbox, "c", &[q], on("org/llama"));
    let run = merge(&sandbox, &["a", "c"], &[&args[..], &["--base", &base]].concat(), "known").good();
    assert_eq!(config("known")["base_model_name_or_path"], "org/llama");
    assert!(!run.stderr.contains("share no module"), "{}", run.stderr);
    // Names that newer versions of transformers do not have.
    small(&sandbox, "vit", &["vit.encoder.layer.0.attention.attention.query"], on("vit"));
    let run = merge(&sandbox, &["vit"], &args, "vit-out").good();
    assert!(run.stderr.contains("transformers 5 names them differently"), "{}", run.stderr);
    let run = merge(&sandbox, &["vit"], &["--method", "linear", "--base", &base], "bad");
    assert!(run.stderr.contains("versions of transformers name modules differently"), "{}", run.stderr);
    let both = format!("{base}+a+b");
    let run = merge(&sandbox, &[&both], &["--method", "linear"], "bad");
    assert!(run.stderr.contains("only one adapter per model"), "{}", run.stderr);
    // Without its configuration, an adapter is neither a model nor a base.
    fs::remove_file(sandbox.path("a/adapter_config.json")).unwrap();
    for (models, base) in [(["a"], &*base), (["c"], "a")] {
        let run = merge(&sandbox, &models, &["--method", "linear", "--base", base], "bad");
        assert!(
            run.stderr.contains("`a` has `adapter_model.safetensors`, but no `adapter_config.json`"),
            "{}",
            run.stderr
        );
    }
    sandbox.write("r.yml", "merge_method: linear\nmodels: [{model: c}]\nlora_out: big\n");
    let run = sandbox.run(&["merge", "r.yml", "--out", "bad"]);
    assert!(run.stderr.contains("a whole number from 1\n"), "{}", run.stderr);
    // What only vectors hold.
    fs::create_dir(sandbox.path("norm")).unwrap();
    let mut model: Vec<_> = tensors(Path::new(&format!("{base}/model.safetensors")))
        .into_iter()
        .map(|(name, (shape, values))| (name, shape, values))
        .collect();
    let norm = model.iter_mut().find(|(name, ..)| name == "model.norm.weight").unwrap();
    norm.2[0] += 1.0;
    write(&sandbox.path("norm/model.safetensors"), &model);
    let run = merge(&sandbox, &["norm"], &[&args[..], &["--base", &base]].concat(), "bad");
    assert!(run.stderr.contains("nothing that it changes can be held by an adapter"), "{}", run.stderr);
}

#[test]
fn an_overwritten_result_leaves_no_file() {
    let sandbox = Sandbox::empty();
    let (base, a) = (base("llama"), adapter("plain"));
    let whole = ["--method", "linear", "--base", &base];
    merge(&sandbox, &[&a], &whole, "out").good();
    sandbox.write("out/vocab.txt", "not of the merge");
    let has = |name: &str| sandbox.path("out").join(name).exists();
    assert!(has("config.json"));
    merge(&sandbox, &[&a], &[&whole[..], &["--lora-out", "4", "--overwrite"]].concat(), "out").good();
    assert!(!has("config.json") && !has("model.safetensors") && has("vocab.txt") && has("adapter_config.json"));
    merge(&sandbox, &[&a], &[&whole[..], &["--overwrite"]].concat(), "out").good();
    assert!(has("config.json") && has("vocab.txt") && !has("adapter_config.json"));
    // No receipt makes anything else go.
    sandbox.write("out/notes.md", "kept");
    sandbox.write("kept.model", "kept");
    sandbox.write("out/magic.json", r#"{"files": [{"file": "notes.md"}, {"file": "../kept.model"}]}"#);
    merge(&sandbox, &[&a], &[&whole[..], &["--overwrite"]].concat(), "out").good();
    assert!(has("notes.md") && sandbox.path("kept.model").exists());
}

#[test]
fn kohya_alphas_and_names_of_blocks() {
    let sandbox = Sandbox::empty();
    kohya(&sandbox.path("a.safetensors"), &[("lora_unet_input_blocks_1_to_q", [4, 4], 2, Some(2.0))], 1);
    let b = kohya(&sandbox.path("b.safetensors"), &[("lora_unet_down_blocks_0_to_q", [4, 4], 2, Some(1.0))], 2);
    let run = merge(&sandbox, &["a.safetensors", "b.safetensors"], &["--method", "linear"], "out").good();
    for words in ["`a.safetensors` and `b.safetensors` share no module", "not translated"] {
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    // The same with alpha as an integer.
    let bytes = fs::read(sandbox.path("b.safetensors")).unwrap();
    let old = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (kind, alpha, good) in [
        (safetensors::Dtype::I64, &1i64.to_le_bytes()[..], true),
        (safetensors::Dtype::U8, &[1], true),
        (safetensors::Dtype::BOOL, &[1], false),
    ] {
        let views = old.iter().map(|(name, view)| match name.ends_with(".alpha") {
            true => (name, safetensors::tensor::TensorView::new(kind, Vec::new(), alpha).unwrap()),
            false => (name, view),
        });
        safetensors::serialize_to_file(views, None, &sandbox.path("c.safetensors")).unwrap();
        let run = merge(&sandbox, &["c.safetensors"], &["--method", "linear", "--overwrite"], "int");
        if !good {
            assert!(run.stderr.contains("is stored as BOOL"), "{}", run.stderr);
            continue;
        }
        run.good();
        let file = tensors(&sandbox.path("int/pytorch_lora_weights.safetensors"));
        let got = delta(&file, "lora_unet_down_blocks_0_to_q", (".lora_down.weight", ".lora_up.weight"));
        assert!(distance(&got, &b[0].1) < 2e-6);
    }
}

#[test]
fn no_part_of_a_model_is_the_output() {
    let sandbox = Sandbox::empty();
    let copy = |from: &str, to: &str| {
        std::fs::create_dir_all(sandbox.path(to)).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            std::fs::copy(entry.path(), sandbox.path(to).join(entry.file_name())).unwrap();
        }
    };
    copy(&base("llama"), "below");
    copy(&adapter("plain"), "above");
    let args = ["--base", &base("llama"), "--method", "linear", "--overwrite"];
    for out in ["below", "above"] {
        let before = sandbox.listing();
        let run = merge(&sandbox, &["below+above"], &args, out);
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        assert!(run.stderr.contains("is that of the input"), "{}", run.stderr);
        assert_eq!(sandbox.listing(), before);
    }
    // The model under the adapter is an input like any other: resumed merges are of the same one.
    merge(&sandbox, &["below+above"], &args, "out").good();
    let resume = [&args[..4], &["--resume"]].concat();
    assert!(merge(&sandbox, &["below+above"], &resume, "out").good().stdout.contains("already done"));
    copy(&base("llama"), "below");
    let run = merge(&sandbox, &["below+above"], &resume, "out");
    assert!(run.code == Some(1) && run.stderr.contains("its model.safetensors of below differs"), "{}", run.stderr);
}
