//! The program as a user meets it: exit codes, streams, and what is left on disk.

#[path = "common/cli.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod common;

use std::fs;
use std::process::Stdio;

use common::{NETWORK, Sandbox, Spec};

const TIES: [&str; 4] = ["--method", "ties", "--param", "density=0.5"];
const WSC: [&str; 2] = ["--calibrate", "wsc"];
const RECIPE: &str = "merge_method: ties\nbase_model: base\nmodels:\n  - model: a\n  - model: b\n\
                      parameters:\n  density: 0.5\ncalibrate:\n  space: wsc\n";

/// Something that cannot be merged, and what the program has to say to it.
struct Bad {
    what: &'static str,
    spoil: fn(&Sandbox),
    args: &'static [&'static str],
    code: i32,
    phrase: &'static str,
}

const QUICK: &[&str] = &["merge", "--base", "base", "--model", "a", "--model", "b", "--method", "ties", "--out", "out"];

fn nothing(_: &Sandbox) {}

/// The network of seed 1, with something else in the place of one tensor.
fn other(sandbox: &Sandbox, tensor: Spec<'static>) {
    let mut tensors: Vec<Spec<'_>> = NETWORK.iter().map(|(name, shape)| (*name, *shape, 1)).collect();
    tensors.retain(|(name, ..)| *name != tensor.0);
    tensors.push(tensor);
    sandbox.model("a", "model.safetensors", &tensors);
}

fn shards_without_the_second(sandbox: &Sandbox) {
    let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    fs::remove_file(sandbox.path("a/model.safetensors")).unwrap();
    sandbox.model("a", first, &[("x", &[2, 2], 1)]);
    let index = format!(r#"{{"metadata": {{}}, "weight_map": {{"x": "{first}", "y": "{second}"}}}}"#);
    sandbox.write("a/model.safetensors.index.json", &index);
}

fn cut(sandbox: &Sandbox) {
    let bytes = sandbox.read("a/model.safetensors");
    fs::write(sandbox.path("a/model.safetensors"), &bytes[..bytes.len() - 40]).unwrap();
}

const BAD: &[Bad] = &[
    Bad {
        what: "a missing model",
        spoil: |s| fs::remove_dir_all(s.path("b")).unwrap(),
        args: QUICK,
        code: 2,
        phrase: "`b` is neither a path nor a model",
    },
    Bad { what: "a missing shard", spoil: shards_without_the_second, args: QUICK, code: 1, phrase: "are missing" },
    Bad {
        what: "another shape",
        spoil: |s| other(s, ("classifier.weight", &[4, 8], 1)),
        args: QUICK,
        code: 1,
        phrase: "`classifier.weight` is [3, 8] in `base` and [4, 8] in `a`",
    },
    Bad {
        what: "one tensor more",
        spoil: |s| other(s, ("extra.weight", &[4, 8], 1)),
        args: QUICK,
        code: 1,
        phrase: "`extra.weight` is in `a` but not in `base`",
    },
    Bad { what: "a truncated file", spoil: cut, args: QUICK, code: 1, phrase: "a/model.safetensors" },
    Bad {
        what: "no safetensors file",
        spoil: |s| s.write("a/model.safetensors", "not a model"),
        args: QUICK,
        code: 1,
        phrase: "a/model.safetensors",
    },
    Bad {
        what: "an unknown key",
        spoil: |s| s.write("recipe.yml", &RECIPE.replace("merge_method", "merge_metod")),
        args: &["merge", "recipe.yml", "--out", "out"],
        code: 2,
        phrase: "did you mean `merge_method`?",
    },
    Bad {
        what: "an unknown method in a recipe",
        spoil: |s| s.write("recipe.yml", &RECIPE.replace("ties", "tis")),
        args: &["merge", "recipe.yml", "--out", "out"],
        code: 2,
        phrase: "did you mean `ties`?",
    },
    Bad {
        what: "a recipe that is not there",
        spoil: nothing,
        args: &["merge", "recipe.yml", "--out", "out"],
        code: 2,
        phrase: "`recipe.yml` does not exist",
    },
    Bad {
        what: "a folder for a recipe",
        spoil: nothing,
        args: &["merge", "base", "--out", "out"],
        code: 2,
        phrase: "`base` is a folder, not a recipe",
    },
    Bad {
        what: "a recipe and models",
        spoil: |s| s.write("recipe.yml", RECIPE),
        args: &["merge", "recipe.yml", "--model", "a", "--out", "out"],
        code: 2,
        phrase: "`--model` cannot be used with a recipe file",
    },
    Bad {
        what: "an unknown parameter",
        spoil: nothing,
        args: &["merge", "--base", "base", "--model", "a", "--method", "ties", "--param", "densty=1", "--out", "out"],
        code: 2,
        phrase: "did you mean `density`?",
    },
    Bad {
        what: "a parameter of another method",
        spoil: nothing,
        args: &[
            "merge",
            "--base",
            "base",
            "--model",
            "a",
            "--method",
            "linear",
            "--param",
            "density=1",
            "--out",
            "out",
        ],
        code: 2,
        phrase: "`linear` does not use the parameter `density`",
    },
    Bad {
        what: "a parameter out of range",
        spoil: nothing,
        args: &["merge", "--base", "base", "--model", "a", "--method", "ties", "--param", "density=2", "--out", "out"],
        code: 2,
        phrase: "`density` is 2, above 1",
    },
    Bad {
        what: "no base",
        spoil: nothing,
        args: &["merge", "--model", "a", "--model", "b", "--method", "ties", "--out", "out"],
        code: 2,
        phrase: "`ties` needs a base model",
    },
    Bad {
        what: "calibration without base",
        spoil: nothing,
        args: &["merge", "--model", "a", "--model", "b", "--method", "linear", "--calibrate", "wsc", "--out", "out"],
        code: 2,
        phrase: "which needs a base model",
    },
    Bad {
        what: "no output",
        spoil: nothing,
        args: &["merge", "--base", "base", "--model", "a", "--method", "ties"],
        code: 2,
        phrase: "add `--out DIR`",
    },
    Bad {
        what: "an output with something in it",
        spoil: |s| s.write("out/notes.txt", "mine"),
        args: QUICK,
        code: 1,
        phrase: "is not empty: it has `notes.txt`",
    },
    Bad {
        what: "an output that is a file",
        spoil: |s| s.write("out", "mine"),
        args: QUICK,
        code: 1,
        phrase: "`out` is not a folder",
    },
    Bad {
        what: "an output below a file",
        spoil: |s| s.write("file", "mine"),
        args: &["merge", "--base", "base", "--model", "a", "--method", "ties", "--out", "file/out"],
        code: 1,
        phrase: "file",
    },
    Bad {
        what: "the output is an input",
        spoil: nothing,
        args: &["merge", "--base", "base", "--model", "a", "--method", "ties", "--out", "a", "--overwrite"],
        code: 1,
        phrase: "is that of the input `a`",
    },
    Bad {
        what: "too little memory",
        spoil: nothing,
        args: &["merge", "--base", "base", "--model", "a", "--method", "ties", "--memory", "1MB", "--out", "out"],
        code: 2,
        phrase: "`--memory` is below",
    },
    Bad {
        what: "an unknown sensitive tensor",
        spoil: |s| s.write("list.json", r#"["no.such.weight"]"#),
        args: &[
            "merge",
            "--base",
            "base",
            "--model",
            "a",
            "--method",
            "ties",
            "--calibrate",
            "wsc",
            "--sensitive",
            "list.json",
            "--out",
            "out",
        ],
        code: 1,
        phrase: "the sensitive list names `no.such.weight`",
    },
    Bad {
        what: "a calibration flag without calibration",
        spoil: nothing,
        args: &["merge", "--base", "base", "--model", "a", "--method", "ties", "--norm", "l2", "--out", "out"],
        code: 2,
        phrase: "`--norm` does nothing without calibration",
    },
    Bad {
        what: "a pattern that is none",
        spoil: nothing,
        args: &["merge", "--base", "base", "--model", "a", "--method", "ties", "--exclude", "[", "--out", "out"],
        code: 2,
        phrase: "patterns are globs",
    },
    Bad {
        what: "a name that would clear the screen",
        spoil: nothing,
        args: &["merge", "--model", "a\u{1b}[2J", "--method", "linear", "--out", "out"],
        code: 2,
        phrase: "\\u{1b}[2J",
    },
    Bad {
        what: "a flag that would clear the screen",
        spoil: nothing,
        args: &["merge", "--\u{1b}[2J"],
        code: 2,
        phrase: "unexpected argument",
    },
    Bad {
        what: "a device that is not there",
        spoil: nothing,
        args: &["merge", "--base", "base", "--model", "a", "--method", "ties", "--out", "out", "--device", "99"],
        code: -1, // where there is no GPU at all, this could not be done; where there are some, it is wrong usage
        phrase: "GPU",
    },
    Bad {
        what: "an unknown metric",
        spoil: nothing,
        args: &["sensitivity", "--metric", "los"],
        code: 2,
        phrase: "a similar value exists: 'loss'",
    },
    Bad { what: "nothing to inspect", spoil: nothing, args: &["inspect"], code: 2, phrase: "<PATH>" },
];

#[test]
fn what_cannot_be_merged_is_one_error_and_leaves_nothing() {
    for bad in BAD {
        let sandbox = Sandbox::new();
        (bad.spoil)(&sandbox);
        let before = sandbox.listing();
        let run =
            sandbox.run(&[bad.args, if bad.args.contains(&"--device") { &[] } else { &["--device", "cpu"] }].concat());
        let says = format!("{}: {}", bad.what, run.stderr);
        match bad.code {
            -1 => assert!([Some(1), Some(2)].contains(&run.code), "{says}"),
            code => assert_eq!(run.code, Some(code), "{says}"),
        }
        assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{says}");
        assert!(run.stderr.contains(bad.phrase), "{says}");
        assert!(!run.stderr.contains('\u{1b}'), "{says}");
        assert!(run.stdout.is_empty(), "{says}");
        assert_eq!(sandbox.listing(), before, "{says}");
    }
}

#[test]
fn a_dry_run_finds_the_same_faults() {
    let merging = |bad: &&Bad| bad.args.first() == Some(&"merge") && bad.args.len() > 3 && bad.what != "no output";
    for bad in BAD.iter().filter(merging) {
        let sandbox = Sandbox::new();
        (bad.spoil)(&sandbox);
        let before = sandbox.listing();
        let device: &[&str] = if bad.args.contains(&"--device") { &[] } else { &["--device", "cpu"] };
        let run = sandbox.run(&[bad.args, device, &["--dry-run"]].concat());
        assert_ne!(run.code, Some(0), "{}", bad.what);
        assert!(run.stderr.contains(bad.phrase), "{}: {}", bad.what, run.stderr);
        assert_eq!(sandbox.listing(), before, "{}", bad.what);
    }
}

#[test]
fn recipe_flags_and_emitted_recipe_give_the_same_bytes() {
    let sandbox = Sandbox::new();
    let flags = [&TIES[..], &WSC].concat();
    sandbox.merge(&[&flags[..], &["--out", "flags"]].concat()).good();
    sandbox.write("recipe.yml", RECIPE);
    sandbox.run(&["merge", "recipe.yml", "--device", "cpu", "--out", "recipe"]).good();
    let emitted = sandbox.merge(&[&flags[..], &["--emit-recipe"]].concat()).good();
    assert_eq!(emitted.stderr, "");
    sandbox.write("emitted.yml", &emitted.stdout);
    sandbox.run(&["merge", "emitted.yml", "--device", "cpu", "--out", "emitted"]).good();
    for file in ["model.safetensors", "config.json", "recipe.yml"] {
        assert_eq!(sandbox.read(&format!("recipe/{file}")), sandbox.read(&format!("flags/{file}")), "{file}");
        assert_eq!(sandbox.read(&format!("emitted/{file}")), sandbox.read(&format!("flags/{file}")), "{file}");
    }
    // What was merged is recorded by absolute paths; but for those it is what was emitted.
    let folder = format!("{}/", sandbox.path("").display()).replace("//", "/");
    let recorded = String::from_utf8(sandbox.read("flags/recipe.yml")).unwrap();
    assert_eq!(recorded.matches(&folder).count(), 3, "{recorded}");
    assert_eq!(recorded.replace(&folder, ""), emitted.stdout);
}

#[test]
fn a_recipe_finds_its_models_beside_itself() {
    let sandbox = Sandbox::empty();
    for (seed, name) in ["deep/base", "deep/a", "deep/b"].into_iter().enumerate() {
        sandbox.network(name, seed as u32);
    }
    sandbox.write("deep/recipe.yml", RECIPE);
    sandbox.run(&["merge", "deep/recipe.yml", "--device", "cpu", "--out", "out", "--seed", "3"]).good();
    assert!(sandbox.path("out/model.safetensors").is_file());
    // The recorded recipe lies elsewhere, and still finds them.
    sandbox.run(&["merge", "out/recipe.yml", "--device", "cpu", "--out", "again"]).good();
    assert_eq!(sandbox.read("again/model.safetensors"), sandbox.read("out/model.safetensors"));
    let receipt: serde_json::Value = serde_json::from_slice(&sandbox.read("out/magic.json")).unwrap();
    assert_eq!(receipt["seed"], 3);
}

#[test]
fn a_merge_leaves_all_its_files() {
    let sandbox = Sandbox::new();
    let run = sandbox.merge(&[&TIES[..], &WSC, &["--exclude", "classifier.*", "--out", "out"]].concat()).good();
    assert_eq!(run.stderr, "");
    let names = ["README.md", "config.json", "magic.json", "model.safetensors", "recipe.yml", "report.html"];
    for name in names {
        assert!(sandbox.path("out").join(name).is_file(), "{name}");
    }
    assert_eq!(fs::read_dir(sandbox.path("out")).unwrap().count(), names.len());
}

#[test]
fn json_is_one_document() {
    let sandbox = Sandbox::new();
    let run = sandbox.merge(&[&TIES[..], &WSC, &["--json", "--out", "out"]].concat()).good();
    assert_eq!(run.json()["schema"], "magic-merge/1");
    let receipt: serde_json::Value = serde_json::from_slice(&sandbox.read("out/magic.json")).unwrap();
    assert_eq!(run.json(), receipt);
    for (args, schema) in [
        (&["devices"][..], "magic-devices/1"),
        (&["methods"], "magic-methods/1"),
        (&["inspect", "base", "a"], "magic-inspect/1"),
    ] {
        let run = sandbox.run(&[args, &["--json"]].concat()).good();
        assert_eq!(run.json()["schema"], schema);
    }
}

#[test]
fn quiet_leaves_both_streams_empty() {
    let sandbox = Sandbox::new();
    // A pattern that matches nothing is worth a warning.
    let args = [&TIES[..], &["--exclude", "no.such.*"]].concat();
    let run = sandbox.merge(&[&args[..], &["--out", "loud"]].concat()).good();
    assert!(run.stderr.starts_with("warning: `exclude` pattern `no.such.*` matches no tensor"), "{}", run.stderr);
    for args in [[&args[..], &["--out", "out", "-q"]].concat(), [&args[..], &["--dry-run", "-q"]].concat()] {
        let run = sandbox.merge(&args).good();
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    }
}

#[test]
fn logs_go_to_stderr() {
    let sandbox = Sandbox::new();
    let run = sandbox.merge(&[&TIES[..], &["--out", "out", "-v"]].concat()).good();
    assert!(run.stderr.contains("INFO"), "{}", run.stderr);
    assert!(!run.stdout.contains("INFO"), "{}", run.stdout);
}

#[test]
fn a_dry_run_tells_what_a_merge_would_do() {
    let sandbox = Sandbox::new();
    let before = sandbox.listing();
    let args = [&TIES[..], &WSC, &["--exclude", "classifier.*", "--out", "deep/out", "--dry-run"]].concat();
    let words = sandbox.merge(&args).good();
    assert!(words.stdout.contains("4 merged, 1 copied (excluded)"), "{}", words.stdout);
    assert!(words.stdout.contains("nothing was written"), "{}", words.stdout);
    let plan = sandbox.merge(&[&args[..], &["--json"]].concat()).good().json();
    assert_eq!(sandbox.listing(), before);
    assert_eq!(plan["schema"], "magic-plan/1");
    assert_eq!((&plan["merged"], &plan["copied"]["excluded"], &plan["calibrated"]), (&4.into(), &1.into(), &3.into()));
    assert_eq!(plan["tensors"].as_array().unwrap().len(), NETWORK.len());
    assert_eq!(plan["models"][0]["role"], "base");
    sandbox.merge(&[&TIES[..], &["--exclude", "classifier.*", "--out", "out"]].concat()).good();
    let written = fs::metadata(sandbox.path("out/model.safetensors")).unwrap().len();
    assert_eq!(plan["files"][0]["bytes"], written);
    // Amounts are those of tensors, as in the receipt.
    let receipt: serde_json::Value = serde_json::from_slice(&sandbox.read("out/magic.json")).unwrap();
    assert_eq!(plan["bytes"], receipt["bytes"]);
}

#[test]
fn flags_that_do_nothing_are_named() {
    let sandbox = Sandbox::new();
    let warned = |args: &[&str]| sandbox.merge(&[&["--method", "linear", "--dry-run"], args].concat()).good().stderr;
    let all = ["--manifold", "sphere", "--norm", "l2", "--fit", "projection", "--samples", "3", "--data", "x"];
    let cases: [(&[&str], &str); 4] = [
        (
            &["--calibrate", "wsc"],
            "`--fit`, `--samples`, `--data` do nothing with `wsc` calibration, manifold `sphere`",
        ),
        (
            &["--calibrate", "none"],
            "`--manifold`, `--norm`, `--fit`, `--samples`, `--data` do nothing without calibration",
        ),
        (
            &["--calibrate", "wsc", "--propagate", "calibrated"],
            "`--fit`, `--propagate`, `--samples`, `--data` do nothing",
        ),
        (&["--calibrate", "none", "--sensitive", "x.json"], "`--data`, `--sensitive` do nothing"),
    ];
    sandbox.write("x.json", "[]");
    for (args, phrase) in cases {
        let said = warned(&[&all[..], args].concat());
        assert!(said.contains(phrase), "{phrase}: {said}");
    }
    let said = warned(&["--calibrate", "wsc", "--norm", "l2"]);
    assert!(said.contains("`--norm` does nothing with `wsc` calibration, manifold `mixed`"), "{said}");
    assert_eq!(warned(&["--calibrate", "wsc", "--manifold", "sphere", "--norm", "l2"]), "");
    // Samples of a recipe, and a flag that takes another space.
    let recipe = "merge_method: linear\nbase_model: base\nmodels: [{model: a}, {model: b}]\n\
                  calibrate: {space: fsc, data: [x.safetensors]}\n";
    sandbox.write("r.yml", recipe);
    let run = sandbox.run(&["merge", "r.yml", "--calibrate", "wsc", "--device", "cpu", "--out", "out"]).good();
    let phrase = "warning: the recipe's `data` does nothing with `wsc` calibration, manifold `mixed`\n";
    assert!(run.stderr.contains(phrase), "{}", run.stderr);
}

#[test]
fn shards_are_as_small_as_asked() {
    let sandbox = Sandbox::new();
    sandbox.merge(&[&TIES[..], &["--out", "one"]].concat()).good();
    let run = sandbox.merge(&[&TIES[..], &["--out", "many", "--shard-size", "512B", "--json"]].concat()).good();
    assert_eq!(run.json()["schema"], "magic-merge/1");
    assert!(sandbox.path("many/model.safetensors.index.json").is_file());
    let tensors = |dir: &str| {
        let run = sandbox.run(&["inspect", dir, "--json"]).good().json();
        let mut all: Vec<String> = run["models"][0]["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| format!("{}{}", t["name"], t["shape"]))
            .collect();
        all.sort();
        all
    };
    assert_eq!(tensors("many"), tensors("one"));
}

#[test]
fn overwrite_replaces_an_earlier_result() {
    let sandbox = Sandbox::new();
    sandbox.merge(&[&TIES[..], &["--out", "out"]].concat()).good();
    let first = sandbox.read("out/model.safetensors");
    assert_eq!(sandbox.merge(&[&TIES[..], &WSC, &["--out", "out"]].concat()).code, Some(1));
    assert_eq!(sandbox.read("out/model.safetensors"), first);
    sandbox.merge(&[&TIES[..], &WSC, &["--out", "out", "--overwrite"]].concat()).good();
    assert_ne!(sandbox.read("out/model.safetensors"), first);
}

#[test]
fn devices_always_have_the_cpu() {
    let sandbox = Sandbox::empty();
    let run = sandbox.run(&["devices"]).good();
    assert!(run.stdout.contains("CPU"), "{}", run.stdout);
    assert_eq!(run.stdout.matches("← auto").count(), 1, "{}", run.stdout);
    assert_eq!(run.stderr, "");
}

#[test]
fn completions_know_the_flags() {
    let sandbox = Sandbox::empty();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let run = sandbox.run(&["completions", shell]).good();
        assert!(run.stdout.contains("calibrate"), "{shell}");
    }
}

/// The demo, with temporary files in a folder that is watched.
fn demo(sandbox: &Sandbox, args: &[&str]) -> common::Run {
    fs::create_dir_all(sandbox.path("tmp")).unwrap();
    let mut command = sandbox.command(&[&["demo", "--device", "cpu"], args].concat());
    common::Run::from(command.env("TMPDIR", sandbox.path("tmp")).output().unwrap())
}

#[test]
fn the_demo_shows_what_calibration_does() {
    let sandbox = Sandbox::empty();
    let document = demo(&sandbox, &["--json", "--out", "kept"]).good().json();
    assert_eq!(document["schema"], "magic-demo/2");
    let merges = document["merges"].as_array().unwrap();
    let (methods, spaces) =
        (["linear", "task_arithmetic", "ties", "dare_linear"], ["none", "wsc", "fsc", "dsc", "auto"]);
    let tasks = document["tasks"].as_array().unwrap().len();
    for method in methods {
        let accuracy = |space: &str| {
            let row = merges.iter().find(|row| row["method"] == method && row["calibrate"] == space);
            let row = row.unwrap_or_else(|| panic!("{method} {space}"));
            let accuracy: Vec<f64> = row["accuracy"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            let mean = row["mean_accuracy"].as_f64().unwrap();
            assert_eq!(accuracy.len(), tasks, "{method} {space}");
            assert!((accuracy.iter().sum::<f64>() / tasks as f64 - mean).abs() < 1e-9, "{method} {space}");
            mean
        };
        let [none, wsc, fsc, dsc, auto] = spaces.map(accuracy);
        let best = none.max(wsc).max(fsc).max(dsc);
        assert!(auto >= best - 0.005 && auto >= none - 0.005, "{method}: auto {auto}, best {best}, none {none}");
        if method == "linear" {
            assert!(wsc > none && fsc > none && dsc > none, "{none} {wsc} {fsc} {dsc}");
        }
        for space in spaces {
            let dir = if space == "none" { method.to_owned() } else { format!("{method}_{space}") };
            assert!(sandbox.path(&format!("kept/{dir}/model.safetensors")).is_file(), "{dir}");
        }
    }
    assert_eq!(merges.len(), methods.len() * spaces.len());

    let kept: serde_json::Value = serde_json::from_slice(&sandbox.read("kept/demo.json")).unwrap();
    assert_eq!(kept, document);
    let report = String::from_utf8(sandbox.read("kept/report.md")).unwrap();
    assert!(report.contains("| ties density=0.2 |"), "{report}");
    let page = String::from_utf8(sandbox.read("kept/report.html")).unwrap();
    let pages: Vec<&str> = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(pages.len(), merges.len(), "{page}");
    assert!(pages.iter().all(|page| sandbox.path("kept").join(page).is_file()), "{pages:?}");
    for page in pages {
        let page = String::from_utf8(sandbox.read(&format!("kept/{page}"))).unwrap();
        assert_eq!(page.matches(">this merge<").count(), tasks, "{page}");
    }
    sandbox.run(&["verify", "kept/ties_wsc"]).good();
    assert!(sandbox.path("kept/models/base/model.safetensors").is_file());
    sandbox.run(&["merge", "kept/ties_dsc/recipe.yml", "--device", "cpu", "--out", "again"]).good();
    assert_eq!(sandbox.read("again/model.safetensors"), sandbox.read("kept/ties_dsc/model.safetensors"));

    let before = sandbox.listing();
    let refused = demo(&sandbox, &["--out", "kept"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let failed = demo(&sandbox, &["--out", "failed", "--method", "slerp"]);
    assert_eq!(failed.code, Some(2), "{}", failed.stderr);
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn the_demo_of_one_method_leaves_nothing() {
    let sandbox = Sandbox::empty();
    let words = demo(&sandbox, &["--method", "linear"]).good().stdout;
    for word in ["magic merge RECIPE.yml --out DIR", "auto → ", "linear", "turned"] {
        assert!(words.contains(word), "{word} in {words}");
    }
    assert!(!words.contains("ties density=0.2"), "{words}");
    assert_eq!(fs::read_dir(sandbox.path("tmp")).unwrap().count(), 0);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let sandbox = Sandbox::new();
    for args in [&["inspect", "base"][..], &["methods"], &["--help"], &["completions", "zsh"]] {
        let mut child = sandbox.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let run = common::Run::from(child.wait_with_output().unwrap()).good();
        assert_eq!(run.stderr, "", "{args:?}");
    }
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::time::{Duration, Instant};

    use super::*;

    /// Llama 2 and 3, 70B, up to the vocabulary.
    fn llama_70b() -> Vec<(String, Vec<u64>)> {
        let (hidden, ffn, kv, vocab) = (8192, 28672, 1024, 128_256);
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden])];
        for layer in 0..80 {
            let shapes: [(&str, &[u64]); 9] = [
                ("input_layernorm", &[hidden]),
                ("self_attn.q_proj", &[hidden, hidden]),
                ("self_attn.k_proj", &[kv, hidden]),
                ("self_attn.v_proj", &[kv, hidden]),
                ("self_attn.o_proj", &[hidden, hidden]),
                ("post_attention_layernorm", &[hidden]),
                ("mlp.gate_proj", &[ffn, hidden]),
                ("mlp.up_proj", &[ffn, hidden]),
                ("mlp.down_proj", &[hidden, ffn]),
            ];
            tensors.extend(shapes.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape.to_vec())));
        }
        tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
        tensors.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
        tensors
    }

    #[test]
    fn seventy_billion_parameters_are_planned_from_headers() {
        let sandbox = Sandbox::empty();
        for name in ["base", "a", "b"] {
            sandbox.sparse(name, &llama_70b()).unwrap();
        }
        let args = [&TIES[..], &WSC, &["--dry-run"]].concat();
        let words = sandbox.merge(&args).good();
        assert_eq!(words.stdout.matches("141.1 GB").count(), 4, "{}", words.stdout);
        let plan = sandbox.merge(&[&args[..], &["--json"]].concat()).good().json();
        assert_eq!(plan["tensors"].as_array().unwrap().len(), 723);
        assert!(plan["memory"]["host"].as_u64().unwrap() < 1 << 30, "{}", plan["memory"]);
    }

    #[test]
    fn a_disk_that_is_too_small_is_found_before_the_first_byte() {
        let sandbox = Sandbox::empty();
        let huge = [("model.embed_tokens.weight".to_owned(), vec![1 << 30, 3000])];
        for name in ["base", "a", "b"] {
            if sandbox.sparse(name, &huge).is_err() {
                return; // this file system has no files so large
            }
        }
        let before = sandbox.listing();
        for dry_run in [&["--dry-run"][..], &[]] {
            let run = sandbox.merge(&[&TIES[..], &["--out", "out"], dry_run].concat());
            assert_eq!(run.code, Some(1), "{}", run.stderr);
            assert!(run.stderr.contains("and the output needs 6.4 TB"), "{}", run.stderr);
            assert_eq!(sandbox.listing(), before);
        }
    }

    #[test]
    fn an_interrupted_merge_leaves_nothing() {
        let sandbox = Sandbox::empty();
        let large: Vec<_> = (0..64).map(|i| (format!("layers.{i}.mlp.weight"), vec![4096, 4096])).collect();
        for name in ["base", "a"] {
            sandbox.sparse(name, &large).unwrap();
        }
        let before = sandbox.listing();
        let args = ["merge", "--device", "cpu", "--base", "base", "--model", "a", "--out", "deep/out", "--method"];
        let mut command = sandbox.command(&[&args[..], &["dare_linear", "--param", "density=0.5"]].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while !sandbox.path("deep/out").exists() && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let kill = format!("kill -INT {}", child.id());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let run = common::Run::from(child.wait_with_output().unwrap());
        assert_eq!(run.code, Some(130), "{}", run.stderr);
        assert_eq!(run.stdout, "");
        // The first tensor may have been done.
        if run.stderr.contains("nothing was written to `deep/out`") {
            assert_eq!(sandbox.listing(), before);
        } else {
            assert!(run.stderr.contains("are safe in `deep/out`"), "{}", run.stderr);
            assert!(run.stderr.contains("hint: to go on: the same command with `--resume`"), "{}", run.stderr);
            assert!(sandbox.path("deep/out/.magic.journal").exists());
        }
    }

    #[test]
    fn a_path_that_is_no_text_is_refused() {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(&["merge", "--method", "linear", "--out", "out", "--model"]);
        let run = common::Run::from(command.arg(OsStr::from_bytes(b"a\xff")).output().unwrap());
        assert_eq!(run.code, Some(2));
        assert!(run.stderr.contains("not valid UTF-8"), "{}", run.stderr);
        let mut command = sandbox.command(&["merge", "--out", "out"]);
        let run = common::Run::from(command.arg(OsStr::from_bytes(b"a\xff")).output().unwrap());
        assert_eq!(run.code, Some(2), "{}", run.stderr);
    }
}

/// 2 for a path that is not there, 1 for one that is there and cannot be used, outputs among them.
#[test]
fn exit_codes_of_paths_are_even() {
    let sandbox = Sandbox::new();
    sandbox.write("empty/notes.txt", "mine");
    sandbox.write("list.json", "mine");
    sandbox.write("model.yml", "{merge_method: linear, base_model: base, models: [{model: no}]}");
    let calibrate = "calibrate: {space: wsc, sensitive: no.json}";
    let recipe = format!("{{merge_method: linear, base_model: base, models: [{{model: a}}], {calibrate}}}");
    sandbox.write("sensitive.yml", &recipe);
    let merge = "--base base --model a --method linear";
    let wsc = "calibrate --base base --model a --calibrate wsc";
    let cases: [(&str, i32); 36] = [
        ("merge no.yml --out out", 2),
        ("merge model.yml --out out", 2),
        ("merge sensitive.yml --out out", 2),
        ("merge --base no --model a --method linear --out out", 2),
        ("merge --base base --model no.safetensors --method linear --out out", 2),
        ("merge {merge} --calibrate wsc --sensitive no.json --out out", 2),
        ("merge {merge} --out empty", 1),
        ("merge {merge} --out list.json", 1),
        ("plan no.yml --out out", 2),
        ("plan model.yml --out out", 2),
        ("plan {merge} --out empty", 1),
        ("{wsc} --merged no --out out", 2),
        ("{wsc} --merged b --sensitive no.json --out out", 2),
        ("{wsc} --merged b --out empty", 1),
        ("eval no --data no.txt", 2),
        ("eval base --data no.txt --head no", 2),
        ("eval base --data no.txt --report no", 2),
        ("eval base --data no.txt --report empty", 1),
        ("sensitivity --base no --model a --data no.txt", 2),
        ("sensitivity --base base --model a --data no.txt --out list.json", 1),
        ("verify no", 2),
        ("verify empty", 1),
        ("report no", 2),
        ("report empty", 1),
        ("measure no", 2),
        ("measure empty", 1),
        ("work no --shard 0", 2),
        ("work empty --shard 0", 1),
        ("finalize no", 2),
        ("finalize empty", 1),
        ("inspect no", 2),
        ("inspect --base no a", 2),
        ("inspect empty", 1),
        ("diff base no", 2),
        ("bench --compare no.json", 2),
        ("demo --out empty", 1),
    ];
    for (line, code) in cases {
        let line = line.replace("{merge}", merge).replace("{wsc}", wsc);
        let args: Vec<&str> = line.split(' ').chain(["--device", "cpu"]).collect();
        let run = sandbox.run(&args);
        assert_eq!(run.code, Some(code), "{line}: {}", run.stderr);
        assert!(!run.stderr.contains("os error"), "{line}: {}", run.stderr);
    }
    assert!(!sandbox.path("out").exists());
}
