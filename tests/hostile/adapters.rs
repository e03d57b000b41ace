//! Adapters: their configuration and their factors.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::case::{Case, Thing, floats_file, tensors_file};

const CONFIG: &str = "a/adapter_config.json";
const FACTORS: &str = "a/adapter_model.safetensors";
const Q: &str = "base_model.model.l.0.q";

/// A base with two modules, and an adapter of rank 2 for one of them.
fn adapter(name: impl std::fmt::Display) -> Case {
    let merge = "merge --device cpu --threads 2 --base b --model a --method linear --out out";
    Case::new(format!("adapter/{name}"))
        .file("b/model.safetensors", floats_file(&[("l.0.q.weight", &[4, 4]), ("l.1.q.weight", &[4, 4])]))
        .file(CONFIG, json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4}).to_string())
        .file(FACTORS, factors(&[2, 4], &[4, 2]))
        .run(&merge.split(' ').collect::<Vec<_>>())
}

fn factors(down: &[u64], up: &[u64]) -> Vec<u8> {
    floats_file(&[(&format!("{Q}.lora_A.weight"), down), (&format!("{Q}.lora_B.weight"), up)])
}

/// With another value under a key of the configuration.
fn with(name: &str, key: &str, value: Value) -> Case {
    let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
    config[key] = value;
    adapter(name).file(CONFIG, config.to_string())
}

/// All cases; `outside` is where nobody may look.
pub fn cases(outside: &Path) -> Vec<Case> {
    let mut all = configurations();
    all.extend(patterns());
    all.extend(tensors());
    all.extend(singles());
    all.extend(files(outside));
    all
}

fn configurations() -> Vec<Case> {
    vec![
        adapter("right"),
        with("rank-0", "r", json!(0)).refused("`r` is no rank"),
        with("rank-negative", "r", json!(-2)).refused("`r` is no rank"),
        with("rank-half", "r", json!(2.5)).refused("`r` is no rank"),
        with("rank-text", "r", json!("\u{1b}[2J")).refused("`r` is no rank"),
        with("rank-huge", "r", json!(u64::MAX)).refused("says 18446744073709551615"),
        with("rank-a-megabyte", "r", json!("x".repeat(1_000_000))).refused("`r` is no rank"),
        with("alpha-0", "lora_alpha", json!(0)).refused("does nothing"),
        with("alpha-huge", "lora_alpha", json!(1e308)).refused("cannot be merged in `l.0.q.weight`: 16 infinite"),
        with("alpha-null", "lora_alpha", Value::Null).refused("`lora_alpha` is no number"),
        with("kind-unknown", "peft_type", json!("\u{1b}]0;x\u{7}")).refused("\\u{1b}]0;x\\u{7}"),
        with("kind-a-megabyte", "peft_type", json!("x".repeat(1_000_000))).refused("only LORA can be read"),
        with("kind-null", "peft_type", Value::Null).refused("only LORA can be read"),
        with("flag-text", "use_rslora", json!("yes")).refused("neither true nor false"),
        with("runtime-code", "auto_mapping", json!({"parent_library": "os", "base_model_class": "system"})),
        with("base-elsewhere", "base_model_name_or_path", json!("../../outside")),
        with("init-of-control", "init_lora_weights", json!("pissa\u{1b}[2J")).refused("pissa\\u{1b}[2J"),
        with("replicated", "layer_replication", json!([[0, 1_000_000_000]])).refused("layer_replication"),
        adapter("empty").file(CONFIG, "").refused("holds no JSON object"),
        adapter("list").file(CONFIG, "[]").refused("holds another value"),
        adapter("deep").file(CONFIG, "[".repeat(1_000_000)).refused("recursion limit"),
        adapter("not-utf-8").file(CONFIG, &b"{\"a\": \"\xff\"}"[..]).refused("holds no JSON object"),
    ]
}

fn patterns() -> Vec<Case> {
    let ranks = |name: &str, patterns: Vec<String>| {
        let map: Map<String, Value> = patterns.into_iter().map(|pattern| (pattern, json!(2))).collect();
        with(&format!("pattern-{name}"), "rank_pattern", Value::Object(map))
    };
    let one = |name: &str, pattern: &str| ranks(name, vec![pattern.to_owned()]);
    let wrong = "no regular expression, or too large a one";
    let module = format!("base_model.model.{}", "l".repeat(60));
    let module = [(format!("{module}.lora_A.weight"), [2, 4]), (format!("{module}.lora_B.weight"), [4, 2])];
    let module = module.each_ref().map(|(name, shape)| (&**name, &shape[..]));
    let long = |name: &str, pattern: &str| one(name, pattern).file(FACTORS, floats_file(&module));
    vec![
        one("right", r"l\.[0-9]+\.q"),
        one("that-is-none", "(").refused(wrong),
        one("that-leaves-its-group", "x)|(.*"),
        one("too-large", r"(\pL{1000}){1000}").refused(wrong),
        one("too-large-once", r"\w{10000}").refused(wrong),
        long("that-goes-back", "(l|l)*(?=z)z").refused("takes too long to match"),
        long("that-goes-back-to-a-group", r"(l*)*\1z").refused("takes too long to match"),
        one("deep", &"(".repeat(10_000)).refused(wrong),
        one("deep-and-right", &("(?:".repeat(10_000) + "l" + &")".repeat(10_000))).refused(wrong),
        one("of-a-megabyte", &"x".repeat(1_000_000)),
        one("of-control", "[\u{1b}").refused("[\\u{1b}"),
        one("empty", ""),
        ranks("names-4096", (0..4096).map(|i| format!("m.{i}.q")).collect()),
        ranks("names-4097", (0..4097).map(|i| format!("m.{i}.q")).collect()).refused("more than 4096 patterns"),
        ranks("regexes-256", (0..256).map(|i| format!("m[.]{i}.q|{i}")).collect()),
        ranks("regexes-257", (0..257).map(|i| format!("m[.]{i}.q|{i}")).collect()).refused("more than 256 patterns"),
        ranks("regexes-3000-large", (0..3000).map(|i| format!("(a|b|{i})*.{{0,200}}")).collect())
            .refused("more than 256 patterns"),
        with("pattern-list", "rank_pattern", json!([1])).refused("is no object"),
        with("pattern-rank-0", "rank_pattern", json!({"q": 0})).refused("is no rank"),
        with("pattern-alpha-0", "alpha_pattern", json!({"q": 0})).refused("does nothing"),
    ]
}

fn tensors() -> Vec<Case> {
    let fit = "do not fit";
    let shapes = |name: &str, down: &[u64], up: &[u64]| adapter(name).file(FACTORS, factors(down, up));
    let named = |name: &str, tensors: &[(&str, &[u64])]| adapter(name).file(FACTORS, floats_file(tensors));
    let more = |name: &str, tensor: &str, shape: &[u64]| {
        let (down, up) = (format!("{Q}.lora_A.weight"), format!("{Q}.lora_B.weight"));
        adapter(name).file(FACTORS, floats_file(&[(&down, &[2, 4]), (&up, &[4, 2]), (tensor, shape)]))
    };
    let integer = r#"{"base_model.model.l.0.q.lora_A.weight":{"dtype":"I32","shape":[2,4],"data_offsets":[0,32]},
                      "base_model.model.l.0.q.lora_B.weight":{"dtype":"I32","shape":[4,2],"data_offsets":[32,64]}}"#;
    vec![
        shapes("down-scalar", &[], &[4, 2]).refused(fit),
        shapes("up-scalar", &[2, 4], &[]).refused(fit),
        shapes("rank-of-nothing", &[0, 4], &[4, 0]).refused(fit),
        shapes("nothing-in", &[2, 0], &[4, 2]).refused(fit),
        shapes("nothing-and-largest", &[2, 0, 1 << 40], &[4, 2, 1]).refused(fit),
        shapes("ranks-apart", &[2, 4], &[4, 3]).refused(fit),
        shapes("rank-16-dims", &[2, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], &[4, 2]).refused("[4, 4"),
        shapes("other-rank", &[3, 4], &[4, 3]).refused("`adapter_config.json` says 2"),
        shapes("other-base", &[2, 5], &[4, 2]).refused("changes a weight of [4, 5]"),
        named("nothing", &[]).refused("holds no tensor"),
        named("down-only", &[(&format!("{Q}.lora_A.weight"), &[2, 4])]).refused("lacks its factor"),
        named("up-only", &[(&format!("{Q}.lora_B.weight"), &[4, 2])]).refused("lacks its factor"),
        more("module-that-is-not-there", "base_model.model.x.lora_A.weight", &[2, 4]).refused("lacks its factor"),
        more("two-adapters", &format!("{Q}.lora_A.other.weight"), &[2, 4]).refused("two factors of one kind"),
        more("part-unknown", &format!("{Q}.lora_C.weight"), &[2, 4]).refused("not known"),
        more("dora", &format!("{Q}.lora_magnitude_vector"), &[4]).refused("DoRA"),
        more("empty-module", ".lora_A.weight", &[2, 4]).refused("lacks its factor"),
        more("module-of-markers", &".lora_A.".repeat(500), &[2, 4]).refused(""),
        adapter("integers").file(FACTORS, tensors_file(integer, 64)).refused("stored as I32"),
        adapter("cut").file(FACTORS, &factors(&[2, 4], &[4, 2])[..100]).refused("cut off"),
    ]
}

/// Single files of diffusion tools.
fn singles() -> Vec<Case> {
    let merge = "merge --device cpu --threads 2 --model s.safetensors --method linear --out out";
    let single = |name: &str, tensors: &[(&str, &[u64])]| {
        let case = Case::new(format!("adapter/single-{name}")).file("s.safetensors", floats_file(tensors));
        case.run(&merge.split(' ').collect::<Vec<_>>())
    };
    let (down, up) = ("lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight");
    vec![
        single("right", &[(down, &[2, 4]), (up, &[4, 2])]),
        single("alpha-of-many", &[(down, &[2, 4]), (up, &[4, 2]), ("lora_unet_x.alpha", &[3])])
            .refused("not one number"),
        single("alpha-of-none", &[(down, &[2, 4]), (up, &[4, 2]), ("lora_unet_x.alpha", &[0])])
            .refused("not one number"),
        single("alpha-alone", &[(down, &[2, 4]), (up, &[4, 2]), ("lora_unet_y.alpha", &[1])]).refused("only alpha"),
        single("of-another-kind", &[(down, &[2, 4]), (up, &[4, 2]), ("lora_unet_y.hada_w1_a", &[1])]).refused("LoHa"),
        single("with-a-stranger", &[(down, &[2, 4]), (up, &[4, 2]), ("x.weight", &[1])]).refused("no part of a LoRA"),
        single(
            "module-by-two-names",
            &[(down, &[2, 4]), (up, &[4, 2]), ("unet.x.lora_A.weight", &[2, 4]), ("unet.x.lora_B.weight", &[4, 2])],
        )
        .refused("under two names"),
        single("ends-only", &[(".lora_down.weight", &[2, 4]), (".lora_up.weight", &[4, 2])]),
        single("rank-0", &[(down, &[0, 4]), (up, &[4, 0])]).refused("do not fit"),
    ]
}

fn files(outside: &Path) -> Vec<Case> {
    let thing = |name: &str, path: &str, thing: Thing| {
        let mut case = adapter(name);
        case.things.retain(|(place, _)| place != Path::new(path));
        case.with(path, thing)
    };
    let out = "leads out of its folder";
    vec![
        thing("config-pipe", CONFIG, Thing::Pipe).refused("is a pipe"),
        thing("config-folder", CONFIG, Thing::Folder).refused("is a folder"),
        thing("config-link-out", CONFIG, Thing::Link(outside.join("adapter_config.json"))).refused(out),
        thing("config-of-17-MB", CONFIG, Thing::Sparse(b"{".to_vec(), (16 << 20) + 1)).refused("more than the 16.8 MB"),
        thing("factors-link-out", FACTORS, Thing::Link(outside.join("adapter_model.safetensors"))).refused(out),
        thing("factors-link-up", FACTORS, Thing::Link("../../../outside/adapter_model.safetensors".into()))
            .refused(out),
        thing("factors-pipe", FACTORS, Thing::Pipe).refused("is a pipe"),
        thing("factors-zeros", FACTORS, Thing::Link("/dev/zero".into())).refused(out),
    ]
}
