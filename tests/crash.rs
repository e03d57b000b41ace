//! A merge that ends where nobody asked it to: killed, out of space, an input gone. What it leaves is never taken for
//! a result, and `--resume` makes the same bytes of it.
#![cfg(unix)]

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod common;
#[path = "crash/power.rs"]
mod power;
#[path = "crash/refused.rs"]
mod refused;
#[path = "crash/resume.rs"]
mod resume;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Run, Sandbox, say};
use serde_json::Value;

/// Three shards, by a method with a random mask; one thread, so that operations have an order.
const SHARDED: [&str; 12] = [
    "--method",
    "dare_ties",
    "--param",
    "density=0.5",
    "--calibrate",
    "wsc",
    "--threads",
    "1",
    "--shard-size",
    "800B",
    "--out",
    "out",
];

/// Files by name, times taken out of the receipt.
type Files = BTreeMap<String, Vec<u8>>;

fn files(dir: &Path) -> Files {
    let Ok(entries) = fs::read_dir(dir) else { return Files::new() };
    let entry = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("names are text");
        let bytes = fs::read(entry.path()).expect("a file can be read");
        let bytes = timeless(&name, bytes);
        (name, bytes)
    };
    entries.map(|found| entry(found.expect("an entry can be read"))).collect()
}

/// A file of an output without the times in it: those of the receipt, and that of the page about it.
fn timeless(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    match name {
        "magic.json" => timeless_receipt(&bytes),
        "report.html" => {
            let page = String::from_utf8(bytes).expect("a page is text");
            let (before, after) = page.split_once("<dt>Time</dt>").expect("it has the time");
            let (_, after) = after.split_once("</dd>").expect("which ends");
            format!("{before}{after}").into_bytes()
        }
        _ => bytes,
    }
}

fn timeless_receipt(receipt: &[u8]) -> Vec<u8> {
    let mut receipt: Value = serde_json::from_slice(receipt).expect("a receipt is JSON");
    receipt["seconds"] = Value::Null;
    receipt["sha256"] = Value::Null;
    for tensor in receipt["tensors"].as_array_mut().expect("it lists tensors") {
        tensor["seconds"] = Value::Null;
    }
    serde_json::to_vec(&receipt).expect("JSON stays JSON")
}

/// Whether a loader would find a model in `files`: by its index, or in one file.
fn looks_whole(files: &Files) -> bool {
    files.contains_key("model.safetensors") || files.contains_key("model.safetensors.index.json")
}

fn weights(files: &Files) -> Vec<(&String, &Vec<u8>)> {
    let is_weights = |name: &str| !name.starts_with('.') && name.contains(".safetensors");
    files.iter().filter(|(name, _)| is_weights(name)).collect()
}

/// What is in a folder is nothing, unfinished, or the whole of what is wanted; or of what was there `before`.
#[track_caller]
fn check_never_wrong(found: &Files, wanted: &Files, before: &Files, what: &str) {
    if looks_whole(found) {
        let (now, new, old) = (weights(found), weights(wanted), weights(before));
        assert!(now == new || now == old, "{what}: a folder that looks whole and is not: {:?}", found.keys());
    }
    for (name, bytes) in found.iter().filter(|(name, _)| !name.starts_with('.')) {
        let known = [wanted, before].iter().any(|files| files.get(name) == Some(bytes));
        assert!(known, "{what}: `{name}` has wrong bytes");
    }
}

/// A merge, and what comes of it where nothing goes wrong.
struct Case {
    sandbox: Sandbox,
    args: Vec<String>,
    wanted: Files,
    /// What is in the folder before.
    before: Files,
    /// When tensors are recorded.
    commits: &'static str,
}

impl Case {
    fn new(args: &[&str]) -> Self {
        Self::over(&[], args)
    }

    /// Over the result of `old`, if there is one.
    fn over(old: &[&str], args: &[&str]) -> Self {
        let sandbox = Sandbox::in_memory();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut case = Self { sandbox, args, wanted: Files::new(), before: Files::new(), commits: "at-once" };
        case.run(&[], "").good();
        case.wanted = files(&case.out());
        fs::remove_dir_all(case.out()).unwrap();
        if !old.is_empty() {
            case.sandbox.merge(old).good();
            case.before = files(&case.out());
            fs::rename(case.out(), case.sandbox.path("old")).unwrap();
        }
        case
    }

    fn out(&self) -> PathBuf {
        self.sandbox.path("out")
    }

    /// The folder as it was before anything.
    fn reset(&self) {
        let _ = fs::remove_dir_all(self.out());
        if self.sandbox.path("old").exists() {
            fs::create_dir(self.out()).unwrap();
            for entry in fs::read_dir(self.sandbox.path("old")).unwrap().flatten() {
                fs::copy(entry.path(), self.out().join(entry.file_name())).unwrap();
            }
        }
    }

    fn start(&self, more: &[&str], fault: &str) -> Child {
        let merge = ["merge", "--device", "cpu", "--base", "base", "--model", "a", "--model", "b"];
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let mut command = self.sandbox.command(&[&merge, &args[..], more].concat());
        command.env("MAGIC_TEST_COMMIT", self.commits).env("MAGIC_TEST_FAULT", fault);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    fn run(&self, more: &[&str], fault: &str) -> Run {
        Run::from(self.start(more, fault).wait_with_output().expect("it ends"))
    }

    /// Goes on with whatever is there, to the same bytes.
    #[track_caller]
    fn resume(&self, what: &str) -> Run {
        let run = self.run(&["--resume"], "");
        assert_eq!(run.code, Some(0), "{what}: {}", run.stderr);
        let found = files(&self.out());
        assert_eq!(found.keys().collect::<Vec<_>>(), self.wanted.keys().collect::<Vec<_>>(), "{what}");
        for (name, bytes) in &found {
            assert!(*bytes == self.wanted[name], "{what}: `{name}` differs");
        }
        run
    }

    /// Operations of a run from `reset` on.
    fn operations(&self) -> usize {
        let ends = |at: usize| {
            self.reset();
            self.run(&[], &format!("kill@{at}")).code == Some(0)
        };
        let (mut low, mut high) = (0, 1024); // the run ends before the second
        assert!(ends(high));
        while high - low > 1 {
            let middle = (low + high) / 2;
            if ends(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        self.reset();
        low
    }

    /// Tensors that the journal has.
    fn recorded(&self) -> usize {
        let journal = fs::read_to_string(self.out().join(".magic.journal")).unwrap_or_default();
        journal.lines().filter(|line| line.contains(r#""entry":{"tensor""#) && line.ends_with("}}")).count()
    }

    /// Stops after some tensors are safe.
    fn unfinished() -> Self {
        let case = Self::new(&SHARDED);
        for at in (1..case.operations()).step_by(3) {
            case.reset();
            case.run(&[], &format!("kill@{at}"));
            if case.recorded() == 3 {
                fs::remove_file(case.out().join(".magic.lock")).unwrap();
                return case;
            }
        }
        panic!("three tensors are recorded at some time");
    }
}

const SINGLE: [&str; 6] = ["--method", "linear", "--threads", "1", "--out", "out"];

fn cases() -> Vec<(&'static str, Case)> {
    let replaces: Vec<&str> = SHARDED.iter().copied().chain(["--overwrite"]).collect();
    let once: Vec<&str> = SINGLE.iter().copied().chain(["--overwrite"]).collect();
    vec![
        ("three shards", Case::new(&SHARDED)),
        ("one file", Case::new(&SINGLE)),
        ("three shards over one file", Case::over(&SINGLE, &replaces)),
        ("one file over three shards", Case::over(&SHARDED, &once)),
    ]
}

#[test]
fn killed_at_every_operation() {
    let (mut kills, mut recorded) = (0, 0);
    for (name, case) in cases() {
        for at in 1.. {
            let what = format!("{name}, killed at operation {at}");
            case.reset();
            let run = case.run(&[], &format!("kill@{at}"));
            if run.code == Some(0) {
                break;
            }
            assert_eq!(run.code, None, "{what}: {}", run.stderr);
            check_never_wrong(&files(&case.out()), &case.wanted, &case.before, &what);
            kills += 1;
            let kept = case.recorded();
            recorded += usize::from(kept > 0);
            // Every third is killed once more while it goes on.
            if at % 3 == 0 {
                case.run(&["--resume"], &format!("kill@{}", 1 + at * 7 % 60));
                check_never_wrong(&files(&case.out()), &case.wanted, &case.before, &what);
                kills += 1;
            }
            let run = case.resume(&what);
            if kept > 0 && at % 3 != 0 {
                let phrase = format!("({kept} of them by an earlier run)");
                assert!(run.stdout.contains(&phrase), "{what}: {phrase}: {}", run.stdout);
            }
        }
    }
    assert!(kills > 300 && recorded > 100, "{kills}, {recorded}");
    say(&format!("crash: killed at {kills} operations ({recorded} with a journal), all resumed to the same bytes"));
}

#[test]
fn failing_at_every_operation() {
    let (mut failed, mut harmless) = (0, 0);
    for (name, case) in cases() {
        let count = case.operations();
        for (kind, at) in ["eio", "enospc"].into_iter().flat_map(|kind| (1..=count).map(move |at| (kind, at))) {
            let what = format!("{name}, {kind} at operation {at}");
            case.reset();
            let run = case.run(&[], &format!("{kind}@{at}"));
            let found = files(&case.out());
            check_never_wrong(&found, &case.wanted, &case.before, &what);
            if run.code == Some(0) {
                // Something that need not have been done, such as the removal of the lock.
                harmless += 1;
                let kept: Files = found.into_iter().filter(|(name, _)| name != ".magic.lock").collect();
                assert!(kept == case.wanted, "{what}");
                continue;
            }
            failed += 1;
            assert_eq!(run.code, Some(1), "{what}: {}", run.stderr);
            assert_eq!(run.stderr.matches("error:").count(), 1, "{what}: {}", run.stderr);
            let full = kind == "enospc";
            assert!(run.stderr.contains(if full { "the disk is full" } else { "injected" }), "{what}: {}", run.stderr);
            // What it says of the way on is so.
            let kept = case.recorded() > 0;
            assert_eq!(run.stderr.contains("`--resume`"), kept, "{what}: {}", run.stderr);
            if !kept && kind == "enospc" {
                assert!(found == case.before, "{what}: {:?} is left", found.keys());
            }
            case.resume(&what);
        }
    }
    assert!(failed > 400, "{failed}");
    say(&format!("crash: {failed} failed operations (and {harmless} harmless), all resumed to the same bytes"));
}

/// Kills a merge at random times until `kills` is reached; a merge that survives is compared, and the next begins.
fn kill_at_random(case: &Case, kills: usize, longest: Duration) -> (usize, usize) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut done, mut finished, mut resumed) = (0, 0, 0);
    let mut more: &[&str] = &[];
    case.reset();
    while done < kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = longest.mul_f64((random >> 40) as f64 / (1u64 << 24) as f64);
        let mut child = case.start(more, "");
        std::thread::sleep(wait);
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        let run = Run::from(child.wait_with_output().unwrap());
        if !ended && run.code.is_none() {
            done += 1;
            // What is hidden is unfinished, and large: only what has a name matters.
            check_never_wrong(&files(&case.out()), &case.wanted, &case.before, "killed at random");
            resumed += usize::from(case.recorded() > 0);
            more = &["--resume"];
        } else {
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            assert!(files(&case.out()) == case.wanted);
            finished += 1;
            more = &[];
            case.reset();
        }
    }
    case.resume("after all");
    (finished, resumed)
}

/// Kills a merge of 48 tensors of `rows` rows in five shards, recorded as it is for users, by a thread of its own, and
/// only more often.
fn kill_large_at_random(rows: usize, shard_size: &str, kills: usize) {
    let sandbox = Sandbox::empty();
    let (names, shape): (Vec<String>, _) = ((0..48).map(|i| format!("layers.{i}.weight")).collect(), [rows, 1024]);
    for (seed, model) in ["base", "a", "b"].into_iter().enumerate() {
        let tensors: Vec<_> = names.iter().map(|name| (name.as_str(), &shape[..], seed as u32)).collect();
        sandbox.model(model, "model.safetensors", &tensors);
    }
    let args = ["--method", "ties", "--calibrate", "wsc", "--shard-size", shard_size, "--out", "out"];
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let mut case = Case { sandbox, args, wanted: Files::new(), before: Files::new(), commits: "often" };
    let started = Instant::now();
    case.run(&[], "").good();
    let took = started.elapsed();
    case.wanted = files(&case.out());
    let (finished, resumed) = kill_at_random(&case, kills, took.mul_f64(1.1));
    let size = rows * 1024 * 4 * 48 / 1_000_000;
    say(&format!(
        "crash: {kills} kills of a {size} MB merge, {resumed} with a journal, {finished} came through between"
    ));
}

#[test]
fn killed_at_random() {
    kill_large_at_random(64, "3MB", 20);
}

#[test]
fn killed_at_random_while_writing_200_mb() {
    match std::env::var_os("MAGIC_TEST_LONG") {
        Some(_) => kill_large_at_random(1024, "50MB", 200),
        None => say("crash: 200 kills of a 200 MB merge are left out: `tests/run --long` has them"),
    }
}

#[test]
fn an_interrupt_says_how_to_go_on() {
    for signal in ["INT", "TERM"] {
        let case = Case::new(&SHARDED);
        let mut interrupted = 0;
        for read in [1, 4, 7, 10, 13] {
            case.reset();
            let gate = case.sandbox.path("gate");
            let child = case.start(&[], &format!("pause@{read}:{}", gate.display()));
            wait_for(&gate, true);
            let kill = format!("kill -{signal} {}", child.id());
            assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            std::thread::sleep(Duration::from_millis(20));
            fs::remove_file(&gate).unwrap();
            let run = Run::from(child.wait_with_output().unwrap());
            assert_eq!(run.code, Some(130), "{signal} at read {read}: {}", run.stderr);
            let kept = case.recorded();
            if kept == 0 {
                assert!(run.stderr.contains("nothing was written to `out`"), "{}", run.stderr);
                assert!(!case.out().exists());
            } else {
                interrupted += 1;
                assert!(run.stderr.contains(&format!("interrupted: {kept} of 5 tensors are safe")), "{}", run.stderr);
                assert!(run.stderr.contains("hint: to go on: the same command with `--resume`"), "{}", run.stderr);
            }
            case.resume(signal);
        }
        assert!(interrupted >= 2, "{interrupted}");
    }
}

fn wait_for(path: &Path, there: bool) {
    let started = Instant::now();
    while path.exists() != there {
        assert!(started.elapsed() < Duration::from_secs(60), "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_input_that_changes_is_noticed() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("rewritten", |path| {
            let bytes: Vec<u8> = fs::read(path).unwrap().iter().map(|byte| byte ^ 1).collect();
            fs::write(path, bytes).unwrap();
        }),
        ("cut", |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(400).unwrap()),
        ("emptied", |path| fs::write(path, "").unwrap()),
        ("replaced", |path| {
            let other = path.with_extension("new");
            fs::copy(path, &other).unwrap();
            fs::rename(other, path).unwrap();
        }),
        ("removed", |path| fs::remove_file(path).unwrap()),
    ];
    let case = Case::new(&SHARDED);
    let backup: Vec<(PathBuf, Vec<u8>)> = ["base", "a", "b"]
        .map(|model| case.sandbox.path(model).join("model.safetensors"))
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .to_vec();
    let mut noticed = 0;
    for (kind, change) in changes {
        for read in [1, 2, 4, 6, 8, 10, 12, 14, 15, 16, 17, 18] {
            let what = format!("{kind} at read {read}");
            case.reset();
            let gate = case.sandbox.path("gate");
            let mut child = case.start(&[], &format!("pause@{read}:{}", gate.display()));
            while !gate.exists() {
                assert!(child.try_wait().unwrap().is_none(), "{what}: there are fewer reads");
                std::thread::sleep(Duration::from_millis(1));
            }
            change(&backup[read % 3].0);
            fs::remove_file(&gate).unwrap();
            let run = Run::from(child.wait_with_output().unwrap());
            assert_eq!(run.code, Some(1), "{what}: {}", run.stderr);
            let phrases = ["has changed since", "has become shorter", "cannot read"];
            assert!(phrases.iter().any(|phrase| run.stderr.contains(phrase)), "{what}: {}", run.stderr);
            assert!(files(&case.out()).keys().all(|name| name.starts_with('.')), "{what}");
            noticed += 1;
            // What was read before the change may have been kept, but is not for other inputs.
            for (path, bytes) in &backup {
                fs::write(path, bytes).unwrap();
            }
            let run = case.run(&["--resume"], "");
            if case.recorded() > 0 {
                assert_eq!(run.code, Some(1), "{what}");
                assert!(run.stderr.contains("its model.safetensors of "), "{what}: {}", run.stderr);
            }
        }
    }
    say(&format!("crash: an input changed under {noticed} merges, all noticed"));
}
