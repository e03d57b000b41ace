//! What people see: every help, the usual errors, the tables. Each case is a file in `tests/snapshots`, with exit code,
//! stdout and stderr; `INSTA_UPDATE=always cargo test --test snapshots` writes them anew.
#![cfg(unix)] // elsewhere paths and errors of the system read otherwise

#[path = "common/cli.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod common;

use std::fs;

use common::{NETWORK, Run, Sandbox, Spec};
use safetensors::tensor::{Dtype, TensorView};

/// The width that everything is set for.
const COLUMNS: &str = "80";

/// Runs the program on a terminal-like width, without a GPU, and compares what it says with snapshot `name`.
#[track_caller]
fn shot(sandbox: &Sandbox, name: &str, args: &[&str]) {
    shot_with(sandbox, name, args, &[]);
}

#[track_caller]
fn shot_with(sandbox: &Sandbox, name: &str, args: &[&str], env: &[(&str, &str)]) {
    let mut command = sandbox.command(args);
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "MAGIC_NO_PROGRESS"] {
        command.env_remove(variable);
    }
    command.env("COLUMNS", COLUMNS).env("TERM", "xterm");
    command.env("VK_DRIVER_FILES", "/no/such/driver").env("VK_ICD_FILENAMES", "/no/such/driver");
    let run = Run::from(command.envs(env.iter().copied()).output().expect("the program starts"));
    let code = run.code.expect("it ends by itself");
    let variables: String = env.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    let text = format!(
        "$ {variables}{}\nexit code {code}\n──── stdout\n{}──── stderr\n{}",
        [&["magic"], args].concat().join(" "),
        run.stdout,
        run.stderr
    );
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots");
    let here = sandbox.path("").canonicalize().expect("the sandbox is there");
    for folder in [here, sandbox.path("")] {
        let folder = folder.display().to_string();
        settings.add_filter(&format!("{}/?", folder.trim_end_matches('/').replace('.', "\\.")), "[DIR]/");
    }
    settings.add_filter(r"in \d+\.\d+ s \(\d+\.\d+ GB/s\)", "in [TIME] ([RATE])");
    // The recipe among the files holds paths.
    settings.add_filter(r"as recorded, \d+\.\d+ kB", "as recorded, [SIZE]");
    settings.add_filter(r"magic \d+\.\d+\.\d+", "magic [VERSION]");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// A merge of two models on the CPU, and what else is asked for.
fn merge<'a>(more: &[&'a str]) -> Vec<&'a str> {
    // Memory, and where lines break, depend on the number of threads.
    let merge = ["merge", "--device", "cpu", "--threads", "2", "--base", "base", "--model", "a", "--model", "b"];
    [&merge[..], &["--out", "out"], more].concat()
}

/// The network of seed 1 as `a`, with something else in the place of one tensor.
fn other(sandbox: &Sandbox, tensor: Spec<'static>) {
    let mut tensors: Vec<Spec<'_>> = NETWORK.iter().map(|(name, shape)| (*name, *shape, 1)).collect();
    tensors.retain(|(name, ..)| *name != tensor.0);
    tensors.push(tensor);
    sandbox.model("a", "model.safetensors", &tensors);
}

/// One tensor of any type, as the model `name`.
fn tensor(sandbox: &Sandbox, name: &str, dtype: Dtype, bytes: &[u8]) {
    let size = if matches!(dtype, Dtype::F32 | Dtype::I32) { 4 } else { 8 };
    let view = TensorView::new(dtype, vec![bytes.len() / size], bytes).expect("the bytes are of the shape");
    fs::create_dir_all(sandbox.path(name)).expect("a folder can be made");
    let file = sandbox.path(name).join("model.safetensors");
    safetensors::serialize_to_file([("x.weight", view)], None, &file).expect("a model can be written");
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn help() {
    let sandbox = Sandbox::empty();
    shot(&sandbox, "alone", &[]);
    shot(&sandbox, "alone_with_flag", &["--json"]);
    shot(&sandbox, "help_short", &["-h"]);
    shot(&sandbox, "help_long", &["--help"]);
    shot(&sandbox, "help_merge_long", &["merge", "--help"]);
    for command in [
        "merge",
        "calibrate",
        "eval",
        "sensitivity",
        "verify",
        "plan",
        "measure",
        "work",
        "finalize",
        "report",
        "inspect",
        "diff",
        "devices",
        "methods",
        "bench",
        "demo",
        "completions",
        "man",
    ] {
        shot(&sandbox, &format!("help_{command}"), &[command, "-h"]);
    }
}

#[test]
fn wrong_usage() {
    let sandbox = Sandbox::new();
    let shot = |name: &str, args: &[&str]| shot(&sandbox, name, args);
    shot("error_merge_alone", &["merge"]);
    shot("error_command", &["mrge"]);
    shot("error_flag", &["merge", "--calibrat", "wsc"]);
    shot("error_method", &merge(&["--method", "tis"]));
    shot("error_dtype", &merge(&["--method", "ties", "--dtype", "int3"]));
    shot("error_size", &merge(&["--method", "ties", "--shard-size", "5X"]));
    shot("error_param", &merge(&["--method", "ties", "--param", "densty=0.5"]));
    shot("error_density", &merge(&["--method", "ties", "--param", "density=2"]));
    shot("error_twice", &merge(&["--method", "ties", "--param", "density=0.2", "--param", "density=0.3"]));
    shot("error_memory", &merge(&["--method", "ties", "--memory", "1MB"]));
    shot("error_no_base", &["merge", "--model", "a", "--model", "b", "--method", "ties", "--out", "out"]);
    shot("error_no_output", &["merge", "--base", "base", "--model", "a", "--method", "ties"]);
    shot("error_no_model", &["inspect", "bas"]);
    shot("error_recipe_is_folder", &["merge", "base", "--out", "out"]);
    shot("error_recipe_is_model", &["merge", "base/model.safetensors", "--out", "out"]);
    shot("error_recipe_missing", &["merge", "recipe.yml", "--out", "out"]);
    shot("error_calibrate_alone", &["calibrate"]);
    shot("error_quiet_and_verbose", &["devices", "-q", "-v"]);
    shot("error_diff_of_nothing", &["diff", "base", "a", "--include", "*.conv.*"]);
    sandbox.write("recipe.yml", "merge_metod: ties\nbase_model: base\nmodels:\n  - model: a\n");
    shot("error_recipe_key", &["merge", "recipe.yml", "--out", "out"]);
}

#[test]
#[cfg(target_os = "linux")] // where the environment can hide the GPUs
fn devices() {
    let sandbox = Sandbox::new();
    let mut settings = insta::Settings::clone_current();
    // Columns are as wide as the number of threads.
    settings.add_filter(r"CPU, \d+ threads? +", "CPU, [N] threads  ");
    settings.add_filter(r"name  +type", "name  type");
    settings.bind(|| shot(&sandbox, "devices", &["devices"]));
    let args = ["merge", "--base", "base", "--model", "a", "--method", "ties", "--out", "out", "--device", "nvidai"];
    shot(&sandbox, "error_device", &args);
}

#[test]
fn bad_inputs() {
    let sandbox = Sandbox::new();
    let shot = |name: &str, args: &[&str]| shot(&sandbox, name, args);
    sandbox.write("out/notes.txt", "mine");
    shot("error_output_exists", &merge(&["--method", "ties"]));
    fs::remove_dir_all(sandbox.path("out")).unwrap();
    let into_a = ["merge", "--base", "base", "--model", "a", "--method", "ties", "--out", "a", "--overwrite"];
    shot("error_output_is_input", &[&into_a[..], &["--device", "cpu"]].concat());
    other(&sandbox, ("classifier.weight", &[4, 8], 1));
    shot("error_shape", &merge(&["--method", "ties"]));
    other(&sandbox, ("extra.weight", &[4, 8], 1));
    shot("error_extra_tensor", &merge(&["--method", "ties"]));
    sandbox.write("a/model.safetensors", "this is no model, but a text of some length");
    shot("error_not_a_model", &merge(&["--method", "ties"]));
    fs::remove_file(sandbox.path("a/model.safetensors")).unwrap();
    shot("error_no_weights", &merge(&["--method", "ties"]));
    tensor(&sandbox, "base", Dtype::F32, &floats(&[1.0, 2.0, 3.0]));
    tensor(&sandbox, "b", Dtype::F32, &floats(&[1.5, 2.5, 3.5]));
    tensor(&sandbox, "a", Dtype::F32, &floats(&[1.0, f32::NAN, 3.0]));
    shot("error_nan", &merge(&["--method", "ties"]));
    tensor(&sandbox, "a", Dtype::I32, &[0; 12]);
    shot("error_integers", &merge(&["--method", "ties"]));
    shot("error_verify", &["verify", "base"]);
    shot("error_sensitive", &{
        sandbox.write("list.json", r#"["no.such.weight"]"#);
        tensor(&sandbox, "a", Dtype::F32, &floats(&[1.0, 2.0, 4.0]));
        merge(&["--method", "ties", "--calibrate", "wsc", "--sensitive", "list.json"])
    });
}

#[test]
fn tables() {
    let sandbox = Sandbox::new();
    let shot = |name: &str, args: &[&str]| shot(&sandbox, name, args);
    shot("methods", &["methods"]);
    shot("inspect", &["inspect", "base"]);
    shot("inspect_base", &["inspect", "--device", "cpu", "--base", "base", "a", "b"]);
    shot("inspect_base_of_one", &["inspect", "--device", "cpu", "--base", "base", "a"]);
    shot("diff", &["diff", "base", "a"]);
    shot("diff_same", &["diff", "base", "base", "--exit-code"]);
    shot("dry_run", &merge(&["--method", "ties", "--calibrate", "wsc", "--exclude", "classifier.*", "--dry-run"]));
    shot("dry_run_shards", &merge(&["--method", "linear", "--shard-size", "512B", "--dry-run"]));
    shot("merge", &merge(&["--method", "ties", "--calibrate", "wsc"]));
    shot("verify", &["verify", "out", "--device", "cpu", "--threads", "2"]);
    let mut bytes = sandbox.read("out/model.safetensors");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(sandbox.path("out/model.safetensors"), bytes).unwrap();
    shot("verify_damaged", &["verify", "out", "--device", "cpu", "--threads", "2", "--all"]);
    let mut receipt: serde_json::Value = serde_json::from_slice(&sandbox.read("out/magic.json")).unwrap();
    (receipt["bytes"]["read"], receipt["seed"]) = (1.into(), 1.into());
    sandbox.write("out/magic.json", &receipt.to_string());
    shot("verify_receipt", &["verify", "out", "--device", "cpu", "--threads", "2"]);
    other(&sandbox, ("classifier.weight", &[4, 8], 1));
    shot("diff_shape", &["diff", "base", "a", "--exit-code"]);
    other(&sandbox, ("extra.weight", &[4, 8], 1));
    shot("diff_extra", &["diff", "base", "a", "--all", "--exclude", "*.layers.*"]);
}

#[test]
fn plans() {
    let sandbox = Sandbox::new();
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"plan  +[0-9a-f]{16}", "plan     [PLAN]");
    settings.bind(|| {
        let plan = |out: &'static str| {
            let models =
                ["plan", "--device", "cpu", "--threads", "2", "--base", "base", "--model", "a", "--model", "b"];
            [&models[..], &["--method", "linear", "--out", out]].concat()
        };
        shot(&sandbox, "plan", &[&plan("many")[..], &["--shard-size", "512B"]].concat());
        shot(&sandbox, "plan_of_one", &plan("one"));
    });
}

#[test]
fn tables_of_recorded_models() {
    let sandbox = Sandbox::empty();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/magic");
    for name in ["base", "expert0", "expert1", "expert2", "expert3"] {
        fs::copy(format!("{golden}/{name}.safetensors"), sandbox.path(&format!("{name}.safetensors"))).unwrap();
    }
    let files = ["expert0", "expert1", "expert2", "expert3"].map(|name| format!("{name}.safetensors"));
    let args = ["inspect", "--device", "cpu", "--base", "base.safetensors"];
    shot(&sandbox, "inspect_recorded", &["inspect", "base.safetensors"]);
    shot(&sandbox, "inspect_base_recorded", &[&args[..], &files.each_ref().map(String::as_str)].concat());
    shot(&sandbox, "diff_recorded", &["diff", "base.safetensors", "expert0.safetensors"]);
}

#[test]
fn colours() {
    let sandbox = Sandbox::empty();
    shot_with(&sandbox, "color_never", &["inspect", "x", "--color", "never"], &[("CLICOLOR_FORCE", "1")]);
    shot(&sandbox, "color_auto", &["inspect", "x"]);
    shot(&sandbox, "color_always", &["inspect", "x", "--color=always"]);
    shot_with(&sandbox, "color_always_in_spite", &["mrge", "--color", "always"], &[("NO_COLOR", "1")]);
    shot_with(&sandbox, "color_forced", &["mrge"], &[("CLICOLOR_FORCE", "1")]);
    shot_with(&sandbox, "color_forced_and_not", &["mrge"], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]);
    shot(&sandbox, "color_help", &["devices", "-h", "--color", "always"]);
    shot(&sandbox, "color_wrong", &["devices", "--color", "blue"]);
}
