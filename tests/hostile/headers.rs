//! Headers of safetensors files.

use std::io::Write;

use crate::case::{Case, Thing, tensors_file};

/// A file, and what the error must say; empty words for a file that is right.
pub struct Header {
    /// Its name among the cases.
    pub name: String,
    /// The whole file.
    pub bytes: Vec<u8>,
    /// What the error must say.
    pub words: String,
}

/// Every file, inspected, and merged with itself if it is right.
pub fn cases() -> Vec<Case> {
    let case = |Header { name, bytes, words }: Header| {
        let case = Case::new(name).file("x.safetensors", bytes);
        match words.is_empty() {
            true => commands(case, "x.safetensors"),
            false => case.run(&["inspect", "x.safetensors"]).refused(words),
        }
    };
    all().into_iter().map(case).chain(large()).chain(paths()).collect()
}

fn commands(case: Case, path: &str) -> Case {
    let merge = [
        "merge",
        "--device",
        "cpu",
        "--threads",
        "2",
        "--base",
        path,
        "--model",
        path,
        "--method",
        "linear",
        "--out",
        "out",
    ];
    case.run(&["inspect", path]).run(&merge)
}

/// Files that are small.
pub fn all() -> Vec<Header> {
    let header = |(name, header, data, words): Row| Header {
        name: format!("header/{name}"),
        bytes: tensors_file(header, data),
        words: words.to_owned(),
    };
    let tables = [syntax(), twice(), entries(), offsets(), places(), shapes(), types(), names(), metadata()];
    let mut all: Vec<Header> = tables.into_iter().flatten().map(header).collect();
    all.extend(fronts().into_iter().map(|(name, bytes, words)| Header {
        name: format!("front/{name}"),
        bytes,
        words: words.into(),
    }));
    all.extend(cuts());
    all
}

/// Name, header, bytes after it, words.
type Row = (String, String, usize, &'static str);

fn row(name: &str, header: impl Into<String>, data: usize, words: &'static str) -> Row {
    (name.to_owned(), header.into(), data, words)
}

/// An entry of bytes.
fn entry(name: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
}

/// A header of entries of bytes.
fn header(entries: &[(&str, u64, u64)]) -> String {
    let entries = entries.iter().map(|(name, begin, end)| entry(name, *begin, *end));
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

/// The header of one tensor.
fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#)
}

fn u8s(shape: &str, offsets: &str) -> String {
    one(r#""U8""#, shape, offsets)
}

fn syntax() -> Vec<Row> {
    let good = header(&[("a", 0, 2)]);
    let around = |front: &str, back: &str| format!("{front}{good}{back}");
    vec![
        row("plain", good.clone(), 2, ""),
        row("padded", around("", "     "), 2, ""),
        row("ends-in-lines", around("", "\n\t\r\n"), 2, ""),
        row("no-tensor", "{}", 0, ""),
        row("space-in-front", around(" ", ""), 2, "does not begin with `{`"),
        row("line-in-front", around("\n", ""), 2, "does not begin with `{`"),
        row("tab-in-front", around("\t", ""), 2, "does not begin with `{`"),
        row("bom-in-front", around("\u{feff}", ""), 2, "does not begin with `{`"),
        row("nul-in-front", around("\0", ""), 2, "does not begin with `{`"),
        row("padded-with-nul", around("", "\0\0\0"), 2, "trailing characters"),
        row("two-objects", around("", "{}"), 2, "trailing characters"),
        row("a-brace-too-many", around("", "}"), 2, "trailing characters"),
        row("a-list", "[1, 2]", 0, "does not begin with `{`"),
        row("a-string", r#""abc""#, 0, "does not begin with `{`"),
        row("a-number", "1234", 0, "does not begin with `{`"),
        row("null", "null", 0, "does not begin with `{`"),
        row("comma-at-the-end", good.replacen("}}", "},}", 1), 2, "trailing comma"),
        row("comma-in-a-list", good.replacen("[0,2]", "[0,2,]", 1), 2, "trailing comma"),
        row("comma-in-front", good.replacen('{', "{,", 1), 2, "key must be a string"),
        row("single-quotes", good.replace('"', "'"), 2, "key must be a string"),
        row("no-quotes", good.replace('"', ""), 2, "key must be a string"),
        row("a-comment", good.replacen('{', "{/*x*/", 1), 2, "key must be a string"),
        row("a-line-comment", good.replacen('{', "{//x\n", 1), 2, "key must be a string"),
        row("nan", good.replacen("[0,2]", "[0,NaN]", 1), 2, "expected value"),
        row("infinity", good.replacen("[0,2]", "[0,Infinity]", 1), 2, "expected value"),
        row("hexadecimal", good.replacen("[0,2]", "[0,0x2]", 1), 2, "expected"),
        row("a-plus", good.replacen("[0,2]", "[0,+2]", 1), 2, "expected value"),
        row("a-leading-zero", good.replacen("[0,2]", "[0,02]", 1), 2, "invalid number"),
        row("a-bare-control", good.replacen("\"a\"", "\"a\u{1}\"", 1), 2, "control character"),
        row("a-bare-line-break", good.replacen("\"a\"", "\"a\n\"", 1), 2, "control character"),
        row("half-a-surrogate", good.replacen("\"a\"", r#""\ud800""#, 1), 2, "bad safetensors header"),
        row("the-other-half", good.replacen("\"a\"", r#""\udc00""#, 1), 2, "bad safetensors header"),
        row("surrogates-turned", good.replacen("\"a\"", r#""\udc00\ud800""#, 1), 2, "bad safetensors header"),
        row("an-unknown-escape", good.replacen("\"a\"", r#""\x61""#, 1), 2, "invalid escape"),
        row("a-short-escape", good.replacen("\"a\"", r#""\u61""#, 1), 2, "invalid escape"),
        row("lists-1000-deep", format!("{{\"a\":{}", "[".repeat(1000)), 0, "invalid type: sequence"),
        row("objects-1000-deep", r#"{"a":"#.repeat(1000), 0, "unknown key `a`"),
        row("objects-100000-deep", r#"{"a":"#.repeat(100_000), 0, "unknown key `a`"),
        row("shapes-100000-deep", u8s(&"[".repeat(100_000), "[0,1]"), 1, "tensor `a`"),
        row("metadata-100000-deep", r#"{"__metadata__":"#.to_owned() + &r#"{"a":"#.repeat(100_000), 0, "metadata"),
    ]
}

fn twice() -> Vec<Row> {
    let in_entry = |extra: &str| one(r#""U8""#, "[1]", &format!("[0,1],{extra}"));
    let in_metadata = |pairs: &str| format!(r#"{{"__metadata__":{{{pairs}}}}}"#);
    vec![
        row("name-same-place", header(&[("a", 0, 2), ("a", 0, 2)]), 2, "`a` appears twice"),
        row("name-two-places", header(&[("a", 0, 2), ("a", 2, 4)]), 4, "`a` appears twice"),
        row("name-no-bytes", header(&[("a", 0, 0), ("a", 0, 0)]), 0, "`a` appears twice"),
        row("name-by-escape", header(&[("a", 0, 2), ("\\u0061", 0, 2)]), 2, "`a` appears twice"),
        row("name-by-escape-elsewhere", header(&[("a", 0, 2), ("\\u0061", 2, 4)]), 4, "`a` appears twice"),
        row("name-by-slash", header(&[("a/b", 0, 2), ("a\\/b", 0, 2)]), 2, "`a/b` appears twice"),
        row("name-by-surrogates", header(&[("🙂", 0, 2), ("\\ud83d\\ude42", 0, 2)]), 2, "appears twice"),
        row("name-far-apart", header(&[("a", 0, 1), ("b", 1, 2), ("c", 2, 3), ("a", 3, 4)]), 4, "`a` appears twice"),
        row("names-by-case", header(&[("a", 0, 2), ("A", 2, 4)]), 4, ""),
        row("names-by-composition", header(&[("\u{e9}", 0, 2), ("e\u{301}", 2, 4)]), 4, ""),
        row("names-by-space", header(&[("a", 0, 2), ("a ", 2, 4)]), 4, ""),
        row("metadata-object", r#"{"__metadata__":{},"__metadata__":{}}"#, 0, "`__metadata__` appears twice"),
        row("metadata-by-escape", r#"{"__metadata__":{},"\u005f_metadata__":{}}"#, 0, "`__metadata__` appears twice"),
        row("metadata-key", in_metadata(r#""k":"1","k":"2""#), 0, "`k` appears twice"),
        row("metadata-key-same", in_metadata(r#""k":"1","k":"1""#), 0, "`k` appears twice"),
        row("metadata-key-by-escape", in_metadata(r#""k":"1","\u006b":"1""#), 0, "`k` appears twice"),
        row("dtype", in_entry(r#""dtype":"U8""#), 1, "`dtype` appears twice"),
        row("dtype-by-escape", in_entry(r#""d\u0074ype":"U8""#), 1, "`dtype` appears twice"),
        row("shape", in_entry(r#""shape":[1]"#), 1, "`shape` appears twice"),
        row("offsets", in_entry(r#""data_offsets":[0,1]"#), 1, "`data_offsets` appears twice"),
    ]
}

fn entries() -> Vec<Row> {
    let body = |body: &str| format!(r#"{{"a":{body}}}"#);
    let with = |extra: &str| one(r#""U8""#, "[1]", &format!("[0,1],{extra}"));
    vec![
        row("entry-null", body("null"), 0, "invalid type: null"),
        row("entry-number", body("1"), 0, "invalid type: integer"),
        row("entry-string", body(r#""U8""#), 0, "invalid type: string"),
        row("entry-list", body(r#"["U8",[1],[0,1]]"#), 1, "invalid type: sequence"),
        row("entry-list-empty", body("[]"), 0, "invalid type: sequence"),
        row("entry-empty", body("{}"), 0, "`dtype` is missing"),
        row("entry-no-dtype", body(r#"{"shape":[1],"data_offsets":[0,1]}"#), 1, "`dtype` is missing"),
        row("entry-no-shape", body(r#"{"dtype":"U8","data_offsets":[0,1]}"#), 1, "`shape` is missing"),
        row("entry-no-offsets", body(r#"{"dtype":"U8","shape":[1]}"#), 1, "`data_offsets` is missing"),
        row("entry-turned", body(r#"{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}"#), 1, ""),
        row("entry-key-case", body(r#"{"Dtype":"U8","shape":[1],"data_offsets":[0,1]}"#), 1, "unknown key `Dtype`"),
        row("entry-strides", with(r#""strides":[1]"#), 1, "unknown key `strides`"),
        row("entry-device", with(r#""device":"cuda:0""#), 1, "unknown key `device`"),
        row("entry-empty-key", with(r#""":1"#), 1, "unknown key ``"),
        row("entry-key-control", with(r#""\u001b[2J":1"#), 1, "unknown key `\\u{1b}[2J`"),
        row("entry-key-long", with(&format!(r#""{}":1"#, "k".repeat(100_000))), 1, "unknown key `kkk"),
        row("entry-key-deep", with(&format!(r#""x":{}"#, "[".repeat(10_000))), 1, "unknown key `x`"),
        row("dtype-null", one("null", "[1]", "[0,1]"), 1, "invalid type: null"),
        row("dtype-number", one("8", "[1]", "[0,1]"), 1, "invalid type: integer"),
        row("dtype-list", one(r#"["U8"]"#, "[1]", "[0,1]"), 1, "invalid type: sequence"),
        row("dtype-object", one(r#"{"U8":null}"#, "[1]", "[0,1]"), 1, "invalid type: map"),
        row("shape-null", u8s("null", "[0,1]"), 1, "invalid type: null"),
        row("shape-number", u8s("1", "[0,1]"), 1, "invalid type: integer"),
        row("shape-object", u8s("{}", "[0,1]"), 1, "invalid type: map"),
        row("shape-string", u8s(r#""[1]""#, "[0,1]"), 1, "invalid type: string"),
    ]
}

fn offsets() -> Vec<Row> {
    let rows = [
        ("negative", "[-1,1]", "integer `-1`"),
        ("minus-zero", "[-0,1]", "floating point"),
        ("fraction", "[0,1.0]", "floating point"),
        ("exponent", "[0,1e0]", "floating point"),
        ("huge-exponent", "[0,1e400]", "number out of range"),
        ("beyond-64-bits", "[0,18446744073709551616]", "floating point"),
        ("most-of-64-bits", "[18446744073709551615,18446744073709551615]", "takes 1 bytes"),
        ("wrap-around", "[18446744073709551615,0]", "run backwards"),
        ("strings", r#"["0","1"]"#, "invalid type: string"),
        ("nulls", "[null,null]", "invalid type: null"),
        ("booleans", "[false,true]", "invalid type: boolean"),
        ("lists", "[[0],[1]]", "invalid type: sequence"),
        ("none", "[]", "not two numbers"),
        ("one", "[0]", "not two numbers"),
        ("three", "[0,1,1]", "more than 2 numbers"),
        ("object", r#"{"0":0,"1":1}"#, "invalid type: map"),
        ("backwards", "[1,0]", "run backwards"),
        ("empty-range", "[0,0]", "takes 1 bytes"),
        ("too-long", "[0,2]", "takes 1 bytes"),
    ];
    let mut all: Vec<Row> =
        rows.map(|(name, offsets, words)| row(&format!("offsets-{name}"), u8s("[1]", offsets), 1, words)).into();
    let many = format!("[{}0]", "0,".repeat(1_000_000));
    all.push(row("offsets-a-million", u8s("[1]", &many), 1, "more than 2 numbers"));
    all
}

/// Where tensors lie in the file.
fn places() -> Vec<Row> {
    let of = |name: &str, dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    };
    let after_a_byte =
        |dtype: &str, size: u64| format!("{{{},{}}}", entry("a", 0, 1), of("b", dtype, "[1]", 1, 1 + size));
    vec![
        row("places-turned", header(&[("c", 4, 6), ("b", 2, 4), ("a", 0, 2)]), 6, ""),
        row("hole-in-front", header(&[("a", 1, 3)]), 3, "1 bytes before tensor `a`"),
        row("hole-within", header(&[("a", 0, 2), ("b", 3, 5)]), 5, "1 bytes before tensor `b`"),
        row("hole-before-nothing", header(&[("a", 0, 2), ("b", 3, 3)]), 3, "1 bytes before tensor `b`"),
        row("hole-huge", header(&[("a", 0, 2), ("b", 1 << 40, 1 << 40)]), 2, "is cut off"),
        row("bytes-behind", header(&[("a", 0, 2)]), 3, "1 bytes after the last tensor"),
        row("bytes-behind-nothing", "{}", 8, "8 bytes after the last tensor"),
        row("bytes-behind-an-empty-one", header(&[("a", 0, 0)]), 1, "1 bytes after the last tensor"),
        row("a-byte-short", header(&[("a", 0, 4)]), 3, "1 bytes are missing"),
        row("all-short", header(&[("a", 0, 4)]), 0, "4 bytes are missing"),
        row("exabytes-short", header(&[("a", 0, 1 << 62)]), 4, "is cut off"),
        row("second-short", header(&[("a", 0, 4), ("b", 4, 8)]), 6, "2 bytes are missing, from tensor `b`"),
        row("overlap-by-one", header(&[("a", 0, 4), ("b", 3, 5)]), 5, "tensor `b` overlaps `a`"),
        row("overlap-whole", header(&[("a", 0, 4), ("b", 0, 4)]), 4, "tensor `b` overlaps `a`"),
        row("overlap-inside", header(&[("a", 0, 4), ("b", 1, 3)]), 4, "tensor `b` overlaps `a`"),
        row("overlap-turned", header(&[("b", 2, 4), ("a", 0, 3)]), 4, "tensor `b` overlaps `a`"),
        row("overlap-of-three", header(&[("a", 0, 9), ("b", 9, 10), ("c", 2, 9)]), 10, "tensor `c` overlaps `a`"),
        row("nothing-inside-another", header(&[("a", 0, 4), ("b", 2, 2)]), 4, "tensor `b` overlaps `a`"),
        row("nothing-between", header(&[("a", 0, 2), ("n", 2, 2), ("b", 2, 4)]), 4, ""),
        row("nothing-at-the-end", header(&[("a", 0, 2), ("n", 2, 2), ("m", 2, 2)]), 2, ""),
        row("nothing-at-all", header(&[("n", 0, 0), ("m", 0, 0)]), 0, ""),
        row("odd-f16", after_a_byte("F16", 2), 3, ""),
        row("odd-bf16", after_a_byte("BF16", 2), 3, ""),
        row("odd-f32", after_a_byte("F32", 4), 5, ""),
        row("odd-f64", after_a_byte("F64", 8), 9, ""),
        row("odd-i64", after_a_byte("I64", 8), 9, ""),
        row("odd-f4", after_a_byte("F4", 1).replace(r#""F4","shape":[1]"#, r#""F4","shape":[2]"#), 2, ""),
    ]
}

fn shapes() -> Vec<Row> {
    let most = u64::MAX;
    let half = 1u64 << 63;
    let f64s = |shape: &str| one(r#""F64""#, shape, "[0,0]");
    let mut all = vec![
        row("shape-scalar", u8s("[]", "[0,1]"), 1, ""),
        row("shape-scalar-empty", u8s("[]", "[0,0]"), 0, "takes 1 bytes"),
        row("shape-negative", u8s("[-1]", "[0,1]"), 1, "integer `-1`"),
        row("shape-fraction", u8s("[1.0]", "[0,1]"), 1, "floating point"),
        row("shape-exponent", u8s("[1e0]", "[0,1]"), 1, "floating point"),
        row("shape-strings", u8s(r#"["1"]"#, "[0,1]"), 1, "invalid type: string"),
        row("shape-of-nulls", u8s("[null]", "[0,1]"), 1, "invalid type: null"),
        row("shape-of-lists", u8s("[[1]]", "[0,1]"), 1, "invalid type: sequence"),
        row("shape-beyond-64-bits", u8s("[18446744073709551616]", "[0,1]"), 1, "floating point"),
        row("shape-largest", u8s(&format!("[{most}]"), "[0,1]"), 1, "takes 18446744073709551615 bytes"),
        row("shape-largest-times-8", f64s(&format!("[{most}]")), 0, "takes 147573952589676412920 bytes"),
        row("shape-times-8-is-zero", f64s(&format!("[{}]", 1u64 << 61)), 0, "takes 18446744073709551616 bytes"),
    ];
    // A product that is beyond 64 bits, or zero once it wraps, whatever the order and wherever a zero stands.
    let overflows = [vec![half, 4], vec![1 << 32, 1 << 32], vec![1 << 22, 1 << 22, 1 << 22], vec![most, most]];
    for dims in overflows {
        for turn in 0..dims.len() {
            let mut dims = dims.clone();
            dims.rotate_left(turn);
            all.push(row(
                &format!("overflow-{dims:?}"),
                u8s(&format!("{dims:?}"), "[0,0]"),
                0,
                "than 64 bits can count",
            ));
            for place in [0, dims.len() / 2, dims.len()] {
                let mut dims = dims.clone();
                dims.insert(place, 0);
                let shape = format!("{dims:?}");
                all.push(row(&format!("overflow-{shape}"), u8s(&shape, "[0,0]"), 0, "than 64 bits can count"));
            }
        }
    }
    all.sort();
    all.dedup();
    let ones = |n: usize| format!("[{}1]", "1,".repeat(n - 1));
    let zeros = |n: usize| format!("[{}0]", "0,".repeat(n - 1));
    all.extend([
        row("zero-and-largest", u8s(&format!("[0,{most}]"), "[0,0]"), 0, ""),
        row("largest-and-zero", u8s(&format!("[{most},0]"), "[0,0]"), 0, ""),
        row("zero-with-a-byte", u8s("[0]", "[0,1]"), 1, "takes 0 bytes"),
        row("rank-16", u8s(&ones(16), "[0,1]"), 1, ""),
        row("rank-16-of-zeros", u8s(&zeros(16), "[0,0]"), 0, ""),
        row("rank-17", u8s(&ones(17), "[0,1]"), 1, "more than 16 numbers"),
        row("rank-17-of-zeros", u8s(&zeros(17), "[0,0]"), 0, "more than 16 numbers"),
        row("rank-1000000", u8s(&ones(1_000_000), "[0,1]"), 1, "more than 16 numbers"),
    ]);
    all
}

fn types() -> Vec<Row> {
    let of = |dtype: &str, count: u64, bytes: u64| {
        one(&format!("\"{dtype}\""), &format!("[{count}]"), &format!("[0,{bytes}]"))
    };
    let known = [
        ("BOOL", 8),
        ("U8", 8),
        ("I8", 8),
        ("F8_E4M3", 8),
        ("F8_E5M2", 8),
        ("F8_E8M0", 8),
        ("F8_E4M3FNUZ", 8),
        ("F8_E5M2FNUZ", 8),
        ("U16", 16),
        ("I16", 16),
        ("F16", 16),
        ("BF16", 16),
        ("U32", 32),
        ("I32", 32),
        ("F32", 32),
        ("U64", 64),
        ("I64", 64),
        ("F64", 64),
        ("C64", 64),
        ("F4", 4),
        ("F6_E2M3", 6),
        ("F6_E3M2", 6),
    ];
    let mut all: Vec<Row> = Vec::new();
    for (dtype, bits) in known {
        let bytes = bits / 2;
        all.push(row(&format!("type-{dtype}"), of(dtype, 4, bytes), bytes as usize, ""));
    }
    for (dtype, bits) in known.into_iter().filter(|(_, bits)| bits % 8 != 0 || *bits == 64) {
        let name = format!("type-{dtype}-of-half-a-byte");
        let words = if bits % 8 == 0 { "takes 8 bytes" } else { "does not fill whole bytes" };
        all.push(row(&name, of(dtype, 1, 1), 1, words));
    }
    all.extend([
        row("type-new", of("F12_X", 2, 3), 3, ""),
        row("type-lower-case", of("f32", 1, 4), 4, ""),
        row("type-of-torch", of("float32", 1, 4), 4, ""),
        row("type-new-uneven", of("F12_X", 3, 4), 4, "do not divide"),
        row("type-new-of-no-bytes", of("F12_X", 3, 0), 0, "do not divide"),
        row("type-new-of-no-elements", of("F12_X", 0, 0), 0, ""),
        row("type-new-of-a-petabit", one(r#""X""#, "[1]", "[0,1000000000]"), 1, "X"),
        row("type-empty", of("", 1, 1), 1, "`` is no type"),
        row("type-space", of("U8 ", 1, 1), 1, "`U8 ` is no type"),
        row("type-control", of("\\u0007", 1, 1), 1, "`\\u{7}` is no type"),
        row("type-turned", of("\\u202eU8", 1, 1), 1, "`\\u{202e}U8` is no type"),
        row("type-escaped", of("\\u0055\\u0038", 1, 1), 1, ""),
        row("type-long", of(&"X".repeat(33), 1, 1), 1, "is no type"),
        row("type-very-long", of(&"X".repeat(100_000), 1, 1), 1, "is no type"),
        row("type-markup", of("<script>", 1, 1), 1, "is no type"),
        row("type-path", of("../../x", 1, 1), 1, "is no type"),
    ]);
    // Names of types are kept for the life of the process: few of them.
    let entries = (0..100).map(|i| format!(r#""{i}":{{"dtype":"X{i}","shape":[0],"data_offsets":[0,0]}}"#));
    all.push(row("types-a-hundred-new", format!("{{{}}}", entries.collect::<Vec<_>>().join(",")), 0, "is no type"));
    all
}

fn names() -> Vec<Row> {
    let bad = "control characters in the name of tensor";
    let long = |n: usize| "n".repeat(n);
    let rows: [(&str, &str, &'static str); 34] = [
        ("empty", "", "empty name"),
        ("nul", "a\\u0000b", bad),
        ("bell", "\\u0007", bad),
        ("escape", "\\u001b[31m", bad),
        ("carriage-return", "good\\rbad", bad),
        ("line-break", "a\\nb", bad),
        ("tab", "a\\tb", bad),
        ("backspace", "a\\b\\b", bad),
        ("delete", "a\\u007f", bad),
        ("delete-unescaped", "a\u{7f}", bad),
        ("c1", "\\u009b31m", bad),
        ("c1-unescaped", "\u{9b}31m", bad),
        ("turned", "\\u202egnp.exe", bad),
        ("turned-unescaped", "\u{202e}gnp.exe", bad),
        ("isolate", "\u{2066}a", bad),
        ("mark", "\u{200f}a", bad),
        ("line-separator", "a\u{2028}b", bad),
        ("paragraph-separator", "a\u{2029}b", bad),
        ("space", " ", ""),
        ("parent", "../../outside/secret.txt", ""),
        ("absolute", "/etc/passwd", ""),
        ("drive", "C:\\\\x", ""),
        ("markup", "<script>alert(1)</script>", ""),
        ("quotes", "a\\\"b'c`d", ""),
        ("shell", "$(touch x); `id` && rm -rf *", ""),
        ("format", "%s%n{}{0}", ""),
        ("globs", "[a-z*?{", ""),
        ("markdown", "[a](javascript:x) | b |\\\\", ""),
        ("emoji", "👩‍👩‍👧", ""),
        ("combining", "e\u{301}\u{301}\u{301}", ""),
        ("dots", "......", ""),
        ("metadata-case", "__METADATA__", ""),
        ("metadata-space", "__metadata__ ", ""),
        ("metadata-dots", "__metadata__.a", ""),
    ];
    let named = |(case, name, words): (&str, &str, &'static str)| {
        row(&format!("name-{case}"), header(&[(name, 0, 2)]), 2, words)
    };
    let mut all: Vec<Row> = rows.map(named).into();
    all.extend([
        row("name-metadata", header(&[("__metadata__", 0, 2)]), 2, "`__metadata__`: invalid type"),
        row("name-metadata-by-escape", header(&[("\\u005f_metadata__", 0, 2)]), 2, "`__metadata__`: invalid type"),
        row("name-4096", header(&[(&long(4096), 0, 2)]), 2, ""),
        row("name-4097", header(&[(&long(4097), 0, 2)]), 2, "longer than 4 KiB"),
        row("name-of-1-MB", header(&[(&long(1_000_000), 0, 2)]), 2, "longer than 4 KiB"),
        row("name-4098-of-three", header(&[(&"€".repeat(1366), 0, 2)]), 2, "longer than 4 KiB"),
        row("name-1-MB-of-controls", header(&[(&"\\u001b".repeat(200_000), 0, 2)]), 2, "longer than 4 KiB"),
    ]);
    all
}

fn metadata() -> Vec<Row> {
    let of = |value: &str| format!(r#"{{"__metadata__":{value}}}"#);
    let long = "v".repeat(1_000_000);
    vec![
        row("metadata-plain", of(r#"{"format":"pt"}"#), 0, ""),
        row("metadata-empty", of("{}"), 0, ""),
        row("metadata-null", of("null"), 0, "`__metadata__`: invalid type: null"),
        row("metadata-list", of("[]"), 0, "`__metadata__`: invalid type: sequence"),
        row("metadata-string", of(r#""x""#), 0, "`__metadata__`: invalid type: string"),
        row("metadata-of-numbers", of(r#"{"a":1}"#), 0, "invalid type: integer"),
        row("metadata-of-nulls", of(r#"{"a":null}"#), 0, "invalid type: null"),
        row("metadata-of-booleans", of(r#"{"a":true}"#), 0, "invalid type: boolean"),
        row("metadata-of-lists", of(r#"{"a":["x"]}"#), 0, "invalid type: sequence"),
        row("metadata-of-objects", of(r#"{"a":{"b":"c"}}"#), 0, "invalid type: map"),
        row("metadata-control", of(r#"{"\u001b[2J":"\u001b[2J"}"#), 0, ""),
        row("metadata-long", of(&format!(r#"{{"a":"{long}"}}"#)), 0, ""),
        row("metadata-long-key-twice", of(&format!(r#"{{"{long}":"","{long}":""}}"#)), 0, "appears twice"),
    ]
}

/// What is wrong before there is a header, or instead of one.
fn fronts() -> Vec<(String, Vec<u8>, &'static str)> {
    let sized = |size: u64, rest: &[u8]| [&size.to_le_bytes()[..], rest].concat();
    let mut all: Vec<(String, Vec<u8>, &'static str)> = Vec::new();
    for len in 0..8 {
        all.push((format!("{len}-bytes"), vec![2, 0, 0, 0, 0, 0, 0][..len.min(7)].to_vec(), "too short"));
    }
    for (name, size, words) in [
        ("size-0", 0, "header of 0 bytes"),
        ("size-1", 1, "header of 1 bytes"),
        ("size-of-one-more", 3, "cut off within its header: 2 of 3"),
        ("size-of-the-file", 10, "cut off within its header"),
        ("size-at-the-cap", 33_554_432, "cut off within its header"),
        ("size-beyond-the-cap", 33_554_433, "more than 33554432 are not read"),
        ("size-of-the-format", 100_000_000, "more than 33554432 are not read"),
        ("size-beyond-the-format", 100_000_001, "no safetensors header"),
        ("size-31-bits", 1 << 31, "no safetensors header"),
        ("size-32-bits", 1 << 32, "no safetensors header"),
        ("size-63-bits", 1 << 63, "no safetensors header"),
        ("size-64-bits", u64::MAX, "no safetensors header"),
        ("size-that-wraps", u64::MAX - 7, "no safetensors header"),
        ("size-big-endian", 2u64.swap_bytes(), "no safetensors header"),
    ] {
        all.push((name.into(), sized(size, b"{}"), words));
    }
    for (name, header) in [
        ("a-lone-byte", &b"{\"\xff\":1}"[..]),
        ("an-overlong-slash", b"{\"\xc0\xaf\":1}"),
        ("a-surrogate", b"{\"\xed\xa0\x80\":1}"),
        ("cut-within-a-letter", b"{\"\xe2\x82\":1}"),
        ("latin-1", b"{\"\xe9\":1}"),
        ("beyond-unicode", b"{\"\xf5\x80\x80\x80\":1}"),
    ] {
        all.push((name.into(), tensors_file(header, 0), "not UTF-8"));
    }
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    all.push(("utf-16".into(), tensors_file(utf16, 0), "bad safetensors header"));
    for (name, bytes, words) in [
        ("zip", &b"PK\x03\x04\0\0\x08\x08aaaaaaa"[..], "PyTorch"),
        ("pickle", b"\x80\x02ctorch._utils\n_rebuild", "torch.save"),
        ("gguf", b"GGUF\x03\0\0\0aaaaaaaaaaaa", "GGUF"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("page", b"<!DOCTYPE html><html></html>", "web page"),
        ("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no safetensors header"),
        ("elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", "no safetensors header"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03aaaa", "cut off within its header"),
        ("script", b"#!/bin/sh\ntouch x\n", "no safetensors header"),
        ("json", b"{\"a\":{\"dtype\":\"U8\"}}", "no safetensors header"),
        ("zeros", &[0; 64], "header of 0 bytes"),
        ("ones", &[0xff; 64], "no safetensors header"),
    ] {
        all.push((name.into(), bytes.to_vec(), words));
    }
    all
}

/// A good file that ends too early, at every eighth byte.
fn cuts() -> Vec<Header> {
    let whole = tensors_file(header(&[("first", 0, 4), ("second", 4, 8)]), 8);
    let cut = |len: usize| Header {
        name: format!("cut/{len}"),
        bytes: whole[..len].to_vec(),
        words: if len < 8 { "too short".into() } else { "cut off".into() },
    };
    (0..whole.len()).step_by(8).map(cut).collect()
}

fn write_header(to: &mut dyn Write, count: usize, tail: &str) -> std::io::Result<()> {
    const ENTRY: usize = r#""000000":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"#.len();
    to.write_all(&((2 + count * ENTRY + tail.len() - 1) as u64).to_le_bytes())?;
    to.write_all(b"{")?;
    for i in 0..count {
        let comma = if i + 1 < count { "," } else { "" };
        write!(to, r#""{i:06}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}{comma}"#)?;
    }
    write!(to, "}}{tail}")
}

/// Bytes of a header of as many tensors as are read, in the shortest form.
const HEADER: u64 = 58 << 18;
/// What the program takes before it reads anything.
const PROGRAM: u64 = 24 << 20;

/// Files that are large, or say so.
fn large() -> Vec<Case> {
    let large = |name: &str, write: fn(&mut dyn Write) -> std::io::Result<()>| {
        Case::new(format!("large/{name}")).with("x.safetensors", Thing::Written(write))
    };
    let padded = |to: &mut dyn Write| {
        to.write_all(&(32u64 << 20).to_le_bytes())?;
        to.write_all(b"{}")?;
        (0..32).try_for_each(|i| to.write_all(&vec![b' '; (1 << 20) - if i == 0 { 2 } else { 0 }]))
    };
    let broken = |to: &mut dyn Write| {
        to.write_all(&(32u64 << 20).to_le_bytes())?;
        (0..32).try_for_each(|_| to.write_all(&vec![b'{'; 1 << 20]))
    };
    let metadata = |to: &mut dyn Write| {
        const PAIR: usize = r#""000000":"","#.len();
        let count = 1_000_000;
        to.write_all(&((r#"{"__metadata__":{}}"#.len() + count * PAIR - 1) as u64).to_le_bytes())?;
        to.write_all(br#"{"__metadata__":{"#)?;
        (0..count).try_for_each(|i| write!(to, r#"{}"{i:06}":"""#, if i > 0 { "," } else { "" }))?;
        to.write_all(b"}}")
    };
    let terabyte = tensors_file(header(&[("a", 0, 1 << 40)]), 0);
    let end = terabyte.len() as u64 + (1 << 40);
    vec![
        large("most-tensors", |to| write_header(to, 262_144, "")).run(&["inspect", "x.safetensors"]),
        large("most-tensors-json", |to| write_header(to, 262_144, "")).run(&["inspect", "x.safetensors", "--json"]),
        // Refused after all of it is read.
        large("a-byte-behind-most-tensors", |to| write_header(to, 262_144, "").and_then(|()| to.write_all(&[0])))
            .run(&["inspect", "x.safetensors"])
            .refused("1 bytes after the last tensor")
            .within(4 * HEADER + PROGRAM),
        commands(large("a-tensor-too-many", |to| write_header(to, 262_145, "")), "x.safetensors")
            .refused("more than 262144 tensors"),
        commands(large("half-a-million-tensors", |to| write_header(to, 550_000, "")), "x.safetensors")
            .refused("more than 262144 tensors"),
        large("header-of-spaces", padded).run(&["inspect", "x.safetensors"]),
        commands(large("header-of-braces", broken), "x.safetensors").refused("key must be a string"),
        commands(large("metadata-of-a-million-keys", metadata), "x.safetensors").refused("more than 65536 keys"),
        Case::new("large/a-terabyte-that-is-not-there")
            .with("x.safetensors", Thing::Sparse(terabyte, end))
            .run(&["inspect", "x.safetensors"]),
    ]
}

/// What is no file.
fn paths() -> Vec<Case> {
    let case = |name: &str| Case::new(format!("path/{name}"));
    let good = || tensors_file(header(&[("a", 0, 2)]), 2);
    vec![
        commands(case("pipe").with("x.safetensors", Thing::Pipe), "x.safetensors").refused("is a pipe"),
        commands(case("folder").with("x/model.safetensors", Thing::Folder), "x").refused("is a folder"),
        commands(case("link-to-a-device").link("x.safetensors", "/dev/zero"), "x.safetensors").refused("a device"),
        commands(case("zero"), "/dev/zero").refused("a device"),
        commands(case("null"), "/dev/null").refused("a device"),
        commands(case("proc"), "/proc/self/maps").refused("too short"),
        commands(case("proc-memory"), "/proc/self/mem").refused("too short"),
        commands(case("proc-pages"), "/proc/kmsg").refused(""),
        commands(case("sys"), "/sys/kernel/mm/transparent_hugepage/enabled").refused(""),
        commands(case("link-to-itself").link("x.safetensors", "x.safetensors"), "x.safetensors")
            .refused_with(2, "is a link to nothing"),
        commands(case("link-to-nothing").link("x.safetensors", "y"), "x.safetensors")
            .refused_with(2, "is a link to nothing"),
        commands(case("long").file("x", good()), &"y".repeat(5000)).refused_with(2, "is neither a path"),
        commands(case("control"), "\u{1b}[2J").refused_with(2, "`\\u{1b}[2J` is not the name of a model"),
        case("empty").run(&["inspect", ""]).refused_with(2, "is not the name of a model"),
        commands(case("slash"), "x.safetensors/").refused_with(2, "does not exist"),
        commands(case("name-turned").file("\u{202e}x", good()), "\u{202e}x").refused_with(2, "is not the name"),
        commands(case("dash").file("-x.safetensors", good()), "./-x.safetensors"),
    ]
}
