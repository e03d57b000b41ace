//! Model folders and the hub's cache: links, names and side files that lead elsewhere.

use std::path::Path;

use crate::case::{Case, Thing, floats_file};

fn weights() -> Vec<u8> {
    floats_file(&[("x", &[2, 2])])
}

fn commands(case: Case, model: &str) -> Case {
    let merge = ["merge", "--device", "cpu", "--threads", "2", "--base", model, "--model", model, "--method", "linear"];
    case.run(&["inspect", model]).run(&[&merge[..], &["--out", "out"]].concat())
}

/// All cases; `outside` is where nobody may look.
pub fn cases(outside: &Path) -> Vec<Case> {
    let mut all = folders(outside);
    all.extend(side_files(outside));
    all.extend(cache(outside));
    all
}

fn folders(outside: &Path) -> Vec<Case> {
    let case = |name: &str| commands(Case::new(format!("folder/{name}")), "m");
    let model = "m/model.safetensors";
    let out = "leads out of its folder";
    vec![
        case("right").file(model, weights()),
        case("link-beside").file("m/other", weights()).link(model, "other"),
        case("link-and-back").file("m/other", weights()).link(model, "../m/other"),
        case("is-a-link").file("real/model.safetensors", weights()).link("m", "real"),
        case("link-out").link(model, outside.join("model.safetensors")).refused(out),
        case("link-up").link(model, "../../../outside/model.safetensors").refused(out),
        case("link-by-a-link").link("m/x", "../../../outside").link(model, "x/model.safetensors").refused(out),
        case("link-to-a-neighbour")
            .file("real/model.safetensors", weights())
            .link(model, "../real/model.safetensors")
            .refused(out),
        case("link-to-a-name-alike").file("m2/x", weights()).link(model, "../m2/x").refused(out),
        case("link-to-memory").link(model, "/proc/self/mem").refused(out),
        case("other-name-link-out").link("m/x.safetensors", outside.join("model.safetensors")).refused(out),
        case("link-to-itself").link(model, "model.safetensors").refused("link to nothing"),
        case("pipe").with(model, Thing::Pipe).refused("is a pipe"),
        case("empty").with("m", Thing::Folder).refused("has no `.safetensors` file"),
        case("name-of-control").file("m/\u{1b}[2J.safetensors", weights()),
        case("two-names-of-control")
            .file("m/\u{1b}[2J.safetensors", weights())
            .file("m/\u{202e}.safetensors", weights())
            .refused("\\u{1b}[2J.safetensors"),
        case("many-names")
            .refused("more than one that it could be")
            .file("m/x.safetensors", weights())
            .file("m/y.safetensors", weights()),
    ]
}

/// What a merge would take over from its base.
fn side_files(outside: &Path) -> Vec<Case> {
    let case = |name: &str| {
        let merge = "merge --device cpu --threads 2 --base m --model m --method linear --out out";
        let case = Case::new(format!("side/{name}")).file("m/model.safetensors", weights());
        case.run(&merge.split(' ').collect::<Vec<_>>())
    };
    let mut all = Vec::new();
    for name in
        ["config.json", "tokenizer.json", "tokenizer.model", "vocab.txt", "chat_template.jinja", "tokenizer_x.json"]
    {
        let at = format!("m/{name}");
        let out = "leads out of its folder";
        all.push(case(&format!("{name}-link-out")).link(&at, outside.join("secret.txt")).refused(out));
        all.push(case(&format!("{name}-link-to-passwords")).link(&at, "/etc/passwd").refused(out));
        all.push(case(&format!("{name}-pipe")).with(&at, Thing::Pipe).refused("is a pipe"));
        all.push(case(&format!("{name}-folder")).with(&at, Thing::Folder).refused("is a folder"));
    }
    all.extend([
        case("of-65-MB")
            .with("m/vocab.txt", Thing::Sparse(b"x".to_vec(), (64 << 20) + 1))
            .refused("more than the 67.1 MB"),
        case("of-a-terabyte").with("m/tokenizer.model", Thing::Sparse(b"x".to_vec(), 1 << 40)).refused("more than the"),
        case("code-link-out").link("m/modeling.py", outside.join("secret.txt")),
        case("unknown-link-out").link("m/notes.json", outside.join("secret.txt")),
        case("readme-link-out").link("m/README.md", outside.join("secret.txt")),
        case("hidden-link-out").link("m/.model", outside.join("secret.txt")),
        case("name-of-control")
            .file("m/tokenizer\u{1b}[2J.json", "{}")
            .refused("`tokenizer\\u{1b}[2J.json` has control"),
        case("name-of-control-link-out")
            .link("m/tokenizer\u{1b}[2J.json", outside.join("secret.txt"))
            .refused("tokenizer\\u{1b}[2J.json"),
        case("name-with-a-backslash").file("m/tokenizer\\..\\x.json", "{}").refused("is a path, not a file name"),
        case("receipt").file("m/magic.json", "[".repeat(1_000_000)),
    ]);
    all
}

fn cache(outside: &Path) -> Vec<Case> {
    let repo = "cache/models--org--name";
    let case = |name: &str, spec: &str| commands(Case::new(format!("cache/{name}")), spec);
    let blob = || format!("{repo}/blobs/0a");
    let main = || format!("{repo}/refs/main");
    let at = |file: &str| format!("{repo}/snapshots/abc/{file}");
    let right = |name: &str| case(name, "org/name").file(main(), "abc\n").file(blob(), weights());
    // Of these only a merge reads more than the weights.
    let merged = |mut case: Case| {
        case.commands.remove(0);
        case
    };
    let out = "leads out of its folder";
    let lost = "but not its revision";
    let shard = r#"{"weight_map": {"x": "../../blobs/0a.safetensors"}}"#;
    vec![
        right("right").link(at("model.safetensors"), "../../blobs/0a"),
        right("blob-link-out")
            .link(at("model.safetensors"), "../../blobs/0b")
            .link(format!("{repo}/blobs/0b"), outside.join("model.safetensors"))
            .refused(out),
        right("link-out").link(at("model.safetensors"), outside.join("model.safetensors")).refused(out),
        right("link-to-another-model")
            .file("cache/models--org--other/blobs/0a", weights())
            .link(at("model.safetensors"), "../../../models--org--other/blobs/0a")
            .refused(out),
        right("link-to-refs").link(at("model.safetensors"), "../../refs/main").refused(out),
        merged(right("config-link-out").link(at("model.safetensors"), "../../blobs/0a"))
            .link(at("config.json"), outside.join("config.json"))
            .refused(out),
        right("index-names-blobs").file(at("model.safetensors.index.json"), shard).refused("is a path"),
        case("ref-leads-out", "org/name")
            .file(main(), "../../../../outside")
            .with(format!("{repo}/snapshots"), Thing::Folder)
            .refused_with(2, lost),
        case("ref-absolute", "org/name")
            .file(main(), outside.to_str().expect("text"))
            .with(format!("{repo}/snapshots"), Thing::Folder)
            .refused_with(2, lost),
        case("ref-of-control", "org/name")
            .file(main(), "\u{1b}[2J")
            .with(format!("{repo}/snapshots/\u{1b}[2J"), Thing::Folder)
            .refused_with(2, "\\u{1b}[2J"),
        case("ref-long", "org/name").file(main(), "a".repeat(100_000)).refused("more than the 256 bytes"),
        case("ref-empty", "org/name")
            .file(main(), "")
            .with(format!("{repo}/snapshots"), Thing::Folder)
            .refused_with(2, lost),
        case("ref-link-out", "org/name").link(main(), outside.join("secret.txt")).refused_with(2, ""),
        case("ref-pipe", "org/name").with(main(), Thing::Pipe).refused_with(2, lost),
        case("revision-leads-out", "org/name@../../x").file(main(), "abc").refused_with(2, "does not exist"),
        case("revision-absolute", "org/name@/etc").file(main(), "abc").refused_with(2, "does not exist"),
        case("name-leads-out", "org/..").refused_with(2, ""),
        case("name-of-two-dashes", "org--name/x").refused_with(2, "does not exist"),
        case("snapshot-is-a-link-out", "org/name")
            .file(main(), "abc")
            .link(format!("{repo}/snapshots/abc"), outside)
            .refused("is a link"),
        case("model-is-a-link-out", "org/name").link(repo, outside).refused_with(2, lost),
    ]
}
