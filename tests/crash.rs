//! A merge that ends where nobody asked it to: killed, out of space, an input gone. What it leaves is never taken for
//! a result, and `--resume` makes the same bytes of it.
#![cfg(unix)]

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod common;
#[path = "crash/power.rs"]
mod power;

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
        let bytes = if name == "magic.json" { timeless(&bytes) } else { bytes };
        (name, bytes)
    };
    entries.map(|found| entry(found.expect("an entry can be read"))).collect()
}

fn timeless(receipt: &[u8]) -> Vec<u8> {
    let mut receipt: Value = serde_json::from_slice(receipt).expect("a receipt is JSON");
    receipt["seconds"] = Value::Null;
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

#[test]
fn whatever_decides_the_bytes_must_be_the_same() {
    let case = Case::unfinished();
    let listing = case.sandbox.listing();
    let refused = |more: &[&str], phrases: &[&str]| {
        let run = case.run(more, "");
        assert_eq!(run.code, Some(1), "{more:?}: {}", run.stderr);
        for phrase in phrases {
            assert!(run.stderr.contains(phrase), "{more:?}: {}", run.stderr);
        }
        assert_eq!(case.sandbox.listing(), listing, "{more:?}");
    };
    let again = "start again with `--overwrite`";
    refused(&[], &["holds an unfinished merge, of which 3 tensors are done", "`--resume`", "`--overwrite`"]);
    refused(&["--dry-run"], &["holds an unfinished merge"]);
    refused(&["--resume", "--seed", "7"], &["its recipe differs: nothing before, `seed: 7` now", again]);
    refused(&["--resume", "--param", "lambda=0.5"], &["its recipe differs", "lambda: 0.5", again]);
    refused(&["--resume", "--dtype", "bfloat16"], &["its layout differs", again]);
    refused(&["--resume", "--exclude", "classifier.*"], &["its recipe", again]);
    refused(&["--resume", "--lora-out", "2"], &["holds an unfinished merge", "`--overwrite`"]);
    refused(&["--resume", "--overwrite", "--seed", "7"], &["without `--resume`"]);
    let config = case.sandbox.read("base/config.json");
    case.sandbox.write("base/config.json", "{}");
    refused(&["--resume"], &["its config.json of base differs", again]);
    fs::write(case.sandbox.path("base/config.json"), config).unwrap();
    case.run(&["--resume", "--dry-run"], "").good();
    let (journal, out) = (case.sandbox.read("out/.magic.journal"), case.out());
    let put = |bytes: &[u8]| fs::write(out.join(".magic.journal"), bytes).unwrap();
    let line = |entry: &str| {
        let sum = &magic_merge::checkpoint::sha256(entry)[..32];
        format!("{{\"sum\":\"{sum}\",\"entry\":{entry}}}\n").into_bytes()
    };
    let text = String::from_utf8(journal.clone()).unwrap();
    let first = text.lines().next().unwrap();
    let entry = first.split_once(r#""entry":"#).unwrap().1.strip_suffix('}').unwrap();
    assert_eq!(line(entry), format!("{first}\n").into_bytes());
    // Other versions, of the program and of the journal; another device.
    let tensor = text.lines().nth(1).unwrap().split_once(r#""entry":"#).unwrap().1.strip_suffix('}').unwrap();
    let with = |old: &str, new: &str| {
        assert!(entry.contains(old), "{entry}");
        let head = line(&entry.replace(old, new));
        let sum = String::from_utf8_lossy(&head[8..40]).into_owned();
        let sum = magic_merge::checkpoint::sha256(format!("{sum}{tensor}"));
        [head, format!("{{\"sum\":\"{}\",\"entry\":{tensor}}}\n", &sum[..32]).into_bytes()].concat()
    };
    put(&with(r#""version":""#, r#""version":"9"#));
    refused(&["--resume"], &["its version differs: `9", again]);
    put(&with(r#""device":"CPU"#, r#""device":"GPU"#));
    refused(&["--resume"], &["its device differs: `GPU", again]);
    put(&with("magic-journal/1", "magic-journal/2"));
    refused(&["--resume"], &["written by another version", again]);
    refused(&[], &["written by another version", again]);
    // A journal that is damaged, and one that says more than there is.
    let mut bad = journal.clone();
    bad[first.len() / 2] ^= 1;
    put(&bad);
    refused(&["--resume"], &["is damaged in line 1", again]);
    put(&journal);
    let shard = out.join(".model-00001-of-00003.safetensors.tmp");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap();
    refused(&["--resume"], &["`.model-00001-of-00003.safetensors.tmp`", "is missing or damaged", again]);
    fs::write(&shard, &bytes).unwrap();
    // A model that has come into the folder is not replaced.
    fs::write(out.join("model.safetensors"), "mine").unwrap();
    let run = case.run(&["--resume"], "");
    assert!(run.stderr.contains("has come into the folder since"), "{}", run.stderr);
    fs::remove_file(out.join("model.safetensors")).unwrap();
    // After all that, it goes on: here with less memory, which decides nothing.
    let run = case.run(&["--resume", "--memory", "64MB"], "").good();
    assert!(run.stdout.contains("(3 of them by an earlier run)"), "{}", run.stdout);
    assert_eq!(weights(&files(&out)), weights(&case.wanted));
}

#[test]
fn an_input_that_was_written_to_is_another_whatever_its_time() {
    let case = Case::unfinished();
    let refused = || {
        let run = case.run(&["--resume"], "");
        assert!(run.code == Some(1) && run.stderr.contains("its model.safetensors of a differs"), "{}", run.stderr);
    };
    let input = case.sandbox.path("a/model.safetensors");
    let time = fs::metadata(&input).unwrap().modified().unwrap();
    let touch = |time| fs::File::options().write(true).open(&input).unwrap().set_modified(time).unwrap();
    touch(time + Duration::from_secs(1));
    refused();
    touch(time);
    refused();
}

#[test]
fn what_is_done_is_not_done_again() {
    let case = Case::new(&SHARDED);
    // On a folder that is empty or not there, it simply begins.
    case.resume("a missing folder");
    fs::remove_dir_all(case.out()).unwrap();
    fs::create_dir(case.out()).unwrap();
    case.resume("an empty folder");
    let stamp = |name: &str| fs::metadata(case.out().join(name)).unwrap().modified().unwrap();
    let before = stamp("magic.json");
    let run = case.resume("a finished result");
    assert!(run.stdout.contains("already done"), "{}", run.stdout);
    assert!(case.run(&["--resume", "--dry-run"], "").good().stdout.contains("already done"));
    assert_eq!(case.run(&["--resume", "--json"], "").good().json()["schema"], "magic-merge/1");
    assert_eq!(stamp("magic.json"), before);
    let refused = |more: &[&str], phrases: &[&str]| {
        let run = case.run(more, "");
        assert_eq!(run.code, Some(1), "{more:?}: {}", run.stderr);
        phrases.iter().for_each(|phrase| assert!(run.stderr.contains(phrase), "{more:?}: {}", run.stderr));
    };
    refused(&["--resume", "--seed", "7"], &["is that of another merge", "`--overwrite`"]);
    refused(&[], &["is not empty", "`--overwrite`"]);
    // With both flags, another merge replaces it, and one that is not whole is made whole.
    let changed = case.run(&["--resume", "--overwrite", "--seed", "7"], "").good();
    assert!(!changed.stdout.contains("already done"));
    case.run(&["--resume", "--overwrite"], "").good();
    fs::remove_file(case.out().join("model-00002-of-00003.safetensors")).unwrap();
    refused(&["--resume"], &["`model-00002-of-00003.safetensors` is missing", "`--overwrite`"]);
    case.run(&["--resume", "--overwrite"], "").good();
    assert!(files(&case.out()) == case.wanted);
    // Without `--resume`, `--overwrite` begins again, whatever there is.
    let case = Case::unfinished();
    let run = case.run(&["--overwrite"], "").good();
    assert!(!run.stdout.contains("earlier run") && files(&case.out()) == case.wanted);
    // An adapter does not resume, and says so.
    let mut case = Case::new(&SINGLE);
    case.args.extend(["--lora-out", "2", "--out", "lora"].map(str::to_owned));
    case.args.drain(4..6);
    let run = case.run(&["--resume"], "").good();
    assert!(run.stderr.contains("does not resume"), "{}", run.stderr);
    assert!(case.run(&["--resume"], "").good().stdout.contains("already done"));
}

#[test]
fn two_at_once() {
    let case = Case::new(&SHARDED);
    let gate = case.sandbox.path("gate");
    let child = case.start(&[], &format!("pause@12:{}", gate.display()));
    wait_for(&gate, true);
    for more in [&[][..], &["--resume"], &["--overwrite"]] {
        let run = case.run(more, "");
        assert_eq!(run.code, Some(1), "{more:?}");
        assert!(run.stderr.contains("another merge is writing into `out`"), "{more:?}: {}", run.stderr);
    }
    fs::remove_file(&gate).unwrap();
    Run::from(child.wait_with_output().unwrap()).good();
    assert!(files(&case.out()) == case.wanted);
}

#[test]
fn feature_space_measures_again_and_goes_on() {
    let golden = |name: &str| format!("{}/tests/golden/fsc/llama/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut resumed = 0;
    for space in ["fsc", "dsc", "auto"] {
        let sandbox = Sandbox::empty();
        let [base, expert0, expert1, data] = ["base", "expert0", "expert1", "task0.safetensors"].map(golden);
        let args = ["merge", "--device", "cpu", "--threads", "1", "--base", &base, "--model", &expert0];
        let args = [&args[..], &["--model", &expert1, "--method", "linear", "--calibrate", space]].concat();
        let args = [&args[..], &["--data", &data, "--samples", "2", "--shard-size", "50KB", "--out", "out"]].concat();
        let run = |more: &[&str], fault: &str| {
            let mut command = sandbox.command(&[&args[..], more].concat());
            command.env("MAGIC_TEST_COMMIT", "at-once").env("MAGIC_TEST_FAULT", fault);
            Run::from(command.output().unwrap())
        };
        run(&[], "").good();
        let wanted = files(&sandbox.path("out"));
        for at in (100..4000).step_by(if space == "auto" { 250 } else { 45 }) {
            fs::remove_dir_all(sandbox.path("out")).ok();
            if run(&[], &format!("kill@{at}")).code == Some(0) {
                break;
            }
            let run = run(&["--resume"], "").good();
            assert!(files(&sandbox.path("out")) == wanted, "{space} at {at}");
            resumed += usize::from(run.stdout.contains("by an earlier run"));
        }
    }
    assert!(resumed >= 6, "{resumed}");
    say(&format!("crash: {resumed} merges in feature space resumed to the same bytes"));
}

/// An output that must not be written: what is in the way, where the output should go, and what is said.
type Refused = (&'static str, fn(&Sandbox), &'static [&'static str], &'static str);

#[test]
fn an_output_replaces_and_follows_nothing_that_is_not_its_own() {
    fn link(sandbox: &Sandbox, name: &str) {
        fs::create_dir(sandbox.path("out")).unwrap();
        std::os::unix::fs::symlink("../precious", sandbox.path("out").join(name)).unwrap();
    }
    fn pipe(sandbox: &Sandbox, name: &str) {
        fs::create_dir_all(sandbox.path("out")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(sandbox.path("out").join(name)).status();
        assert!(made.unwrap().success());
    }
    let nothing: fn(&Sandbox) = |_| {};
    const OVER: &[&str] = &["--out", "out", "--overwrite"];
    let cases: Vec<Refused> = vec![
        ("the base", nothing, &["--out", "base", "--overwrite"], "is that of the input"),
        ("an expert", nothing, &["--out", "a/", "--overwrite"], "is that of the input"),
        ("the base by a detour", nothing, &["--out", "a/../base/.", "--overwrite"], "is that of the input"),
        ("an input to go on with", nothing, &["--out", "b", "--resume"], "is that of the input"),
        ("no name", nothing, &["--out", "", "--overwrite"], "a value is required"),
        ("a file", |s| s.write("out", "mine"), OVER, "is not a folder"),
        ("below a file", nothing, &["--out", "precious/out", "--overwrite"], "precious"),
        ("other files", |s| s.write("out/notes.txt", "mine"), &["--out", "out"], "is not empty"),
        (
            "other files to go on with",
            |s| s.write("out/notes.txt", "mine"),
            &["--out", "out", "--resume"],
            "is not empty",
        ),
        ("a link", |s| std::os::unix::fs::symlink("a", s.path("out")).unwrap(), OVER, "is a link"),
        ("a link to nothing", |s| std::os::unix::fs::symlink("c", s.path("out")).unwrap(), OVER, "is a link"),
        (
            "a link with a slash",
            |s| std::os::unix::fs::symlink("a", s.path("out")).unwrap(),
            &["--out", "out/", "--overwrite"],
            "is a link",
        ),
        ("linked weights", |s| link(s, "model.safetensors"), OVER, "is a link"),
        ("a linked index", |s| link(s, "model.safetensors.index.json"), OVER, "is a link"),
        ("a linked shard", |s| link(s, "model-00001-of-00002.safetensors"), OVER, "is a link"),
        ("a linked configuration", |s| link(s, "config.json"), OVER, "is a link"),
        ("a linked recipe", |s| link(s, "recipe.yml"), OVER, "is a link"),
        ("a linked receipt", |s| link(s, "magic.json"), OVER, "is a link"),
        ("a linked card", |s| link(s, "README.md"), OVER, "is a link"),
        ("a linked lock", |s| link(s, ".magic.lock"), OVER, "is a link"),
        ("a linked journal", |s| link(s, ".magic.journal"), OVER, "is a link"),
        ("a linked journal to go on with", |s| link(s, ".magic.journal"), &["--out", "out", "--resume"], "is a link"),
        (
            "an input under another name",
            |s| {
                fs::create_dir(s.path("out")).unwrap();
                fs::hard_link(s.path("a/model.safetensors"), s.path("out/model.safetensors")).unwrap();
            },
            OVER,
            "would replace the input",
        ),
        ("a folder", |s| fs::create_dir_all(s.path("out/model.safetensors")).unwrap(), OVER, "it is not a file"),
        ("a pipe", |s| pipe(s, "model.safetensors"), OVER, "it is not a file"),
        ("a pipe for a journal", |s| pipe(s, ".magic.journal"), &["--out", "out", "--resume"], "a pipe"),
    ];
    let count = cases.len();
    for (what, prepare, args, phrase) in cases {
        let sandbox = Sandbox::new();
        sandbox.write("precious", "mine");
        prepare(&sandbox);
        let (before, base) = (sandbox.listing(), ["base", "a", "b"].map(|model| files(&sandbox.path(model))));
        let run = sandbox.merge(&[&["--method", "linear"], args].concat());
        assert!(matches!(run.code, Some(1 | 2)), "{what}: {}", run.stderr);
        assert!(run.stderr.contains(phrase), "{what}: {}", run.stderr);
        assert_eq!(sandbox.listing(), before, "{what}");
        assert_eq!(["base", "a", "b"].map(|model| files(&sandbox.path(model))), base, "{what}");
        assert_eq!(sandbox.read("precious"), b"mine", "{what}");
    }
    // What lies where a file is staged goes, and what it leads to stays.
    let sandbox = Sandbox::new();
    sandbox.write("precious", "mine");
    link(&sandbox, ".model.safetensors.tmp");
    sandbox.merge(&["--method", "linear", "--out", "out"]).good();
    assert_eq!(sandbox.read("precious"), b"mine");
    say(&format!("crash: {count} outputs refused, nothing lost"));
}
