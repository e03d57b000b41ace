//! Checkpoints: hostile files are refused with a clear message, and what is written is whole or is not there.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use magic_merge::Error;
use magic_merge::checkpoint::{Checkpoint, Dtype, Layout, OutTensor, Writer, side_files, with_dtype};
use safetensors::tensor::{Dtype as StDtype, SafeTensors, TensorView};
use serde_json::json;
use tempfile::{TempDir, tempdir};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn open(path: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::open(&text(path), &[])
}

/// Message and hints, as the user sees them.
fn said(error: &Error) -> String {
    format!("{error} | {}", error.hints().join(" | "))
}

fn refused<T>(result: Result<T, Error>, phrase: &str) {
    let said = said(&result.err().unwrap_or_else(|| panic!("accepted, should say: {phrase}")));
    assert!(said.contains(phrase), "should say: {phrase}\nsays: {said}");
    assert!(!said.contains(|c: char| c.is_control()), "control characters: {said:?}");
}

/// A file of a header and `data` bytes.
fn raw(header: &[u8], data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, &vec![7; data]].concat()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A file of F32 tensors, each of the given length and filled with its number.
fn write_model(path: &Path, tensors: &[(&str, usize)]) {
    let data: Vec<Vec<u8>> =
        tensors.iter().enumerate().map(|(i, (_, n))| (i as f32).to_le_bytes().repeat(*n)).collect();
    let views = tensors.iter().zip(&data);
    let views: HashMap<String, TensorView> = views
        .map(|((name, n), data)| ((*name).to_owned(), TensorView::new(StDtype::F32, vec![*n], data).unwrap()))
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn write_index(dir: &Path, map: serde_json::Value) {
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn out(name: &str, dtype: Dtype, shape: &[u64]) -> OutTensor {
    OutTensor { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

fn floats(count: u64) -> Vec<OutTensor> {
    (0..count).map(|i| out(&format!("layer.{i}.weight"), Dtype::F32, &[2, 3])).collect()
}

/// Writes every byte of every tensor: its number plus one.
fn fill(writer: &Writer) {
    for tensor in 0..writer.layout().tensors().len() {
        let bytes = vec![tensor as u8 + 1; writer.layout().tensor_bytes(tensor) as usize];
        writer.write_at(tensor, 0, &bytes).unwrap();
    }
}

fn merge(dir: &Path, tensors: Vec<OutTensor>, shard: u64, overwrite: bool) -> Result<(), Error> {
    let mut writer = Writer::create(dir, Layout::new(tensors, shard)?, &[], overwrite)?;
    fill(&writer);
    writer.file("config.json", b"{}".to_vec());
    writer.finish()
}

#[test]
fn hostile_headers() {
    let one = |body: &str| format!(r#"{{"a":{body}}}"#);
    let at = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let two = |first: (&str, u8, u8), second: (&str, u8, u8)| {
        let entry = |(name, begin, end): (&str, u8, u8)| {
            format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
        };
        format!("{{{},{}}}", entry(first), entry(second))
    };
    let long = "x".repeat(5000);
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let rank = format!("[{}1]", "1,".repeat(16));
    // Each: header, bytes after it, what the message must say.
    let cases: Vec<(String, usize, &str)> = vec![
        (" {}".into(), 0, "does not begin with `{`"),
        ("\n{}".into(), 0, "does not begin with `{`"),
        ("[]".into(), 0, "does not begin with `{`"),
        ("{} x".into(), 0, "trailing characters"),
        (r#"{"a":"#.into(), 0, "EOF"),
        (r#"{"a" 1}"#.into(), 0, "expected `:`"),
        (one("1"), 0, "tensor `a`: invalid type: integer `1`, expected an object with `dtype`"),
        (one("null"), 0, "tensor `a`: invalid type: null"),
        (one("{}"), 0, "tensor `a`: `dtype` is missing"),
        (one(r#"{"dtype":"U8","shape":[1]}"#), 1, "tensor `a`: `data_offsets` is missing"),
        (one(r#"{"dtype":"U8","data_offsets":[0,1]}"#), 1, "tensor `a`: `shape` is missing"),
        (one(r#"{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}"#), 1, "`dtype` appears twice"),
        (one(r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1],"stride":1}"#), 1, "unknown key `stride`"),
        (one(r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1],"\u001b[2J":1}"#), 1, "unknown key `\\u{1b}[2J`"),
        (at("U8", "[1]", "[0]"), 1, "`data_offsets` are not two numbers"),
        (at("U8", "[1]", "[0,1,2]"), 1, "more than 2 numbers"),
        (at("U8", "[1]", "[-1,1]"), 1, "tensor `a`: invalid value: integer `-1`"),
        (at("U8", "[1]", "[0,1.5]"), 1, "invalid type: floating point `1.5`"),
        (at("U8", "[1]", "[0,99999999999999999999]"), 1, "invalid type: floating point"),
        (at("U8", "[1]", r#"["0","1"]"#), 1, "invalid type: string"),
        (at("U8", "[1]", "[1,0]"), 1, "run backwards"),
        (at("U8", &deep, "[0,1]"), 1, "tensor `a`"),
        (at("U8", &rank, "[0,1]"), 1, "more than 16 numbers"),
        (at("U8", "[-1]", "[0,1]"), 1, "integer `-1`"),
        (at("", "[1]", "[0,1]"), 1, "`` is no type of tensor"),
        (at("U8 ", "[1]", "[0,1]"), 1, "`U8 ` is no type of tensor"),
        (at(&long[..33], "[1]", "[0,1]"), 1, "is no type of tensor"),
        (at("\\u0007", "[1]", "[0,1]"), 1, "`\\u{7}` is no type of tensor"),
        (at("F32", "[2,3]", "[0,20]"), 20, "tensor `a` (F32 [2, 3]) takes 24 bytes, but its `data_offsets` span 20"),
        (at("F32", "[2,3]", "[0,28]"), 28, "takes 24 bytes, but its `data_offsets` span 28"),
        (at("F32", "[]", "[0,0]"), 0, "takes 4 bytes, but its `data_offsets` span 0"),
        (at("F32", "[0]", "[0,4]"), 4, "takes 0 bytes, but its `data_offsets` span 4"),
        (at("F4", "[3]", "[0,1]"), 1, "tensor `a` (F4 [3]) does not fill whole bytes"),
        (at("F32", "[9223372036854775808,4]", "[0,0]"), 0, "more elements than 64 bits"),
        (at("F32", "[9223372036854775808,4,0]", "[0,0]"), 0, "more elements than 64 bits"),
        (at("F32", "[0,4,9223372036854775808]", "[0,0]"), 0, "more elements than 64 bits"),
        (at("F32", "[4611686018427387904]", "[0,0]"), 0, "takes 18446744073709551616 bytes"),
        (at("X9", "[3]", "[0,4]"), 4, "unknown type, and its 4 bytes do not divide"),
        (at("X9", "[3]", "[0,0]"), 0, "unknown type"),
        (at("U8", "[4]", "[0,4]"), 3, "1 bytes are missing, from tensor `a` on"),
        (at("U8", "[1]", "[18446744073709551614,18446744073709551615]"), 1, "is cut off"),
        (at("U8", "[4]", "[0,4]"), 5, "1 bytes after the last tensor"),
        (at("U8", "[4]", "[1,5]"), 5, "1 bytes before tensor `a` belong to no tensor"),
        ("{}".into(), 1, "1 bytes after the last tensor"),
        (two(("a", 0, 4), ("b", 3, 5)), 5, "tensor `b` overlaps `a`"),
        (two(("a", 0, 4), ("b", 0, 4)), 4, "tensor `b` overlaps `a`"),
        (two(("b", 2, 4), ("a", 0, 3)), 4, "tensor `b` overlaps `a`"),
        (two(("a", 0, 2), ("b", 3, 5)), 5, "1 bytes before tensor `b`"),
        (two(("a", 0, 2), ("a", 2, 4)), 4, "tensor `a` appears twice"),
        (two(("a", 0, 2), ("\\u0061", 0, 2)), 2, "tensor `a` appears twice"),
        (two(("a", 0, 0), ("a", 0, 0)), 0, "tensor `a` appears twice"),
        (two(("", 0, 2), ("a", 2, 4)), 4, "empty name"),
        (two((&long, 0, 2), ("a", 2, 4)), 4, "longer than 4 KiB"),
        (two(("\\u001b[31m", 0, 2), ("a", 2, 4)), 4, "control characters in the name of tensor `\\u{1b}[31m`"),
        (two(("a\\u0000", 0, 2), ("a", 2, 4)), 4, "control characters in the name of tensor `a\\u{0}`"),
        (two(("\\u202egnp", 0, 2), ("a", 2, 4)), 4, "control characters"),
        (two(("\\ud800", 0, 2), ("a", 2, 4)), 4, "bad safetensors header"),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, "`__metadata__`: invalid type: integer `1`, expected a string"),
        (r#"{"__metadata__":[]}"#.into(), 0, "`__metadata__`: invalid type: sequence"),
        (r#"{"__metadata__":{"k":"1","k":"2"}}"#.into(), 0, "`__metadata__`: `k` appears twice"),
        (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0, "`__metadata__` appears twice"),
    ];
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    for (header, data, phrase) in cases {
        fs::write(&path, raw(header.as_bytes(), data)).unwrap();
        refused(open(&path), phrase);
        refused(open(&path), "x.safetensors");
    }
    // More tensors than any model has, none of which takes a byte.
    let many = (0..=262_144).map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#));
    fs::write(&path, raw(format!("{{{}}}", many.collect::<Vec<_>>().join(",")).as_bytes(), 0)).unwrap();
    refused(open(&path), "more than 262144 tensors");
    // What is wrong before there is a header.
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "0 bytes long, too short"),
        (vec![2, 0, 0, 0, 0, 0, 0], "7 bytes long, too short"),
        (raw(b"", 0), "a header of 0 bytes"),
        (raw(b"{", 0), "a header of 1 bytes"),
        ([&1000u64.to_le_bytes()[..], b"{}"].concat(), "cut off within its header: 2 of 1000"),
        ([&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "no safetensors header"),
        ([&(1u64 << 63).to_le_bytes()[..], b"{}"].concat(), "no safetensors header"),
        ([&33_554_433u64.to_le_bytes()[..], b"{}"].concat(), "more than 33554432 are not read"),
        ([&100_000_001u64.to_le_bytes()[..], b"{}"].concat(), "no safetensors header"),
        (raw(b"{\"\xff\":1}", 0), "not UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
        (b"PK\x03\x04\0\0\x08\x08aaaaaaa".to_vec(), "cannot be read as a PyTorch file: bad zip archive"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), "PyTorch file of the format before version 1.6"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0\0N.".to_vec(), "a pickle, but not of `torch.save`"),
        ([&b"sys_info"[..], &[0; 249], b"ustar\x0000"].concat(), "a tar archive"),
        (b"GGUF\x03\0\0\0aaaa".to_vec(), "GGUF"),
        (b"<!DOCTYPE html><html>".to_vec(), "web page"),
    ];
    for (bytes, phrase) in cases {
        fs::write(&path, bytes).unwrap();
        refused(open(&path), phrase);
    }
}

#[test]
fn unusual_headers_that_are_right() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let header = concat!(
        r#"{"odd":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},"b":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]},"#,
        r#""scalar":{"dtype":"U8","shape":[],"data_offsets":[5,6]},"none":{"dtype":"F32","shape":[3,0],"data_offsets":[5,5]},"#,
        r#""four":{"dtype":"F4","shape":[2,3],"data_offsets":[6,9]},"new":{"dtype":"F12_X","shape":[2,1],"data_offsets":[9,12]},"#,
        r#""__metadata__":{"format":"pt"}}   "#
    );
    fs::write(&path, raw(header.as_bytes(), 12)).unwrap();
    let model = open(&path).unwrap();
    let order: Vec<&str> = model.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(order, ["b", "odd", "none", "scalar", "four", "new"]);
    let new = model.get("new").unwrap().1;
    assert_eq!((new.dtype.header_name(), new.dtype.bits(), new.rows(), new.elements()), ("F12_X", 12, 2, 2));
    assert_eq!((model.get("scalar").unwrap().1.rows(), model.get("none").unwrap().1.elements()), (1, 0));
    assert_eq!((model.get("nothing"), model.total_bytes(), model.folder()), (None, 12, None));
    // A type that is not known is written again under its name.
    let tensors = model.tensors().iter().map(|t| out(&t.name, t.dtype, &t.shape)).collect();
    merge(&dir.path().join("out"), tensors, 1 << 30, false).unwrap();
    assert_eq!(open(&dir.path().join("out")).unwrap().get("new").unwrap().1.dtype, new.dtype);
}

#[test]
fn hostile_indices() {
    let dir = tempdir().unwrap();
    let at = dir.path();
    write_model(&at.join("s1.safetensors"), &[("a", 2)]);
    write_model(&at.join("s2.safetensors"), &[("b", 2), ("c", 2)]);
    write_model(&at.join("s3.safetensors"), &[("a", 2)]);
    for (value, phrase) in [
        ("/etc/passwd", "is a path"),
        ("../s1.safetensors", "is a path"),
        ("sub/s1.safetensors", "is a path"),
        ("sub\\s1.safetensors", "is a path"),
        ("\\\\server\\s1.safetensors", "is a path"),
        ("C:s1.safetensors", "drive"),
        ("s1.safetensors:stream", "drive"),
        ("..", "leads out"),
        (".", "leads out"),
        ("", "has no name"),
        ("s1\0.safetensors", "control characters"),
        ("\u{1b}[2J.safetensors", "\\u{1b}[2J"),
        ("con", "device"),
        ("CON.safetensors", "device"),
        ("lpt1.safetensors", "device"),
        ("s1.safetensors.", "dot or a space"),
        ("s1.safetensors ", "dot or a space"),
        ("s1.bin", "no `.safetensors` file"),
        (&format!("{}.safetensors", "x".repeat(300)), "too long"),
    ] {
        write_index(at, json!({ "a": value }));
        refused(open(at), phrase);
        refused(open(at), "index.json");
    }
    for (map, phrase) in [
        (json!({}), "names no shard"),
        (json!({"a": 1}), "invalid type: integer"),
        (json!([]), "expected an object of strings"),
        (json!({"a": "s1.safetensors", "b": "s2.safetensors"}), "it does not place `c`"),
        (json!({"a": "s1.safetensors", "x\u{7}": "s1.safetensors"}), "`x\\u{7}` are not where"),
        (
            json!({"a": "s2.safetensors", "b": "s2.safetensors", "c": "s2.safetensors"}),
            "s2.safetensors` lacks the first",
        ),
        (json!({"a": "s1.safetensors", "b": "s1.safetensors", "c": "s2.safetensors"}), "should be in `s1.safetensors`"),
        (json!({"b": "s1.safetensors", "a": "s1.safetensors", "c": "s3.safetensors"}), "it does not place `a`"),
        (json!({"a": "m1.safetensors", "b": "s2.safetensors", "c": "m2.safetensors"}), "2 of the 3 shards"),
        (
            json!({"a": "m1.safetensors", "b": "s2.safetensors", "c": "m2.safetensors"}),
            "`m1.safetensors`, `m2.safetensors`",
        ),
    ] {
        write_index(at, map);
        refused(open(at), phrase);
    }
    for (whole, phrase) in [
        ("", "EOF"),
        ("{}", "missing field `weight_map`"),
        (r#"{"weight_map":{"a":"s1.safetensors","a":"s3.safetensors"}}"#, "`a` appears twice"),
        (r#"{"weight_map":{"a":"s1.safetensors"},"weight_map":{}}"#, "duplicate field"),
    ] {
        fs::write(at.join("model.safetensors.index.json"), whole).unwrap();
        refused(open(at), phrase);
    }
    // A wrong total size decides nothing; the order is that of the shards' names.
    write_index(at, json!({"c": "s2.safetensors", "a": "s1.safetensors", "b": "s2.safetensors"}));
    let model = open(at).unwrap();
    let order: Vec<&str> = model.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!((order, model.files().len()), (vec!["a", "b", "c"], 2));
}

#[test]
fn folders() {
    let root = tempdir().unwrap();
    let at = |name: &str, files: &[&str]| {
        let dir = root.path().join(name);
        fs::create_dir(&dir).unwrap();
        for file in files {
            match file.ends_with(".safetensors") {
                true => write_model(&dir.join(file), &[(*file, 2)]),
                false => fs::write(dir.join(file), "{}").unwrap(),
            }
        }
        dir
    };
    let holds = |dir: PathBuf, tensor: &str| {
        let model = open(&dir).unwrap();
        assert!(model.get(tensor).is_some());
        assert_eq!(model.folder(), Some(&*dir));
        assert_eq!(model.name(), text(&dir));
    };
    holds(at("only", &["unet.safetensors", "._unet.safetensors", "config.json"]), "unet.safetensors");
    holds(at("both", &["model.safetensors", "other.safetensors"]), "model.safetensors");
    let other = at("other", &["unet.safetensors", "unet.safetensors.index.json"]);
    let index = json!({"weight_map": {"unet.safetensors": "unet.safetensors"}}).to_string();
    fs::write(other.join("unet.safetensors.index.json"), index).unwrap();
    holds(other, "unet.safetensors");
    for (name, files, phrase) in [
        ("empty", &[][..], "has no `.safetensors` file"),
        ("bin", &["model.bin", "training_args.bin"], "if the model is in `model.bin`, `training_args.bin`"),
        ("gguf", &["model.gguf"], "convert `model.gguf` to safetensors"),
        ("many", &["a.safetensors", "b.safetensors"], "`a.safetensors`, `b.safetensors` | name one file"),
        ("unfinished", &["model-00001-of-00002.safetensors"], "no index of them"),
        ("peft", &["adapter_config.json", "adapter_model.safetensors"], "is a PEFT adapter"),
    ] {
        refused(open(&at(name, files)), phrase);
    }
    let odd = at("odd", &[]);
    fs::create_dir(odd.join("model.safetensors")).unwrap();
    refused(open(&odd), "is a folder, not a file");
    refused(open(&root.path().join("onlx")), "did you mean");
    refused(open(&root.path().join("only/config.json")), "name the folder");
    refused(Checkpoint::open("", &[]), "is not the name of a model");
    refused(Checkpoint::open("a\u{1b}b", &[]), "`a\\u{1b}b` is not the name of a model");
    // A relative path is looked for below the given folders, in their order.
    let search = [root.path().join("empty"), root.path().to_owned()];
    let found = Checkpoint::open("both/model.safetensors", &search).unwrap();
    assert_eq!((found.name(), found.folder()), ("both/model.safetensors", None));
    refused(Checkpoint::open("./none", &search), "below");
}

#[cfg(unix)]
#[test]
fn links_and_pipes() {
    use std::os::unix::fs::symlink;
    let root = tempdir().unwrap();
    let (dir, outside) = (root.path().join("model"), root.path().join("outside.safetensors"));
    fs::create_dir(&dir).unwrap();
    write_model(&outside, &[("a", 2)]);
    write_model(&dir.join("real.safetensors"), &[("a", 2)]);
    write_index(&dir, json!({"a": "s.safetensors"}));
    symlink("real.safetensors", dir.join("s.safetensors")).unwrap();
    open(&dir).unwrap();
    for to in ["../outside.safetensors", outside.to_str().unwrap(), "/dev/zero"] {
        fs::remove_file(dir.join("s.safetensors")).unwrap();
        symlink(to, dir.join("s.safetensors")).unwrap();
        refused(open(&dir), "leads out of its folder");
    }
    fs::remove_file(dir.join("s.safetensors")).unwrap();
    symlink("gone.safetensors", dir.join("s.safetensors")).unwrap();
    refused(open(&dir), "1 of the 1 shards");
    // A file that the user names may be a link to anywhere.
    symlink(&outside, dir.join("named.safetensors")).unwrap();
    open(&dir.join("named.safetensors")).unwrap();
    let pipe = dir.join("pipe.safetensors");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    refused(open(&pipe), "is a pipe, a socket or a device");
    refused(open(Path::new("/dev/zero")), "is a pipe, a socket or a device");
    write_index(&dir, json!({"a": "pipe.safetensors"}));
    refused(open(&dir), "is a pipe, a socket or a device");
}

#[test]
fn reads_what_the_crate_writes() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    write_model(&path, &[("a", 5), ("b", 300_000), ("c", 0)]);
    let model = open(&path).unwrap();
    let (number, info) = model.get("b").unwrap();
    assert_eq!((info.dtype, &info.shape[..], info.bytes), (Dtype::F32, &[300_000][..], 1_200_000));
    // From many threads at once, in pieces.
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let model = &model;
            scope.spawn(move || {
                let mut piece = vec![0; 300_000];
                model.read_at(number, thread * 300_000, &mut piece).unwrap();
                assert!(piece.chunks(4).all(|x| x == 1f32.to_le_bytes()));
            });
        }
    });
    refused(model.read_at(number, 1_200_000, &mut [0]), "tensor `b`, which has 1200000");
    refused(model.read_at(number, u64::MAX, &mut [0]), "tensor `b`");
    refused(model.read_at(99, 0, &mut [0]), "no tensor number 99");
    model.read_at(number, 1_200_000, &mut []).unwrap();
    let digests = model.digests().unwrap();
    assert_eq!((digests[0].file.as_str(), digests[0].bytes), ("x.safetensors", fs::metadata(&path).unwrap().len()));
    fs::write(dir.path().join("abc.safetensors"), raw(b"{}", 0)).unwrap();
    let known = "411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd";
    assert_eq!(open(&dir.path().join("abc.safetensors")).unwrap().digests().unwrap()[0].sha256, known);
    let told = std::sync::atomic::AtomicU64::new(0);
    let count = |n| {
        told.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    };
    model.digests_with(&count).unwrap();
    assert_eq!(told.into_inner(), digests[0].bytes);
    refused(model.digests_with(&|_| Err(Error::new(magic_merge::error::Kind::Interrupted, "stop"))), "stop");
}

#[test]
fn files_that_change() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    write_model(&path, &[("a", 5), ("b", 30)]);
    let len = fs::metadata(&path).unwrap().len();
    // Cut off before it is opened, at every byte.
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        refused(open(&path), "x.safetensors");
    }
    // Cut off after: the headers are right, the bytes are gone.
    fs::write(&path, &whole).unwrap();
    let model = open(&path).unwrap();
    model.read_at(0, 0, &mut [0]).unwrap();
    model.check_unchanged().unwrap();
    File::options().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
    let (number, info) = model.get("b").unwrap();
    refused(model.read_at(number, 0, &mut vec![0; info.bytes as usize]), "tensor `b`");
    refused(model.check_unchanged(), "has changed since it was opened");
    refused(model.digests(), "has changed since it was opened");
    // Replaced by another of the same size.
    fs::write(&path, &whole).unwrap();
    let model = open(&path).unwrap();
    fs::write(dir.path().join("y"), &whole).unwrap();
    fs::rename(dir.path().join("y"), &path).unwrap();
    if cfg!(unix) {
        refused(model.check_unchanged(), "has changed since it was opened");
        refused(model.read_at(0, 0, &mut [0]), "has changed since it was opened");
    }
    fs::remove_file(&path).unwrap();
    refused(model.check_unchanged(), "cannot read");
}

#[test]
fn large_sparse_index() {
    // The shape of a 70B model: 80 layers of 9 tensors and 3 more in 30 shards, 140 GB without a byte of data.
    let dir = tempdir().unwrap();
    let mut tensors: Vec<(String, u64)> = vec![("model.embed_tokens.weight".into(), 32000 * 8192)];
    for layer in 0..80 {
        for (part, elements) in [
            ("self_attn.q_proj", 8192 * 8192),
            ("self_attn.k_proj", 1024 * 8192),
            ("self_attn.v_proj", 1024 * 8192),
            ("self_attn.o_proj", 8192 * 8192),
            ("mlp.gate_proj", 28672 * 8192),
            ("mlp.up_proj", 28672 * 8192),
            ("mlp.down_proj", 28672 * 8192),
            ("input_layernorm", 8192),
            ("post_attention_layernorm", 8192),
        ] {
            tensors.push((format!("model.layers.{layer}.{part}.weight"), elements));
        }
    }
    tensors.push(("model.norm.weight".into(), 8192));
    tensors.push(("lm_head.weight".into(), 32000 * 8192));
    let mut map = serde_json::Map::new();
    for number in 0..30 {
        let shard = &tensors[number * 723 / 30..(number + 1) * 723 / 30];
        let name = format!("model-{:05}-of-00030.safetensors", number + 1);
        let mut end = 0;
        let mut header = serde_json::Map::new();
        for (tensor, elements) in shard {
            let offsets = [end, end + elements * 2];
            header.insert(tensor.clone(), json!({"dtype": "BF16", "shape": [elements], "data_offsets": offsets}));
            end = offsets[1];
            map.insert(tensor.clone(), name.clone().into());
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut file = File::create(dir.path().join(name)).unwrap();
        file.write_all(&raw(header.as_bytes(), 0)).unwrap();
        file.set_len(8 + header.len() as u64 + end).unwrap();
    }
    write_index(dir.path(), map.into());
    let model = open(dir.path()).unwrap();
    assert_eq!((model.tensors().len(), model.files().len()), (723, 30));
    assert!(model.total_bytes() > 137_000_000_000);
    // More files than are kept open at a time.
    for round in 0..2 {
        for number in 0..723 {
            let mut last = [1; 4];
            model.read_at(number, model.tensors()[number].bytes - 4, &mut last).unwrap();
            assert_eq!(last, [0; 4], "{round}");
        }
    }
}

#[test]
fn crate_reads_what_is_written() {
    let dir = tempdir().unwrap();
    let tensors = vec![
        out("bytes", Dtype::from_header("U8"), &[3]),
        out("quote\"\\é", Dtype::BF16, &[2, 3]),
        out("double", Dtype::F64, &[1]),
        out("scalar", Dtype::F32, &[]),
        out("none", Dtype::F32, &[0, 7]),
        out("half", Dtype::F16, &[5]),
    ];
    merge(&dir.path().join("out"), tensors, 1 << 30, false).unwrap();
    assert_eq!(names(&dir.path().join("out")), ["config.json", "model.safetensors"]);
    let bytes = fs::read(dir.path().join("out/model.safetensors")).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!((header % 8, metadata.metadata().as_ref().unwrap()["format"].as_str()), (0, "pt"));
    let read = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.len(), 6);
    for (name, dtype, shape, byte) in [
        ("bytes", StDtype::U8, &[3][..], 1),
        ("quote\"\\é", StDtype::BF16, &[2, 3], 2),
        ("double", StDtype::F64, &[1], 3),
        ("scalar", StDtype::F32, &[], 4),
        ("none", StDtype::F32, &[0, 7], 5),
        ("half", StDtype::F16, &[5], 6),
    ] {
        let tensor = read.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, shape), "{name}");
        assert!(tensor.data().iter().all(|b| *b == byte), "{name}");
    }
    // Every tensor begins at a multiple of its element's size.
    let model = open(&dir.path().join("out")).unwrap();
    let order: Vec<&str> = model.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(order, ["double", "scalar", "none", "quote\"\\é", "half", "bytes"]);
}

#[test]
fn shards() {
    let layout = |sizes: &[u64], shard: u64| {
        let tensors = sizes.iter().enumerate().map(|(i, n)| out(&format!("t{i}"), Dtype::F32, &[*n])).collect();
        let layout = Layout::new(tensors, shard).unwrap();
        let of: Vec<usize> = (0..sizes.len()).map(|i| layout.shard_of(i)).collect();
        assert_eq!(layout.total_bytes(), sizes.iter().sum::<u64>() * 4);
        assert_eq!(layout.file_bytes(), layout.shards().map(|(_, bytes)| bytes).sum::<u64>());
        (of, layout.shards().map(|(name, _)| name.to_owned()).collect::<Vec<_>>())
    };
    let one = vec!["model.safetensors".to_owned()];
    assert_eq!(layout(&[], 8), (vec![], one.clone()));
    assert_eq!(layout(&[1, 1], 8), (vec![0, 0], one.clone()));
    assert_eq!(layout(&[9], 8), (vec![0], one));
    let (of, names) = layout(&[1, 1, 1, 9, 1, 0, 2], 8);
    assert_eq!(of, [0, 0, 1, 2, 3, 3, 4]);
    assert_eq!((names[0].as_str(), names.len()), ("model-00001-of-00005.safetensors", 5));

    let dir = tempdir().unwrap();
    merge(dir.path().join("out").as_path(), floats(7), 50, false).unwrap();
    let model = open(&dir.path().join("out")).unwrap();
    assert_eq!((model.files().len(), model.tensors().len()), (4, 7));
    for number in 0..7 {
        let name = format!("layer.{number}.weight");
        let mut bytes = [0; 24];
        model.read_at(model.get(&name).unwrap().0, 0, &mut bytes).unwrap();
        assert_eq!(bytes, [number as u8 + 1; 24]);
    }
    let index = fs::read(dir.path().join("out/model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"], 7 * 24);
    assert_eq!(index["weight_map"]["layer.6.weight"], "model-00004-of-00004.safetensors");
}

#[test]
fn layouts_that_cannot_be_written() {
    let layout = |tensors| Layout::new(tensors, 100);
    refused(Layout::new(floats(1), 0), "0 bytes");
    refused(layout(vec![out("a", Dtype::F32, &[1]), out("a", Dtype::F32, &[1])]), "`a` would be written twice");
    refused(layout(vec![out("", Dtype::F32, &[1])]), "empty name");
    refused(layout(vec![out("__metadata__", Dtype::F32, &[1])]), "`__metadata__`");
    refused(layout(vec![out("a\n", Dtype::F32, &[1])]), "`a\\u{a}`");
    refused(layout(vec![out("a", Dtype::F32, &[1 << 40, 1 << 40])]), "size that cannot be written");
    refused(layout(vec![out("a", Dtype::F32, &[1 << 61])]), "too large");
    refused(layout(vec![out("a", Dtype::from_header("NEW"), &[1])]), "size that cannot be written");
    refused(layout(vec![out("a", Dtype::from_header("F4"), &[3])]), "size that cannot be written");
}

#[test]
fn dropped_writer_leaves_nothing() {
    let root = tempdir().unwrap();
    let create =
        |dir: &str| Writer::create(&root.path().join(dir), Layout::new(floats(5), 50).unwrap(), &[], false).unwrap();
    let writer = create("new/deep/");
    assert_eq!(names(&root.path().join("new/deep")).len(), 4);
    fill(&writer);
    drop(writer);
    assert_eq!(names(root.path()), [""; 0]);
    // A folder that was there stays, and so does one that others have used meanwhile.
    fs::create_dir(root.path().join("empty")).unwrap();
    drop(create("empty"));
    assert_eq!(names(&root.path().join("empty")), [""; 0]);
    let writer = create("used");
    fs::write(root.path().join("used/notes.txt"), "").unwrap();
    drop(writer);
    assert_eq!(names(&root.path().join("used")), ["notes.txt"]);
    // Neither does one that cannot be finished.
    for (name, phrase) in [
        ("../x", "is a path"),
        ("", "has no name"),
        ("model.safetensors", "holds tensors"),
        ("model-00001-of-00003.safetensors", "holds tensors"),
    ] {
        let mut writer = create("out");
        fill(&writer);
        writer.file("config.json", vec![]);
        writer.file(name, vec![]);
        refused(writer.finish(), phrase);
        assert!(!root.path().join("out").exists());
    }
    let writer = create("out");
    refused(writer.write_at(0, 1, &[0; 24]), "which has 24");
    refused(writer.write_at(0, u64::MAX, &[0]), "which has 24");
    refused(writer.write_at(9, 0, &[0]), "no tensor number 9");
    fill(&writer);
    writer.finish().unwrap();
}

#[test]
fn bytes_that_were_never_written() {
    let dir = tempdir().unwrap();
    let create =
        || Writer::create(&dir.path().join("out"), Layout::new(floats(2), 1 << 30).unwrap(), &[], false).unwrap();
    let writer = create();
    writer.write_at(0, 0, &[1; 24]).unwrap();
    writer.write_at(1, 0, &[1; 8]).unwrap();
    writer.write_at(1, 16, &[1; 8]).unwrap();
    // Again what was written, as after a lost device: it does not stand for the rest.
    writer.write_at(1, 0, &[1; 8]).unwrap();
    refused(writer.finish(), "tensor `layer.1.weight` is not complete: byte 8 of 24");
    assert!(!dir.path().join("out").exists());
}

#[test]
fn threads_write_the_same_bytes() {
    let dir = tempdir().unwrap();
    let layout = || Layout::new(floats(40), 30).unwrap();
    merge(&dir.path().join("one"), floats(40), 30, false).unwrap();
    let mut writer = Writer::create(&dir.path().join("many"), layout(), &[], false).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let writer = &writer;
            scope.spawn(move || {
                for tensor in (thread..40).step_by(4).rev() {
                    for offset in [16, 0, 8] {
                        writer.write_at(tensor, offset, &[tensor as u8 + 1; 8]).unwrap();
                    }
                }
            });
        }
    });
    writer.file("config.json", b"old".to_vec());
    writer.file("config.json", b"{}".to_vec());
    writer.finish().unwrap();
    assert_eq!(names(&dir.path().join("one")).len(), 42);
    for name in names(&dir.path().join("one")) {
        let [one, many] = ["one", "many"].map(|side| fs::read(dir.path().join(side).join(&name)).unwrap());
        assert!(one == many, "{name}");
    }
}

#[test]
fn overwriting() {
    let root = tempdir().unwrap();
    let dir = root.path().join("out");
    merge(&dir, floats(5), 50, false).unwrap();
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    refused(merge(&dir, floats(5), 50, false), "--overwrite");
    let before = names(&dir);
    // A writer that is dropped leaves the old result as it was.
    drop(Writer::create(&dir, Layout::new(floats(1), 1000).unwrap(), &[], true).unwrap());
    assert_eq!(names(&dir), before);
    open(&dir).unwrap();
    // Fewer shards, then one file, then shards again: no file of the older result stays.
    merge(&dir, floats(3), 50, true).unwrap();
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!(names(&dir), [&["config.json"], &shards[..], &["model.safetensors.index.json", "notes.txt"]].concat());
    merge(&dir, floats(2), 1000, true).unwrap();
    assert_eq!(names(&dir), ["config.json", "model.safetensors", "notes.txt"]);
    merge(&dir, floats(3), 50, true).unwrap();
    assert_eq!(names(&dir), [&["config.json"], &shards[..], &["model.safetensors.index.json", "notes.txt"]].concat());
    assert_eq!(open(&dir).unwrap().tensors().len(), 3);
    assert_eq!(fs::read_to_string(dir.join("notes.txt")).unwrap(), "mine");
    // Two at once.
    let writer = Writer::create(&dir, Layout::new(floats(1), 1000).unwrap(), &[], true).unwrap();
    refused(merge(&dir, floats(3), 50, true), "another merge is writing");
    drop(writer);
    // What a killed merge leaves is no reason to refuse, and does not stay.
    let killed = root.path().join("killed");
    fs::create_dir(&killed).unwrap();
    for name in [".magic.lock", ".model-00001-of-00002.safetensors.tmp", ".model-config.json.tmp"] {
        fs::write(killed.join(name), "").unwrap();
    }
    merge(&killed, floats(1), 1000, false).unwrap();
    assert_eq!(names(&killed), ["config.json", "model.safetensors"]);
}

#[test]
fn outputs_that_are_refused() {
    let root = tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("in")).unwrap();
    write_model(&at("in/model.safetensors"), &[("a", 2)]);
    write_model(&at("single.safetensors"), &[("a", 2)]);
    let (folder, single) = (open(&at("in")).unwrap(), open(&at("single.safetensors")).unwrap());
    let create = |dir: &Path, input: &Checkpoint, overwrite| {
        Writer::create(dir, Layout::new(floats(1), 1000).unwrap(), &[input], overwrite)
    };
    for overwrite in [false, true] {
        refused(create(&at("in"), &folder, overwrite), "is that of the input");
        refused(create(&at("in/../in/."), &folder, overwrite), "is that of the input");
        refused(create(root.path(), &single, overwrite), "is that of the input");
    }
    // Below an input or above it, nothing of the input is replaced.
    create(&at("in/merged"), &folder, false).unwrap().finish().unwrap_err();
    create(root.path(), &folder, true).map(drop).unwrap();
    // The same file under another name.
    fs::create_dir(at("linked")).unwrap();
    fs::hard_link(at("in/model.safetensors"), at("linked/model.safetensors")).unwrap();
    if cfg!(unix) {
        refused(create(&at("linked"), &folder, true), "would replace the input");
    }
    assert_eq!(names(&at("in")), ["model.safetensors"]);
    // Things in the way.
    fs::write(at("file"), "").unwrap();
    refused(create(&at("file"), &folder, true), "is not a folder");
    refused(create(&at("file/out"), &folder, true), "cannot write");
    refused(create(Path::new(""), &folder, true), "has no name");
    fs::create_dir_all(at("taken/model.safetensors")).unwrap();
    refused(create(&at("taken"), &folder, true), "is in the way");
    // More than any disk has.
    let huge = Layout::new(vec![out("a", Dtype::F32, &[1 << 58])], u64::MAX).unwrap();
    refused(Writer::create(&at("huge/deep"), huge, &[], false), "the output needs 1.2 EB");
    assert!(!at("huge").exists());
}

#[cfg(unix)]
#[test]
fn output_is_never_written_through_a_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let root = tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for dir in ["real", "out"] {
        fs::create_dir(at(dir)).unwrap();
    }
    symlink("real", at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    for dir in ["link", "link/", "dangling"] {
        refused(merge(&at(dir), floats(1), 1000, true), "is a link");
    }
    fs::write(at("precious"), "mine").unwrap();
    for name in ["model.safetensors", "model.safetensors.index.json", "config.json", ".magic.lock"] {
        symlink("../precious", at("out").join(name)).unwrap();
        refused(merge(&at("out"), floats(1), 1000, true), "is a link");
        fs::remove_file(at("out").join(name)).unwrap();
    }
    assert_eq!(fs::read_to_string(at("precious")).unwrap(), "mine");
    // Readable for others as far as the umask allows, like any file.
    merge(&at("link/below"), floats(1), 1000, false).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(at("real/below/model.safetensors")), mode(at("precious")));
}

fn model_with(files: &[&str]) -> (TempDir, Checkpoint) {
    let dir = tempdir().unwrap();
    write_model(&dir.path().join("model.safetensors"), &[("a", 2)]);
    for file in files {
        fs::write(dir.path().join(file), file).unwrap();
    }
    let model = open(dir.path()).unwrap();
    (dir, model)
}

#[test]
fn side_files_are_taken_by_an_allow_list() {
    let wanted = [
        "added_tokens.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "spiece.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    ];
    let others = [
        "README.md",
        "modeling_x.py",
        "tokenizer.py",
        "training_args.bin",
        ".model",
        "optimizer.pt",
        "trainer_state.json",
    ];
    let (dir, model) = model_with(&[&wanted[..], &others].concat());
    let files = side_files(&model).unwrap();
    assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), wanted);
    assert!(files.iter().all(|(name, bytes)| name.as_bytes() == bytes));
    assert_eq!(side_files(&open(&dir.path().join("model.safetensors")).unwrap()).unwrap(), []);
    File::create(dir.path().join("vocab.txt")).unwrap().set_len((64 << 20) + 1).unwrap();
    refused(side_files(&model), "vocab.txt");
    fs::remove_file(dir.path().join("vocab.txt")).unwrap();
    fs::create_dir(dir.path().join("vocab.txt")).unwrap();
    refused(side_files(&model), "is a folder");
    #[cfg(unix)]
    {
        fs::remove_dir(dir.path().join("vocab.txt")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("vocab.txt")).unwrap();
        refused(side_files(&model), "leads out of its folder");
    }
}

#[test]
fn configurations() {
    let (dir, model) = model_with(&[]);
    assert_eq!(model.config().unwrap(), None);
    let put = |text: &str| fs::write(dir.path().join("config.json"), text).unwrap();
    put(r#"{"b":1,"a":2}"#);
    assert_eq!(model.config().unwrap().unwrap().to_string(), r#"{"b":1,"a":2}"#);
    for (text, phrase) in [("[]", "no JSON object"), ("{", "EOF"), (&"[".repeat(100_000), "recursion limit")] {
        put(text);
        refused(model.config(), phrase);
    }
    File::create(dir.path().join("config.json")).unwrap().set_len((16 << 20) + 1).unwrap();
    refused(model.config(), "config.json");

    for (before, after) in [
        (json!({}), json!({"torch_dtype": "bfloat16"})),
        (json!({"dtype": "float32"}), json!({"dtype": "bfloat16"})),
        (json!({"torch_dtype": null, "dtype": "x"}), json!({"torch_dtype": "bfloat16", "dtype": "bfloat16"})),
        (
            json!({"text_config": {"dtype": "float16"}, "vision_config": {"depth": 1}, "dtype": "float16"}),
            json!({"text_config": {"dtype": "bfloat16"}, "vision_config": {"depth": 1}, "dtype": "bfloat16"}),
        ),
    ] {
        assert_eq!(with_dtype(before, Dtype::BF16), after);
    }
    assert_eq!(with_dtype(json!({"dtype": "x"}), Dtype::F64), json!({"dtype": "x"}));
}
