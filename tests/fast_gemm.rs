//! `--fast-gemm` as a user meets it: refused where it cannot be, and near the f32 results where it can.
#![allow(clippy::print_stderr, reason = "what could not run says so")]

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod cli;
mod common;
#[path = "common/recorded.rs"]
mod recorded;

use cli::{Run, Sandbox};
use recorded::{assert_close, golden, tensors};
use serde_json::Value;

const MODELS: &str = "--base @fsc/llama/base --model @fsc/llama/expert0 --model @fsc/llama/expert1";
const DATA: &str = "--data @fsc/llama/task0.safetensors";

/// The program with the words of all `parts`; `@` is the folder of the recorded models.
fn run(sandbox: &Sandbox, parts: &[&str]) -> Run {
    let root = golden("").to_str().expect("UTF-8").to_owned();
    let words = parts.iter().flat_map(|part| part.split_whitespace()).map(|word| word.replace('@', &root));
    let words: Vec<String> = words.collect();
    sandbox.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Every command that runs the network.
fn commands() -> [String; 4] {
    [
        format!("merge {MODELS} --method linear --calibrate fsc {DATA} --out fast"),
        format!("calibrate {MODELS} --merged @fsc/llama/expert0 --calibrate fsc {DATA} --out given"),
        format!("eval @fsc/llama/expert0 {DATA}"),
        format!("sensitivity {MODELS} {DATA}"),
    ]
}

fn refused(run: &Run, device: &str) {
    assert_eq!((run.code, &*run.stdout), (Some(1), ""), "{}", run.stderr);
    for phrase in ["`--fast-gemm` needs cooperative matrices", device, "has none", "leave `--fast-gemm` out"] {
        assert!(run.stderr.contains(phrase), "{phrase}: {}", run.stderr);
    }
}

#[test]
fn the_cpu_refuses_it() {
    let sandbox = Sandbox::empty();
    for command in commands() {
        refused(&run(&sandbox, &[&command, "--fast-gemm --device cpu"]), "the CPU device");
    }
}

#[test]
fn it_is_for_the_forward_pass() {
    let sandbox = Sandbox::empty();
    for calibrate in ["none", "wsc"] {
        let merge = format!("merge {MODELS} --method linear --calibrate {calibrate} --out out --device cpu");
        let run = run(&sandbox, &[&merge, "--fast-gemm"]);
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        assert!(run.stderr.contains("nothing here runs the network"), "{}", run.stderr);
    }
}

fn errors(report: &Value) {
    let (error, worst) = (report["error"].as_f64().unwrap(), report["worst_error"].as_f64().unwrap());
    assert!(report["products"].as_u64() >= Some(14) && report["worst"].is_string(), "{report}");
    assert!(0.0 < error && error <= worst && worst < 1e-3, "{report}");
}

#[test]
fn gpus_refuse_it_or_come_near() {
    let Some(gpu) = common::gpu() else { return };
    let sandbox = Sandbox::empty();
    if gpu.cooperative().is_empty() {
        for command in commands() {
            refused(&run(&sandbox, &[&command, "--fast-gemm --device gpu"]), &gpu.adapter().name);
        }
        eprintln!("refused alone: {} has no cooperative matrices", gpu.adapter().name);
        return;
    }
    let [merge, given, eval, sensitivity] = commands();
    let fast = |command: &str| run(&sandbox, &[command, "--fast-gemm --device gpu --json"]).good().json();
    errors(&fast(&merge)["features"]["fast_gemm"]);
    errors(&fast(&given)["features"]["fast_gemm"]);
    errors(&fast(&sensitivity)["fast_gemm"]);
    let (near, exact) = (fast(&eval), run(&sandbox, &[&eval, "--device cpu --json"]).good().json());
    errors(&near["fast_gemm"]);
    let loss = |document: &Value| document["sets"][0]["loss"].as_f64().unwrap();
    assert!((loss(&near) / loss(&exact) - 1.0).abs() < 1e-3, "{near} {exact}");

    run(&sandbox, &[&merge.replace("--out fast", "--out exact"), "--device cpu"]).good();
    let of = |out: &str| tensors(&sandbox.path(out).join("model.safetensors"));
    assert_close("fast", &of("fast"), &of("exact"), &tensors(&golden("fsc/llama/base/model.safetensors")), 1e-3);
    let text = run(&sandbox, &[&merge, "--fast-gemm --overwrite --device gpu"]).good();
    assert!(text.stderr.contains("‖fast − f32‖ / ‖f32‖ is") || text.stdout.contains("‖fast − f32‖ / ‖f32‖ is"));
}
