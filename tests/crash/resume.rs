//! What `--resume` goes on with, and what it refuses: whatever decides the bytes must be the same, and what is done is not
//! done again.

use super::*;

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
    refused(&["--resume", "--dtype", "bfloat16"], &["its element type (--dtype) differs", again]);
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

#[test]
fn operations_that_fail_while_it_goes_on_lose_nothing() {
    let case = Case::unfinished();
    let unfinished = files(&case.out());
    let reset = || {
        fs::remove_dir_all(case.out()).unwrap();
        fs::create_dir(case.out()).unwrap();
        unfinished.iter().for_each(|(name, bytes)| fs::write(case.out().join(name), bytes).unwrap());
    };
    let (mut failed, mut harmless) = (0, 0);
    for at in 1.. {
        let what = format!("failed at operation {at} of a merge that goes on");
        reset();
        let ends = case.run(&["--resume"], &format!("kill@{at}")).code == Some(0);
        reset();
        let run = case.run(&["--resume"], &format!("eio@{at}"));
        check_never_wrong(&files(&case.out()), &case.wanted, &case.before, &what);
        match run.code {
            Some(0) => {
                let mut found = files(&case.out());
                found.remove(".magic.lock"); // that it stays is harmless
                assert!(found == case.wanted, "{what}: {}", run.stderr);
                harmless += 1;
            }
            _ => {
                assert!(run.code == Some(1) && run.stderr.contains("error: "), "{what}: {}", run.stderr);
                case.resume(&what);
                failed += 1;
            }
        }
        if ends {
            break;
        }
    }
    assert!(failed > 30, "{failed} {harmless}");
    say(&format!("crash: {failed} operations of merges that went on failed, {harmless} harmless, nothing lost"));
}
