//! `magic verify`: finished merges are found to be what they are, and every kind of damage is found and named.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod cli;
mod common;
#[path = "common/recorded.rs"]
mod recorded;

use std::fs;
use std::path::Path;

use cli::{NETWORK, Run, Sandbox};
use recorded::golden;
use serde_json::{Value, json};

const INDEX: &str = "out/model.safetensors.index.json";
const SHARD: &str = "out/model-00002-of-00003.safetensors";

/// `cpu`, and the name of a GPU if there is one.
fn devices() -> Vec<&'static str> {
    if common::gpu().is_some() { vec!["cpu", "gpu"] } else { vec!["cpu"] }
}

fn merge(sandbox: &Sandbox, device: &str, args: &[&str]) {
    let models = ["merge", "--device", device, "--base", "base", "--model", "a", "--model", "b", "--out", "out"];
    sandbox.run(&[&models, args].concat()).good();
}

/// A merge in three shards.
fn sharded() -> Sandbox {
    let sandbox = Sandbox::new();
    merge(&sandbox, "cpu", &["--method", "ties", "--calibrate", "wsc", "--shard-size", "800B"]);
    assert!(sandbox.path(SHARD).exists());
    sandbox
}

fn verify(sandbox: &Sandbox, args: &[&str]) -> Run {
    sandbox.run(&[&["verify", "out"], args].concat())
}

/// What `magic verify --json` says of a folder in which all is well.
#[track_caller]
fn good(sandbox: &Sandbox, args: &[&str]) -> Value {
    let run = verify(sandbox, &[&["--json"], args].concat());
    assert_eq!(run.code, Some(0), "{args:?}: {}\n{}", run.stdout, run.stderr);
    let found = run.json();
    assert_eq!(found["schema"], "magic-verify/1");
    assert_eq!(found["passed"], true);
    found
}

/// What it says of one that is damaged: `phrase` is in the output for people, and the document has what is wrong.
#[track_caller]
fn bad(sandbox: &Sandbox, args: &[&str], phrase: &str) -> Value {
    let run = verify(sandbox, args);
    assert_eq!(run.code, Some(1), "{phrase}: {}\n{}", run.stdout, run.stderr);
    assert!(run.stdout.contains(phrase), "{phrase}: {}\n{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("is not what its receipt says"), "{}", run.stderr);
    let found = verify(sandbox, &[&["--json"], args].concat());
    assert_eq!(found.code, Some(1));
    assert_eq!(found.json()["passed"], false);
    found.json()
}

/// Lists of what is wrong, by the numbers of their lines.
fn wrong(found: &Value) -> [usize; 4] {
    let len = |value: &Value| value.as_array().expect("a list").len();
    [
        len(&found["files"]["wrong"]),
        len(&found["inputs"]["wrong"]),
        len(&found["receipt"]),
        len(&found["tensors"]["differences"]),
    ]
}

fn change(sandbox: &Sandbox, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = sandbox.read(file);
    change(&mut bytes);
    fs::write(sandbox.path(file), bytes).expect("a file can be written");
}

/// Edits the receipt as someone does who knows of its own hash.
fn edit(sandbox: &Sandbox, change: impl FnOnce(&mut Value)) {
    let mut receipt: Value = serde_json::from_slice(&sandbox.read("out/magic.json")).expect("a receipt");
    change(&mut receipt);
    receipt["sha256"] = json!("");
    receipt["sha256"] = json!(magic_merge::checkpoint::sha256(receipt.to_string()));
    fs::write(sandbox.path("out/magic.json"), receipt.to_string()).expect("a file can be written");
    // The page follows; what no page can be made of is refused there too.
    sandbox.run(&["report", "out"]);
}

/// Takes the hashes of weights out of the receipt, as if the files were too large for any.
fn forget_hashes(receipt: &mut Value) {
    let weights = |file: &&mut Value| file["file"].as_str().expect("a name").ends_with(".safetensors");
    for file in receipt["files"].as_array_mut().expect("files").iter_mut().filter(weights) {
        file["sha256"] = Value::Null;
    }
}

/// Flips the lowest bit of the first byte of a tensor of `file`; returns its name.
fn flip(sandbox: &Sandbox, file: &str) -> String {
    let mut bytes = sandbox.read(file);
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    let mut tensors = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    let (name, info) = tensors.next().expect("a shard has a tensor");
    bytes[end + info["data_offsets"][0].as_u64().unwrap() as usize] ^= 1;
    fs::write(sandbox.path(file), bytes).unwrap();
    name.clone()
}

#[test]
fn merges_are_verified_on_the_device_that_made_them_and_on_the_other() {
    let methods = ["linear", "ties", "dare_ties", "sce", "model_stock", "karcher", "tsv_m", "iso_c"];
    for (number, method) in methods.into_iter().enumerate() {
        let space = ["none", "wsc"][number % 2];
        let shard = ["5GB", "800B"][number / 2 % 2];
        let dtype = ["float32", "bfloat16", "float16"][number % 3];
        let sandbox = Sandbox::new();
        for made in devices() {
            let args = ["--method", method, "--calibrate", space, "--shard-size", shard, "--dtype", dtype];
            merge(&sandbox, made, &[&args[..], &["--overwrite"]].concat());
            let before = sandbox.listing();
            for on in devices() {
                let place = format!("{method} {space} {shard} {dtype}, made on {made}, verified on {on}");
                let found = good(&sandbox, &["--all", "--device", on]);
                assert_eq!(found["tensors"]["recomputed"], NETWORK.len(), "{place}");
                assert_eq!(found["tensors"]["exact"], made == on, "{place}");
                assert_eq!(found["notes"].as_array().unwrap().len(), usize::from(made != on), "{place}");
            }
            // Without a device, on that of the merge.
            assert_eq!(good(&sandbox, &[])["tensors"]["exact"], true, "{method} on {made}");
            assert_eq!(sandbox.listing(), before, "{method}: verifying writes nothing");
        }
    }
}

#[test]
fn merges_with_memory_and_threads_of_their_own_are_the_same() {
    let sandbox = sharded();
    for more in [["--threads", "1"], ["--memory", "64MB"]] {
        good(&sandbox, &[&more[..], &["--all"]].concat());
    }
}

#[test]
fn what_is_recorded_is_what_is_there() {
    let sandbox = sharded();
    let found = good(&sandbox, &[]);
    // Three shards, the index, configuration, card and recipe; the receipt itself is not one.
    assert_eq!((&found["files"]["count"], &found["files"]["hashed"]), (&json!(7), &json!(7)));
    assert_eq!((&found["inputs"]["count"], &found["inputs"]["hashed"]), (&json!(3), &json!(3)));
    let receipt: Value = serde_json::from_slice(&sandbox.read("out/magic.json")).unwrap();
    for file in receipt["files"].as_array().unwrap() {
        let bytes = sandbox.read(&format!("out/{}", file["file"].as_str().unwrap()));
        assert_eq!(file["bytes"], bytes.len());
        assert_eq!(file["sha256"], magic_merge::checkpoint::sha256(bytes));
    }
    for input in receipt["inputs"].as_array().unwrap() {
        let file = &input["files"][0];
        let bytes = fs::read(file["path"].as_str().unwrap()).unwrap();
        assert!(Path::new(file["path"].as_str().unwrap()).is_absolute());
        assert_eq!(file["sha256"], magic_merge::checkpoint::sha256(bytes));
    }
    assert_eq!(receipt["wgsl_sha256"], Value::Null);
    let text = verify(&sandbox, &[]).good().stdout;
    for phrase in ["7 of 7 as recorded", "3 of 3 as recorded", "5 of 5 computed again on CPU", "verified: out"] {
        assert!(text.contains(phrase), "{phrase}: {text}");
    }
    if common::gpu().is_some() {
        merge(&sandbox, "gpu", &["--method", "linear", "--overwrite"]);
        let receipt: Value = serde_json::from_slice(&sandbox.read("out/magic.json")).unwrap();
        assert_eq!(receipt["wgsl_sha256"], magic_merge::kernels::wgsl_sha256());
        // Shaders that are others may round in another way.
        edit(&sandbox, |receipt| receipt["fingerprint"]["kernels"] = json!("those of another version"));
        assert_eq!(good(&sandbox, &[])["tensors"]["exact"], false);
    }
}

#[test]
fn what_was_computed_by_a_detour_is_not_said_to_be_the_same_bit_for_bit() {
    if common::gpu().is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    let args = ["--base", "base", "--model", "a", "--model", "b", "--out", "out", "--exclude", "classifier.*"];
    let merge = ["merge", "--device", "gpu", "--method", "linear", "--threads", "1"];
    let mut command = sandbox.command(&[&merge[..], &args].concat());
    command.env("MAGIC_TEST_GPU_FAULT", "memory:1");
    Run::from(command.output().expect("the program starts")).good();
    let found = good(&sandbox, &["--all"]);
    let tensors = &found["tensors"];
    let counts = ["recomputed", "bit_for_bit", "within_tolerance"].map(|key| tensors[key].as_u64().expect("a count"));
    assert_eq!((counts, &tensors["exact"]), ([5, 4, 1], &json!(false)), "{found}");
    assert!(found["notes"][0].as_str().unwrap().contains("within 1e-5"), "{found}");
    let text = verify(&sandbox, &["--all"]).good().stdout;
    assert!(text.contains("the same (4 compared bit for bit, 1 within tolerance)"), "{text}");
    // Where another device computes, what was copied is still compared bit for bit.
    let found = good(&sandbox, &["--all", "--device", "cpu"]);
    assert_eq!((&found["tensors"]["bit_for_bit"], &found["tensors"]["within_tolerance"]), (&json!(1), &json!(4)));
}

#[test]
fn a_sample_is_a_part_and_all_is_all() {
    let sandbox = Sandbox::empty();
    let names: Vec<String> = (0..60).map(|i| format!("layers.{i}.weight")).collect();
    for (seed, model) in ["base", "a", "b"].into_iter().enumerate() {
        let tensors: Vec<_> = names.iter().map(|name| (name.as_str(), &[16, 16][..], seed as u32)).collect();
        sandbox.model(model, "model.safetensors", &tensors);
    }
    merge(&sandbox, "cpu", &["--method", "linear"]);
    let found = good(&sandbox, &[]);
    assert_eq!((&found["tensors"]["recomputed"], &found["tensors"]["count"]), (&json!(6), &json!(60)));
    assert_eq!(found["tensors"]["recomputed_bytes"], 6 * 1024);
    assert_eq!(good(&sandbox, &["--all"])["tensors"]["recomputed"], 60);
}

/// A merge in feature space of recorded models, in `out`.
fn featured(sandbox: &Sandbox, space: &str, device: &str) {
    let path = |name: &str| golden(&format!("fsc/llama/{name}")).to_str().expect("UTF-8").to_owned();
    let (base, experts) = (path("base"), [0, 1, 2].map(|k| path(&format!("expert{k}"))));
    let data = path("task0.safetensors");
    let mut args = vec!["merge", "--method", "linear", "--out", "out", "--overwrite", "--base", &base, "--data", &data];
    experts.iter().for_each(|expert| args.extend(["--model", expert]));
    sandbox.run(&[&args[..], &["--calibrate", space, "--device", device]].concat()).good();
}

#[test]
fn feature_space_is_measured_again() {
    let sandbox = Sandbox::empty();
    for space in ["fsc", "dsc", "auto"] {
        featured(&sandbox, space, "cpu");
        let found = good(&sandbox, &[]);
        assert_eq!(found["tensors"]["recomputed"], found["tensors"]["count"], "{space}");
        assert_eq!(found["tensors"]["exact"], true);
        for device in devices() {
            good(&sandbox, &["--device", device]);
        }
    }
    featured(&sandbox, "fsc", "cpu");
    let name = flip(&sandbox, "out/model.safetensors");
    edit(&sandbox, forget_hashes);
    let found = bad(&sandbox, &[], &name);
    assert_eq!(wrong(&found), [0, 0, 0, 1]);
}

#[test]
fn a_calibration_is_verified_too() {
    let sandbox = Sandbox::new();
    sandbox.network("merged", 3);
    let models = ["calibrate", "--base", "base", "--model", "a", "--model", "b", "--merged", "merged", "--out", "out"];
    sandbox.run(&[&models[..], &["--calibrate", "wsc", "--device", "cpu"]].concat()).good();
    assert_eq!(good(&sandbox, &["--all"])["tensors"]["recomputed"], NETWORK.len());
    let name = flip(&sandbox, "out/model.safetensors");
    edit(&sandbox, forget_hashes);
    bad(&sandbox, &["--all"], &format!("`{name}` differs in 1 element: element 0 is "));
}

#[test]
fn adapters_are_inputs_with_what_they_stand_on() {
    let path = |name: &str| golden(&format!("adapters/{name}")).to_str().expect("UTF-8").to_owned();
    let sandbox = Sandbox::empty();
    let (base, plain) = (path("llama"), path("plain/adapter"));
    fs::create_dir(sandbox.path("copy")).unwrap();
    fs::copy(Path::new(&base).join("model.safetensors"), sandbox.path("copy/model.safetensors")).unwrap();
    let on_copy = format!("copy+{plain}");
    let args = ["merge", "--device", "cpu", "--method", "linear", "--base", &base, "--out", "out"];
    sandbox.run(&[&args[..], &["--model", &plain, "--model", &on_copy]].concat()).good();
    // The base, the adapter twice, and the copy of the base that it stands on.
    let found = good(&sandbox, &["--all"]);
    assert_eq!(found["inputs"]["count"], 4);
    fs::remove_file(sandbox.path("copy/model.safetensors")).unwrap();
    bad(&sandbox, &[], "copy/model.safetensors` is missing");
}

#[test]
fn of_an_adapter_files_are_compared() {
    let sandbox = Sandbox::new();
    merge(&sandbox, "cpu", &["--method", "linear", "--lora-out", "4", "--exclude", "*norm*"]);
    let found = good(&sandbox, &["--all"]);
    assert_eq!(found["tensors"]["recomputed"], 0);
    assert!(found["notes"][0].as_str().unwrap().contains("adapter"));
    flip(&sandbox, "out/adapter_model.safetensors");
    bad(&sandbox, &[], "`adapter_model.safetensors` has the SHA-256 ");
}

#[test]
fn a_flipped_bit_is_found_in_every_byte_of_a_shard() {
    let sandbox = sharded();
    let whole = sandbox.read(SHARD);
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for at in [0, 7, 8, 20, header - 1, header, whole.len() - 1] {
        change(&sandbox, SHARD, |bytes| bytes[at] ^= 1);
        let found = bad(&sandbox, &[], "`model-00002-of-00003.safetensors` has the SHA-256 ");
        assert!(at >= header || found["tensors"]["recomputed"] == 0 || wrong(&found)[2] > 0, "byte {at}: {found}");
        fs::write(sandbox.path(SHARD), &whole).unwrap();
    }
    good(&sandbox, &[]);
    // Without any hash, the header is compared with that of the layout, and data with what it should be.
    edit(&sandbox, forget_hashes);
    good(&sandbox, &["--all"]);
    for at in (0..whole.len()).step_by(37) {
        change(&sandbox, SHARD, |bytes| bytes[at] ^= 0x10);
        let run = verify(&sandbox, &["--all", "--json"]);
        assert_eq!(run.code, Some(1), "byte {at} of {header} + {}: {}", whole.len() - header, run.stdout);
        if at >= header {
            assert_eq!(wrong(&run.json()), [0, 0, 0, 1], "byte {at}");
        }
        fs::write(sandbox.path(SHARD), &whole).unwrap();
    }
    let name = flip(&sandbox, SHARD);
    let found = bad(&sandbox, &["--all"], &format!("`{name}` differs in 1 element: element 0 is "));
    let difference = &found["tensors"]["differences"][0];
    assert_eq!(
        (&difference["tensor"], &difference["different"], &difference["index"]),
        (&json!(name), &json!(1), &json!(0))
    );
    let [here, should] = ["found", "expected"].map(|side| difference[side]["bits"].as_u64().unwrap());
    assert_eq!(here ^ 1, should);
}

#[test]
fn other_devices_find_what_is_more_than_rounding() {
    if common::gpu().is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    merge(&sandbox, "cpu", &["--method", "linear"]);
    edit(&sandbox, forget_hashes);
    // The lowest bit is rounding, that of the exponent is not.
    let name = flip(&sandbox, "out/model.safetensors");
    good(&sandbox, &["--all", "--device", "gpu"]);
    bad(&sandbox, &["--all", "--device", "cpu"], &format!("`{name}` differs"));
    change(&sandbox, "out/model.safetensors", |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    let found = bad(&sandbox, &["--all", "--device", "gpu"], "1 tensor not the same within tolerance");
    assert_eq!(wrong(&found), [0, 0, 0, 1]);
}

#[test]
fn damaged_files_are_named() {
    type Damage = fn(&Sandbox);
    let cases: [(&str, Damage); 8] = [
        ("`model.safetensors.index.json` has the SHA-256 ", |s| change(s, INDEX, |b| b[30] ^= 1)),
        ("`model.safetensors.index.json` is missing", |s| fs::remove_file(s.path(INDEX)).unwrap()),
        ("`model-00002-of-00003.safetensors` has ", |s| change(s, SHARD, |bytes| bytes.truncate(bytes.len() - 4))),
        ("`model-00002-of-00003.safetensors` is missing", |s| fs::remove_file(s.path(SHARD)).unwrap()),
        ("`recipe.yml` is not the recipe in `magic.json`", |s| change(s, "out/recipe.yml", |bytes| bytes[14] ^= 1)),
        ("`config.json` has the SHA-256 ", |s| change(s, "out/config.json", |bytes| bytes[3] ^= 1)),
        ("`report.html` is not what follows from `magic.json`", |s| {
            change(s, "out/report.html", |bytes| *bytes.last_mut().unwrap() = b' ')
        }),
        ("`model.safetensors` holds the model, and the receipt does not list it", |s| {
            fs::copy(s.path("base/model.safetensors"), s.path("out/model.safetensors")).map(drop).unwrap();
        }),
    ];
    let sandbox = sharded();
    let fresh = sandbox.path("fresh");
    fs::rename(sandbox.path("out"), &fresh).unwrap();
    for (phrase, damage) in cases {
        fs::create_dir(sandbox.path("out")).unwrap();
        for entry in fs::read_dir(&fresh).unwrap().flatten() {
            fs::copy(entry.path(), sandbox.path("out").join(entry.file_name())).unwrap();
        }
        good(&sandbox, &[]);
        damage(&sandbox);
        bad(&sandbox, &["--all"], phrase);
        fs::remove_dir_all(sandbox.path("out")).unwrap();
    }
}

#[test]
fn inputs_that_are_missing_or_others_are_named() {
    let sandbox = sharded();
    let whole = sandbox.read("a/model.safetensors");
    change(&sandbox, "a/model.safetensors", |bytes| *bytes.last_mut().unwrap() ^= 1);
    let path = sandbox.path("a/model.safetensors").display().to_string();
    let found = bad(&sandbox, &[], &format!("`{path}` has the SHA-256 "));
    assert_eq!((wrong(&found), &found["tensors"]["recomputed"]), ([0, 1, 0, 0], &json!(0)));
    fs::remove_file(sandbox.path("a/model.safetensors")).unwrap();
    fs::remove_file(sandbox.path("base/model.safetensors")).unwrap();
    let found = bad(&sandbox, &[], &format!("`{path}` is missing"));
    assert_eq!(wrong(&found), [0, 2, 0, 0]);
    assert_eq!(found["files"]["hashed"], 7);
    assert!(found["notes"][0].as_str().unwrap().contains("no tensor was computed again"));
    fs::write(sandbox.path("a/model.safetensors"), &whole).unwrap();
    sandbox.network("base", 0);
    good(&sandbox, &[]);
    // An input of which no hash was taken: its tensors tell.
    edit(&sandbox, |receipt| receipt["inputs"][1]["files"][0]["sha256"] = Value::Null);
    change(&sandbox, "a/model.safetensors", |bytes| *bytes.last_mut().unwrap() ^= 1);
    let found = verify(&sandbox, &["--all", "--json"]);
    assert_eq!((found.code, wrong(&found.json())[3]), (Some(1), 1), "{}", found.stdout);
    // What lies beside the weights was an input too.
    fs::write(sandbox.path("a/model.safetensors"), &whole).unwrap();
    sandbox.write("base/config.json", r#"{"model_type": "bert"}"#);
    bad(&sandbox, &["--all"], "the merge was made from something else: its config.json differs");
}

#[test]
fn samples_are_inputs() {
    let sandbox = Sandbox::empty();
    for model in ["base", "expert0", "expert1"] {
        fs::create_dir_all(sandbox.path(model)).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(golden(&format!("fsc/llama/{model}/{file}")), sandbox.path(model).join(file)).unwrap();
        }
    }
    fs::copy(golden("fsc/llama/task0.safetensors"), sandbox.path("data.safetensors")).unwrap();
    let args =
        ["--device", "cpu", "--method", "linear", "--calibrate", "fsc", "--data", "data.safetensors", "--out", "out"];
    let models = ["merge", "--base", "base", "--model", "expert0", "--model", "expert1"];
    sandbox.run(&[&models[..], &args].concat()).good();
    good(&sandbox, &[]);
    fs::copy(golden("fsc/llama/task1.safetensors"), sandbox.path("data.safetensors")).unwrap();
    bad(&sandbox, &[], "the merge was made from something else: its samples differs");
    fs::remove_file(sandbox.path("data.safetensors")).unwrap();
    bad(&sandbox, &[], "nothing can be computed from the inputs: ");
}

/// Takes file `name` out of the files of a receipt.
fn remove(receipt: &mut Value, name: &str) {
    receipt["files"].as_array_mut().expect("files").retain(|file| file["file"] != name);
}

#[test]
fn an_edit_of_whatever_else_the_receipt_says_shows_in_its_own_hash() {
    type Edit = fn(&mut Value);
    let edits: [Edit; 6] = [
        |r| r["warnings"] = json!(["all is well"]),
        |r| r["inputs"][1]["model"] = json!("another"),
        |r| r["another"] = json!(1),
        |r| r["seconds"] = json!(1.0),
        |r| drop(r.as_object_mut().unwrap().remove("sha256")),
        |r| r["sha256"] = json!(""),
    ];
    let sandbox = sharded();
    let fresh = String::from_utf8(sandbox.read("out/magic.json")).unwrap();
    let receipt: Value = serde_json::from_str(&fresh).unwrap();
    // As anyone can see without this program.
    let seal = receipt["sha256"].as_str().unwrap();
    assert_eq!(magic_merge::checkpoint::sha256(fresh.replace(seal, "")), seal);
    assert!(!sandbox.run(&["report", "out"]).good().stderr.contains("warning"));
    for (number, change) in edits.into_iter().enumerate() {
        let mut receipt = receipt.clone();
        change(&mut receipt);
        fs::write(sandbox.path("out/magic.json"), serde_json::to_vec_pretty(&receipt).unwrap()).unwrap();
        let run = sandbox.run(&["report", "out"]).good();
        assert!(run.stderr.contains("warning: `magic.json`: its ") || number > 3, "{number}: {}", run.stderr);
        assert!(run.stderr.contains("it was edited"), "{number}: {}", run.stderr);
        let found = bad(&sandbox, &[], "it was edited");
        assert_eq!(wrong(&found), [0, 0, 1, 0], "{number}: {found}");
    }
}

#[test]
fn files_that_are_not_of_the_merge_are_named() {
    let sandbox = Sandbox::new();
    merge(&sandbox, "cpu", &["--method", "linear"]);
    assert_eq!(good(&sandbox, &[])["notes"], json!([]));
    for name in ["tokenizer.json", "modeling.py", "pytorch_model.bin", "consolidated.safetensors"] {
        sandbox.write(&format!("out/{name}"), "{}");
    }
    let found = good(&sandbox, &[]);
    let note = found["notes"][0].as_str().unwrap();
    for phrase in
        ["`tokenizer.json`", "`modeling.py`", "`pytorch_model.bin`", "`consolidated.safetensors`", "not of this"]
    {
        assert!(note.contains(phrase), "{phrase}: {note}");
    }
    sandbox.write(INDEX, r#"{"weight_map": {}}"#);
    let found = bad(&sandbox, &[], "`model.safetensors.index.json` is not of this merge");
    assert_eq!(wrong(&found), [1, 0, 0, 0]);
}

#[test]
fn an_edited_receipt_is_found() {
    type Edit = fn(&mut Value);
    fn tensor(receipt: &mut Value) -> &mut Value {
        &mut receipt["tensors"][1]
    }
    let cases: [(&str, Edit); 31] = [
        ("a count of NaN, infinite or too large numbers of", |r| tensor(r)["nan"] = json!(3)),
        ("a count of NaN, infinite or too large numbers of", |r| tensor(r)["infinite"] = json!(3)),
        ("a count of NaN, infinite or too large numbers of", |r| tensor(r)["overflow"] = json!(3)),
        ("the count of rows without a length of", |r| tensor(r)["degenerate_rows"] = json!(1)),
        ("the action of", |r| tensor(r)["action"] = json!("copied: excluded")),
        ("ξ of", |r| {
            let xi = &mut tensor(r)["xi"]["max"];
            *xi = json!(1.01 * xi.as_f64().unwrap());
        }),
        ("ξ of", |r| drop(tensor(r).as_object_mut().unwrap().remove("xi"))),
        ("its `device` is not that of its `fingerprint`", |r| r["device"] = json!("Another GPU (Vulkan)")),
        ("its `version` is not that of its `fingerprint`", |r| r["version"] = json!("0.0.1")),
        ("its `device` is not that of its `fingerprint`", |r| r["fingerprint"]["device"] = json!("X (Metal) on arm64")),
        ("its `bytes` are not those of its tensors", |r| r["bytes"]["written"] = json!(1)),
        ("its `ignored` are not the tensors that took no part", |r| r["ignored"] = json!(["another"])),
        ("`config.json`, and the receipt does not list it", |r| remove(r, "config.json")),
        ("a merge writes `README.md`, and the receipt does not list it", |r| remove(r, "README.md")),
        ("the receipt has no SHA-256 of `recipe.yml`", |r| r["files"][6]["sha256"] = Value::Null),
        ("`model-00001-of-00003.safetensors` has the SHA-256 ", |r| r["files"][0]["sha256"] = json!("0".repeat(64))),
        ("`model-00001-of-00003.safetensors` has ", |r| r["files"][0]["bytes"] = json!(1)),
        ("is in the output, and the receipt does not have it", |r| {
            drop(r["tensors"].as_array_mut().unwrap().remove(1))
        }),
        ("is in the receipt, and not in the output", |r| r["tensors"][0]["name"] = json!("another\u{1b}[2J")),
        ("elements, and 5 were recorded", |r| r["tensors"][0]["elements"] = json!(5)),
        ("a norm of the task vectors of", |r| r["tensors"][0]["experts"][1] = json!(0.5)),
        ("a cosine with the merge of", |r| r["tensors"][0]["cosines"][1] = json!(0.25)),
        ("a cosine between experts of", |r| r["tensors"][0]["between"]["cosines"][0] = json!(0.25)),
        ("a cosine between experts of", |r| r["tensors"][0]["between"]["elements"] = json!(1)),
        ("a cosine between experts of", |r| drop(tensor(r).as_object_mut().unwrap().remove("between"))),
        ("was recorded", |r| r["tensors"][0]["shape"] = json!([1, 2])),
        ("holds the model, and the receipt does not list it", |r| drop(r["files"].as_array_mut().unwrap().remove(1))),
        ("lists a file `../base/config.json` that is a path", |r| r["files"][4]["file"] = json!("../base/config.json")),
        ("its `seed` is not 0, as in its recipe", |r| r["seed"] = json!(1)),
        ("the receipt does not list it", |r| drop(r["inputs"].as_array_mut().unwrap().remove(2))),
        ("the headers of its files are not those", |r| r["fingerprint"]["layout"] = json!("3 files, 0")),
    ];
    let sandbox = sharded();
    let fresh = sandbox.read("out/magic.json");
    for (phrase, change) in cases {
        edit(&sandbox, change);
        let found = bad(&sandbox, &["--all"], phrase);
        assert!(!verify(&sandbox, &[]).stdout.contains('\u{1b}'), "{found}");
        fs::write(sandbox.path("out/magic.json"), &fresh).unwrap();
    }
    // Another recipe, with its file and its hash: it makes other task vectors, and calibration the same of most.
    edit(&sandbox, |receipt| {
        let recipe = receipt["fingerprint"]["recipe"].as_str().unwrap().replace("ties", "task_arithmetic");
        receipt["method"] = json!("task_arithmetic");
        receipt["files"][6]["bytes"] = json!(recipe.len());
        receipt["files"][6]["sha256"] = json!(magic_merge::checkpoint::sha256(&recipe));
        assert_eq!(receipt["files"][6]["file"], "recipe.yml");
        sandbox.write("out/recipe.yml", &recipe);
        receipt["fingerprint"]["recipe"] = json!(recipe);
    });
    let found = bad(&sandbox, &["--all"], "not the same bit for bit");
    assert!(wrong(&found)[2] == 5 && wrong(&found)[3] == 1, "{found}");
}

#[test]
fn what_is_no_finished_merge_is_refused() {
    let sandbox = Sandbox::new();
    let refused = |dir: &str, code: i32, phrases: &[&str]| {
        let run = sandbox.run(&["verify", dir]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{dir}: {}", run.stderr);
        for phrase in phrases {
            assert!(run.stderr.contains(phrase), "{dir}: {phrase}: {}", run.stderr);
        }
    };
    refused("nothing", 2, &["`nothing` does not exist"]);
    refused("base", 1, &["holds no finished merge: there is no `magic.json`"]);
    // One that was killed is not finished, unless it is all there.
    let (mut unfinished, mut whole) = (0, 0);
    for at in 8.. {
        let _ = fs::remove_dir_all(sandbox.path("out"));
        let args = ["--threads", "1", "--method", "linear", "--out", "out", "--shard-size", "800B"];
        let merge = ["merge", "--device", "cpu", "--base", "base", "--model", "a", "--model", "b"];
        let mut command = sandbox.command(&[&merge[..], &args].concat());
        command.env("MAGIC_TEST_COMMIT", "at-once").env("MAGIC_TEST_FAULT", format!("kill@{at}"));
        if command.output().unwrap().status.success() {
            break;
        }
        if verify(&sandbox, &[]).code == Some(0) {
            whole += 1;
        } else {
            refused("out", 1, &["is not finished", "`--resume`"]);
            unfinished += 1;
        }
    }
    assert!(unfinished > 30 && whole < 4, "{unfinished}, {whole}");
    fs::remove_dir_all(sandbox.path("out")).unwrap();
    merge(&sandbox, "cpu", &["--method", "linear"]);
    sandbox.write("out/magic.json", "{\"schema\": ");
    refused("out", 1, &["magic.json` is damaged"]);
    sandbox.write("out/magic.json", r#"{"schema": "magic-merge/1"}"#);
    refused("out", 1, &["is no receipt of a merge: missing field"]);
    let run = sandbox.run(&["verify", "out", "--device", "no such device"]);
    assert_eq!(run.code, Some(1));
}
