//! Adapters as the result of a merge, and out of whole models.

use super::diffusion::{Module, kohya};
use super::*;

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
