//! Indices of shards.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::case::{Case, Thing, floats_file};

const INDEX: &str = "m/model.safetensors.index.json";
const ONE: &str = "one.safetensors";
const TWO: &str = "two.safetensors";

/// A folder of two shards, `a` in the first, `b` and `c` in the second.
fn folder(name: impl std::fmt::Display) -> Case {
    let inspect = ["inspect", "m"];
    Case::new(format!("index/{name}"))
        .file(format!("m/{ONE}"), floats_file(&[("a", &[2])]))
        .file(format!("m/{TWO}"), floats_file(&[("b", &[2]), ("c", &[3])]))
        .run(&inspect)
}

fn merged(case: Case) -> Case {
    let merge = "merge --device cpu --threads 2 --base m --model m --method linear --out out";
    case.run(&merge.split(' ').collect::<Vec<_>>())
}

fn mapped(name: impl std::fmt::Display, map: &Value) -> Case {
    folder(name).file(INDEX, json!({"metadata": {"total_size": 28}, "weight_map": map}).to_string())
}

/// All cases; `outside` is where nobody may look.
pub fn cases(outside: &Path) -> Vec<Case> {
    let mut all = values(outside);
    all.extend(maps());
    all.extend(documents());
    all.extend(files(outside));
    all
}

/// What may stand where the name of a shard should.
fn values(outside: &Path) -> Vec<Case> {
    let absolute = outside.join("model.safetensors").to_string_lossy().into_owned();
    let (path, control, device) = ("is a path", "control characters", "is the name of a device");
    let long = format!("{}.safetensors", "x".repeat(244));
    let very_long = format!("{}.safetensors", "x".repeat(1_000_000));
    let values: [(&str, &str, &str); 51] = [
        ("absolute", &absolute, path),
        ("parent", "../one.safetensors", path),
        ("far-away", "../../../outside/model.safetensors", path),
        ("far-away-and-back", "../m/one.safetensors", path),
        ("here", "./one.safetensors", path),
        ("below", "sub/one.safetensors", path),
        ("twice-slashed", "//one.safetensors", path),
        ("slash-at-the-end", "one.safetensors/", path),
        ("slash-alone", "/", path),
        ("backslash", "..\\..\\..\\outside\\model.safetensors", path),
        ("backslash-below", "sub\\one.safetensors", path),
        ("share", "\\\\server\\share\\x.safetensors", path),
        ("long-path", "\\\\?\\C:\\x.safetensors", path),
        ("proc", "/proc/self/environ", path),
        ("descriptor", "/dev/fd/0", path),
        ("web", "https://host/x.safetensors", path),
        ("drive", "C:one.safetensors", "drive"),
        ("stream", "one.safetensors:x.safetensors", "drive"),
        ("stream-of-data", "one.safetensors::$DATA", "drive"),
        ("file-scheme", "file:one.safetensors", "drive"),
        ("dot", ".", "leads out"),
        ("two-dots", "..", "leads out"),
        ("three-dots", "...", "dot or a space"),
        ("nothing", "", "has no name"),
        ("space", " ", "dot or a space"),
        ("nul", "one.safetensors\0", control),
        ("nul-in-front", "\0one.safetensors", control),
        ("nul-and-more", "one.safetensors\0.safetensors", control),
        ("escape", "\u{1b}]0;x\u{7}.safetensors", control),
        ("line-break", "one\n.safetensors", control),
        ("turned", "\u{202e}srosnetefas.eno", control),
        ("c1", "\u{9b}2J.safetensors", control),
        ("con", "con", device),
        ("con-with-an-end", "con.safetensors", device),
        ("nul-device", "NUL.safetensors", device),
        ("aux-with-two-ends", "aux.x.safetensors", device),
        ("prn-and-a-space", "prn .safetensors", device),
        ("port", "COM1.safetensors", device),
        ("printer", "lpt9.safetensors", device),
        ("dot-at-the-end", "one.safetensors.", "dot or a space"),
        ("space-at-the-end", "one.safetensors ", "dot or a space"),
        ("other-end", "one.bin", "no `.safetensors` file"),
        ("no-end", "one", "no `.safetensors` file"),
        ("end-in-capitals", "one.SAFETENSORS", "no `.safetensors` file"),
        ("the-index", "model.safetensors.index.json", "no `.safetensors` file"),
        ("config", "config.json", "no `.safetensors` file"),
        ("256-bytes", &long, "too long a name"),
        ("a-million-bytes", &very_long, "too long a name"),
        ("slash-of-another-script", "..\u{2215}x.safetensors", "1 of the 2 shards"),
        ("tilde", "~root.safetensors", "1 of the 2 shards"),
        ("globs", "*.safetensors", "1 of the 2 shards"),
    ];
    let case = |(name, value, words): (&str, &str, &str)| {
        mapped(format!("shard-{name}"), &json!({"a": value, "b": TWO, "c": TWO})).refused(words)
    };
    values.into_iter().map(case).collect()
}

/// What the map may say of the shards.
fn maps() -> Vec<Case> {
    let many: serde_json::Map<String, Value> =
        (0..1000).map(|i| (format!("t{i}"), format!("s{i}.safetensors").into())).collect();
    vec![
        merged(mapped("right", &json!({"a": ONE, "b": TWO, "c": TWO}))),
        merged(mapped("right-turned", &json!({"c": TWO, "a": ONE, "b": TWO}))),
        mapped("empty", &json!({})).refused("names no shard"),
        mapped("list", &json!([ONE, TWO])).refused("expected an object of strings"),
        mapped("null", &Value::Null).refused("expected an object of strings"),
        mapped("string", &json!(ONE)).refused("expected an object of strings"),
        mapped("of-numbers", &json!({"a": 1})).refused("invalid type: integer"),
        mapped("of-nulls", &json!({"a": null})).refused("invalid type: null"),
        mapped("of-lists", &json!({"a": [ONE]})).refused("invalid type: sequence"),
        mapped("of-objects", &json!({"a": {"b": ONE}})).refused("invalid type: map"),
        mapped("tensor-left-out", &json!({"a": ONE, "b": TWO})).refused("does not place `c`"),
        mapped("shard-left-out", &json!({"a": ONE})),
        mapped("tensor-that-is-not-there", &json!({"a": ONE, "b": TWO, "c": TWO, "d": TWO})).refused("lacks the first"),
        mapped("tensor-of-control", &json!({"a": ONE, "b": TWO, "c": TWO, "\u{1b}[2J": TWO})).refused("`\\u{1b}[2J`"),
        mapped("tensor-without-a-name", &json!({"a": ONE, "b": TWO, "c": TWO, "": TWO})).refused("`` are not where"),
        mapped("tensor-elsewhere", &json!({"a": TWO, "b": TWO, "c": ONE})).refused("should be in"),
        mapped("shard-that-is-not-there", &json!({"a": ONE, "b": TWO, "c": "no.safetensors"})).refused("1 of the 3"),
        mapped("shards-that-are-not-there", &Value::Object(many)).refused("and 936 more"),
        mapped("tensor-in-two-shards", &json!({"a": ONE, "b": TWO, "c": "three.safetensors"}))
            .file("m/three.safetensors", floats_file(&[("c", &[3])]))
            .refused("does not place `c` in `m/two.safetensors`"),
        mapped("shard-of-nothing", &json!({"a": ONE, "b": TWO, "c": TWO, "d": "none.safetensors"}))
            .file("m/none.safetensors", floats_file(&[]))
            .refused("lacks the first"),
        mapped("shard-that-is-cut", &json!({"a": ONE, "b": TWO, "c": TWO}))
            .file(format!("m/{TWO}"), &floats_file(&[("b", &[2]), ("c", &[3])])[..90])
            .refused("cut off"),
    ]
}

/// What the document may be.
fn documents() -> Vec<Case> {
    let map = format!(r#"{{"a":"{ONE}","b":"{TWO}","c":"{TWO}"}}"#);
    let document = |name: &str, text: String| folder(name).file(INDEX, text);
    let sized = |name: &str, size: &str| {
        merged(document(name, format!(r#"{{"metadata":{{"total_size":{size}}},"weight_map":{map}}}"#)))
    };
    let many = |to: &mut dyn Write| {
        to.write_all(br#"{"weight_map":{"#)?;
        (0..270_000).try_for_each(|i| write!(to, r#"{}"{i:06}":"one.safetensors""#, if i > 0 { "," } else { "" }))?;
        to.write_all(b"}}")
    };
    vec![
        document("no-document", String::new()).refused("EOF"),
        document("no-map", "{}".into()).refused("missing field `weight_map`"),
        document("a-list", "[]".into()).refused("not an index"),
        document("cut", format!(r#"{{"weight_map":{}"#, &map[..20])).refused("EOF"),
        document("two-documents", format!(r#"{{"weight_map":{map}}}{{}}"#)).refused("trailing characters"),
        document("map-twice", format!(r#"{{"weight_map":{map},"weight_map":{map}}}"#)).refused("duplicate field"),
        document("map-twice-by-escape", format!(r#"{{"weight_map":{map},"weight\u005fmap":{map}}}"#))
            .refused("duplicate field"),
        document("metadata-twice", format!(r#"{{"metadata":{{}},"metadata":{{}},"weight_map":{map}}}"#))
            .refused("duplicate field"),
        document("tensor-twice", map.replacen('{', r#"{"weight_map":{"a":"one.safetensors","#, 1) + "}")
            .refused("`a` appears twice"),
        document("tensor-twice-elsewhere", map.replacen('{', r#"{"weight_map":{"a":"two.safetensors","#, 1) + "}")
            .refused("`a` appears twice"),
        document("tensor-twice-by-escape", map.replacen('{', r#"{"weight_map":{"\u0061":"two.safetensors","#, 1) + "}")
            .refused("`a` appears twice"),
        document("not-utf-8", String::new())
            .file(INDEX, &b"{\"weight_map\":{\"\xff\":\"x\"}}"[..])
            .refused("not an index"),
        document("bom", format!("\u{feff}{{\"weight_map\":{map}}}")).refused("not an index"),
        document("deep", format!(r#"{{"x":{}"#, "[".repeat(1_000_000))).refused("not an index"),
        document("deep-metadata", format!(r#"{{"metadata":{}"#, "[".repeat(1_000_000))).refused("EOF while parsing"),
        document("more-keys", format!(r#"{{"x":[1,{{"y":null}}],"weight_map":{map}}}"#)),
        sized("size-0", "0"),
        sized("size-negative", "-1"),
        sized("size-too-large", "18446744073709551616"),
        sized("size-that-is-a-list", "[1,2]"),
        merged(document("metadata-null", format!(r#"{{"metadata":null,"weight_map":{map}}}"#))),
        folder("of-too-many-tensors").with(INDEX, Thing::Written(many)).refused("more than 262144 tensors"),
        folder("of-33-MB").with(INDEX, Thing::Sparse(b"{".to_vec(), (32 << 20) + 1)).refused("more than the 33.6 MB"),
        folder("of-a-terabyte").with(INDEX, Thing::Sparse(b"{".to_vec(), 1 << 40)).refused("more than the 33.6 MB"),
    ]
}

/// What may lie where the index and the shards should.
fn files(outside: &Path) -> Vec<Case> {
    let right = json!({"a": ONE, "b": TWO, "c": "c.safetensors"});
    let c = "m/c.safetensors";
    let shard =
        |name: &str| mapped(format!("shard-is-{name}"), &right).file(format!("m/{TWO}"), floats_file(&[("b", &[2])]));
    let out = "leads out of its folder";
    vec![
        merged(shard("a-link-beside").link(c, "other").file("m/other", floats_file(&[("c", &[3])]))),
        shard("a-link-out").link(c, outside.join("model.safetensors")).refused(out),
        shard("a-link-up").link(c, "../../../outside/model.safetensors").refused(out),
        shard("a-link-through-a-link").link("m/x", outside).link(c, "x/model.safetensors").refused(out),
        shard("a-link-to-a-link").link("m/x", outside.join("model.safetensors")).link(c, "x").refused(out),
        shard("a-link-to-zeros").link(c, "/dev/zero").refused(out),
        shard("a-link-to-memory").link(c, "/proc/self/mem").refused(out),
        shard("a-link-to-itself").link(c, "c.safetensors").refused("1 of the 3 shards"),
        shard("a-link-to-nothing").link(c, "no").refused("1 of the 3 shards"),
        shard("a-pipe").with(c, Thing::Pipe).refused("is a pipe"),
        shard("a-folder").with(c, Thing::Folder).refused("is a folder"),
        shard("empty").file(c, "").refused("too short"),
        folder("is-a-link-out").link(INDEX, outside.join("config.json")).refused(out),
        folder("is-a-link-to-zeros").link(INDEX, "/dev/zero").refused(out),
        folder("is-a-pipe").with(INDEX, Thing::Pipe).refused("is a pipe"),
        folder("is-a-folder").with(INDEX, Thing::Folder).refused("is a folder"),
        folder("is-not-alone")
            .file("m/a.safetensors.index.json", "{}")
            .file("m/b.safetensors.index.json", "{}")
            .refused("more than one"),
    ]
}
