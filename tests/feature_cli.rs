//! Feature space as a user of the program meets it: calibration, evaluation and sensitivity on small real models.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod cli;
mod common;
#[path = "common/recorded.rs"]
mod recorded;

use std::fs;
use std::path::{Path, PathBuf};

use cli::{Run, Sandbox};
use recorded::{Tensors, assert_close, devices, golden, tensors};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// Base and experts.
const LLAMA: &str = "--base @fsc/llama/base --model @fsc/llama/expert0 --model @fsc/llama/expert1 \
                     --model @fsc/llama/expert2";
/// Samples of each.
const EACH: &str = "--data @fsc/llama/task0.safetensors --data @fsc/llama/task1.safetensors \
                    --data @fsc/llama/task2.safetensors";
const ONE: &str = "--data @fsc/llama/task0.safetensors";
const UP: &str = "model.layers.0.mlp.up_proj.weight";

/// The program with the words of all `parts`; `@` is the folder of the recorded models.
fn run(sandbox: &Sandbox, parts: &[&str]) -> Run {
    let root = golden("").to_str().expect("UTF-8").to_owned();
    let words = parts.iter().flat_map(|part| part.split_whitespace()).map(|word| word.replace('@', &root));
    let mut words: Vec<String> = words.collect();
    if !words.iter().any(|word| word == "--device") {
        words.extend(["--device", "cpu"].map(str::to_owned));
    }
    sandbox.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn merged(sandbox: &Sandbox, out: &str) -> Tensors {
    tensors(&sandbox.path(out).join("model.safetensors"))
}

fn document(sandbox: &Sandbox, file: &str) -> Value {
    serde_json::from_slice(&sandbox.read(file)).expect("JSON")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A copy of a recorded model.
fn copy(sandbox: &Sandbox, from: &str, to: &str) {
    fs::create_dir_all(sandbox.path(to)).expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(from).join(file), sandbox.path(to).join(file)).expect("a copy");
    }
}

/// Writes a file of tensors as type, shape and bytes.
fn save(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("as long as its shape"))
    });
    safetensors::serialize_to_file(views, None, path).expect("a written file");
}

/// `input_ids.0` and so on, perhaps with labels.
fn ids(sandbox: &Sandbox, file: &str, samples: &[&[i64]], labels: Option<&[i64]>) {
    let bytes = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let names: Vec<String> = (0..samples.len()).map(|i| format!("input_ids.{i}")).collect();
    let each = names.iter().zip(samples);
    let mut all: Vec<_> =
        each.map(|(name, values)| (name.as_str(), Dtype::I64, vec![values.len()], bytes(values))).collect();
    all.extend(labels.map(|labels| ("labels", Dtype::I64, vec![labels.len()], bytes(labels))));
    save(&sandbox.path(file), &all);
}

fn pixels(sandbox: &Sandbox, file: &str, shape: &[usize], value: f32) {
    let bytes = (0..shape.iter().product()).flat_map(|_: usize| value.to_le_bytes()).collect();
    save(&sandbox.path(file), &[("pixel_values", Dtype::F32, shape.to_vec(), bytes)]);
}

/// A recorded model with its float32 tensors changed.
fn changed(sandbox: &Sandbox, from: &str, to: &str, change: impl Fn(&str, &mut Vec<f32>)) {
    copy(sandbox, from, to);
    let mut model = tensors(&golden(from).join("model.safetensors"));
    model.iter_mut().for_each(|(name, (_, values))| change(name, values));
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let all: Vec<_> =
        model.iter().map(|(name, (shape, of))| (name.as_str(), Dtype::F32, shape.clone(), bytes(of))).collect();
    save(&sandbox.path(to).join("model.safetensors"), &all);
}

/// An expert with one number in `model.layers.0.mlp.up_proj.weight` replaced.
fn spoiled(sandbox: &Sandbox, number: f32) {
    changed(sandbox, "fsc/llama/expert0", "spoiled", |name, values| {
        if name == UP {
            values[3] = number;
        }
    });
}

const WORDS: [&str; 5] = ["[UNK]", "the", "cat", "sat", "down"];

/// A tokenizer of whole words.
fn tokenizer(sandbox: &Sandbox, model: &str) {
    let vocab: serde_json::Map<_, _> = WORDS.iter().zip(0..).map(|(word, id)| (word.to_string(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    sandbox.write(&format!("{model}/tokenizer.json"), &tokenizer.to_string());
}

/// An image processor, and two images in a folder, or in a folder for each class.
fn images(sandbox: &Sandbox, model: &str, side: u32, folders: [&str; 2]) {
    let processor = json!({"image_processor_type": "ViTImageProcessor", "size": {"height": side, "width": side}});
    sandbox.write(&format!("{model}/preprocessor_config.json"), &processor.to_string());
    for (folder, name) in folders.into_iter().zip(["a.png", "b.jpg"]) {
        fs::create_dir_all(sandbox.path(folder)).expect("a folder");
        fs::copy(golden("data/images").join(name), sandbox.path(folder).join(name)).expect("a copy");
    }
}

#[test]
fn a_merge_made_elsewhere_is_calibrated_alike() {
    let sandbox = Sandbox::empty();
    for family in ["llama", "bert", "clip_vision"] {
        let models = LLAMA.replace("llama", family) + " " + &EACH.replace("llama", family);
        let (one, two) = (format!("{family}_merge"), format!("{family}_calibrate"));
        run(&sandbox, &["merge --method linear --calibrate fsc --out", &one, &models]).good();
        let given = format!("--merged @fsc/{family}/merged --out {two}");
        run(&sandbox, &["calibrate --calibrate fsc", &given, &models]).good();
        let base = tensors(&golden(&format!("fsc/{family}/base/model.safetensors")));
        assert_close(family, &merged(&sandbox, &two), &merged(&sandbox, &one), &base, 1e-3);
        let expected = tensors(&golden(&format!("fsc/{family}/expected_fsc_l1/model.safetensors")));
        assert_close(family, &merged(&sandbox, &two), &expected, &base, 1e-3);
        assert!(!sandbox.path(&two).join("recipe.yml").exists(), "no recipe makes what another program merged");
    }
}

#[test]
fn recipes_and_flags_give_the_same_bytes() {
    let sandbox = Sandbox::empty();
    for name in ["base", "expert0", "expert1"] {
        copy(&sandbox, &format!("fsc/llama/{name}"), &format!("deep/{name}"));
    }
    for task in ["task0.safetensors", "task1.safetensors"] {
        fs::copy(golden("fsc/llama").join(task), sandbox.path("deep").join(task)).expect("a copy");
    }
    let head = "merge_method: linear\nbase_model: base\nmodels:\n";
    let calibrate = "calibrate:\n  space: fsc\n";
    let of_all = format!("{head}  - model: expert0\n  - model: expert1\n{calibrate}  data: task0.safetensors\n");
    let listed = format!(
        "{head}  - model: expert0\n  - model: expert1\n{calibrate}  data: [task0.safetensors, task1.safetensors]\n"
    );
    let of_each = format!(
        "{head}  - model: expert0\n    data: task0.safetensors\n  - model: expert1\n    data: task1.safetensors\n\
         {calibrate}"
    );
    let models = "--base deep/base --model deep/expert0 --model deep/expert1 --method linear --calibrate fsc";
    let once = "--data deep/task0.safetensors";
    let each = "--data deep/task0.safetensors --data deep/task1.safetensors";
    for (place, recipe, data) in [("all", of_all, once), ("listed", listed, each), ("each", of_each, each)] {
        sandbox.write("deep/recipe.yml", &recipe);
        let out = [format!("--out {place}_recipe"), format!("--out {place}_flags")];
        run(&sandbox, &["merge deep/recipe.yml", &out[0]]).good();
        run(&sandbox, &["merge", models, data, &out[1]]).good();
        let bytes = |what: &str| sandbox.read(&format!("{place}_{what}/model.safetensors"));
        assert!(bytes("recipe") == bytes("flags"), "{place}");
        // What was done can be done again from its record.
        run(&sandbox, &["merge", &format!("{place}_flags/recipe.yml --out {place}_again")]).good();
        assert!(bytes("again") == bytes("flags"), "{place}");
    }
    assert!(sandbox.read("listed_flags/model.safetensors") == sandbox.read("each_flags/model.safetensors"));
    assert!(sandbox.read("all_flags/model.safetensors") != sandbox.read("each_flags/model.safetensors"));
    run(&sandbox, &["merge", models, once, once, "--out twice"]).good();
    assert!(sandbox.read("all_flags/model.safetensors") == sandbox.read("twice/model.safetensors"));
}

#[test]
fn text_in_every_form_is_the_same_as_its_tokens() {
    let sandbox = Sandbox::empty();
    copy(&sandbox, "fsc/llama/base", "base");
    tokenizer(&sandbox, "base");
    sandbox.write("a.txt", "the cat sat\n\nthe cat sat down\n");
    sandbox.write("a.jsonl", "{\"text\": \"the cat sat\"}\n{\"text\": \"the cat sat down\"}\n");
    ids(&sandbox, "a.safetensors", &[&[1, 2, 3], &[1, 2, 3, 4]], None);
    for form in ["txt", "jsonl", "safetensors"] {
        let args = "merge --base base --model @fsc/llama/expert0 --model @fsc/llama/expert1 --method linear";
        run(&sandbox, &[args, "--calibrate dsc", &format!("--data a.{form} --out {form}")]).good();
        assert!(sandbox.read(&format!("{form}/model.safetensors")) == sandbox.read("txt/model.safetensors"), "{form}");
        let report = document(&sandbox, &format!("{form}/magic.json"));
        assert_eq!(report["features"]["data"], json!([{"name": format!("a.{form}"), "samples": 2}]));
    }
    let one = run(&sandbox, &["eval base --json --data a.txt --data a.safetensors"]).good().json();
    assert_eq!(one["sets"][0]["loss"], one["sets"][1]["loss"]);
    assert_eq!(one["sets"][0]["predictions"], 5);
}

#[test]
fn a_folder_of_images_calibrates_and_evaluates() {
    let sandbox = Sandbox::empty();
    copy(&sandbox, "fsc/vit/base", "base");
    images(&sandbox, "base", 16, ["flat", "flat"]);
    let args = "merge --base base --model @fsc/vit/expert0 --model @fsc/vit/expert1 --method linear --out out";
    run(&sandbox, &[args, "--calibrate auto --data flat"]).good();
    assert_eq!(document(&sandbox, "out/magic.json")["features"]["data"][0]["samples"], 2);
    copy(&sandbox, "architectures/vit_classifier", "classifier");
    images(&sandbox, "classifier", 12, ["classes/cat", "classes/dog"]);
    let found = run(&sandbox, &["eval classifier --data classes --json"]).good().json();
    assert_eq!((&found["sets"][0]["samples"], &found["sets"][0]["perplexity"]), (&json!(2), &Value::Null));
}

#[test]
fn evaluation_gives_what_pytorch_gives() {
    let sandbox = Sandbox::empty();
    for (model, tokens) in [("llama_bias", true), ("bert_classifier", false), ("clip_classifier", false)] {
        let expected = tensors(&golden(&format!("architectures/{model}/expected.safetensors")));
        let of = format!("eval @architectures/{model} --data @architectures/{model}/task.safetensors");
        let found = run(&sandbox, &[&of, "--json"]).good().json();
        assert_eq!(found["schema"], "magic-eval/1");
        let set = &found["sets"][0];
        let (loss, accuracy) = (number(&set["loss"]), number(&set["accuracy"]));
        assert!((loss / f64::from(expected["loss"].1[0]) - 1.0).abs() < 1e-4, "{model}: {loss}");
        assert!((accuracy - f64::from(expected["accuracy"].1[0])).abs() < 1e-6, "{model}: {accuracy}");
        let perplexity = set["perplexity"].as_f64();
        assert_eq!(perplexity, tokens.then(|| loss.exp()), "{model}");
        let words = run(&sandbox, &[&of]).good().stdout;
        assert!(words.contains(if tokens { "perplexity" } else { "accuracy" }), "{words}");
    }
}

#[test]
fn a_model_is_evaluated_with_the_classifier_of_another() {
    let sandbox = Sandbox::empty();
    copy(&sandbox, "architectures/bert_classifier", "headless");
    let bytes = sandbox.read("headless/model.safetensors");
    let model = SafeTensors::deserialize(&bytes).expect("a valid file");
    let rest = model.iter().filter(|(name, _)| !name.starts_with("classifier."));
    let rest: Vec<_> =
        rest.map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec())).collect();
    save(&sandbox.path("headless/model.safetensors"), &rest);
    let data = "--json --data @architectures/bert_classifier/task.safetensors";
    let own = run(&sandbox, &["eval @architectures/bert_classifier", data]).good().json();
    let lent = run(&sandbox, &["eval headless --head @architectures/bert_classifier", data]).good().json();
    assert_eq!(own["sets"], lent["sets"]);
    let none = run(&sandbox, &["eval headless", data]);
    assert!(none.code == Some(1) && none.stderr.contains("--head EXPERT"), "{}", none.stderr);
}

#[test]
fn sensitivity_of_networks_whose_head_sees_one_position() {
    let sandbox = Sandbox::empty();
    for family in ["vit", "bert", "clip_vision"] {
        let args = format!(
            "sensitivity --base @fsc/{family}/base --model @fsc/{family}/expert0 --data @fsc/{family}/task0.safetensors --json"
        );
        let found = run(&sandbox, &[&args]).good().json();
        assert!(number(&list(&found["tensors"])[0]["worse"]) > 0.0, "{family}: {found}");
    }
}

#[test]
fn sensitivity_finds_the_tensor_that_matters() {
    let sandbox = Sandbox::empty();
    let base = tensors(&golden("fsc/llama/base/model.safetensors"));
    changed(&sandbox, "fsc/llama/expert0", "strong", |name, values| {
        let times = if name == UP { 40.0 } else { 0.1 };
        values.iter_mut().zip(&base[name].1).for_each(|(value, base)| *value = base + times * (*value - base));
    });
    let args = "sensitivity --base @fsc/llama/base --model strong --top 3 --factor 1.5";
    for metric in ["drift", "loss", "accuracy"] {
        let named = format!("--metric {metric} --out {metric}.json --json");
        let found = run(&sandbox, &[args, ONE, &named]).good().json();
        assert_eq!((&found["schema"], &found["metric"]), (&json!("magic-sensitivity/1"), &json!(metric)));
        assert_eq!(found, document(&sandbox, &format!("{metric}.json")));
        let sensitive = list(&found["sensitive"]);
        assert!(sensitive.len() <= 3, "{sensitive:?}");
        let tensors = list(&found["tensors"]);
        assert!(tensors.is_sorted_by(|a, b| number(&a["worse"]) >= number(&b["worse"])));
        let most = tensors.iter().max_by(|a, b| number(&a["worse"]).abs().total_cmp(&number(&b["worse"]).abs()));
        if metric == "drift" {
            assert_eq!((sensitive.len(), &sensitive[0]), (3, &json!(UP)));
        }
        if metric != "accuracy" {
            assert_eq!(most.expect("a tensor")["tensor"], UP, "{metric}");
        }
        // The list is one that a merge takes: what it names does not grow.
        let limits = format!("--sensitive {metric}.json --out {metric}");
        run(&sandbox, &["merge --method linear --calibrate fsc", LLAMA, EACH, &limits]).good();
        for leaf in list(&document(&sandbox, &format!("{metric}/magic.json"))["features"]["leaves"]) {
            let weight = json!(format!("{}.weight", leaf["leaf"].as_str().expect("a name")));
            let xi = number(&leaf["xi"]);
            assert!(xi > 1.0 || sensitive.contains(&weight), "{leaf}");
            assert!(xi <= 1.0 || !sensitive.contains(&weight), "{leaf}");
        }
        // A list that is there is replaced as a whole, if that is asked for.
        let again = run(&sandbox, &[args, ONE, &named]);
        assert!(again.code == Some(1) && again.stderr.contains("is there already"), "{}", again.stderr);
        sandbox.write(&format!("{metric}.json"), &"mine".repeat(100_000));
        run(&sandbox, &[args, ONE, &named, "--overwrite"]).good();
        assert_eq!(found, document(&sandbox, &format!("{metric}.json")));
        let little = run(&sandbox, &[args, ONE, "--metric", metric, "--json --memory 16MiB"]).good().json();
        assert_eq!(little, found, "{metric}");
    }
    let words = run(&sandbox, &[args, ONE]).good().stdout;
    assert!(words.contains("hidden state moves by") && words.contains(UP), "{words}");
}

#[test]
fn the_receipt_holds_every_factor_and_candidate() {
    let sandbox = Sandbox::empty();
    for space in ["fsc", "auto"] {
        let out = format!("--method linear --calibrate {space} --out {space}");
        let run = run(&sandbox, &["merge", LLAMA, EACH, &out]).good();
        let features = &document(&sandbox, &format!("{space}/magic.json"))["features"];
        let leaves = list(&features["leaves"]);
        assert_eq!((leaves[0]["leaf"].as_str(), leaves.len()), (Some("model.embed_tokens"), 21), "{space}");
        assert!(leaves.iter().all(|leaf| number(&leaf["xi"]) > 0.0 && list(&leaf["experts"]).len() == 3));
        if space == "fsc" {
            assert_eq!(features["candidates"], Value::Null, "nothing else was tried");
            continue;
        }
        let candidates = list(&features["candidates"]);
        let chosen: Vec<_> = candidates.iter().filter(|candidate| candidate["chosen"] == true).collect();
        assert_eq!(chosen.len(), 1);
        assert!(candidates.iter().all(|other| number(&other["distance"]) >= number(&chosen[0]["distance"])));
        assert!(run.stdout.contains("← taken"), "{}", run.stdout);
    }
}

#[test]
fn a_dry_run_reads_the_samples_and_writes_nothing() {
    let sandbox = Sandbox::empty();
    let words =
        run(&sandbox, &["merge --method linear --calibrate fsc --dry-run --out out", LLAMA, EACH]).good().stdout;
    for phrase in ["fsc, magnitude, l1", "4 samples of", "nothing was written"] {
        assert!(words.contains(phrase), "{phrase} in {words}");
    }
    assert!(sandbox.listing().is_empty());
    let bad = run(&sandbox, &["merge --method linear --calibrate fsc --dry-run --data no.txt", LLAMA]);
    assert!(bad.code == Some(2) && bad.stderr.contains("`no.txt` does not exist"), "{}", bad.stderr);
}

#[test]
fn the_output_has_the_type_that_is_asked_for() {
    let sandbox = Sandbox::empty();
    run(&sandbox, &["merge --method linear --calibrate fsc --dtype bfloat16 --out out", LLAMA, EACH]).good();
    let found = run(&sandbox, &["inspect out --json"]).good().json();
    assert!(list(&found["models"][0]["tensors"]).iter().all(|tensor| tensor["dtype"] == "BF16"), "{found}");
    run(&sandbox, &["eval out", ONE]).good();
}

#[test]
fn what_is_excluded_stays_as_it_is() {
    let sandbox = Sandbox::empty();
    run(&sandbox, &["merge --method linear --calibrate fsc --out out --exclude", UP, LLAMA, EACH]).good();
    let base = tensors(&golden("fsc/llama/base/model.safetensors"));
    assert_eq!(merged(&sandbox, "out")[UP], base[UP]);
    let report = document(&sandbox, "out/magic.json");
    assert!(list(&report["features"]["leaves"]).iter().all(|leaf| leaf["leaf"] != "model.layers.0.mlp.up_proj"));
    run(&sandbox, &["calibrate --calibrate fsc --merged @fsc/llama/merged --out given --exclude", UP, LLAMA, EACH])
        .good();
    assert_eq!(merged(&sandbox, "given")[UP], tensors(&golden("fsc/llama/merged/model.safetensors"))[UP]);
}

#[test]
fn the_gpu_gives_the_same() {
    let sandbox = Sandbox::empty();
    for device in devices() {
        let out = format!("--device {device} --out {device}");
        run(&sandbox, &["merge --method linear --calibrate fsc", LLAMA, EACH, &out]).good();
        let base = tensors(&golden("fsc/llama/base/model.safetensors"));
        assert_close(device, &merged(&sandbox, device), &merged(&sandbox, "cpu"), &base, 1e-4);
    }
}

#[test]
fn where_nothing_moved_nothing_is_scaled() {
    let sandbox = Sandbox::empty();
    let base = tensors(&golden("fsc/llama/base/model.safetensors"));
    for space in ["fsc", "dsc", "auto"] {
        // The merge is the base; the experts are; both are.
        let experts = "--base @fsc/llama/base --model @fsc/llama/base";
        for (what, models, given) in
            [("merge", LLAMA, "base"), ("experts", experts, "merged"), ("both", experts, "base")]
        {
            let out = format!("{space}_{what}");
            let given = format!("--calibrate {space} --merged @fsc/llama/{given} --out {out}");
            run(&sandbox, &["calibrate", models, ONE, &given]).good();
            let text = String::from_utf8(sandbox.read(&format!("{out}/magic.json"))).expect("UTF-8");
            let numbers: Value = serde_json::from_str(&text).expect("JSON");
            for leaf in list(&numbers["features"]["leaves"]) {
                let xi = number(&leaf["xi"]);
                assert!(if what == "experts" { xi.is_finite() } else { xi == 1.0 }, "{out}: {leaf}");
            }
            let found = merged(&sandbox, &out);
            assert!(found.values().all(|(_, values)| values.iter().all(|x| x.is_finite())), "{out}");
            assert!(what == "experts" || found == base, "{out}");
        }
    }
}

/// Something that cannot be done, and what the program has to say to it.
struct Bad {
    what: &'static str,
    spoil: fn(&Sandbox),
    line: &'static str,
    code: i32,
    phrases: &'static [&'static str],
}

const MERGE: &str = "merge --base base --model @fsc/llama/expert0 --model @fsc/llama/expert1 \
                     --model @fsc/llama/expert2 --method linear --out out --calibrate fsc";
const VISION: &str = "merge --base vision --model @fsc/vit/expert0 --method linear --out out --calibrate fsc";
const PROBE: &str = "sensitivity --base base --model @fsc/llama/expert0 --data @fsc/llama/task0.safetensors";
const NANS: &str = "merge --base base --model @fsc/llama/expert1 --model spoiled --method linear --out out \
                    --data @fsc/llama/task0.safetensors --calibrate";
const BERT: &str = "eval @architectures/bert_classifier";

fn nothing(_: &Sandbox) {}

fn epsilon(sandbox: &Sandbox, number: &str) {
    let config = String::from_utf8(sandbox.read("base/config.json")).expect("UTF-8");
    sandbox
        .write("base/config.json", &config.replace("\"rms_norm_eps\": 1e-05", &format!("\"rms_norm_eps\": {number}")));
}

/// Paths and bytes of all files.
fn contents(sandbox: &Sandbox) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    sandbox.listing().into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect()
}

fn model_type(sandbox: &Sandbox) {
    let config = String::from_utf8(sandbox.read("base/config.json")).expect("UTF-8");
    sandbox.write("base/config.json", &config.replace("\"llama\"", "\"mamba\""));
}

const BAD: &[Bad] = &[
    Bad {
        what: "fsc without data",
        spoil: nothing,
        line: "{MERGE}",
        code: 2,
        phrases: &["`fsc` calibration needs samples", "--data PATH"],
    },
    Bad {
        what: "dsc without data",
        spoil: nothing,
        line: "calibrate --base base --model @fsc/llama/expert0 --merged @fsc/llama/merged --calibrate dsc --out out",
        code: 2,
        phrases: &["`dsc` calibration needs samples"],
    },
    Bad {
        what: "auto without data",
        spoil: nothing,
        line: "calibrate --base base --model @fsc/llama/expert0 --merged @fsc/llama/merged --calibrate auto --out out",
        code: 2,
        phrases: &["`auto` calibration needs samples"],
    },
    Bad {
        what: "no data there",
        spoil: nothing,
        line: "{MERGE} --data no.safetensors",
        code: 2,
        phrases: &["`no.safetensors` does not exist", "hint:"],
    },
    Bad {
        what: "no data there to evaluate on",
        spoil: nothing,
        line: "eval base --data no.safetensors",
        code: 2,
        phrases: &["`no.safetensors` does not exist", "hint:"],
    },
    Bad {
        what: "no data there to probe with",
        spoil: nothing,
        line: "sensitivity --base base --model @fsc/llama/expert0 --data no.safetensors",
        code: 2,
        phrases: &["`no.safetensors` does not exist", "hint:"],
    },
    Bad {
        what: "no tokenizer",
        spoil: |s| s.write("a.txt", "the cat"),
        line: "{MERGE} --data a.txt",
        code: 1,
        phrases: &["`tokenizer.json`", "`base` has none", "hint:"],
    },
    Bad {
        what: "a malformed tokenizer",
        spoil: |s| {
            s.write("a.txt", "the cat");
            s.write("base/tokenizer.json", "{\"model\": 3}")
        },
        line: "{MERGE} --data a.txt",
        code: 1,
        phrases: &["`base/tokenizer.json` is not a tokenizer", "hint:"],
    },
    Bad {
        what: "an unknown architecture",
        spoil: model_type,
        line: "{MERGE} --data @fsc/llama/task0.safetensors",
        code: 1,
        phrases: &["`config.json` of `base`", "`mamba`", "--calibrate wsc"],
    },
    Bad {
        what: "no configuration",
        spoil: |s| fs::remove_file(s.path("base/config.json")).unwrap(),
        line: "{MERGE} --data @fsc/llama/task0.safetensors",
        code: 1,
        phrases: &["`base` has no `config.json`", "--calibrate wsc"],
    },
    Bad {
        what: "a configuration that is none",
        spoil: |s| s.write("base/config.json", "{oops"),
        line: "{MERGE} --data @fsc/llama/task0.safetensors",
        code: 1,
        phrases: &["config.json"],
    },
    Bad {
        what: "a configuration of another model",
        spoil: |s| s.write("base/config.json", "{\"model_type\": \"llama\", \"hidden_size\": 40}"),
        line: "{MERGE} --data @fsc/llama/task0.safetensors",
        code: 1,
        phrases: &["`config.json` of `base`"],
    },
    Bad {
        what: "a damaged image",
        spoil: |s| {
            images(s, "vision", 16, ["i", "i"]);
            s.write("i/a.png", "no image")
        },
        line: "{VISION} --data i",
        code: 1,
        phrases: &["`i/a.png` cannot be decoded as an image", "hint:"],
    },
    Bad {
        what: "no processor",
        spoil: |s| s.write("i/a.png", "no image"),
        line: "{VISION} --data i",
        code: 1,
        phrases: &["`preprocessor_config.json`", "`vision` has none"],
    },
    Bad {
        what: "an empty folder",
        spoil: |s| fs::create_dir(s.path("i")).unwrap(),
        line: "{VISION} --data i",
        code: 1,
        phrases: &["`i` has no PNG or JPEG image"],
    },
    Bad {
        what: "an empty text",
        spoil: |s| {
            tokenizer(s, "base");
            s.write("a.txt", "\n \n")
        },
        line: "{MERGE} --data a.txt",
        code: 1,
        phrases: &["`a.txt` has no sample", "hint:"],
    },
    Bad {
        what: "an empty tensor",
        spoil: |s| save(&s.path("a.safetensors"), &[("input_ids", Dtype::I64, vec![0, 4], Vec::new())]),
        line: "{MERGE} --data a.safetensors",
        code: 1,
        phrases: &["`a.safetensors` has no sample"],
    },
    Bad {
        what: "an empty file",
        spoil: |s| s.write("a.safetensors", ""),
        line: "{MERGE} --data a.safetensors",
        code: 1,
        phrases: &["a.safetensors"],
    },
    Bad {
        what: "a broken line",
        spoil: |s| {
            tokenizer(s, "base");
            s.write("a.jsonl", "{\"text\": \"the cat\"}\n{oops\n")
        },
        line: "{MERGE} --data a.jsonl",
        code: 1,
        phrases: &["line 2 of `a.jsonl`"],
    },
    Bad {
        what: "a long sample",
        spoil: |s| ids(s, "a.safetensors", &[&[1; 129]], None),
        line: "{MERGE} --data a.safetensors",
        code: 1,
        phrases: &["`input_ids.0` of `a.safetensors` has 129 tokens", "at most 128"],
    },
    Bad {
        what: "an unknown token",
        spoil: |s| ids(s, "a.safetensors", &[&[1, 97]], None),
        line: "{MERGE} --data a.safetensors",
        code: 1,
        phrases: &["`a.safetensors` has the token 97", "0 to 96"],
    },
    Bad {
        what: "a label outside the head",
        spoil: |s| ids(s, "a.safetensors", &[&[1, 2], &[3]], Some(&[0, 5])),
        line: "{BERT} --data a.safetensors",
        code: 1,
        phrases: &["`a.safetensors`: sample 1 has label 5", "0 to 4", "hint:"],
    },
    Bad {
        what: "no labels",
        spoil: |s| ids(s, "a.safetensors", &[&[1, 2]], None),
        line: "{BERT} --data a.safetensors",
        code: 1,
        phrases: &["`a.safetensors` has no labels", "hint:"],
    },
    Bad {
        what: "no head",
        spoil: nothing,
        line: "eval @fsc/bert/base --data @fsc/bert/task0.safetensors",
        code: 1,
        phrases: &["has no output head", "--head EXPERT"],
    },
    Bad {
        what: "a head without classifier",
        spoil: nothing,
        line: "eval @fsc/bert/base --head base --data @fsc/bert/task0.safetensors",
        code: 1,
        phrases: &["`base` has no classifier", "classifier.*"],
    },
    Bad {
        what: "a head for a language model",
        spoil: nothing,
        line: "eval base --head @architectures/bert_classifier --data @fsc/llama/task0.safetensors",
        code: 1,
        phrases: &["`base` cannot be used with the classifier", "leave `--head` out"],
    },
    Bad {
        what: "single tokens",
        spoil: |s| ids(s, "a.safetensors", &[&[1], &[2]], None),
        line: "eval base --data a.safetensors",
        code: 1,
        phrases: &["every sample of `a.safetensors` is a single token", "hint:"],
    },
    Bad {
        what: "no samples to evaluate",
        spoil: nothing,
        line: "eval base --samples 0 --data @fsc/llama/task0.safetensors",
        code: 2,
        phrases: &["0 samples"],
    },
    Bad {
        what: "text for images",
        spoil: |s| s.write("a.txt", "the cat"),
        line: "{VISION} --data a.txt",
        code: 1,
        phrases: &["`a.txt` is text", "`vision` takes images [3, 16, 16]"],
    },
    Bad {
        what: "images for text",
        spoil: |s| images(s, "base", 16, ["i", "i"]),
        line: "{MERGE} --data i",
        code: 1,
        phrases: &["`i` is a folder of images", "`base` takes tokens"],
    },
    Bad {
        what: "tokens for images",
        spoil: nothing,
        line: "{VISION} --data @fsc/llama/task0.safetensors",
        code: 1,
        phrases: &["token ids", "hint:"],
    },
    Bad {
        what: "too few sets",
        spoil: nothing,
        line: "{MERGE} --data @fsc/llama/task0.safetensors --data @fsc/llama/task1.safetensors",
        code: 2,
        phrases: &["2 calibration data sets for 3 experts", "hint:"],
    },
    Bad {
        what: "no samples",
        spoil: nothing,
        line: "{MERGE} --data @fsc/llama/task0.safetensors --samples 0",
        code: 2,
        phrases: &["`--samples` is 0", "hint:"],
    },
    Bad {
        what: "pixels of another shape",
        spoil: |s| pixels(s, "a.safetensors", &[2, 3, 8, 16], 0.5),
        line: "{VISION} --data a.safetensors",
        code: 1,
        phrases: &["`a.safetensors` has `pixel_values` of shape [2, 3, 8, 16]", "[3, 16, 16]", "hint:"],
    },
    Bad {
        what: "pixels that are none",
        spoil: |s| pixels(s, "a.safetensors", &[2, 3, 16, 16], f32::NAN),
        line: "{VISION} --data a.safetensors",
        code: 1,
        phrases: &["`a.safetensors` has the value NaN", "hint:"],
    },
    Bad {
        what: "a merge of other shapes",
        spoil: nothing,
        line: "calibrate --base base --model @fsc/llama/expert0 --merged @fsc/qwen3/merged --calibrate fsc --data @fsc/llama/task0.safetensors --out out",
        code: 1,
        phrases: &["`model.layers.0.self_attn.k_proj.weight` is [20, 40] in `base` and [32, 40]", "hint:"],
    },
    Bad {
        what: "a merge that is not there",
        spoil: nothing,
        line: "calibrate --base base --model @fsc/llama/expert0 --merged none/there --calibrate wsc --out out",
        code: 2,
        phrases: &["`none/there`"],
    },
    Bad {
        what: "no calibration",
        spoil: nothing,
        line: "calibrate --base base --model @fsc/llama/expert0 --merged @fsc/llama/merged --out out",
        code: 2,
        phrases: &["nothing to do", "--calibrate wsc"],
    },
    Bad {
        what: "no output",
        spoil: nothing,
        line: "calibrate --base base --model @fsc/llama/expert0 --merged @fsc/llama/merged --calibrate wsc",
        code: 2,
        phrases: &["add `--out DIR`"],
    },
    Bad {
        what: "NaN in fsc",
        spoil: |s| spoiled(s, f32::NAN),
        line: "{NANS} fsc",
        code: 1,
        phrases: &["the features of `model.layers.0.mlp.up_proj` are not finite", "`spoiled`", "hint:"],
    },
    Bad {
        what: "NaN in dsc",
        spoil: |s| spoiled(s, f32::NAN),
        line: "{NANS} dsc",
        code: 1,
        phrases: &["the features of `model.layers.0.mlp.up_proj` are not finite", "`spoiled`", "hint:"],
    },
    Bad {
        what: "NaN in auto",
        spoil: |s| spoiled(s, f32::NAN),
        line: "{NANS} auto",
        code: 1,
        phrases: &["the features of `model.layers.0.mlp.up_proj` are not finite", "`spoiled`", "hint:"],
    },
    Bad {
        what: "infinity in fsc",
        spoil: |s| spoiled(s, f32::INFINITY),
        line: "{NANS} fsc",
        code: 1,
        phrases: &["are not finite", "`spoiled`"],
    },
    Bad {
        what: "NaN in an evaluation",
        spoil: |s| spoiled(s, f32::NAN),
        line: "eval spoiled --data @fsc/llama/task0.safetensors",
        code: 1,
        phrases: &["`spoiled` gives no finite loss on", "hint:"],
    },
    Bad {
        what: "NaN in a probe",
        spoil: |s| spoiled(s, f32::NAN),
        line: "{PROBE} --model spoiled --out list.json",
        code: 1,
        phrases: &["no finite numbers", "hint:"],
    },
    Bad {
        what: "a factor of 1",
        spoil: nothing,
        line: "{PROBE} --factor 1",
        code: 2,
        phrases: &["`--factor` is 1", "hint:"],
    },
    Bad {
        what: "a factor that is none",
        spoil: nothing,
        line: "{PROBE} --factor nan",
        code: 2,
        phrases: &["`--factor` is NaN"],
    },
    Bad {
        what: "a factor that is too large",
        spoil: nothing,
        line: "{PROBE} --factor 1e300",
        code: 2,
        phrases: &["`--factor` is 1"],
    },
    Bad {
        what: "no tensors to name",
        spoil: nothing,
        line: "{PROBE} --top 0",
        code: 2,
        phrases: &["`--top` is 0", "hint:"],
    },
    Bad {
        what: "a list that cannot be written",
        spoil: nothing,
        line: "{PROBE} --out no/list.json",
        code: 1,
        phrases: &["cannot write `no/list.json`", "hint:"],
    },
    Bad {
        what: "a folder for a list",
        spoil: nothing,
        line: "{PROBE} --out base",
        code: 1,
        phrases: &["`base` is in the way: it is not a file"],
    },
    Bad {
        what: "a list in the place of weights",
        spoil: nothing,
        line: "{PROBE} --out base/model.safetensors --overwrite",
        code: 1,
        phrases: &["would replace the input `base/model.safetensors`"],
    },
    Bad {
        what: "a list in the place of a configuration",
        spoil: nothing,
        line: "{PROBE} --out base/../base/config.json --overwrite",
        code: 1,
        phrases: &["would replace the input `base`"],
    },
    Bad {
        what: "a list in the place of samples",
        spoil: |s| ids(s, "d.safetensors", &[&[1, 2, 3]], None),
        line: "sensitivity --base base --model @fsc/llama/expert0 --data ./d.safetensors --out d.safetensors --overwrite",
        code: 1,
        phrases: &["would replace the input `./d.safetensors`"],
    },
    Bad {
        what: "a list that is there",
        spoil: |s| s.write("list.json", "mine"),
        line: "{PROBE} --out list.json",
        code: 1,
        phrases: &["`list.json` is there already", "--overwrite"],
    },
    #[cfg(unix)]
    Bad {
        what: "a list through a link",
        spoil: |s| std::os::unix::fs::symlink("base/config.json", s.path("list.json")).expect("a link"),
        line: "{PROBE} --out list.json --overwrite",
        code: 1,
        phrases: &["`list.json` is a link"],
    },
    Bad {
        what: "a fallback for a probe",
        spoil: nothing,
        line: "{PROBE} --fallback cpu",
        code: 2,
        phrases: &["unexpected argument '--fallback'"],
    },
    Bad {
        what: "a fallback for an evaluation",
        spoil: nothing,
        line: "eval base --data @fsc/llama/task0.safetensors --fallback cpu",
        code: 2,
        phrases: &["unexpected argument '--fallback'"],
    },
    Bad {
        what: "a negative epsilon",
        spoil: |s| epsilon(s, "-1e-5"),
        line: "{PROBE}",
        code: 1,
        phrases: &["`config.json` of `base`: `rms_norm_eps` is -0.00001"],
    },
    Bad {
        what: "an epsilon that is too large",
        spoil: |s| epsilon(s, "1e300"),
        line: "{PROBE}",
        code: 1,
        phrases: &["`config.json` of `base`: `rms_norm_eps` is inf"],
    },
    Bad {
        what: "samples in the place of the output",
        spoil: |s| ids(s, "out/model.safetensors", &[&[1, 2, 3]], None),
        line: "{MERGE} --data out/model.safetensors --overwrite",
        code: 1,
        phrases: &["the output folder `out` is that of the input `out/model.safetensors`"],
    },
    Bad {
        what: "samples under another name in the place of the output",
        spoil: |s| {
            ids(s, "d.safetensors", &[&[1, 2, 3]], None);
            fs::create_dir(s.path("out")).expect("a folder");
            fs::hard_link(s.path("d.safetensors"), s.path("out/model.safetensors")).expect("a hard link");
        },
        line: "{MERGE} --data d.safetensors --overwrite",
        code: 1,
        phrases: &["would replace the input `d.safetensors`"],
    },
    Bad {
        what: "a folder of images as the output",
        spoil: |s| images(s, "vision", 16, ["out", "out"]),
        line: "merge --base vision --model @fsc/vit/expert0 --method linear --calibrate fsc --data out --out out --overwrite",
        code: 1,
        phrases: &["the output folder `out` is that of the input `out`"],
    },
    Bad {
        what: "a list of sensitive tensors in the output",
        spoil: |s| s.write("out/magic.json", "[]"),
        line: "merge --base base --model @fsc/llama/expert0 --method linear --calibrate wsc --sensitive out/magic.json \
               --out out --overwrite",
        code: 1,
        phrases: &["the output folder `out` is that of the input `out/magic.json`"],
    },
    Bad {
        what: "a list of sensitive tensors in the folder of a plan",
        spoil: |s| s.write("out/list.json", "[]"),
        line: "plan --base base --model @fsc/llama/expert0 --method linear --calibrate wsc --sensitive out/list.json --out out",
        code: 1,
        phrases: &["the output folder `out` is that of the input `out/list.json`"],
    },
    Bad {
        what: "the loss without a head",
        spoil: nothing,
        line: "sensitivity --metric loss --base vision --model @fsc/vit/expert0 --data @fsc/vit/task0.safetensors",
        code: 1,
        phrases: &["`vision` has no output head", "--metric drift"],
    },
];

#[test]
fn what_cannot_be_done_is_one_error_and_leaves_nothing() {
    let mut wrong = Vec::new();
    for bad in BAD {
        let sandbox = Sandbox::empty();
        copy(&sandbox, "fsc/llama/base", "base");
        copy(&sandbox, "fsc/vit/base", "vision");
        (bad.spoil)(&sandbox);
        let before = contents(&sandbox);
        let names = [("{MERGE}", MERGE), ("{VISION}", VISION), ("{PROBE}", PROBE), ("{NANS}", NANS), ("{BERT}", BERT)];
        let line = names.iter().fold(bad.line.to_owned(), |line, (name, words)| line.replace(name, words));
        let run = run(&sandbox, &[&line]);
        let one = run.stderr.lines().filter(|line| line.starts_with("error:")).count() == 1;
        let says = bad.phrases.iter().all(|phrase| run.stderr.contains(phrase));
        let clean = run.stdout.is_empty() && contents(&sandbox) == before && !run.stderr.contains("panicked");
        if run.code != Some(bad.code) || !one || !says || !clean {
            wrong.push(format!("{}: {:?}, {one} {says} {clean}: {}", bad.what, run.code, run.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_device_finds_what_is_not_finite() {
    let sandbox = Sandbox::empty();
    copy(&sandbox, "fsc/llama/base", "base");
    spoiled(&sandbox, f32::NAN);
    for device in devices() {
        let run = run(&sandbox, &[NANS, "fsc --device", device]);
        assert!(run.code == Some(1) && run.stderr.contains("are not finite"), "{device}: {}", run.stderr);
        assert!(!sandbox.path("out").exists(), "{device}");
    }
}

#[test]
fn weight_space_needs_no_known_architecture() {
    let sandbox = Sandbox::empty();
    copy(&sandbox, "fsc/llama/base", "base");
    model_type(&sandbox);
    run(&sandbox, &["merge --base base --model @fsc/llama/expert0 --method linear --calibrate wsc --out out"]).good();
    spoiled(&sandbox, f32::NAN);
    let args = "merge --base base --model spoiled --method linear --calibrate wsc --out nan --non-finite propagate";
    let run = run(&sandbox, &[args]).good();
    assert!(run.stderr.contains(&format!("1 result is NaN: in `{UP}`")), "{}", run.stderr);
}
