//! The documented interface of the library stays small and closed: what its signatures name is documented too, and no
//! part of the engine, such as wgpu, shows. Its examples are doctests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Most types that a user of the library meets.
const MOST: usize = 12;

/// The pages of types and functions, as rustdoc lists them: `struct.Job.html`.
fn pages(docs: &Path) -> BTreeSet<String> {
    let all = fs::read_to_string(docs.join("all.html")).expect("the list of all items");
    let links = all.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let pages: BTreeSet<String> =
        links.filter(|link| link.ends_with(".html") && !link.contains("..")).map(str::to_owned).collect();
    pages.into_iter().filter(|page| page != "index.html" && page != "all.html").collect()
}

/// Names of types in the signatures of a page that lead to no documentation.
fn undocumented(page: &str) -> BTreeSet<String> {
    // What follows the type's own methods is what traits give it.
    let traits = ["trait", "synthetic", "blanket"].map(|kind| page.find(&format!("id=\"{kind}-implementations")));
    let own = &page[..traits.into_iter().flatten().min().unwrap_or(page.len())];
    let parts = |begin, end: &'static str| {
        own.split(begin).skip(1).map(move |rest: &str| rest.split(end).next().unwrap().to_owned())
    };
    let signatures =
        parts("<pre class=\"rust item-decl\">", "</pre>").chain(parts("<h4 class=\"code-header\">", "</h4>"));
    let mut names = BTreeSet::new();
    for signature in signatures {
        // A link's text is what is documented; of the rest, tags say nothing.
        let bare: String = signature
            .split("<a ")
            .enumerate()
            .map(|(i, rest)| if i == 0 { rest } else { rest.split_once("</a>").map_or("", |(_, rest)| rest) })
            .collect();
        let text: String = bare.split('<').map(|rest| rest.split_once('>').map_or(rest, |(_, text)| text)).collect();
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        names.extend(words.filter(|word| word.len() > 1 && word.starts_with(char::is_uppercase)).map(str::to_owned));
    }
    names
}

#[test]
fn documented_interface_is_small_and_closed() {
    let ran = Command::new(env!("CARGO"))
        .args(["doc", "--no-deps", "--lib", "--locked", "--quiet"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTDOCFLAGS", "-D warnings") // as tests/run calls it, so that its result is used again
        .output()
        .expect("cargo");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let docs = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("doc").join("magic_merge");
    let pages = pages(&docs);
    let name = |page: &String| page.split('.').nth(1).unwrap().to_owned();
    let kind = |kinds: &'static [&str]| {
        pages.iter().filter(move |page| kinds.contains(&page.split('.').next().unwrap())).map(name)
    };
    let types: BTreeSet<String> = kind(&["struct", "enum", "trait", "union"]).collect();
    assert!(types.contains("Checkpoint") && types.contains("Job"), "{types:?}");
    assert!(types.len() <= MOST, "{} types: {types:?}", types.len());
    assert_eq!(kind(&["fn"]).collect::<Vec<_>>(), ["evaluate", "verify"]);
    assert_eq!(pages.len(), types.len() + 3, "two functions and `Result`, and nothing else: {pages:?}");
    for page in &pages {
        let text = fs::read_to_string(docs.join(page)).expect("a page");
        assert!(!text.contains("wgpu"), "{page} names wgpu");
        let words = ["Show", "Usage", "Input", "Output", "Device", "Interrupted", "Ok", "Err", "Item", "Self"];
        let mut names = undocumented(&text);
        names.retain(|found| !words.contains(&&**found) && *found != name(page));
        assert!(names.is_empty(), "{page} names {names:?}, which have no documentation");
    }
}

#[test]
fn modules_are_hidden() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("src/lib.rs");
    let lines: Vec<&str> = lib.lines().collect();
    let modules = lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub mod "));
    let shown: Vec<&str> =
        modules.filter(|(i, _)| !lines[i - 1].contains("doc(hidden)")).map(|(_, line)| *line).collect();
    assert!(shown.is_empty(), "not hidden: {shown:?}");
}

#[test]
fn whole_tensors_as_f32() {
    let model = magic_merge::Checkpoint::open("tests/golden/architectures/qwen3_tied", &[]).expect("a model");
    assert_eq!(model.shape("model.norm.weight"), Some(&[40][..]));
    let values = model.values("model.norm.weight").expect("floats");
    let bytes = fs::read("tests/golden/architectures/qwen3_tied/model.safetensors").expect("its file");
    // It is stored as bfloat16, the upper half of f32: each value must be in the file so.
    assert!(values.iter().all(|value| value.to_bits() & 0xffff == 0));
    let stored: Vec<u8> = values.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect();
    assert!(bytes.windows(stored.len()).any(|window| window == stored));
    assert_eq!(model.names().len(), 24);
    let error = model.values("model.norm.wight").unwrap_err();
    assert_eq!(error.hints(), ["did you mean `model.norm.weight`?"]);
    let data =
        magic_merge::Checkpoint::open("tests/golden/architectures/qwen3_tied/task.safetensors", &[]).expect("ids");
    let error = data.values("input_ids.0").unwrap_err();
    assert!(error.to_string().contains("is I64, which is no float"), "{error}");
}
