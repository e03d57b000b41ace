//! `report.html`: written with each merge, and the same again by `magic report`; nothing of others in it is ever markup.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod common;
#[path = "report/scores.rs"]
mod scores;

use std::fs;
use std::path::Path;

use common::{Run, Sandbox};
use roxmltree::{Document, ParsingOptions};
use serde_json::{Value, json};

const TIES: [&str; 6] = ["--method", "ties", "--param", "density=0.5", "--out", "out"];

fn golden(path: &str) -> String {
    format!("{}/tests/golden/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn page(sandbox: &Sandbox, dir: &str) -> String {
    String::from_utf8(sandbox.read(&format!("{dir}/report.html"))).expect("a page is text")
}

/// The text of a page that is well-formed, and asks for nothing but itself.
#[track_caller]
fn checked(page: &str) -> String {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(page, options).unwrap_or_else(|e| panic!("{e}: {page}"));
    let known = "html head meta title style body main header section h1 h2 h3 p dl div dt dd ul li small code pre span table \
                 thead tbody tr th td figure figcaption svg g path text wbr";
    let known: Vec<&str> = known.split_whitespace().collect();
    for node in document.descendants().filter(|node| node.is_element()) {
        let name = node.tag_name().name();
        assert!(known.contains(&name), "<{name}>");
        for attribute in node.attributes() {
            let name = attribute.name();
            assert!(!name.starts_with("on") && !["src", "href", "style", "srcdoc"].contains(&name), "{name}");
        }
    }
    let style = document.descendants().find(|node| node.has_tag_name("style")).expect("a style").text().unwrap();
    assert!(!style.contains("url(") && !style.contains("@import"), "{style}");
    assert!(page.contains("default-src 'none'") && page.contains("width=device-width"));
    let text = document.descendants().filter(|node| node.is_text()).filter_map(|node| node.text());
    text.collect()
}

fn report(sandbox: &Sandbox, dir: &str) -> Run {
    sandbox.run(&["report", dir])
}

fn receipt(sandbox: &Sandbox) -> Value {
    serde_json::from_slice(&sandbox.read("out/magic.json")).expect("a receipt")
}

fn put(sandbox: &Sandbox, receipt: &Value) {
    sandbox.write("out/magic.json", &receipt.to_string());
}

#[test]
fn a_merge_writes_the_page_that_its_receipt_gives() {
    let llama = |name: &str| golden(&format!("fsc/llama/{name}"));
    let data = llama("task0.safetensors");
    for (space, words) in [
        ("none", &["linear merge", "Length along the depth", "Direction along the depth", "expert 2"][..]),
        ("wsc", &["wsc calibration", "ξ along the depth", "Largest mean ξ", "mean ξ"]),
        ("fsc", &["Features", "merge, measured", "after all factors, computed", "merge ÷ expert"]),
        ("dsc", &["after weight space, measured", "after all factors, computed"]),
        ("auto", &["What auto tried", "← taken", "distance from the experts"]),
    ] {
        let sandbox = Sandbox::empty();
        let models = [llama("base"), llama("expert0"), llama("expert1")];
        let mut args = vec!["merge", "--device", "cpu", "--method", "linear", "--calibrate", space, "--out", "out"];
        args.extend(["--base", &models[0], "--model", &models[1], "--model", &models[2]]);
        if !["none", "wsc"].contains(&space) {
            args.extend(["--data", &data]);
        }
        sandbox.run(&args).good();
        let written = page(&sandbox, "out");
        let text = checked(&written);
        for word in words.iter().chain(&["Where it comes from", "merge_method: linear", "expert0", "not taken"][..3]) {
            assert!(text.contains(word), "{space}: {word}: {text}");
        }
        assert_eq!(text.contains("ξ along the depth"), space != "none");
        // From the receipt alone.
        fs::create_dir(sandbox.path("alone")).unwrap();
        fs::copy(sandbox.path("out/magic.json"), sandbox.path("alone/magic.json")).unwrap();
        report(&sandbox, "alone").good();
        assert!(page(&sandbox, "alone") == written, "{space}: the same bytes");
        assert!(receipt(&sandbox)["files"].as_array().unwrap().iter().all(|file| file["file"] != "report.html"));
        sandbox.run(&["verify", "out", "--device", "cpu"]).good();
    }
}

#[test]
fn it_is_written_anew_with_the_merge_and_on_its_own() {
    let sandbox = Sandbox::new();
    sandbox.merge(&[&TIES[..], &["--calibrate", "wsc"]].concat()).good();
    let first = page(&sandbox, "out");
    // Without it the merge is as good, and done.
    fs::remove_file(sandbox.path("out/report.html")).unwrap();
    let again = sandbox.merge(&[&TIES[..], &["--calibrate", "wsc", "--resume"]].concat()).good();
    assert!(again.stdout.contains("already done"), "{}", again.stdout);
    let found = sandbox.run(&["verify", "out"]).good();
    assert!(found.stdout.contains("there is no `report.html`"), "{}", found.stdout);
    let run = report(&sandbox, "out").good();
    assert!(run.stdout.starts_with("out/report.html, ") && run.stderr.is_empty(), "{}", run.stdout);
    assert!(page(&sandbox, "out") == first);
    let run = sandbox.run(&["report", "out", "--json"]).good();
    assert_eq!(run.json(), json!({"schema": "magic-report/1", "report": "out/report.html", "bytes": first.len()}));
    // One of another version is not compared, one of this is.
    sandbox.write("out/report.html", &first.replace("\"magic 0", "\"magic 9"));
    let found = sandbox.run(&["verify", "out"]).good();
    assert!(found.stdout.contains("made by another version"), "{}", found.stdout);
    sandbox.write("out/report.html", &first.replace("ties", "dare"));
    let found = sandbox.run(&["verify", "out"]);
    assert!(found.code == Some(1) && found.stdout.contains("is not what follows from"), "{}", found.stdout);
    sandbox.merge(&["--method", "linear", "--out", "out", "--overwrite"]).good();
    let text = checked(&page(&sandbox, "out"));
    assert!(text.contains("linear merge") && !text.contains("ties"), "{text}");
}

#[test]
fn nothing_of_others_is_markup() {
    const NAMES: [&str; 5] = [
        "<script>alert(1)</script>.0.weight",
        "</style><img src=x onerror=\"alert(1)\">.1.weight",
        "'\"&lt;!--.2.weight",
        "a b&amp;.3.weight",
        "]]>&#60;b&#62;\u{ffff}.4.mlp",
    ];
    let sandbox = Sandbox::empty();
    for (seed, model) in ["base", "<b>a</b>", "\" onload=\"x"].into_iter().enumerate() {
        let tensors = NAMES.map(|name| (name, &[4usize, 3][..], seed as u32));
        sandbox.model(model, "model.safetensors", &tensors);
    }
    let run = sandbox.run(&[
        "merge",
        "--device",
        "cpu",
        "--base",
        "base",
        "--model",
        "<b>a</b>",
        "--model",
        "\" onload=\"x",
        "--method",
        "ties",
        "--calibrate",
        "wsc",
        "--exclude",
        "a*",
        "--out",
        "out",
    ]);
    run.good();
    let text = checked(&page(&sandbox, "out"));
    for shown in ["<script>alert(1)</script>.0.weight", "'\"&lt;!--.2.weight", "<b>a</b>", "\" onload=\"x"] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    // Whatever a receipt says.
    let evil = "</title></style></pre><script>x</script>\u{202e}\u{7}";
    let mut receipt = receipt(&sandbox);
    for key in ["version", "method", "calibrate", "device", "non_finite", "base"] {
        receipt[key] = json!(evil);
    }
    receipt["warnings"] = json!([evil, format!("`{evil}` and `")]);
    receipt["ignored"] = json!([evil]);
    receipt["fingerprint"]["recipe"] = json!(format!("{evil}\n{evil}"));
    receipt["tensors"][0]["action"] = json!(evil);
    receipt["features"] = json!({"family": evil, "fit": evil, "norm": evil, "data": [{"name": evil, "samples": 1}],
        "leaves": [{"leaf": format!("{evil}.3.x"), "xi": 1.5, "experts": [0.5, null]}],
        "candidates": [{"name": evil, "space": evil, "strength": 1, "scale": null, "distance": null, "hidden": 0, "chosen": true}]});
    receipt["lora"] = json!({"tensors": 1, "rank": 2, "error": null, "worst": evil, "worst_error": 1e300});
    put(&sandbox, &receipt);
    report(&sandbox, "out").good();
    let page = page(&sandbox, "out");
    let text = checked(&page);
    assert!(text.contains("<script>x</script>\\u{202e}\\u{7}") && !page.contains('\u{202e}'), "{text}");
}

#[test]
fn numbers_that_are_none_are_shown_as_such() {
    let sandbox = Sandbox::new();
    sandbox.merge(&[&TIES[..], &["--calibrate", "wsc"]].concat()).good();
    let whole = receipt(&sandbox);
    type Change = fn(&mut Value);
    let changes: [Change; 7] = [
        |tensor| tensor["experts"] = json!([null, null]),
        |tensor| tensor["merged"] = Value::Null,
        |tensor| tensor["cosines"] = json!([]),
        |tensor| tensor["experts"] = json!([1]),
        |tensor| tensor["experts"] = json!([0, 0]),
        |tensor| tensor["xi"] = json!({"min": null, "mean": null, "max": 1e308}),
        |tensor| tensor["elements"] = json!(u64::MAX),
    ];
    for change in changes {
        let mut receipt = whole.clone();
        receipt["tensors"].as_array_mut().unwrap().iter_mut().for_each(change);
        put(&sandbox, &receipt);
        report(&sandbox, "out").good();
        let text = checked(&page(&sandbox, "out"));
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
    // Nothing at all.
    let mut receipt = whole;
    for key in ["tensors", "experts", "inputs", "files"] {
        receipt[key] = json!([]);
    }
    receipt["seconds"] = Value::Null;
    put(&sandbox, &receipt);
    report(&sandbox, "out").good();
    checked(&page(&sandbox, "out"));
}

#[test]
fn large_models_give_pages_that_browsers_like() {
    let sandbox = Sandbox::new();
    sandbox.merge(&[&TIES[..], &["--calibrate", "wsc"]].concat()).good();
    let mut receipt = receipt(&sandbox);
    let one = receipt["tensors"][0].clone();
    let parts = ["self_attn.q_proj", "mlp.experts.3.w1", "input_layernorm", "embed", "other"];
    let tensors = (0..20_000).map(|i| {
        let mut tensor = one.clone();
        tensor["name"] = json!(format!("model.language_model.layers.{}.{}.{i}.weight", i % 130, parts[i % 5]));
        tensor
    });
    receipt["tensors"] = tensors.collect();
    let leaves = (0..2000).map(|i| json!({"leaf": format!("h.{}.attn", i % 130), "xi": 1.5, "experts": [0.5, 2.0]}));
    receipt["features"] =
        json!({"family": "llama", "fit": "magnitude", "norm": "l1", "data": [], "leaves": leaves.collect::<Vec<_>>()});
    receipt["warnings"] = (0..5000).map(|i| format!("warning {i}")).collect();
    receipt["ignored"] = (0..5000).map(|i| format!("tensor {i}")).collect();
    put(&sandbox, &receipt);
    report(&sandbox, "out").good();
    let page = page(&sandbox, "out");
    let text = checked(&page);
    assert!(page.len() < 2_000_000, "{}", page.len());
    assert!(text.contains("and 4900 more in"), "{text}");
}

#[test]
fn what_is_no_receipt_is_refused_and_nothing_is_written() {
    let sandbox = Sandbox::new();
    sandbox.merge(&TIES).good();
    let whole = receipt(&sandbox);
    fs::remove_file(sandbox.path("out/report.html")).unwrap();
    let refused = |dir: &str, code: i32, phrase: &str| {
        let before = sandbox.listing();
        let run = report(&sandbox, dir);
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{phrase}: {}", run.stderr);
        assert!(run.stderr.contains(phrase), "{phrase}: {}", run.stderr);
        assert_eq!(sandbox.listing(), before, "{phrase}");
    };
    refused("nothing", 2, "`nothing` does not exist");
    refused("base", 1, "there is no `magic.json`");
    let texts = ["", "{\"schema\": ", "[", "\u{0}", &"[".repeat(100_000), "{\"schema\": \"magic-merge/1\"}}"];
    for text in texts {
        sandbox.write("out/magic.json", text);
        refused("out", 1, "magic.json` is damaged");
    }
    for (text, phrase) in [
        ("[]", "it names no schema"),
        ("{}", "it names no schema"),
        (r#"{"schema": 1}"#, "it names no schema"),
        (r#"{"schema": "magic-merge/2\u001b"}"#, "its schema is `magic-merge/2\\u{1b}`, not `magic-merge/1`"),
        (r#"{"schema": "magic-merge/1"}"#, "missing field"),
    ] {
        sandbox.write("out/magic.json", text);
        refused("out", 1, phrase);
    }
    for key in ["version", "tensors", "experts", "files", "fingerprint", "seconds"] {
        let mut receipt = whole.clone();
        receipt[key] = json!({"not": ["what", "it", "is"]});
        put(&sandbox, &receipt);
        refused("out", 1, "is no receipt of a merge");
        receipt.as_object_mut().unwrap().remove(key);
        put(&sandbox, &receipt);
        refused("out", 1, &format!("missing field `{key}`"));
    }
    fs::File::create(sandbox.path("out/magic.json")).unwrap().set_len(300 << 20).unwrap();
    refused("out", 1, "more than the");
    put(&sandbox, &whole);
    report(&sandbox, "out").good();
}

#[cfg(unix)]
#[test]
fn what_is_in_its_place_stays() {
    let sandbox = Sandbox::new();
    sandbox.merge(&TIES).good();
    sandbox.write("precious", "mine");
    let path = sandbox.path("out/report.html");
    let refused = |phrase: &str| {
        let run = report(&sandbox, "out");
        assert!(run.code == Some(1) && run.stderr.contains(phrase), "{}", run.stderr);
        assert_eq!(sandbox.read("precious"), b"mine");
        let hidden = |path: &&std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
        assert_eq!(sandbox.listing().iter().find(hidden), None);
    };
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("../precious", &path).unwrap();
    refused("is a link");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused("it is not a file");
    fs::remove_dir(&path).unwrap();
    // Where it is staged, a link goes, and what it leads to stays.
    std::os::unix::fs::symlink("../precious", sandbox.path("out/.model-report.html.tmp")).unwrap();
    report(&sandbox, "out").good();
    assert_eq!(sandbox.read("precious"), b"mine");
    assert!(!Path::new(&sandbox.path("out/.model-report.html.tmp")).exists());
}

#[cfg(unix)]
#[test]
fn killed_at_any_moment_it_is_the_old_page_or_the_new() {
    let sandbox = Sandbox::in_memory();
    sandbox.merge(&TIES).good();
    let new = page(&sandbox, "out");
    let old = new.replace("\"magic 0", "\"magic 9");
    let mut kills = 0;
    for at in 1.. {
        sandbox.write("out/report.html", &old);
        let mut command = sandbox.command(&["report", "out"]);
        let run = command.env("MAGIC_TEST_FAULT", format!("kill@{at}")).output().expect("the program starts");
        let found = page(&sandbox, "out");
        assert!(found == old || found == new, "killed at {at}");
        // What it leaves is no sign of an unfinished merge, and in nobody's way.
        sandbox.run(&["verify", "out"]).good();
        report(&sandbox, "out").good();
        assert!(page(&sandbox, "out") == new);
        let names = fs::read_dir(sandbox.path("out")).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with('.')).collect();
        assert!(left.is_empty(), "killed at {at}: {left:?}");
        if run.status.success() {
            break;
        }
        kills += 1;
    }
    assert!(kills > 5, "{kills}");
}

#[test]
fn cosines_are_those_of_the_experts_with_the_merge() {
    let sandbox = Sandbox::new();
    let mut between = Vec::new();
    for (weights, along) in [(["1", "0"], Some(0)), (["0", "-0.5"], Some(1)), (["0", "0"], None)] {
        let [a, b] = [format!("a={}", weights[0]), format!("b={}", weights[1])];
        let models = ["merge", "--device", "cpu", "--base", "base", "--model", &a, "--model", &b];
        let args = ["--method", "task_arithmetic", "--out", "out", "--overwrite"];
        sandbox.run(&[&models[..], &args].concat()).good();
        let receipt = receipt(&sandbox);
        assert_eq!((&receipt["base"], &receipt["experts"]), (&json!("base"), &json!(["a", "b"])));
        for tensor in receipt["tensors"].as_array().unwrap() {
            let Some(along) = along else {
                assert_eq!(tensor["cosines"], json!([null, null]), "of nothing there is none");
                continue;
            };
            let cosine = |k: usize| tensor["cosines"][k].as_f64().unwrap();
            let sign = if along == 0 { 1.0 } else { -1.0 };
            assert!((sign * cosine(along) - 1.0).abs() < 1e-5, "{tensor}");
            between.push(sign * cosine(1 - along));
        }
    }
    // That of a with b is that of b with a.
    let (one, other) = between.split_at(between.len() / 2);
    assert!(one.len() == 5 && one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5), "{between:?}");
}

/// What a receipt says of the tensors' experts among themselves.
fn between(sandbox: &Sandbox, dir: &str) -> Vec<Value> {
    let receipt: Value = serde_json::from_slice(&sandbox.read(&format!("{dir}/magic.json"))).expect("a receipt");
    receipt["tensors"].as_array().unwrap().iter().map(|tensor| tensor["between"].clone()).collect()
}

#[test]
fn experts_are_compared_with_each_other() {
    let sandbox = Sandbox::empty();
    // One that is taken whole, and one of which a sample is.
    let shapes: [(&str, &[usize]); 2] = [("h.0.small.weight", &[50, 30]), ("h.1.large.weight", &[300, 200])];
    for (seed, name) in ["base", "a", "b", "c"].into_iter().enumerate() {
        sandbox.model(name, "model.safetensors", &shapes.map(|(tensor, shape)| (tensor, shape, seed as u32)));
    }
    let merge = |out: &str, more: &[&str]| {
        let models = ["merge", "--base", "base", "--model", "a", "--model", "b", "--model", "c", "--out", out];
        sandbox.run(&[&models[..], more].concat()).good();
        between(&sandbox, out)
    };
    let first = merge("out", &["--device", "cpu", "--method", "linear"]);
    assert_eq!((&first[0]["elements"], &first[1]["elements"]), (&json!(1500), &json!(16384)));
    let inspect = ["inspect", "--device", "cpu", "--base", "base", "a", "b", "c", "--json"];
    let whole = sandbox.run(&inspect).good().json();
    for (tensor, within) in [(0, 1e-5), (1, 0.05)] {
        let whole = whole["task_vectors"]["tensors"][tensor]["cosines"].as_array().unwrap();
        let found = first[tensor]["cosines"].as_array().unwrap();
        assert_eq!(found.len(), 3);
        for (found, whole) in found.iter().zip(whole) {
            let apart = found.as_f64().unwrap() - whole.as_f64().unwrap();
            assert!(apart.abs() < within, "{found} and {whole}");
        }
    }
    // Neither memory, threads, methods nor devices have a say.
    for (number, more) in
        ["--method ties --param density=0.5 --threads 1", "--method linear --memory 17MB --calibrate wsc"]
            .into_iter()
            .enumerate()
    {
        let more: Vec<&str> = more.split(' ').chain(["--device", "cpu"]).collect();
        assert_eq!(merge(&format!("out{number}"), &more), first, "{more:?}");
    }
    let gpu = sandbox.run(&["devices", "--json"]).good().stdout.contains("llvmpipe");
    if gpu {
        assert_eq!(merge("gpu", &["--method", "linear", "--device", "llvmpipe"]), first);
    }
    let text = checked(&page(&sandbox, "out"));
    for phrase in
        ["Between the experts", "expert\u{a0}3", "Where they conflict most", "17.9 K elements", "with each other"]
    {
        assert!(text.contains(phrase), "{phrase}: {text}");
    }
    // Without a base there are no task vectors to compare; of one there is no pair.
    let no_base = ["merge", "--device", "cpu", "--model", "a", "--model", "b", "--method", "linear", "--out", "free"];
    sandbox.run(&no_base).good();
    let text = checked(&page(&sandbox, "free"));
    assert!(!text.contains("Between the experts") && !text.contains("with each other"), "{text}");
    let one = ["merge", "--device", "cpu", "--base", "base", "--model", "a", "--method", "linear", "--out", "one"];
    sandbox.run(&one).good();
    assert_eq!(between(&sandbox, "one"), [Value::Null, Value::Null]);
    assert!(!checked(&page(&sandbox, "one")).contains("Between the experts"));
}

#[test]
fn where_experts_were_not_compared_the_page_says_so() {
    let sandbox = Sandbox::new();
    sandbox.merge(&[&TIES[..], &["--calibrate", "wsc"]].concat()).good();
    let whole = receipt(&sandbox);
    // A receipt of an older version.
    let mut old = whole.clone();
    for tensor in old["tensors"].as_array_mut().unwrap() {
        tensor.as_object_mut().unwrap().remove("between");
        tensor.as_object_mut().unwrap().remove("shape");
    }
    put(&sandbox, &old);
    report(&sandbox, "out").good();
    let text = checked(&page(&sandbox, "out"));
    assert!(
        text.contains("This receipt tells nothing of the experts’ cosines") && !text.contains("Where they"),
        "{text}"
    );
    let mut many = old;
    many["experts"] = (0..17).map(|k| format!("expert {k}")).collect();
    put(&sandbox, &many);
    report(&sandbox, "out").good();
    assert!(checked(&page(&sandbox, "out")).contains("More than 16 experts"));
    // Whatever numbers there are.
    for between in [
        json!({"elements": 0, "cosines": []}),
        json!({"elements": u64::MAX, "cosines": [null]}),
        json!({"elements": 5, "cosines": [1e300, -2.0, 0.5]}),
    ] {
        let mut receipt = whole.clone();
        for tensor in receipt["tensors"].as_array_mut().unwrap() {
            tensor["between"] = between.clone();
        }
        put(&sandbox, &receipt);
        report(&sandbox, "out").good();
        let text = checked(&page(&sandbox, "out"));
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}

#[test]
fn numbers_that_are_none_leave_a_dash_between_experts() {
    let sandbox = Sandbox::new();
    let mut bytes = sandbox.read("a/model.safetensors");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(sandbox.path("a/model.safetensors"), bytes).unwrap();
    sandbox.merge(&["--method", "linear", "--non-finite", "propagate", "--out", "out"]).good();
    let found = between(&sandbox, "out");
    let none = found.iter().filter(|between| between["cosines"] == json!([null])).count();
    assert_eq!((none, found.len()), (1, 5), "{found:?}");
    assert!(!checked(&page(&sandbox, "out")).contains("NaN\n"));
    sandbox.merge(&["--method", "linear", "--non-finite", "base", "--out", "with"]).good();
    assert!(between(&sandbox, "with").iter().all(|between| between["cosines"][0].is_number()));
    sandbox.run(&["verify", "out", "--all"]).good();
}

#[test]
fn what_stands_out_are_matrices() {
    let sandbox = Sandbox::empty();
    let names: Vec<String> = (0..10).map(|i| format!("h.{i}.mlp")).collect();
    let named: Vec<[String; 2]> = names.iter().map(|name| [format!("{name}.weight"), format!("{name}.bias")]).collect();
    for (seed, model) in ["base", "a", "b"].into_iter().enumerate() {
        let tensors: Vec<_> = named
            .iter()
            .flat_map(|[weight, bias]| {
                [(weight.as_str(), &[6usize, 4][..], seed as u32), (bias.as_str(), &[6][..], seed as u32)]
            })
            .collect();
        sandbox.model(model, "model.safetensors", &tensors);
    }
    sandbox.merge(&TIES).good();
    let text = checked(&page(&sandbox, "out"));
    assert!(text.contains("10 vectors (biases, norms), 20.00 % of the parameters, are left out"), "{text}");
    assert!(text.contains("10 vectors (biases, norms) not looked at here"), "{text}");
    assert!(!text.contains(".bias"), "{text}");
}

#[test]
fn the_page_of_an_adapter_says_what_its_factors_lose() {
    let sandbox = Sandbox::new();
    sandbox.merge(&["--method", "linear", "--out", "out"]).good();
    let mut receipt = receipt(&sandbox);
    let text = checked(&page(&sandbox, "out"));
    assert!(text.contains("before they are rounded to the element type"), "{text}");
    receipt["lora"] = json!({"tensors": 1, "rank": 2, "error": 0.25, "worst": "h.0.mlp", "worst_error": 0.5});
    put(&sandbox, &receipt);
    report(&sandbox, "out").good();
    let text = checked(&page(&sandbox, "out"));
    assert!(text.contains("0.2500 over all matrices, and at worst 0.5000, in h.0.mlp"), "{text}");
    assert!(!text.contains("computes tensors again") && text.contains("are not computed again"), "{text}");
}
