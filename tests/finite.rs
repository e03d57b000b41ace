//! NaN and infinities: in every place, of every type, found and counted, and treated as the user says.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod cli;
mod common;
#[path = "common/formats.rs"]
mod formats;

use cli::{Run, Sandbox};
use common::store;
use magic_merge::checkpoint::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// The tensor, of this shape, with the row and column where something is wrong.
const NAME: &str = "layer.weight";
const SHAPE: [usize; 2] = [70, 1000];
const PLACE: [usize; 2] = [67, 801];
const AT: usize = PLACE[0] * SHAPE[1] + PLACE[1];

fn devices() -> Vec<&'static str> {
    if common::gpu().is_some() { vec!["cpu", "gpu"] } else { vec!["cpu"] }
}

fn values(model: usize) -> Vec<f32> {
    let base = common::values(SHAPE[0] * SHAPE[1], 0.1, 1);
    let own = common::values(SHAPE[0] * SHAPE[1], 0.01, 10 + model as u64);
    base.iter().zip(&own).map(|(b, t)| if model == 0 { *b } else { b + t }).collect()
}

/// A model of one tensor.
fn write(sandbox: &Sandbox, name: &str, dtype: Dtype, values: &[f32]) {
    let bytes = store(dtype, values);
    let stored = match dtype.header_name() {
        "BF16" => safetensors::Dtype::BF16,
        "F16" => safetensors::Dtype::F16,
        "F64" => safetensors::Dtype::F64,
        "F8_E5M2" => safetensors::Dtype::F8_E5M2,
        _ => safetensors::Dtype::F32,
    };
    let view = TensorView::new(stored, SHAPE.to_vec(), &bytes).expect("data has the length of the shape");
    std::fs::create_dir_all(sandbox.path(name)).expect("a folder can be made");
    let path = sandbox.path(name).join("model.safetensors");
    safetensors::serialize_to_file([(NAME, view)], None, &path).expect("a model can be written");
}

/// Base and two experts, with `spoiled` values at [`AT`] and in the element after the next.
fn sandbox(dtype: Dtype, spoiled: [Option<f32>; 3]) -> Sandbox {
    let sandbox = Sandbox::empty();
    for (model, name) in ["base", "a", "b"].into_iter().enumerate() {
        let mut values = values(model);
        if let Some(value) = spoiled[model] {
            (values[AT], values[AT + 2]) = (value, value);
        }
        write(&sandbox, name, dtype, &values);
    }
    sandbox
}

fn merge(sandbox: &Sandbox, device: &str, method: &[&str], more: &[&str]) -> Run {
    let merge = ["merge", "--device", device, "--base", "base", "--model", "a", "--model", "b", "--out", "out"];
    sandbox.run(&[&merge[..], method, more, &["--overwrite"]].concat())
}

const METHODS: &[&[&str]] = &[
    &["--method", "linear"],
    &["--method", "task_arithmetic", "--calibrate", "wsc"],
    &["--method", "ties", "--param", "density=0.3"],
    &["--method", "dare_ties", "--param", "density=0.5", "--calibrate", "wsc", "--manifold", "sphere"],
    &["--method", "sce", "--param", "select_topk=0.5"],
    &["--method", "della", "--param", "density=0.5"],
    &["--method", "slerp_rows", "--param", "t=0.4"],
];

/// The tensor's findings in the receipt.
fn findings(sandbox: &Sandbox) -> Value {
    let receipt: Value = serde_json::from_slice(&sandbox.read("out/magic.json")).expect("a receipt");
    receipt["tensors"][0]["not_finite"].clone()
}

/// The result, as f64.
fn result(sandbox: &Sandbox, dtype: Dtype) -> Vec<f64> {
    let bytes = sandbox.read("out/model.safetensors");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a valid file");
    let data = file.tensor(NAME).expect("the tensor").data().to_vec();
    (0..SHAPE[0] * SHAPE[1]).map(|i| formats::value(dtype, formats::bits(dtype, &data, i))).collect()
}

#[test]
fn an_expert_that_holds_no_number_stops_the_merge_and_is_named() {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64, Dtype::F8E5M2] {
        for (value, what) in [(f32::NAN, "2 NaN"), (f32::INFINITY, "2 infinite"), (f32::NEG_INFINITY, "2 infinite")] {
            let sandbox = sandbox(dtype, [None, None, Some(value)]);
            for device in devices() {
                for method in if dtype == Dtype::BF16 { METHODS } else { &METHODS[..3] } {
                    let run = merge(&sandbox, device, method, &[]);
                    let place = format!("{method:?} {dtype:?} {value} on {device}: {}", run.stderr);
                    assert_eq!(run.code, Some(1), "{place}");
                    let message = format!("`b` cannot be merged in `{NAME}`: {what}, the first at {PLACE:?}");
                    assert!(run.stderr.contains(&message), "{place}");
                    assert!(run.stderr.contains("hint: `--non-finite base`"), "{place}");
                    assert!(!sandbox.path("out").exists(), "{place}");
                }
            }
        }
    }
}

#[test]
fn where_the_base_stands_in_all_else_is_as_if_the_expert_had_not_changed_it() {
    for dtype in [Dtype::F32, Dtype::BF16] {
        for value in [f32::NAN, f32::INFINITY] {
            let sandbox = sandbox(dtype, [None, None, Some(value)]);
            // What the expert would be, had it not changed these elements.
            let base = values(0);
            let mut clean = values(2);
            (clean[AT], clean[AT + 2]) = (base[AT], base[AT + 2]);
            let bytes = store(dtype, &clean);
            let stored = if dtype == Dtype::F32 { safetensors::Dtype::F32 } else { safetensors::Dtype::BF16 };
            let view = TensorView::new(stored, SHAPE.to_vec(), &bytes).expect("data has the length of the shape");
            std::fs::create_dir_all(sandbox.path("clean")).expect("a folder can be made");
            let path = sandbox.path("clean/model.safetensors");
            safetensors::serialize_to_file([(NAME, view)], None, &path).expect("a model can be written");
            for device in devices() {
                for method in METHODS {
                    let place = format!("{method:?} {dtype:?} {value} on {device}");
                    let run = merge(&sandbox, device, method, &["--non-finite", "base"]).good();
                    assert!(run.stderr.contains("the base's own stand there"), "{place}: {}", run.stderr);
                    let found = findings(&sandbox);
                    let own = if value.is_nan() { [2, 0] } else { [0, 2] };
                    let wanted = json!({"nan": own[0], "infinite": own[1], "first": AT});
                    assert_eq!(found["inputs"][2], wanted, "{place}");
                    assert_eq!(found["inputs"][1]["first"], Value::Null, "{place}");
                    assert_eq!(found["results"]["first"], Value::Null, "{place}");
                    let spoiled = sandbox.read("out/model.safetensors");
                    let merge = ["merge", "--device", device, "--base", "base", "--model", "a", "--model", "clean"];
                    sandbox.run(&[&merge[..], method, &["--out", "out", "--overwrite"]].concat()).good();
                    assert!(spoiled == sandbox.read("out/model.safetensors"), "{place}");
                }
            }
        }
    }
}

#[test]
fn what_propagates_is_counted_where_it_arrives() {
    for device in devices() {
        let sandbox = sandbox(Dtype::F32, [None, Some(f32::NAN), None]);
        let run = merge(&sandbox, device, METHODS[0], &["--non-finite", "propagate"]).good();
        assert!(run.stderr.contains("`a` has numbers that are not finite"), "{}", run.stderr);
        let wanted = json!({"nan": 2, "infinite": 0, "first": AT});
        assert_eq!((&findings(&sandbox)["inputs"][1], &findings(&sandbox)["results"]), (&wanted, &wanted));
        let out = result(&sandbox, Dtype::F32);
        let broken: Vec<usize> = (0..out.len()).filter(|i| !out[*i].is_finite()).collect();
        assert_eq!(broken, [AT, AT + 2]);
    }
}

#[test]
fn what_no_model_has_changed_stays_and_is_counted() {
    for (dtype, value) in [(Dtype::F32, f32::NAN), (Dtype::BF16, f32::NEG_INFINITY), (Dtype::F16, f32::NAN)] {
        let sandbox = sandbox(dtype, [Some(value); 3]);
        for (device, policy) in devices().into_iter().flat_map(|d| [(d, "error"), (d, "base"), (d, "propagate")]) {
            for method in &METHODS[..5] {
                let run = merge(&sandbox, device, method, &["--non-finite", policy]).good();
                assert!(run.stderr.contains("results are") || run.stderr.contains("1 result is"), "{}", run.stderr);
                let found = findings(&sandbox);
                assert_eq!(found["kept"]["first"], json!(AT), "{method:?} {policy} {found}");
                assert_eq!(found["results"]["first"], Value::Null, "{method:?} {policy} {found}");
                let out = result(&sandbox, dtype);
                assert!(out[AT].is_nan() == value.is_nan() && !out[AT].is_finite());
                assert_eq!(out.iter().filter(|x| !x.is_finite()).count(), 2);
            }
        }
    }
}

#[test]
fn a_base_that_holds_no_number_where_experts_differ_is_an_error_too() {
    let sandbox = sandbox(Dtype::F32, [Some(f32::NAN), None, None]);
    for device in devices() {
        let run = merge(&sandbox, device, METHODS[0], &[]);
        assert_eq!(run.code, Some(1));
        let message = format!("`base` cannot be merged in `{NAME}`: 2 NaN, the first at {PLACE:?}");
        assert!(run.stderr.contains(&message), "{}", run.stderr);
        merge(&sandbox, device, METHODS[0], &["--non-finite", "base"]).good();
        let out = result(&sandbox, Dtype::F32);
        assert_eq!(out.iter().filter(|x| !x.is_finite()).count(), 2, "the base's own, which nothing can replace");
    }
}

#[test]
fn finite_numbers_whose_difference_is_not_are_no_fault_of_the_file() {
    let sandbox = sandbox(Dtype::F32, [Some(3e38), Some(-3e38), None]);
    for device in devices() {
        let run = merge(&sandbox, device, METHODS[0], &[]);
        let message =
            format!("`a` cannot be merged in `{NAME}`: differences from the base, 2 infinite, the first at {PLACE:?}");
        assert!(run.code == Some(1) && run.stderr.contains(&message), "{}", run.stderr);
    }
}

#[test]
fn what_is_copied_is_counted_too() {
    for (dtype, value, key) in [(Dtype::F32, f32::NAN, "nan"), (Dtype::BF16, f32::INFINITY, "infinite")] {
        let sandbox = sandbox(dtype, [Some(value), None, None]);
        let run = merge(&sandbox, "cpu", METHODS[0], &["--exclude", "layer*"]).good();
        let receipt: Value = serde_json::from_slice(&sandbox.read("out/magic.json")).expect("a receipt");
        let tensor = &receipt["tensors"][0];
        assert_eq!((&tensor["action"], &tensor[key]), (&json!("copied: excluded"), &json!(2)), "{tensor}");
        assert!(run.stderr.contains("2 results are "), "{}", run.stderr);
        assert_eq!(result(&sandbox, dtype).iter().filter(|x| !x.is_finite()).count(), 2);
    }
}

#[test]
fn results_too_large_for_their_type_are_an_error_or_the_bases() {
    // 60000 + 2 · 5000 is no f16.
    let sandbox = sandbox(Dtype::F16, [Some(60000.0), Some(65000.0), Some(65000.0)]);
    let sum = ["--method", "task_arithmetic"];
    for device in devices() {
        let run = merge(&sandbox, device, &sum, &[]);
        let message =
            format!("the merge of `{NAME}` gives numbers that F16 cannot hold: 2 infinite, the first at {PLACE:?}");
        assert!(run.code == Some(1) && run.stderr.contains(&message), "{}", run.stderr);
        merge(&sandbox, device, &sum, &["--dtype", "bfloat16"]).good();
        merge(&sandbox, device, &sum, &["--non-finite", "base"]).good();
        assert_eq!(result(&sandbox, Dtype::F16)[AT], 60000.0);
        let receipt: Value = serde_json::from_slice(&sandbox.read("out/magic.json")).expect("a receipt");
        assert_eq!(receipt["tensors"][0]["overflow"], 2);
        merge(&sandbox, device, &sum, &["--non-finite", "propagate"]).good();
        assert_eq!(findings(&sandbox)["results"], json!({"nan": 0, "infinite": 2, "first": AT}));
    }
}

#[test]
fn a_recipe_says_it_as_well() {
    let sandbox = sandbox(Dtype::F32, [None, None, Some(f32::NAN)]);
    sandbox
        .write("r.yml", "merge_method: linear\nbase_model: base\nmodels: [{model: a}, {model: b}]\nnon_finite: base\n");
    sandbox.run(&["merge", "r.yml", "--device", "cpu", "--out", "out"]).good();
    assert!(String::from_utf8(sandbox.read("out/recipe.yml")).expect("text").contains("non_finite: base"));
    let run = sandbox.run(&["merge", "r.yml", "--device", "cpu", "--out", "out", "--non-finite", "none"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    sandbox
        .write("r.yml", "merge_method: linear\nbase_model: base\nmodels: [{model: a}, {model: b}]\nnon_finite: zero\n");
    let run = sandbox.run(&["merge", "r.yml", "--device", "cpu", "--out", "out", "--overwrite"]);
    assert!(run.code == Some(2) && run.stderr.contains("known are `error`, `propagate`, `base`"), "{}", run.stderr);
}

#[test]
fn what_weight_space_makes_of_rounding_is_said() {
    let sandbox = Sandbox::empty();
    let values = |times: f32| (0..SHAPE[0] * SHAPE[1]).map(|i| times * (i % 97) as f32 / 64.0).collect::<Vec<_>>();
    for (name, times) in [("base", 0.0), ("a", 1.0), ("b", 3.0)] {
        write(&sandbox, name, Dtype::F32, &values(times));
    }
    // 0.3 a − 0.1 b is nothing, but for the rounding of these weights.
    let recipe = |second: &str| {
        let models = format!(
            "models: [{{model: a, parameters: {{weight: 0.3}}}}, {{model: b, parameters: {{weight: {second}}}}}]"
        );
        sandbox.write("r.yml", &format!("merge_method: task_arithmetic\nbase_model: base\n{models}\n"));
    };
    for device in devices() {
        for (second, calibrate, says) in [("-0.1", "wsc", true), ("-0.1", "none", false), ("0.1", "wsc", false)] {
            recipe(second);
            let args = ["merge", "r.yml", "--device", device, "--calibrate", calibrate, "--out", "out", "--overwrite"];
            let run = sandbox.run(&args).good();
            let message = format!("the experts cancel in rows of `{NAME}`: what is left there is mostly rounding");
            assert_eq!(run.stderr.contains(&message), says, "{device} {second} {calibrate} {}", run.stderr);
        }
        // Sums beyond f32 come out as the base.
        let run = merge(
            &sandbox,
            device,
            &["--method", "task_arithmetic", "--param", "lambda=1e30"],
            &["--calibrate", "wsc"],
        );
        assert!(run.good().stderr.contains("their squares are beyond f32"), "{device}");
    }
}
