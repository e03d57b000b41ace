//! Every variant of every architecture that the forward pass knows, against PyTorch's outputs; and what it does not know.
//! The outputs are recorded by `tests/python/record_forward.py`.

mod common;
#[path = "common/recorded.rs"]
mod recorded;

use std::fs;
use std::path::Path;

use magic_merge::checkpoint::Checkpoint;
use magic_merge::data::{self, Samples};
use magic_merge::device::{self, Opened, Wanted};
use magic_merge::evaluate::Model;
use magic_merge::forward;
use magic_merge::progress::Progress;
use recorded::{devices, golden, tensors};
use serde_json::{Value, json};

/// Folders of `tests/golden/architectures`.
const CASES: [&str; 24] = [
    "bert_classifier",
    "bert_gamma_beta",
    "bert_masked_lm",
    "bert_tokens",
    "clip",
    "clip_classifier",
    "clip_projection",
    "llama_all_heads",
    "llama_bias",
    "llama_dynamic",
    "llama_linear",
    "llama_rope_llama3",
    "mistral_null_window",
    "mistral_window",
    "open_clip_gelu",
    "open_clip_quick",
    "qwen2_layer_types",
    "qwen2_max_window_layers",
    "qwen2_unused_window",
    "qwen3_tied",
    "roberta_classifier",
    "roberta_pooler",
    "vit_classifier",
    "vit_rectangle",
];

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path.to_str().expect("UTF-8"), &[]).expect("a model")
}

fn device(name: &str) -> Opened {
    device::open(&Wanted { device: name.to_owned(), ..Wanted::default() }).expect("a device")
}

fn samples(case: &str, checkpoint: &Checkpoint, model: &Model<'_>) -> Result<Samples, String> {
    let path = golden(&format!("architectures/{case}/task.safetensors"));
    data::load(&path, &model.network.wants, checkpoint, None).map_err(|e| e.to_string())
}

/// What is wrong with the outputs of the model in `dir` as those of a case.
fn problems(case: &str, dir: &Path, opened: &Opened) -> Result<(), String> {
    let checkpoints = [open(dir)];
    let expected = tensors(&golden(&format!("architectures/{case}/expected.safetensors")));
    let model = Model::new(&checkpoints, &opened.executor, 1 << 14).map_err(|e| e.to_string())?;
    let values = model.values(samples(case, &checkpoints[0], &model)?, model.network.hidden, &Progress::default());
    for (i, found) in values.map_err(|e| e.to_string())?.iter().enumerate() {
        let expected = &expected[&i.to_string()].1;
        assert_eq!(found.len(), expected.len(), "{case} {i}");
        let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let off = found.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        if !found.iter().all(|x| x.is_finite()) || off > 1e-4 * largest {
            return Err(format!("sample {i} is off by {off:e} of {largest}"));
        }
    }
    let evaluation = model.evaluate(samples(case, &checkpoints[0], &model)?, &Progress::default());
    match (expected.get("loss"), evaluation) {
        (Some((_, loss)), Ok(found)) => {
            let off = (found.loss / f64::from(loss[0]) - 1.0).abs();
            let accuracy = f64::from(expected["accuracy"].1[0]);
            if off.is_nan() || off > 1e-4 || (found.accuracy - accuracy).abs() > 1e-6 {
                return Err(format!("{found:?}, expected a loss of {} and an accuracy of {accuracy}", loss[0]));
            }
            Ok(())
        }
        (Some(_), Err(error)) => Err(error.to_string()),
        (None, Err(error)) if error.to_string().contains("no output head") => Ok(()),
        (None, other) => Err(format!("evaluated without a head: {other:?}")),
    }
}

#[test]
fn outputs_are_those_of_pytorch() {
    let mut wrong = Vec::new();
    for name in devices() {
        let opened = device(name);
        for case in CASES {
            let outcome = problems(case, &golden(&format!("architectures/{case}")), &opened);
            wrong.extend(outcome.err().map(|what| format!("{case}, {name}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_recorded_case_is_tested() {
    let folders = fs::read_dir(golden("architectures")).expect("recorded outputs");
    let mut found: Vec<String> =
        folders.map(|folder| folder.expect("a folder").file_name().to_string_lossy().into_owned()).collect();
    found.sort();
    assert_eq!(found, CASES);
}

/// A copy of a case's model whose configuration `change` has changed.
fn changed(case: &str, file: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let from = golden(&format!("architectures/{case}"));
    fs::copy(from.join("model.safetensors"), dir.path().join("model.safetensors")).expect("a copy");
    let mut config = serde_json::from_slice(&fs::read(from.join(file)).expect("a file")).expect("JSON");
    change(&mut config);
    fs::write(dir.path().join(file), config.to_string()).expect("a file");
    dir
}

type Change = (&'static str, fn(&mut Value));

#[test]
fn what_is_recorded_tells_variants_apart() {
    let changes: [Change; 19] = [
        ("bert_masked_lm", |c| c["hidden_act"] = json!("gelu")),
        ("bert_gamma_beta", |c| c["hidden_act"] = json!("gelu")),
        ("clip", |c| c["vision_config"]["hidden_act"] = json!("gelu")),
        ("clip_classifier", |c| c["architectures"] = json!(["CLIPModel"])),
        ("clip_projection", |c| c["hidden_act"] = json!("gelu_new")),
        ("clip_projection", |c| c["layer_norm_eps"] = json!(1e-5)),
        ("llama_all_heads", |c| c["hidden_act"] = json!("silu")),
        ("llama_bias", |c| c["rope_theta"] = json!(10_000.0)),
        ("llama_bias", |c| c["tie_word_embeddings"] = json!(true)),
        ("llama_dynamic", |c| c["rope_scaling"]["type"] = json!("default")),
        ("llama_dynamic", |c| c["rope_scaling"]["factor"] = json!(3.0)),
        ("llama_linear", |c| c["rope_scaling"]["factor"] = json!(3.1)),
        ("llama_rope_llama3", |c| c["rope_scaling"]["rope_type"] = json!("default")),
        ("llama_rope_llama3", |c| c["rope_scaling"]["high_freq_factor"] = json!(8.0)),
        ("mistral_window", |c| c["sliding_window"] = json!(5)),
        ("mistral_null_window", |c| c["sliding_window"] = json!(13)),
        ("qwen2_layer_types", |c| c["layer_types"] = json!(["full_attention", "sliding_attention"])),
        ("qwen2_max_window_layers", |c| c["max_window_layers"] = json!(0)),
        ("roberta_pooler", |c| c["pad_token_id"] = json!(1)),
    ];
    let opened = device("cpu");
    for (i, (case, change)) in changes.into_iter().enumerate() {
        let dir = changed(case, "config.json", change);
        assert!(problems(case, dir.path(), &opened).is_err(), "change {i}, of {case}, makes no difference");
    }
}

#[test]
fn other_words_for_the_same() {
    let changes: [Change; 8] = [
        ("llama_linear", |c| {
            c["rope_parameters"] = json!({"rope_type": "linear", "factor": 3.0, "rope_theta": 10_000.0});
            c["rope_scaling"] = Value::Null;
            c["rope_theta"] = json!(7.0);
        }),
        ("llama_linear", |c| c["tie_word_embeddings"] = json!(null)),
        ("llama_linear", |c| c["sliding_window"] = json!(2)),
        ("llama_linear", |c| c["head_dim"] = json!(10)),
        ("mistral_null_window", |c| drop(c.as_object_mut().expect("an object").remove("sliding_window"))),
        ("qwen2_max_window_layers", |c| c["layer_types"] = json!(["full_attention", "sliding_attention"])),
        ("qwen2_unused_window", |c| c["layer_types"] = json!(["sliding_attention", "full_attention"])),
        ("clip", |c| drop(c["vision_config"].as_object_mut().expect("an object").remove("hidden_act"))),
    ];
    let opened = device("cpu");
    for (i, (case, change)) in changes.into_iter().enumerate() {
        let dir = changed(case, "config.json", change);
        let outcome = problems(case, dir.path(), &opened);
        assert_eq!(outcome, Ok(()), "change {i}, of {case}");
    }
}

/// The error of a changed copy, which names all of `parts` and says what works without a forward pass.
#[track_caller]
fn assert_refused(case: &str, change: impl FnOnce(&mut Value), parts: &[&str]) {
    let dir = changed(case, "config.json", change);
    let error = forward::network(&open(dir.path())).map(|_| ()).expect_err("nothing that is known");
    assert_names(&error, parts);
}

#[track_caller]
fn assert_names(error: &magic_merge::error::Error, parts: &[&str]) {
    let shown = format!("{error}\n{}", error.hints().join("\n"));
    for part in parts.iter().chain(&["--calibrate wsc"]) {
        assert!(shown.contains(part), "no `{part}` in: {shown}");
    }
}

#[test]
fn unknown_variants_are_refused_by_name() {
    assert_refused("llama_linear", |c| c["model_type"] = json!("gpt_neox"), &["model_type", "gpt_neox", "`qwen3`"]);
    assert_refused("llama_linear", |c| c["model_type"] = json!("bert"), &["word_embeddings.weight", "`bert`"]);
    let yarn = json!({"rope_type": "yarn", "factor": 2.0});
    assert_refused("llama_linear", |c| c["rope_scaling"] = yarn, &["rope_type", "yarn"]);
    assert_refused("llama_linear", |c| c["partial_rotary_factor"] = json!(0.5), &["partial_rotary_factor"]);
    assert_refused("llama_linear", |c| c["hidden_act"] = json!("mish"), &["hidden_act", "mish"]);
    assert_refused("bert_classifier", |c| c["is_decoder"] = json!(true), &["is_decoder"]);
    let relative = json!("relative_key");
    assert_refused("bert_classifier", |c| c["position_embedding_type"] = relative, &["position_embedding_type"]);
}

#[test]
fn impossible_configurations_are_refused_by_name() {
    for case in ["llama_linear", "bert_classifier", "vit_classifier", "clip_projection"] {
        assert_refused(case, |c| c["num_attention_heads"] = json!(7), &["num_attention_heads", "7", "40"]);
        assert_refused(case, |c| c["num_attention_heads"] = json!(0), &["num_attention_heads", "0"]);
        assert_refused(case, |c| c["intermediate_size"] = json!(99), &["28, 40", ".weight"]);
        assert_refused(case, |c| c["num_hidden_layers"] = json!(3), &["2.", "no tensor", ".weight"]);
        assert_refused(case, |c| c["hidden_size"] = json!("40"), &["hidden_size", "\"40\""]);
    }
    assert_refused("llama_linear", |c| c["num_key_value_heads"] = json!(3), &["num_key_value_heads"]);
    assert_refused("llama_linear", |c| c["head_dim"] = json!(9), &["head_dim", "9"]);
    assert_refused("llama_linear", |c| c["vocab_size"] = json!(40), &["embed_tokens.weight", "[41, 40]"]);
    assert_refused("roberta_classifier", |c| c["pad_token_id"] = json!(u64::MAX), &["pad_token_id"]);
    assert_refused("vit_classifier", |c| c["image_size"] = json!([12]), &["image_size"]);
    assert_refused("vit_classifier", |c| c["image_size"] = json!(16), &["position_embeddings", "[1, 10, 40]"]);
}

#[test]
fn classifiers_of_tokens_and_of_the_last_token_are_left_out() {
    let dir = changed("bert_classifier", "config.json", |c| c["architectures"] = json!(["BertForTokenClassification"]));
    assert!(forward::network(&open(dir.path())).expect("a known architecture").head().is_none());

    let dir = changed("llama_bias", "config.json", |_| ());
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).expect("a file");
    let (from, to) = (b"\"lm_head.weight\"", b"\"score.weight\"  ");
    let at = bytes.windows(from.len()).position(|window| window == from).expect("a head");
    bytes[at..at + from.len()].copy_from_slice(to);
    fs::write(&path, bytes).expect("a file");
    assert!(forward::network(&open(dir.path())).expect("a known architecture").head().is_none());
}

#[test]
fn a_model_without_configuration_is_refused() {
    let dir = changed("llama_linear", "config.json", |_| ());
    fs::remove_file(dir.path().join("config.json")).expect("a file");
    let error = forward::network(&open(dir.path())).map(|_| ()).expect_err("no configuration");
    assert_names(&error, &["config.json"]);
}

#[test]
fn open_clip_without_a_width_of_heads_that_divides_is_refused() {
    let change = |c: &mut Value| c["model_cfg"]["vision_cfg"]["head_width"] = json!(12);
    let dir = changed("open_clip_gelu", "open_clip_config.json", change);
    let error = forward::network(&open(dir.path())).map(|_| ()).expect_err("12 does not divide 40");
    assert_names(&error, &["open_clip_config.json", "head_width", "12", "40"]);
}

#[test]
fn keys_that_a_nested_configuration_leaves_out_are_those_of_clip() {
    let dir = changed("clip", "config.json", |c| {
        c["vision_config"].as_object_mut().expect("an object").remove("num_hidden_layers");
    });
    let error = forward::network(&open(dir.path())).map(|_| ()).expect_err("not 12 layers");
    assert_names(&error, &["encoder.layers.2."]);
    let dir = changed("clip", "config.json", |c| c["vision_config"] = json!({"dropout": 0.0}));
    let error = forward::network(&open(dir.path())).map(|_| ()).expect_err("no ViT-B/32");
    assert_names(&error, &["patch_embedding.weight", "[40, 3, 4, 4]"]);
}
