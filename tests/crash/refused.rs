//! Outputs that are refused, and what they must not touch.

use super::*;

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
        ("a linked page", |s| link(s, "report.html"), OVER, "is a link"),
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
        ("a pipe for a lock", |s| pipe(s, ".magic.lock"), OVER, "it is not a file"),
        (
            "a pipe for a lock to go on with",
            |s| pipe(s, ".magic.lock"),
            &["--out", "out", "--resume"],
            "it is not a file",
        ),
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

#[test]
fn what_stays_beside_a_new_result_and_is_not_of_it_is_named() {
    let sandbox = Sandbox::new();
    let merge = || sandbox.merge(&["--method", "linear", "--out", "out", "--overwrite"]).good();
    assert!(!merge().stderr.contains("not of this merge"));
    // Over a result of its own, of which nothing stays.
    assert!(!merge().stderr.contains("not of this merge"));
    sandbox.write("out/pytorch_model.bin", "mine");
    let run = merge();
    assert!(run.stderr.contains("not of this merge: `pytorch_model.bin`;"), "{}", run.stderr);
    assert_eq!(sandbox.read("out/pytorch_model.bin"), b"mine");
    assert!(String::from_utf8(sandbox.read("out/magic.json")).unwrap().contains("not of this merge"));
}
