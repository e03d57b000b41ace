//! Scores that are kept beside a merge, and shown on its page.

use super::*;

#[test]
fn scores_are_shown_beside_what_was_merged() {
    let sandbox = Sandbox::empty();
    let [base, expert, other] = ["base", "expert0", "expert1"].map(|name| golden(&format!("fsc/llama/{name}")));
    let data = [0, 1].map(|k| golden(&format!("fsc/llama/task{k}.safetensors")));
    let merge = ["merge", "--device", "cpu", "--base", &base, "--model", &expert, "--model", &other, "--out", "out"];
    sandbox.run(&[&merge[..], &["--method", "linear"]].concat()).good();
    let plain = page(&sandbox, "out");
    let eval = |model: &str, data: &str, into: &str| {
        sandbox.run(&["eval", model, "--data", data, "--device", "cpu", "--report", into])
    };
    for (model, into) in [("out", "nothing"), ("out", base.as_str())] {
        let run = eval(model, &data[0], into);
        assert!(run.code != Some(0) && run.stdout.is_empty(), "{}", run.stdout);
    }
    let run = eval("out", &data[0], "out").good();
    assert!(run.stdout.ends_with("shown in out/report.html\n"), "{}", run.stdout);
    let text = checked(&page(&sandbox, "out"));
    assert!(text.contains("Scores") && text.contains("this merge") && text.contains(&data[0]), "{text}");
    // Beside those of other models and other samples; the same again takes the place of what was there.
    eval(&expert, &data[0], "out").good();
    eval(&expert, &data[1], "out").good();
    eval("out", &data[0], "out").good();
    let scores: Value = serde_json::from_slice(&sandbox.read("out/scores.json")).unwrap();
    assert_eq!((scores["schema"].as_str(), scores["scores"].as_array().unwrap().len()), (Some("magic-scores/1"), 3));
    let roles = [0, 1, 2].map(|k| &scores["scores"][k]["role"]);
    assert_eq!(roles, [&json!("merge"), &json!({"expert": 1}), &json!({"expert": 1})]);
    let found = sandbox.run(&["eval", "out", "--data", &data[0], "--device", "cpu", "--json"]).good().json();
    assert_eq!(scores["scores"][0]["loss"], found["sets"][0]["loss"]);
    let scored = page(&sandbox, "out");
    assert!(scored.matches("class=\"marked\"").count() > plain.matches("class=\"marked\"").count());
    report(&sandbox, "out").good();
    assert!(page(&sandbox, "out") == scored);
    let verified = sandbox.run(&["verify", "out"]).good().stdout;
    assert!(verified.contains("scores in `scores.json` were not measured again"), "{verified}");
    assert!(!verified.contains("not of this merge"), "{verified}");
    // The page may be older than the scores, and be made without them.
    sandbox.write("out/report.html", &plain);
    sandbox.run(&["verify", "out"]).good();
    // Those of another merge, or damaged ones, are none, and that is said.
    let whole = sandbox.read("out/scores.json");
    let other = String::from_utf8_lossy(&whole).replace("\"receipt\": \"", "\"receipt\": \"0");
    for (text, why) in [("", "damaged"), ("{}", "damaged"), ("[1]", "damaged"), (&other, "of another merge")] {
        sandbox.write("out/scores.json", text);
        let run = report(&sandbox, "out").good();
        assert!(run.stderr.contains(&format!("`scores.json` is {why}")), "{}", run.stderr);
        let run = eval(&expert, &data[0], "out").good();
        assert!(run.stderr.contains(why) && run.stderr.contains("begins anew"), "{}", run.stderr);
        let begun: Value = serde_json::from_slice(&sandbox.read("out/scores.json")).unwrap();
        assert_eq!(begun["scores"].as_array().unwrap().len(), 1);
        sandbox.write("out/scores.json", text);
        report(&sandbox, "out").good();
        assert!(page(&sandbox, "out") == plain, "{text}");
        let verified = sandbox.run(&["verify", "out"]).good().stdout;
        assert!(verified.contains("`scores.json`") && verified.contains("not of this merge"), "{verified}");
    }
    // Nothing of them is markup.
    let evil = "</table><script>x</script>\u{7}";
    let mut scores = scores;
    for key in ["model", "head", "data", "device"] {
        scores["scores"][1][key] = json!(evil);
    }
    sandbox.write("out/scores.json", &scores.to_string());
    report(&sandbox, "out").good();
    let text = checked(&page(&sandbox, "out"));
    assert!(text.contains("<script>x</script>\\u{7}"), "{text}");
}

/// A merge of the miniature language models in `out`; the folder of those, and their samples.
fn scored(sandbox: &Sandbox) -> [String; 4] {
    let models = ["base", "expert0", "expert1", "task0.safetensors"];
    let [base, expert, other, data] = models.map(|name| golden(&format!("fsc/llama/{name}")));
    let merge = ["merge", "--device", "cpu", "--base", &base, "--model", &expert, "--model", &other, "--out", "out"];
    sandbox.run(&[&merge[..], &["--method", "linear", "--hash"]].concat()).good();
    [base, expert, other, data]
}

fn eval(sandbox: &Sandbox, model: &str, data: &str, more: &[&str]) -> Run {
    sandbox.run(&[&["eval", model, "--data", data, "--device", "cpu", "--report", "out"], more].concat())
}

fn rows(sandbox: &Sandbox) -> Vec<Value> {
    let scores: Value = serde_json::from_slice(&sandbox.read("out/scores.json")).unwrap();
    scores["scores"].as_array().unwrap().clone()
}

#[test]
fn scores_are_told_apart_by_what_was_measured() {
    let sandbox = Sandbox::empty();
    let [base, expert, _, data] = scored(&sandbox);
    let marked = |sandbox: &Sandbox| page(sandbox, "out").matches("<tr class=\"marked\"><th scope=\"row\">").count();
    let unscored = marked(&sandbox);
    // Some samples are not all of them, and one model is compared with none.
    eval(&sandbox, "out", &data, &[]).good();
    eval(&sandbox, "out", &data, &["--samples", "1"]).good();
    let samples: Vec<u64> = rows(&sandbox).iter().map(|row| row["samples"].as_u64().unwrap()).collect();
    assert!(samples.len() == 2 && samples[0] > 1 && samples[1] == 1, "{samples:?}");
    let text = checked(&page(&sandbox, "out"));
    assert!(text.contains("task0.safetensors, 1 sample\n"), "{text}");
    assert!(!text.contains("is marked") && !text.contains("other models"), "{text}");
    // A model is the same, whatever it is called.
    fs::copy(&data, sandbox.path("data.safetensors")).unwrap();
    let detour = format!("{base}/../base");
    let slash = format!("{base}/");
    for name in [&base, &detour, &slash] {
        let run = eval(&sandbox, name, &data, &[]).good();
        assert!(!run.stderr.contains("neither"), "{}", run.stderr);
    }
    assert_eq!((rows(&sandbox).len(), &rows(&sandbox)[2]["role"]), (3, &json!("base")));
    for data in ["data.safetensors", "./data.safetensors"] {
        eval(&sandbox, "./out", data, &[]).good();
    }
    assert_eq!((rows(&sandbox).len(), &rows(&sandbox)[3]["role"]), (4, &json!("merge")));
    let text = checked(&page(&sandbox, "out"));
    assert!(text.contains("is marked") && text.contains("on other models"), "{text}");
    assert_eq!(marked(&sandbox), unscored + 1);
    // Another model is beside them, and never the best.
    fs::create_dir(sandbox.path("stranger")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(format!("{expert}/{name}"), sandbox.path(&format!("stranger/{name}"))).unwrap();
    }
    let run = eval(&sandbox, "stranger", &data, &[]).good();
    assert!(run.stderr.contains("`stranger` is neither the merge in `out` nor one of its inputs"), "{}", run.stderr);
    assert_eq!(rows(&sandbox)[4]["role"], json!("other"));
    let page = page(&sandbox, "out");
    assert!(page.contains("<tr><th scope=\"row\">another model</th>"), "{page}");
    assert!(checked(&page).contains("base") && marked(&sandbox) == unscored + 1);
}

#[test]
fn a_merge_that_is_not_what_was_recorded_gets_no_scores() {
    let sandbox = Sandbox::empty();
    let [base, _, _, data] = scored(&sandbox);
    let whole = sandbox.read("out/model.safetensors");
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    for bytes in [changed, [&whole[..], &[0; 4]].concat()] {
        fs::write(sandbox.path("out/model.safetensors"), bytes).unwrap();
        let run = eval(&sandbox, "out", &data, &[]);
        assert!(run.code == Some(1) && run.stdout.is_empty(), "{}", run.stdout);
        assert!(!sandbox.path("out/scores.json").exists());
    }
    fs::write(sandbox.path("out/model.safetensors"), whole).unwrap();
    eval(&sandbox, "out", &data, &[]).good();
    // A receipt that was edited is told of on the page too.
    let text = String::from_utf8(sandbox.read("out/magic.json")).unwrap();
    sandbox.write("out/magic.json", &text.replacen("\"seed\": 0", "\"seed\": 1", 1));
    let run = eval(&sandbox, &base, &data, &[]).good();
    assert!(run.stderr.contains("it was edited after the merge"), "{}", run.stderr);
    let shown = checked(&page(&sandbox, "out"));
    assert!(shown.contains("it was edited after the merge. This page may"), "{shown}");
    assert!(report(&sandbox, "out").good().stderr.contains("it was edited after the merge"));
    assert!(checked(&page(&sandbox, "out")) == shown);
}

#[test]
fn scores_that_come_at_once_are_all_kept() {
    let sandbox = Sandbox::empty();
    let [base, expert, other, data] = scored(&sandbox);
    let lock = fs::File::create(sandbox.path("out/.magic.lock")).unwrap();
    lock.lock().unwrap();
    let models = ["out", &base, &expert, &other];
    std::thread::scope(|scope| {
        let runs = models.map(|model| scope.spawn(|| eval(&sandbox, model, &data, &[])));
        std::thread::sleep(std::time::Duration::from_millis(200));
        fs::remove_file(sandbox.path("out/.magic.lock")).unwrap();
        drop(lock);
        runs.into_iter().for_each(|run| drop(run.join().unwrap().good()));
    });
    if cfg!(unix) {
        assert_eq!(rows(&sandbox).len(), 4);
    }
    // What cannot be kept is printed all the same.
    fs::remove_file(sandbox.path("out/report.html")).unwrap();
    fs::create_dir(sandbox.path("out/report.html")).unwrap();
    let run = eval(&sandbox, "out", &data, &[]);
    assert!(run.code == Some(1) && run.stdout.contains("task0.safetensors"), "{}", run.stdout);
    assert!(run.stderr.contains("it is not a file"), "{}", run.stderr);
    let run = eval(&sandbox, "out", &data, &["--json"]);
    assert_eq!((run.code, run.json()["schema"].as_str()), (Some(1), Some("magic-eval/1")));
}

#[test]
fn an_adapter_is_the_merge_on_its_base_only() {
    let sandbox = Sandbox::empty();
    let demo = |name: &str| format!("{}/assets/demo/{name}", env!("CARGO_MANIFEST_DIR"));
    let [base, digits, photo] = ["base", "expert_digits", "expert_photo"].map(demo);
    let data = demo("samples/digits.test.safetensors");
    let models = ["merge", "--device", "cpu", "--base", &base, "--model", &digits, "--model", &photo, "--out", "out"];
    let adapter = ["--method", "linear", "--exclude", "classifier.*", "--lora-out", "4"];
    sandbox.run(&[&models[..], &adapter].concat()).good();
    assert!(checked(&page(&sandbox, "out")).contains("The adapter holds it as factors"));
    for (model, role) in [(&base, "merge"), (&photo, "other")] {
        eval(&sandbox, &format!("{model}+out"), &data, &["--samples", "2", "--head", &digits]).good();
        assert_eq!(rows(&sandbox).last().unwrap()["role"], json!(role));
    }
}
