//! A merge by several machines, as its users run it: the same bytes in whatever order, however often and whoever is killed.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod cli;
mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cli::{Run, Sandbox, say};
use serde_json::Value;

/// Tensors of a model that makes sixteen shards.
const SHARDS: usize = 16;

/// Base and two experts, each of sixteen tensors of 32 KB.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::empty();
    for (seed, name) in ["base", "a", "b"].into_iter().enumerate() {
        model(&sandbox, name, seed as u32, &[]);
        sandbox.write(&format!("{name}/config.json"), r#"{"model_type": "llama", "torch_dtype": "float32"}"#);
    }
    sandbox
}

fn model(sandbox: &Sandbox, name: &str, seed: u32, more: &[&str]) {
    let names: Vec<String> = (0..SHARDS).map(|i| format!("model.layers.{i}.mlp.up_proj.weight")).collect();
    let names = names.iter().map(String::as_str).chain(more.iter().copied());
    let tensors: Vec<_> = names.map(|name| (name, &[128usize, 64][..], seed)).collect();
    sandbox.model(name, "model.safetensors", &tensors);
}

const FLAGS: [&str; 16] = [
    "--device",
    "cpu",
    "--base",
    "base",
    "--model",
    "a",
    "--model",
    "b",
    "--method",
    "dare_ties",
    "--param",
    "density=0.5",
    "--calibrate",
    "wsc",
    "--shard-size",
    "40KB",
];

fn shards(sandbox: &Sandbox, dir: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> =
        fs::read_dir(sandbox.path(dir)).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("safetensors")));
    files.sort_unstable();
    files.into_iter().map(|path| (path.file_name().expect("a name").into(), fs::read(&path).expect("a file"))).collect()
}

/// Names of the files beside them.
fn others(sandbox: &Sandbox, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(sandbox.path(dir)).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.contains("safetensors")).collect();
    names.sort_unstable();
    names
}

fn plan(sandbox: &Sandbox, dir: &str) -> Value {
    sandbox.run(&[&["plan"], &FLAGS[..], &["--out", dir, "--json"]].concat()).good().json()
}

fn work(sandbox: &Sandbox, dir: &str, shard: usize) -> Run {
    sandbox.run(&["work", dir, "--shard", &shard.to_string(), "--device", "cpu"])
}

fn finalize(sandbox: &Sandbox, dir: &str) -> Run {
    sandbox.run(&["finalize", dir, "--device", "cpu"])
}

fn started(sandbox: &Sandbox, dir: &str, shard: usize) -> Child {
    let mut command = sandbox.command(&["work", dir, "--shard", &shard.to_string(), "--device", "cpu", "-q"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// Numbers that look random, the same in every run.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[test]
fn any_order_duplicates_and_kills_make_no_other_byte() {
    let rounds = if std::env::var_os("MAGIC_TEST_LONG").is_some() { 100 } else { 20 };
    let sandbox = sandbox();
    sandbox.run(&[&["merge"], &FLAGS[..], &["--out", "one"]].concat()).good();
    let wanted = shards(&sandbox, "one");
    assert_eq!(wanted.len(), SHARDS + 1, "shards and their index");
    let (mut state, mut killed) = (7, 0);
    for round in 0..rounds {
        let planned = plan(&sandbox, "many");
        assert_eq!(planned["shards"], SHARDS as u64);
        let mut order: Vec<usize> = (0..SHARDS).collect();
        (1..SHARDS).rev().for_each(|i| order.swap(i, random(&mut state) % (i + 1)));
        // Some are begun and killed first, some by two at once.
        for &shard in &order[..3] {
            let mut child = started(&sandbox, "many", shard);
            std::thread::sleep(Duration::from_micros(random(&mut state) as u64 % 30_000));
            child.kill().expect("it can be killed");
            killed += usize::from(!child.wait().expect("it ended").success());
        }
        assert_eq!(finalize(&sandbox, "many").code, Some(1), "round {round}: not all is done");
        for pair in order.chunks(2) {
            let children: Vec<Child> =
                pair.iter().chain(&pair[..1]).map(|&shard| started(&sandbox, "many", shard)).collect();
            for mut child in children {
                assert!(child.wait().expect("it ended").success(), "round {round}, {pair:?}");
            }
        }
        let again = work(&sandbox, "many", order[0]).good();
        assert!(again.stdout.contains("done already"), "{}", again.stdout);
        finalize(&sandbox, "many").good();
        assert!(shards(&sandbox, "many") == wanted, "round {round}");
        assert_eq!(others(&sandbox, "many"), others(&sandbox, "one"), "what is left of the plan");
        let verified = sandbox.run(&["verify", "many", "--all"]);
        assert_eq!(verified.code, Some(0), "round {round}: {}{}", verified.stdout, verified.stderr);
        fs::remove_dir_all(sandbox.path("many")).expect("it can be removed");
    }
    say(&format!(
        "distribute: {rounds} rounds of {SHARDS} shards in random order, {killed} workers killed, no other byte"
    ));
}

#[test]
fn the_end_refuses_what_is_missing_damaged_or_of_another_plan_by_name() {
    let sandbox = sandbox();
    plan(&sandbox, "out");
    for shard in 0..SHARDS {
        work(&sandbox, "out", shard).good();
    }
    let part =
        |shard: usize, end: &str| sandbox.path(&format!("out/parts/model-{:05}-of-00016.safetensors{end}", shard + 1));
    let (receipt, file) = (part(5, ".json"), part(5, ""));
    let (good_receipt, good_file) = (fs::read(&receipt).expect("a receipt"), fs::read(&file).expect("a shard"));
    let refused = |what: &str| {
        let run = finalize(&sandbox, "out");
        assert_eq!(run.code, Some(1), "{what}: {}", run.stderr);
        assert!(run.stderr.contains("1 of 16 shards are not done: shard 5: "), "{what}: {}", run.stderr);
        assert!(run.stderr.contains(what) && run.stderr.contains("--shard 5`"), "{what}: {}", run.stderr);
        assert!(!sandbox.path("out/model.safetensors.index.json").exists(), "{what}");
    };
    fs::remove_file(&receipt).expect("removed");
    refused("is missing");
    fs::write(&receipt, &good_receipt[..good_receipt.len() / 2]).expect("written");
    refused("is damaged");
    let edited = String::from_utf8(good_receipt.clone()).expect("JSON").replace("\"seconds\":0", "\"seconds\":1");
    fs::write(&receipt, edited).expect("written");
    refused("was changed after it was made");
    fs::copy(part(6, ".json"), &receipt).expect("copied");
    refused("is that of another merge");
    // Of another plan for the same shard.
    sandbox.run(&[&["plan"], &FLAGS[..], &["--seed", "1", "--out", "other"]].concat()).good();
    work(&sandbox, "other", 5).good();
    fs::copy(sandbox.path("other/parts/model-00006-of-00016.safetensors.json"), &receipt).expect("copied");
    refused("is that of another merge");
    fs::write(&receipt, &good_receipt).expect("written");
    let mut bad = good_file.clone();
    *bad.last_mut().expect("not empty") ^= 1;
    fs::write(&file, &bad).expect("written");
    refused("SHA-256");
    fs::write(&file, &good_file[1..]).expect("written");
    refused("were recorded");
    fs::remove_file(&file).expect("removed");
    refused("is missing");
    // Done again, all is well.
    work(&sandbox, "out", 5).good();
    assert!(fs::read(&file).expect("a shard") == good_file);
    finalize(&sandbox, "out").good();
    let done = finalize(&sandbox, "out");
    assert!(done.code == Some(0) && done.stdout.contains("finished already"), "{}", done.stderr);
}

#[test]
fn a_plan_of_one_shard_says_so() {
    let sandbox = sandbox();
    let args = ["plan", "--method", "linear", "--base", "base", "--model", "a", "--model", "b", "--device", "cpu"];
    let said = sandbox.run(&[&args[..], &["--out", "one"]].concat()).good().stdout;
    assert!(said.contains("magic work one --shard 0  anywhere\n") && !said.contains("0 to 0"), "{said}");
    let run = work(&sandbox, "one", 1);
    assert!(run.code == Some(2) && run.stderr.contains("the plan has only shard 0"), "{}", run.stderr);
    work(&sandbox, "one", 0).good();
    sandbox.run(&["finalize", "one", "--device", "cpu"]).good();
    sandbox.run(&["verify", "one", "--all"]).good();
}

#[test]
fn each_command_takes_what_its_help_lists() {
    let sandbox = Sandbox::empty();
    let cases: [(&str, &[&str]); 4] = [
        (
            "plan",
            &[
                "--dry-run",
                "--emit-recipe",
                "--resume",
                "--overwrite",
                "--hash",
                "--lora-out=8",
                "--fast-gemm",
                "--fallback=cpu",
            ],
        ),
        ("measure", &["--shard=0", "--fast-gemm", "--hash"]),
        ("work", &["--fast-gemm", "--overwrite", "--resume"]),
        ("finalize", &["--fallback=cpu", "--overwrite", "--resume"]),
    ];
    for (command, flags) in cases {
        let help = sandbox.run(&[command, "--help"]).good().stdout;
        for flag in flags {
            let name = flag.split('=').next().expect("a name");
            assert!(!help.contains(name), "{command} lists {name}");
            let run = sandbox.run(&[command, "out", flag]);
            let what = format!("unexpected argument '{name}' found");
            assert!(run.code == Some(2) && run.stderr.contains(&what), "{command} {flag}: {}", run.stderr);
        }
    }
}

#[test]
fn a_planned_result_names_its_models_as_the_recipe_does() {
    let sandbox = Sandbox::new();
    // As named, found from the working directory and beside the recipe.
    fs::create_dir(sandbox.path("recipes")).expect("made");
    fs::rename(sandbox.path("b"), sandbox.path("recipes/b")).expect("moved");
    let recipe = "{merge_method: ties, base_model: ./base, models: [{model: a}, {model: b}]}";
    sandbox.write("recipes/recipe.yml", recipe);
    let all = |command: &str, out: &str| {
        sandbox.run(&[command, "recipes/recipe.yml", "--device", "cpu", "--out", out]).good()
    };
    let merged = all("merge", "one").stdout;
    all("plan", "many");
    work(&sandbox, "many", 0).good();
    let finalized = finalize(&sandbox, "many").good().stdout;
    let norms = |said: &str| said.split_once("\n\n").expect("a table, then other lines").0.to_owned();
    assert!(norms(&merged).contains("‖τ‖ experts") && norms(&finalized) == norms(&merged), "{finalized}");
    for file in ["README.md", "recipe.yml", "model.safetensors"] {
        assert!(sandbox.read(&format!("one/{file}")) == sandbox.read(&format!("many/{file}")), "{file}");
    }
    let receipt = |dir: &str| -> Value {
        let mut receipt: Value = serde_json::from_slice(&sandbox.read(&format!("{dir}/magic.json"))).expect("JSON");
        receipt["tensors"].as_array_mut().expect("a list").iter_mut().for_each(|tensor| drop(tensor["seconds"].take()));
        drop((receipt["seconds"].take(), receipt["sha256"].take()));
        receipt
    };
    assert_eq!(receipt("many"), receipt("one"));
    assert_eq!(receipt("many")["experts"], serde_json::json!(["a", "b"]));
    let again = sandbox.run(&["merge", "recipes/recipe.yml", "--device", "cpu", "--out", "many", "--resume"]).good();
    assert!(again.stdout.contains("already done"), "{}", again.stdout);
    sandbox.run(&["verify", "many", "--all"]).good();
}

#[test]
#[cfg(target_os = "linux")] // where it can be known who is gone
fn what_killed_workers_leave_goes_with_the_next_work() {
    let sandbox = sandbox();
    plan(&sandbox, "out");
    let left = || {
        let names = others(&sandbox, "out/parts").into_iter().filter(|name| name.starts_with(".work-"));
        names.collect::<Vec<_>>()
    };
    let (mut stale, mut kept) = (0, 0);
    for at in 1.. {
        let mut command = sandbox.command(&["work", "out", "--shard", "0", "--device", "cpu"]);
        let killed = command.env("MAGIC_TEST_FAULT", format!("kill@{at}")).output().expect("it starts");
        if killed.status.success() {
            break;
        }
        let Some(name) = sandbox.path("out/parts").is_dir().then(&left).unwrap_or_default().pop() else { continue };
        let files = fs::read_dir(sandbox.path("out/parts").join(&name)).expect("a folder").flatten();
        let files: Vec<_> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        // Of a worker that lives and holds its lock nothing goes.
        if files.iter().any(|file| file == ".magic.lock") && files.len() > 1 {
            let lock = sandbox.path("out/parts").join(&name).join(".magic.lock");
            let held = fs::OpenOptions::new().write(true).open(lock).expect("a lock");
            held.try_lock().expect("its owner is gone");
            work(&sandbox, "out", 1).good();
            assert!(left().contains(&name), "operation {at}: {files:?}");
            drop(held);
            fs::remove_file(sandbox.path("out/parts/model-00002-of-00016.safetensors")).expect("removed");
            work(&sandbox, "out", 1).good();
            assert!(left().is_empty(), "operation {at}: {files:?}");
            fs::remove_file(sandbox.path("out/parts/model-00002-of-00016.safetensors")).expect("removed");
            stale += 1;
        } else {
            // Who has no lock yet, or no longer, may be at work.
            work(&sandbox, "out", 1).good();
            assert!(left().contains(&name), "operation {at}: {files:?}");
            fs::remove_dir_all(sandbox.path("out/parts").join(name)).expect("removed");
            fs::remove_file(sandbox.path("out/parts/model-00002-of-00016.safetensors")).expect("removed");
            kept += 1;
        }
    }
    assert!(stale > 3, "{stale} stale folders, {kept} that may not be");
}

/// A worker may have been held up, and another have done its shard.
#[cfg(unix)]
#[test]
fn a_worker_that_outlives_the_end_is_no_failure_and_leaves_nothing() {
    let sandbox = sandbox();
    sandbox.run(&[&["merge"], &FLAGS[..], &["--out", "one"]].concat()).good();
    let wanted = shards(&sandbox, "one");
    let signal = |child: &Child, name: &str| {
        let sent = Command::new("kill").args([name, &child.id().to_string()]).stderr(Stdio::null()).status();
        sent.expect("there is `kill`");
    };
    for round in 0..16 {
        plan(&sandbox, "many");
        let mut late = started(&sandbox, "many", 0);
        std::thread::sleep(Duration::from_millis(2 * round));
        signal(&late, "-STOP");
        (0..SHARDS).for_each(|shard| drop(work(&sandbox, "many", shard).good()));
        finalize(&sandbox, "many").good();
        signal(&late, "-CONT");
        assert!(late.wait().expect("it ended").success(), "round {round}");
        assert!(work(&sandbox, "many", 1).good().stdout.contains("finished already"));
        assert!(shards(&sandbox, "many") == wanted, "round {round}");
        assert_eq!(others(&sandbox, "many"), others(&sandbox, "one"), "round {round}: what is left of the plan");
        fs::remove_dir_all(sandbox.path("many")).expect("it can be removed");
    }
}

#[test]
fn a_plan_is_not_written_over_and_not_taken_for_a_part_of_a_result() {
    let sandbox = sandbox();
    plan(&sandbox, "many");
    let merge = [&["merge"], &FLAGS[..], &["--out", "many"]].concat();
    for more in [&[][..], &["--overwrite"]] {
        let run = sandbox.run(&[&merge[..], more].concat());
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        assert!(run.stderr.contains("plan"), "{}", run.stderr);
    }
    (0..SHARDS).for_each(|shard| drop(work(&sandbox, "many", shard).good()));
    finalize(&sandbox, "many").good();
    fs::create_dir(sandbox.path("many/parts")).expect("a folder");
    let verified = sandbox.run(&["verify", "many"]).good();
    assert!(verified.stdout.contains("not of this merge: `parts`"), "{}", verified.stdout);
}

#[test]
fn a_plan_is_for_one_merge_and_one_set_of_inputs() {
    let sandbox = sandbox();
    plan(&sandbox, "out");
    plan(&sandbox, "out"); // the same once more is the same
    let other = sandbox.run(&[&["plan"], &FLAGS[..], &["--seed", "1", "--out", "out"]].concat());
    assert!(other.code == Some(1) && other.stderr.contains("plan of another merge"), "{}", other.stderr);
    let none = work(&sandbox, "out", SHARDS);
    assert!(none.code == Some(2) && none.stderr.contains("0 to 15") && none.stderr.contains("0-15"), "{}", none.stderr);
    let which = sandbox.run(&["work", "out", "--device", "cpu"]);
    assert!(which.code == Some(2) && which.stderr.contains("--shard I"), "{}", which.stderr);
    for engine in ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "RANK"] {
        let output = sandbox.command(&["work", "out", "--device", "cpu"]).env(engine, "3").output().expect("it starts");
        let run = Run::from(output).good();
        assert!(run.stdout.contains("shard 3"), "{engine}: {}", run.stdout);
    }
    // An edited plan, and inputs that are others now.
    let text = String::from_utf8(sandbox.read("out/plan.json")).expect("UTF-8");
    sandbox.write("out/plan.json", &text.replace("density: 0.5", "density: 0.6"));
    let edited = work(&sandbox, "out", 1);
    assert!(edited.code == Some(1) && edited.stderr.contains("was changed after it was made"), "{}", edited.stderr);
    sandbox.write("out/plan.json", &text);
    ["base", "a", "b"].into_iter().zip(0..).for_each(|(name, seed)| model(&sandbox, name, seed, &["more"]));
    let changed = work(&sandbox, "out", 1);
    assert_eq!(changed.code, Some(1), "{}", changed.stderr);
    assert!(
        changed.stderr.contains("base/model.safetensors` is not what the merge was planned with"),
        "{}",
        changed.stderr
    );
    let nowhere = work(&sandbox, "base", 1);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("magic plan"), "{}", nowhere.stderr);
}

#[test]
fn feature_space_is_measured_once_and_the_work_applies_it() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fsc/llama");
    let at = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
    let mut flags: Vec<String> =
        ["--device", "cpu", "--method", "linear", "--calibrate", "dsc", "--shard-size", "20KB", "--base"]
            .map(str::to_owned)
            .into_iter()
            .chain([at("base")])
            .collect();
    for k in 0..3 {
        flags.extend(["--model".into(), at(&format!("expert{k}"))]);
        flags.extend(["--data".into(), at(&format!("task{k}.safetensors"))]);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sandbox = Sandbox::empty();
    sandbox.run(&[&["merge"], &flags[..], &["--out", "one"]].concat()).good();
    let planned = sandbox.run(&[&["plan"], &flags[..], &["--out", "many", "--json"]].concat()).good().json();
    assert_eq!(planned["measure"], true);
    let early = work(&sandbox, "many", 0);
    assert!(early.code == Some(1) && early.stderr.contains("magic measure"), "{}", early.stderr);
    sandbox.run(&["measure", "many", "--device", "cpu"]).good();
    let again = sandbox.run(&["measure", "many", "--device", "cpu"]).good();
    assert!(again.stdout.contains("measured already"), "{}", again.stdout);
    let count = planned["shards"].as_u64().expect("a number") as usize;
    assert!(count > 3, "{count}");
    (0..count).rev().for_each(|shard| drop(work(&sandbox, "many", shard).good()));
    finalize(&sandbox, "many").good();
    assert!(shards(&sandbox, "many") == shards(&sandbox, "one"));
    let features = |dir: &str| {
        let receipt: Value = serde_json::from_slice(&sandbox.read(&format!("{dir}/magic.json"))).expect("a receipt");
        receipt["features"]["leaves"].clone()
    };
    assert_eq!(features("many"), features("one"));
    // Factors that were edited, and those of another device, of which the result does not keep silent.
    sandbox.run(&[&["plan"], &flags[..], &["--out", "other"]].concat()).good();
    sandbox.run(&["measure", "other", "--device", "cpu"]).good();
    let text = String::from_utf8(sandbox.read("other/factors.json")).expect("JSON");
    sandbox.write("other/factors.json", &text.replacen("\"strengths\":[[", "\"strengths\":[[1", 1));
    let edited = work(&sandbox, "other", 0);
    assert!(edited.code == Some(1) && edited.stderr.contains("was changed after it was made"), "{}", edited.stderr);
    if common::gpu().is_none() {
        return;
    }
    fs::remove_file(sandbox.path("other/factors.json")).expect("removed");
    sandbox.run(&["measure", "other", "--device", "gpu"]).good();
    (0..count).for_each(|shard| drop(work(&sandbox, "other", shard).good()));
    let mixed = finalize(&sandbox, "other");
    assert!(mixed.code == Some(1) && mixed.stderr.contains("--mixed"), "{}", mixed.stderr);
    sandbox.run(&["finalize", "other", "--device", "cpu", "--mixed"]).good();
    let verified = sandbox.run(&["verify", "other", "--all", "--device", "cpu"]).good();
    assert!(
        verified.stdout.contains("compared within") || verified.stderr.contains("compared within"),
        "{}",
        verified.stdout
    );
}

#[test]
fn what_needs_more_space_than_there_is_yet_can_be_planned() {
    let sandbox = Sandbox::empty();
    let huge = [("model.layers.0.mlp.up_proj.weight".to_owned(), vec![1u64 << 22, 1 << 20])]; // 8.8 TB
    for name in ["base", "a", "b"] {
        if sandbox.sparse(name, &huge).is_err() {
            return say("distribute: no room for files of holes: not tested with more than the disk holds");
        }
    }
    let plan = sandbox.run(&[&["plan"], &FLAGS[..FLAGS.len() - 2], &["--out", "out"]].concat()).good();
    assert!(plan.stderr.contains("free, and the output needs 8.8 TB"), "{}", plan.stderr);
    let work = work(&sandbox, "out", 0);
    assert!(work.code == Some(1) && work.stderr.contains("hint: free some space"), "{}", work.stderr);
}

#[test]
fn killed_or_failing_at_any_operation_the_end_and_the_work_are_done_again_to_the_same_bytes() {
    let sandbox = Sandbox::in_memory();
    let flags = ["--device", "cpu", "--threads", "1", "--base", "base", "--model", "a", "--model", "b"];
    let flags = [&flags[..], &["--method", "linear", "--calibrate", "wsc", "--shard-size", "800B"]].concat();
    sandbox.run(&[&["merge"], &flags[..], &["--out", "one"]].concat()).good();
    let wanted = shards(&sandbox, "one");
    let failing = |words: &[&str], fault: &str| {
        let mut command = sandbox.command(&[words, &["--device", "cpu", "--threads", "1"]].concat());
        command.env("MAGIC_TEST_FAULT", fault).env("MAGIC_TEST_COMMIT", "at-once");
        Run::from(command.output().expect("the program starts"))
    };
    // As many as a process takes to its end without being killed.
    let mut operations = [0; 2];
    for kind in ["kill", "eio"] {
        // Of the work on a shard, then of the end.
        for (part, words) in [&["work", "many", "--shard", "1"][..], &["finalize", "many"]].into_iter().enumerate() {
            for operation in 1.. {
                let planned =
                    sandbox.run(&[&["plan"], &flags[..], &["--out", "many", "--json"]].concat()).good().json();
                let count = planned["shards"].as_u64().expect("a number") as usize;
                assert!(count >= 3, "{count}");
                let of_others = |shard: &usize| part == 1 || *shard != 1;
                (0..count).filter(of_others).for_each(|shard| drop(work(&sandbox, "many", shard).good()));
                let run = failing(words, &format!("{kind}@{operation}"));
                let place = format!("{kind} at operation {operation} of {words:?}: {}", run.stderr);
                if kind == "eio" && run.code != Some(0) {
                    assert!(run.code == Some(1) && run.stderr.contains("error: "), "{place}");
                }
                if run.code != Some(0) || part == 0 {
                    let index = sandbox.path("many/model.safetensors.index.json").exists();
                    assert!(!index || shards(&sandbox, "many") == wanted, "{place}");
                    if part == 0 {
                        work(&sandbox, "many", 1).good();
                    }
                    let done = finalize(&sandbox, "many");
                    assert!(done.code == Some(0), "{place}{}", done.stderr);
                }
                assert!(shards(&sandbox, "many") == wanted, "{place}");
                let verified = sandbox.run(&["verify", "many"]);
                assert_eq!(verified.code, Some(0), "{place}{}{}", verified.stdout, verified.stderr);
                let mut left = others(&sandbox, "many");
                left.retain(|name| name != ".magic.lock"); // that it stays is harmless
                assert_eq!(left, others(&sandbox, "one"), "{place}");
                fs::remove_dir_all(sandbox.path("many")).expect("it can be removed");
                if kind == "kill" && run.code == Some(0) {
                    operations[part] = operation - 1;
                }
                if operations[part] != 0 && operation >= operations[part] {
                    break;
                }
            }
        }
    }
    say(&format!(
        "distribute: killed and failed at {} operations of a shard and {} of the end",
        operations[0], operations[1]
    ));
    assert!(operations.iter().all(|&count| count > 10), "{operations:?}");
}

#[test]
fn what_the_plan_was_made_of_must_stay_as_it_was() {
    let sandbox = sandbox();
    plan(&sandbox, "out");
    (0..SHARDS).for_each(|shard| drop(work(&sandbox, "out", shard).good()));
    // Other numbers under the same header, in a file of the same size.
    let expert = sandbox.read("a/model.safetensors");
    model(&sandbox, "a", 7, &[]);
    for run in [work(&sandbox, "out", 1), finalize(&sandbox, "out")] {
        // What is there and whole is not computed again.
        let done = run.code == Some(0) && run.stdout.contains("done already");
        assert!(done || run.stderr.contains("no longer the merge that was planned"), "{}{}", run.stdout, run.stderr);
    }
    assert!(!sandbox.path("out/model.safetensors.index.json").exists());
    fs::write(sandbox.path("a/model.safetensors"), &expert).expect("written");
    // Its time is another now, which is as far as a look can tell.
    let changed = finalize(&sandbox, "out");
    assert!(changed.code == Some(1) && changed.stderr.contains("no longer the merge"), "{}", changed.stderr);
}

#[test]
fn files_of_others_are_neither_replaced_nor_removed() {
    let sandbox = sandbox();
    plan(&sandbox, "out");
    (0..SHARDS).for_each(|shard| drop(work(&sandbox, "out", shard).good()));
    sandbox.write("out/README.md", "mine");
    sandbox.write("out/parts/notes.txt", "mine too");
    let refused = finalize(&sandbox, "out");
    assert!(refused.code == Some(1) && refused.stderr.contains("README.md"), "{}", refused.stderr);
    assert_eq!(sandbox.read("out/README.md"), b"mine");
    fs::rename(sandbox.path("out/README.md"), sandbox.path("README.md")).expect("moved");
    finalize(&sandbox, "out").good();
    assert_eq!(sandbox.read("out/parts/notes.txt"), b"mine too");
    assert_eq!(fs::read_dir(sandbox.path("out/parts")).expect("a folder").count(), 1);
}

#[test]
fn of_two_ends_at_once_one_does_it_and_the_other_waits_for_nothing() {
    let sandbox = sandbox();
    sandbox.run(&[&["merge"], &FLAGS[..], &["--out", "one"]].concat()).good();
    for _ in 0..10 {
        plan(&sandbox, "many");
        (0..SHARDS).for_each(|shard| drop(work(&sandbox, "many", shard).good()));
        let end = || {
            let mut command = sandbox.command(&["finalize", "many", "--device", "cpu", "-q"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
        };
        let ends = [end(), end()].map(|child| Run::from(child.wait_with_output().expect("it ends")));
        assert!(ends.iter().any(|run| run.code == Some(0)), "{}{}", ends[0].stderr, ends[1].stderr);
        for run in &ends {
            let fine = run.code == Some(0) || run.stderr.contains("another merge is writing");
            assert!(fine, "{}", run.stderr);
        }
        finalize(&sandbox, "many").good();
        assert!(shards(&sandbox, "many") == shards(&sandbox, "one"));
        fs::remove_dir_all(sandbox.path("many")).expect("it can be removed");
    }
}
