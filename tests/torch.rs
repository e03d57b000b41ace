//! PyTorch files: read as the safetensors files of the same tensors are, and never run.

#[path = "common/alloc.rs"]
mod alloc;
#[path = "torch/archive.rs"]
mod archive;
#[path = "common/cli.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod cli;
#[path = "torch/hostile.rs"]
mod hostile;
#[path = "torch/pickle.rs"]
mod pickle;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use archive::{Archive, Kind};
use cli::Sandbox;
use magic_merge::checkpoint::{Checkpoint, pickled_names};
use pickle::{call, global, int, module, named, none, over, storage, tensor};
use safetensors::SafeTensors;
use tempfile::tempdir;

/// Memory is counted for the whole process, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch").join(name)
}

fn open(path: &Path) -> magic_merge::Result<Checkpoint> {
    Checkpoint::open(path.to_str().expect("a path of text"), &[])
}

/// All that a model says of its tensors, and their bytes, read in pieces.
fn contents(model: &Checkpoint) -> Vec<(String, String, Vec<u64>, Vec<u8>)> {
    let content = |(number, tensor): (usize, &magic_merge::checkpoint::TensorInfo)| {
        let mut bytes = vec![0; tensor.bytes as usize];
        for (place, piece) in bytes.chunks_mut(7).enumerate() {
            model.read_at(number, 7 * place as u64, piece).expect("bytes of a tensor");
        }
        (tensor.name.clone(), tensor.dtype.header_name().to_owned(), tensor.shape.clone(), bytes)
    };
    model.tensors().iter().enumerate().map(content).collect()
}

/// Files of PyTorch itself, in every form, and the tensors that it had.
#[test]
fn recorded_files_hold_what_their_twins_hold() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = 0;
    for entry in fs::read_dir(golden("")).expect("recorded files") {
        let twin = entry.expect("a file").path();
        if twin.extension().is_none_or(|end| end != "safetensors") {
            continue;
        }
        let folder = twin.with_extension("");
        let path = if folder.is_dir() { folder } else { twin.with_extension("pt") };
        let (mut ours, mut theirs) = (contents(&open(&path).unwrap()), contents(&open(&twin).unwrap()));
        if path.is_dir() {
            // Of several files, one comes after the other.
            ours.sort();
            theirs.sort();
        }
        assert_eq!(ours, theirs, "{}", path.display());
        found += 1;
    }
    assert_eq!(found, 14);
    let sizes: Vec<u64> = open(&golden("module.pt")).unwrap().sizes().map(|(_, bytes)| bytes).collect();
    assert_eq!(sizes, [fs::metadata(golden("module.pt")).unwrap().len()]);
    assert_eq!(open(&golden("module.pt")).unwrap().digests().unwrap()[0].bytes, sizes[0]);
}

#[test]
fn recorded_files_that_cannot_be_read_say_what_to_do() {
    for (name, what, hint) in [
        ("old.pt", "has no safetensors header", "before version 1.6: load it and save it again"),
        ("script.pt", "is compressed", "if it is a TorchScript program, load it and save its `state_dict()`"),
        ("transposed.pt", "tensor `a` is not contiguous: its shape is [4, 3]", "after `.contiguous()`"),
        ("sparse.pt", "tensor `a` is an object of `torch._utils._rebuild_sparse_tensor`, not a tensor", "save"),
    ] {
        let error = open(&golden(name)).expect_err(name);
        assert!(error.to_string().contains(name) && error.to_string().contains(what), "{error}");
        assert!(error.hints().iter().any(|text| text.contains(hint)), "{:?}", error.hints());
    }
}

/// `pickle` with storages of which each is filled with its own values, as `torch.save` writes them.
fn file(kind: Kind, pickle: &[u8], storages: &[(&str, usize)]) -> Archive {
    let byte = |i: usize| (1..=255).cycle().skip(i * 7).take(storages[i].1).collect::<Vec<u8>>();
    let data: Vec<_> = storages.iter().enumerate().map(|(i, (key, _))| (format!("m/data/{key}"), byte(i))).collect();
    let mut members = vec![("m/data.pkl", pickle), ("m/byteorder", b"little".as_slice())];
    members.extend(data.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    members.push(("m/version", b"3\n"));
    Archive::new(kind, &members)
}

#[test]
fn what_is_unusual_and_right() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.bin");
    let read = |kind, code: &[u8]| {
        fs::write(&path, file(kind, &pickle::pickle(code), &[("0", 24), ("1", 0)]).bytes).unwrap();
        let model = open(&path).unwrap_or_else(|e| panic!("{e}"));
        contents(&model).into_iter().map(|(name, _, shape, bytes)| (name, shape, bytes)).collect::<Vec<_>>()
    };
    let floats = || tensor("FloatStorage", "0", &[2, 3]);
    let bytes: Vec<u8> = (1..=24).collect();
    let whole = |name: &str| (name.to_owned(), vec![2, 3], bytes.clone());
    let a = named(&[("a", floats())]);
    for kind in [Kind::Torch, Kind::Plain, Kind::Wide] {
        assert_eq!(read(kind, &a), [whole("a")]);
    }
    let view = |offset, size: &[i64], stride: &[i64]| over(storage("FloatStorage", "0", 6), offset, size, stride);
    let part =
        |name: &str, shape: &[u64], from: usize, to: usize| (name.to_owned(), shape.to_vec(), bytes[from..to].to_vec());
    let views = named(&[
        ("scalar", view(5, &[], &[])),
        ("row", view(3, &[3], &[1])),
        ("ones", view(1, &[1, 2, 1], &[77, 1, -5 + 5])),
        ("none", view(6, &[0, 3], &[9, 9])),
    ]);
    let expected = [
        part("none", &[0, 3], 0, 0),
        part("ones", &[1, 2, 1], 4, 12),
        part("row", &[3], 12, 24),
        part("scalar", &[], 20, 24),
    ];
    assert_eq!(read(Kind::Torch, &views), expected);
    // One value under two names, and a value that is found by number.
    let shared = [b"}(".to_vec(), pickle::text("b"), floats(), b"q\0".to_vec(), pickle::text("a"), b"h\0u".to_vec()];
    assert_eq!(read(Kind::Torch, &shared.concat()), [whole("a"), whole("b")]);
    // What else there is does not matter, not even a call of what runs programs: nothing is called.
    let evil = call(global("os", "system"), &[pickle::text("true")]);
    let (rng, loss) = (tensor("ByteStorage", "0", &[24]), over(storage("FloatStorage", "0", 6), 2, &[], &[]));
    let other = [
        ("optimizer", named(&[("x", floats())])),
        ("args", evil.clone()),
        ("step", int(3)),
        ("rng", rng),
        ("loss", loss),
    ];
    assert_eq!(read(Kind::Torch, &named(&[&[("state_dict", a.clone())], &other[..]].concat())), [whole("a")]);
    let alone =
        named(&[("a", floats()), ("n", int(1)), ("s", pickle::text("x")), ("l", pickle::list(&[int(1), none()]))]);
    assert_eq!(read(Kind::Torch, &alone), [whole("a")]);
    assert_eq!(read(Kind::Torch, &named(&[("model", a.clone()), ("module", none()), ("net", int(1))])), [whole("a")]);
    // Modules: what is below them, what they leave out, what is there twice.
    let weights = [("weight", call(global("torch._utils", "_rebuild_parameter"), &[floats(), none(), none()]))];
    let leaf = module(&weights, &[], &[("hooks", evil)]);
    let buffers = [
        ("_buffers", named(&[("kept", floats()), ("left", floats()), ("none", none())])),
        ("_non_persistent_buffers_set", [b"\x8f(".to_vec(), pickle::text("left"), b"\x90".to_vec()].concat()),
    ];
    let top = module(&[("bias", none())], &[("0", leaf.clone()), ("1", leaf.clone()), ("2", none())], &buffers);
    let names = ["0.weight", "1.weight", "kept"].map(whole);
    assert_eq!(read(Kind::Torch, &top), names);
    assert_eq!(read(Kind::Torch, &pickle::object(global("x", "Trainer"), named(&[("model", top)]))), names);
}

#[test]
fn files_that_could_do_harm_are_refused() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.pt");
    let cases = hostile::cases();
    assert!(cases.len() >= 300, "{}", cases.len());
    let mut wrong = Vec::new();
    for hostile::Case { what, bytes, says } in cases {
        fs::write(&path, &bytes).unwrap();
        drop(bytes);
        let before = alloc::reset();
        let opened = open(&path);
        let most = alloc::peak() - before;
        assert!(most < 160 << 20, "{what}: {most} bytes of memory");
        match opened {
            Ok(model) => {
                wrong.push(format!("{what}: accepted with {} tensors, should say: {says}", model.tensors().len()))
            }
            Err(error) => {
                let said = format!("{error} | {}", error.hints().join(" | "));
                assert!(!said.contains(|c: char| c.is_control()), "{what}: control characters in {said:?}");
                let helpful = !said.contains("PyTorch") || !error.hints().is_empty();
                if !said.contains(&says) || !said.contains("x.pt") || !helpful {
                    wrong.push(format!("{what}: should say: {says}\n    says: {said}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Files with a few bytes changed are read or refused, and nothing else.
#[test]
fn changed_files_do_not_confuse_the_reader() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.pt");
    let (mut read, mut refused) = (0, 0);
    for name in ["floats.pt", "module.pt", "nested.pt", "protocol5.pt", "views.pt"] {
        let good = fs::read(golden(name)).unwrap();
        for _ in 0..300 {
            let mut bytes = good.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            fs::write(&path, &bytes).unwrap();
            match open(&path) {
                Ok(model) => read += contents(&model).len().min(1),
                Err(error) => refused += usize::from(error.to_string().contains("x.pt")),
            }
        }
        let pickle = good.windows(8).position(|at| at.starts_with(b"\x80\x02") || at.starts_with(b"\x80\x05")).unwrap();
        let end = good.windows(4).position(|at| at == b"PK\x07\x08").unwrap();
        let good = &good[pickle..end];
        assert!(!pickled_names(good).unwrap().is_empty());
        for _ in 0..3000 {
            let mut bytes = good.to_vec();
            for _ in 0..=random(8) {
                let (at, to) = (random(bytes.len()), random(bytes.len()));
                bytes[to] = if random(2) == 0 { bytes[at] } else { random(256) as u8 };
            }
            bytes.truncate(bytes.len() - random(2) * random(bytes.len()));
            let _ = pickled_names(&bytes);
        }
    }
    assert_eq!((read > 100, refused > 100, read + refused <= 1500), (true, true, true), "{read} and {refused}");
}

#[test]
fn other_weights_beside_a_model_are_named() {
    let sandbox = Sandbox::empty();
    let floats = |key: &str| tensor("FloatStorage", key, &[2, 3]);
    let weights = |key: &str| named(&[("a.weight", floats(key)), ("b.weight", floats(key))]);
    let below = |key: &str| named(&[("module.a.weight", floats(key)), ("module.b.weight", floats(key))]);
    let layer = |key: &str| module(&[("weight", floats(key))], &[], &[]);
    let whole = |key: &str| module(&[], &[("a", layer(key)), ("b", layer(key))], &[]);
    let moments = named(&[("state", pickle::dict(&[(int(0), named(&[("exp_avg", floats("1"))]))]))]);
    let put = |name: &str, code: &[u8]| {
        let archive = file(Kind::Torch, &pickle::pickle(code), &[("0", 24), ("1", 24)]);
        fs::write(sandbox.path(name), archive.bytes).unwrap();
    };
    put("plain.pt", &weights("0"));
    for (beside, other) in [
        ("ema", weights("1")),
        ("state_dict_ema", below("1")),
        ("averaged", whole("1")),
        ("optimizer", moments),
        ("head", named(&[("head.weight", floats("1"))])),
    ] {
        put("x.pt", &named(&[("epoch", int(3)), ("model", weights("0")), (beside, other)]));
        let run = sandbox.run(&["diff", "plain.pt", "x.pt", "--exit-code"]).good();
        let noted = run.stderr.contains(&format!("warning: `x.pt` has weights of the same names under `{beside}` too"));
        assert_eq!(noted, ["ema", "state_dict_ema", "averaged"].contains(&beside), "{beside}: {}", run.stderr);
        let merge = ["merge", "--device", "cpu", "--method", "linear", "--base", "plain.pt", "--model", "x.pt"];
        let run = sandbox.run(&[&merge[..], &["--out", beside]].concat()).good();
        assert_eq!(run.stderr.matches("weights of the same names").count(), usize::from(noted), "{}", run.stderr);
        let receipt = fs::read_to_string(sandbox.path(&format!("{beside}/magic.json"))).unwrap();
        assert_eq!(receipt.contains("weights of the same names"), noted, "{beside}");
    }
}

#[test]
fn a_damaged_byte_of_a_pickle_is_found_by_its_crc() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.pt");
    for name in ["floats.pt", "module.pt"] {
        let good = fs::read(golden(name)).unwrap();
        let find = |what: &[u8]| good.windows(what.len()).position(|at| at == what).unwrap();
        let (begin, end, central) = (find(b"\x80\x02"), find(b"PK\x07\x08"), find(b"PK\x01\x02"));
        for at in begin..end {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let error = open(&path).expect_err("a damaged pickle").to_string();
            assert!(error.contains("x.pt") && error.contains("member `data.pkl` is damaged"), "byte {at}: {error}");
        }
        // PyTorch can be told to write none.
        let mut bytes = good.clone();
        bytes[central + 16..central + 20].fill(0);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(contents(&open(&path).unwrap()), contents(&open(&golden(name)).unwrap()), "{name}");
    }
}

/// What PyTorch would have written of the safetensors file `from`.
fn converted(from: &Path) -> Vec<u8> {
    let bytes = fs::read(from).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    // In another order than that of safetensors.
    let mut views: Vec<_> = tensors.iter().collect();
    views.sort_by_key(|(name, _)| name.chars().rev().collect::<String>());
    let keys: Vec<String> = (0..views.len()).map(|key| key.to_string()).collect();
    let class = |dtype| if dtype == safetensors::Dtype::F32 { "FloatStorage" } else { "LongStorage" };
    let pairs = views.iter().zip(&keys).map(|((name, view), key)| {
        let size: Vec<i64> = view.shape().iter().map(|dim| *dim as i64).collect();
        (pickle::text(name), tensor(class(view.dtype()), key, &size))
    });
    let pickle = pickle::pickle(&pickle::dict(&pairs.collect::<Vec<_>>()));
    let names: Vec<String> = keys.iter().map(|key| format!("archive/data/{key}")).collect();
    let mut members = vec![("archive/data.pkl", pickle.as_slice())];
    members.extend(views.iter().zip(&names).map(|((_, view), name)| (name.as_str(), view.data())));
    Archive::new(Kind::Torch, &members).bytes
}

#[test]
fn a_merge_of_pytorch_files_is_that_of_safetensors_files() {
    let sandbox = Sandbox::new();
    for name in ["base", "a", "b"] {
        let bytes = converted(&sandbox.path(&format!("{name}/model.safetensors")));
        fs::create_dir(sandbox.path(&format!("t-{name}"))).unwrap();
        fs::write(sandbox.path(&format!("t-{name}/pytorch_model.bin")), &bytes).unwrap();
        fs::write(sandbox.path(&format!("{name}.ckpt")), bytes).unwrap();
        fs::copy(sandbox.path(&format!("{name}/config.json")), sandbox.path(&format!("t-{name}/config.json"))).unwrap();
    }
    let methods: [&[&str]; 3] =
        [&["--method", "linear"], &["--method", "ties", "--calibrate", "wsc"], &["--method", "tsv_m", "--hash"]];
    for (number, method) in methods.into_iter().enumerate() {
        let merge = |models: [&str; 3], out: &str| {
            let [base, a, b] = models;
            let args = ["merge", "--device", "cpu", "--base", base, "--model", a, "--model", b, "--out", out];
            sandbox.run(&[&args, method].concat()).good();
            sandbox.read(&format!("{out}/model.safetensors"))
        };
        let out = |kind: &str| format!("{kind}{number}");
        let expected = merge(["base", "a", "b"], &out("safe"));
        assert_eq!(merge(["t-base", "t-a", "t-b"], &out("torch")), expected, "{method:?}");
        assert_eq!(merge(["base.ckpt", "a.ckpt", "b"], &out("mixed")), expected, "{method:?}");
        let receipt = fs::read_to_string(sandbox.path(&format!("{}/magic.json", out("torch")))).unwrap();
        assert!(receipt.contains("pytorch_model.bin"), "{receipt}");
    }
    let inspected = sandbox.run(&["inspect", "t-base", "--json"]).good().json().to_string();
    assert!(inspected.contains("pytorch_model.bin") && inspected.contains("classifier.weight"), "{inspected}");
}

#[test]
fn folders() {
    let root = tempdir().unwrap();
    let model = |names: &[&str], more: &[u8]| {
        let pairs: Vec<_> = names.iter().map(|name| (*name, tensor("FloatStorage", "0", &[2, 3]))).collect();
        [&file(Kind::Torch, &pickle::pickle(&named(&pairs)), &[("0", 24)]).bytes, more].concat()
    };
    let safe = || fs::read(golden("nested.safetensors")).unwrap();
    let index = |shards: &[(&str, &str)]| {
        let map: std::collections::BTreeMap<_, _> = shards.iter().copied().collect();
        serde_json::json!({"metadata": {}, "weight_map": map}).to_string().into_bytes()
    };
    const SHARDS: [&str; 2] = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
    const INDEX: &str = "pytorch_model.bin.index.json";
    let (a, b) = (model(&["a"], b""), model(&["b"], b""));
    let both = || index(&[("a", SHARDS[0]), ("b", SHARDS[1])]);
    // Each: files, and the names of the tensors, or what the message says.
    type Folder<'a> = (&'a str, Vec<(&'a str, Vec<u8>)>, Result<&'a [&'a str], &'a str>);
    let cases: Vec<Folder<'_>> = vec![
        ("one", vec![("pytorch_model.bin", a.clone()), ("training_args.bin", vec![1])], Ok(&["a"])),
        (
            "safetensors",
            vec![("pytorch_model.bin", a.clone()), ("model.safetensors", safe())],
            Ok(&["0.bias", "0.weight"]),
        ),
        ("another", vec![("pytorch_model.bin", a.clone()), ("unet.safetensors", safe())], Ok(&["0.bias", "0.weight"])),
        ("shards", vec![(SHARDS[0], a.clone()), (SHARDS[1], b.clone()), (INDEX, both())], Ok(&["a", "b"])),
        ("missing", vec![(SHARDS[0], a.clone()), (INDEX, both())], Err("1 of the 2 shards")),
        ("swapped", vec![(SHARDS[0], b.clone()), (SHARDS[1], a.clone()), (INDEX, both())], Err("should be in")),
        ("no index", vec![(SHARDS[0], a.clone()), (SHARDS[1], b.clone())], Err("no index of them")),
        ("path", vec![(INDEX, index(&[("a", "../x.bin")]))], Err("is a path")),
        ("kind", vec![(INDEX, index(&[("a", "x.safetensors")]))], Err("is no `.bin` file")),
        (
            "name it",
            vec![("optimizer.pt", a.clone()), ("x.ckpt", a.clone())],
            Err("name the file, if the model is in `optimizer.pt`, `x.ckpt`"),
        ),
        ("adapter", vec![("adapter_model.bin", a.clone())], Err("but no `adapter_config.json`")),
        (
            "damaged",
            vec![("pytorch_model.bin", model(&["a"], b"x"))],
            Err("pytorch_model.bin` cannot be read as a PyTorch file"),
        ),
        // By what it holds, not by its name.
        ("disguised", vec![("model.safetensors", a.clone())], Ok(&["a"])),
        ("undisguised", vec![("pytorch_model.bin", safe())], Ok(&["0.bias", "0.weight"])),
    ];
    for (name, files, expected) in cases {
        let dir = root.path().join(name);
        fs::create_dir(&dir).unwrap();
        files.iter().for_each(|(file, bytes)| fs::write(dir.join(file), bytes).unwrap());
        match (open(&dir), expected) {
            (Ok(model), Ok(names)) => {
                assert_eq!(model.folder(), Some(&*dir));
                assert!(names.iter().all(|tensor| model.get(tensor).is_some()), "{name}");
            }
            (Err(error), Err(says)) => {
                let said = format!("{error} | {}", error.hints().join(" | "));
                assert!(said.contains(says), "{name}: {said}");
            }
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn adapters() {
    let sandbox = Sandbox::empty();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adapters");
    let base = recorded.join("llama");
    for folder in ["safe", "torch"] {
        fs::create_dir(sandbox.path(folder)).unwrap();
        let config = recorded.join("plain/adapter/adapter_config.json");
        fs::copy(config, sandbox.path(&format!("{folder}/adapter_config.json"))).unwrap();
    }
    let weights = recorded.join("plain/adapter/adapter_model.safetensors");
    fs::copy(&weights, sandbox.path("safe/adapter_model.safetensors")).unwrap();
    fs::write(sandbox.path("torch/adapter_model.bin"), converted(&weights)).unwrap();
    let merge = |model: &str, out: &str| {
        let base = base.to_str().unwrap();
        let args = ["merge", "--device", "cpu", "--method", "task_arithmetic", "--base", base, "--model", model];
        sandbox.run(&[&args, &["--out", out][..]].concat()).good();
        sandbox.read(&format!("{out}/model.safetensors"))
    };
    let expected = merge("safe", "out-safe");
    assert_eq!(merge("torch", "out-torch"), expected);
    assert_eq!(merge("torch/adapter_model.bin", "out-file"), expected);
}
