//! Recipes: YAML that grows, nests, repeats itself or says what it should not.

use std::io::Write;

use crate::case::{Case, Thing, floats_file};

const GOOD: &str = "merge_method: linear\nbase_model: a.safetensors\nmodels: [{model: a.safetensors}]\n";

fn recipe(name: &str, text: impl Into<Vec<u8>>) -> Case {
    commands(name).file("r.yml", text)
}

fn commands(name: &str) -> Case {
    Case::new(format!("recipe/{name}")).file("a.safetensors", floats_file(&[("x", &[2, 2])])).run(&[
        "merge",
        "r.yml",
        "--device",
        "cpu",
        "--threads",
        "2",
        "--out",
        "out",
    ])
}

/// A good recipe and what comes after it.
fn and(name: &str, more: &str) -> Case {
    recipe(name, format!("{GOOD}{more}"))
}

/// Lists of aliases of lists of aliases, `wide` each.
fn bomb(levels: usize, wide: usize, leaf: &str) -> String {
    let mut text = format!("{GOOD}exclude: &a0 [{leaf}]\n");
    for level in 1..levels {
        let aliases = vec![format!("*a{}", level - 1); wide].join(", ");
        text += &format!("x{level}: &a{level} [{aliases}]\n");
    }
    text
}

/// `count` names with commas between them.
fn alternatives(count: usize) -> String {
    (0..count).map(|i| format!("a{i}")).collect::<Vec<_>>().join(",")
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut all = growth();
    all.extend(depth());
    all.extend(twice());
    all.extend(tags());
    all.extend(values());
    all.extend(files());
    all.into_iter().map(|case| if case.name.starts_with("recipe/good") { case } else { usage(case) }).collect()
}

/// What is wrong with a recipe is wrong usage.
fn usage(case: Case) -> Case {
    match case.want.clone() {
        crate::case::Want::Refused(1, words) => case.refused_with(2, words),
        _ => case,
    }
}

fn growth() -> Vec<Case> {
    let large = "once its aliases are written out";
    let mapped = (1..9).fold("x0: &m0 {a: b}\n".to_owned(), |text, i| {
        let pairs: Vec<String> = (0..10).map(|k| format!("k{k}: *m{}", i - 1)).collect();
        text + &format!("x{i}: &m{i} {{{}}}\n", pairs.join(", "))
    });
    let merged = (1..30).fold("x0: &m0 {a: b}\n".to_owned(), |text, i| {
        text + &format!("x{i}: &m{i}\n  <<: [*m{}, *m{}]\n", i - 1, i - 1)
    });
    let chain: String = (1..1000).map(|i| format!("x{i}: &c{i} [*c{}]\n", i - 1)).collect();
    vec![
        recipe("bomb-of-lists", bomb(10, 10, "x")).refused(large),
        recipe("bomb-of-two", bomb(40, 2, "x")).refused(large),
        recipe("bomb-wide", bomb(4, 500, "x")).refused(large),
        recipe("bomb-of-long-text", bomb(6, 10, &"y".repeat(100_000))).refused(large),
        and("bomb-of-mappings", &mapped).refused(large),
        and("bomb-of-merge-keys", &merged).refused(""),
        and("chain-of-aliases", &format!("x0: &c0 [x]\n{chain}")).refused(""),
        and("alias-a-million-times", &format!("exclude: [&a x{}]\n", ", *a".repeat(1_000_000))).refused("recipe"),
        and("anchor-of-itself", "exclude: &a [*a]\n").refused("an anchor holds itself"),
        and("anchor-of-itself-deeper", "exclude: &a [x, [y, {z: *a}]]\n").refused("an anchor holds itself"),
        and("alias-of-nothing", "exclude: [*a]\n").refused("alias of an anchor that is not above it"),
        and("alias-of-what-comes", "exclude: [*a]\nx: &a y\n").refused("alias of an anchor that is not above it"),
        and("half-a-million-names", &format!("exclude: [{}]\n", "x, ".repeat(500_000))).refused(large),
        and("good-some-names", &format!("exclude: [{}]\n", "x, ".repeat(5_000))),
        and("good-one-anchor-for-many", "exclude: [&a 'y', *a, *a, *a]\n"),
        and("comment-of-5-MB", &"#".repeat(5 << 20)).refused("larger than a recipe can be"),
    ]
}

fn depth() -> Vec<Case> {
    let deep = "too deeply nested";
    let block = |n: usize| (0..n).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>();
    let dashes = format!("exclude:\n{}x\n", "- ".repeat(10_000));
    vec![
        and("lists-100-deep", &format!("exclude: {}x{}\n", "[".repeat(100), "]".repeat(100))).refused(""),
        and("lists-100000-deep", &format!("exclude: {}", "[".repeat(100_000))).refused(""),
        and("mappings-100000-deep", &format!("exclude: {}", "{a: ".repeat(100_000))).refused(""),
        and("blocks-200-deep", &format!("exclude:\n {}", block(200).replace('\n', "\n "))).refused(deep),
        and("blocks-1500-deep", &format!("exclude:\n {}", block(1500).replace('\n', "\n "))).refused(deep),
        and("dashes-10000-deep", &dashes).refused(deep),
        and("questions-10000-deep", &format!("exclude:\n{}x\n", "? ".repeat(10_000))).refused(""),
        and("quotes-that-do-not-end", &format!("exclude: '{}", "x".repeat(1_000_000))).refused(""),
        and("brackets-closed-only", &"]".repeat(100_000)).refused(""),
        and("indents-turned", &(0..500).map(|i| format!("{}- x\n", " ".repeat(500 - i))).collect::<String>())
            .refused(""),
    ]
}

fn twice() -> Vec<Case> {
    let twice = "duplicate";
    vec![
        and("method-twice", "merge_method: ties\n").refused(twice),
        and("method-twice-the-same", "merge_method: linear\n").refused(twice),
        and("method-twice-in-quotes", "\"merge_method\": ties\n").refused(twice),
        and("method-twice-by-escape", "\"merge\\u005fmethod\": ties\n").refused(twice),
        and("models-twice", "models: [{model: b}]\n").refused(twice),
        and("parameter-twice", "parameters: {weight: 1, weight: 2}\n").refused(twice),
        and("model-twice", "calibrate: {space: wsc, space: fsc}\n").refused(twice),
        and("filter-twice", "parameters: {weight: [{filter: a, filter: b, value: 1}]}\n").refused(twice),
        and("two-documents", "---\nmerge_method: ties\n").refused(""),
        and("good-ended-document", "...\n"),
    ]
}

fn tags() -> Vec<Case> {
    vec![
        and("python-object", "exclude: !!python/object/apply:os.system ['touch x']\n"),
        and("python-name", "exclude: !!python/name:os.system x\n"),
        and("ruby-object", "exclude: !ruby/object:Gem::Installer {i: x}\n").refused("mapping"),
        and("java-object", "exclude: !!javax.script.ScriptEngineManager [x]\n"),
        and("binary", "exclude: !!binary aGVsbG8=\n"),
        and("binary-that-is-none", "exclude: !!binary '***'\n").refused(""),
        and("own-tag", "exclude: !x y\n"),
        and("tag-of-control", "exclude: !%1b%5b2J y\n"),
        and("number-as-text", "exclude: !!str 5\n"),
        and("text-as-number", "seed: !!int x\n").refused(""),
        and("include", "exclude: !include /etc/passwd\n"),
        and("env", "exclude: !ENV ${HOME}\n"),
        and("directive", "").file("r.yml", format!("%YAML 1.1\n---\n{GOOD}")),
        and("directive-unknown", "").file("r.yml", format!("%X y\n---\n{GOOD}")),
        and("directive-version-99", "").file("r.yml", format!("%YAML 99.1\n---\n{GOOD}")).refused(""),
    ]
}

fn values() -> Vec<Case> {
    let long = "k".repeat(100_000);
    let globs = "[".repeat(1000);
    vec![
        and("key-unknown", "weights: 1\n").refused("unknown key `weights`"),
        and("key-long", &format!("? {long}\n: 1\n")).refused("unknown key"),
        and("key-of-control", "\"\\e[2J\": 1\n").refused("unknown key `\\u{1b}[2J`"),
        and("key-turned", "\"\\u202Ex\": 1\n").refused("unknown key `\\u{202e}x`"),
        and("key-null", "~: 1\n").refused(""),
        and("key-list", "[a, b]: 1\n").refused("a key is not text"),
        and("key-mapping", "{a: b}: 1\n").refused("a key is not text"),
        and("method-of-control", "")
            .file("r.yml", GOOD.replace("linear", "\"\\e]0;x\\a\""))
            .refused("\\u{1b}]0;x\\u{7}"),
        and("method-long", "").file("r.yml", GOOD.replace("linear", &long)).refused("kkk"),
        and("model-of-control", "")
            .file("r.yml", GOOD.replace("{model: a", "{model: \"\\e[2J\", data: a"))
            .refused("\\u{1b}[2J"),
        and("model-long", "")
            .file("r.yml", GOOD.replace("{model: a", &format!("{{model: {long}")))
            .refused("neither a path"),
        and("model-nul", "").file("r.yml", GOOD.replace("{model: a", "{model: \"\\0a")).refused(""),
        and("seed-negative", "seed: -1\n").refused("not a whole number"),
        and("seed-beyond-64-bits", "seed: 18446744073709551616\n").refused("not a whole number"),
        and("seed-nan", "seed: .nan\n").refused("not a whole number"),
        and("seed-exponent", "seed: 1e400\n").refused("not a whole number"),
        and("good-seed-largest", "seed: 18446744073709551615\n"),
        and("weight-infinite", "parameters: {weight: .inf}\n").refused("not a finite number"),
        and("weight-nan", "parameters: {weight: [1, .nan]}\n").refused("not a finite number"),
        and("weight-huge", "parameters: {weight: 1e400}\n").refused("finite"),
        and("weight-of-a-million", &format!("parameters: {{weight: [{}]}}\n", "1,".repeat(1_000_000)))
            .refused("too large"),
        and("good-rank-huge", "lora_out: 18446744073709551615\n").refused("matrices only"),
        and("samples-huge", "calibrate: {space: wsc, feature: {samples: 18446744073709551615}}\n"),
        and("glob-of-brackets", &format!("exclude: ['{globs}']\n")).refused(""),
        and("glob-of-braces", &format!("exclude: ['{}']\n", "{a,b}".repeat(30))),
        and("glob-of-braces-within", &format!("exclude: ['{}']\n", "{".repeat(1000))).refused(""),
        and("glob-of-stars", &format!("exclude: ['{}b']\n", "*a".repeat(1000))),
        and("glob-of-a-megabyte", &format!("exclude: ['{}']\n", "?".repeat(1_000_000)))
            .refused("which is longer than 4096 bytes"),
        and(
            "globs-of-many-alternatives",
            &format!("exclude: [{}]\n", format!("'{{{}}}*', ", alternatives(300)).repeat(900)),
        )
        .refused("`exclude` has the pattern `{a0,a1,"),
        and(
            "good-globs-of-some-alternatives",
            &format!("exclude: [{}]\n", format!("'{{x,{}}}*', ", alternatives(60)).repeat(200)),
        ),
        and(
            "globs-16000",
            &format!("exclude: [{}]\n", (0..16_000).map(|i| format!("'*.{i}.*', ")).collect::<String>()),
        )
        .refused("`*.1024.*`, with which the patterns are more than the most"),
        and(
            "good-globs-1000",
            &format!("exclude: [{}]\n", (0..1000).map(|i| format!("'{{x,y{i}}}', ")).collect::<String>()),
        ),
        and("glob-of-control", "exclude: [\"\\e[2J[\"]\n").refused("\\u{1b}[2J["),
    ]
}

fn files() -> Vec<Case> {
    let endless = |to: &mut dyn Write| (0..64).try_for_each(|_| to.write_all(&[b'a'; 1 << 20]));
    let named = |name: &str, path: &str| {
        Case::new(format!("recipe/{name}")).run(&["merge", path, "--device", "cpu", "--out", "out"])
    };
    vec![
        recipe("empty", "").refused("is empty"),
        recipe("nul", "\0\0\0\0").refused(""),
        recipe("not-utf-8", &b"merge_method: \xff\n"[..]).refused("no UTF-8 text"),
        recipe("utf-16", GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).refused("r.yml"),
        recipe("good-bom", format!("\u{feff}{GOOD}")),
        recipe("bare-control", format!("{GOOD}# \u{1b}[2J\n")).refused(""),
        recipe("json", r#"{"merge_method":"linear","models":[{"model":"a.safetensors"}]}"#),
        recipe("a-list", "- a\n- b\n").refused("not a mapping"),
        recipe("a-model", floats_file(&[("x", &[2])])).refused("r.yml"),
        commands("64-MB").with("r.yml", Thing::Written(endless)).refused("larger than a recipe can be"),
        commands("a-terabyte")
            .with("r.yml", Thing::Sparse(GOOD.into(), 1 << 40))
            .refused("larger than a recipe can be"),
        commands("a-folder").with("r.yml", Thing::Folder).refused("is a folder"),
        named("zeros", "/dev/zero").refused("larger than a recipe can be"),
        named("nothing", "/dev/null").refused("is empty"),
        named("good-not-there", "no.yml").refused_with(2, "no.yml"),
    ]
}
