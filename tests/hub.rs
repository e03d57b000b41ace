//! `org/name[@revision]` in the local cache, laid out as the hub's own programs leave it. Every snapshot's only tensor is
//! called as the snapshot, so that `magic inspect` shows which one was found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tempfile::{TempDir, tempdir};

const MAIN: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER: &str = "0123456ffffffffffffffffffffffffffffffff0";
const PULL: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// A folder to work in, and a cache.
struct Bed {
    work: TempDir,
    cache: TempDir,
}

impl Bed {
    fn new() -> Self {
        Self { work: tempdir().unwrap(), cache: tempdir().unwrap() }
    }

    fn repo(&self, name: &str) -> PathBuf {
        self.cache.path().join(format!("models--{}", name.replace('/', "--")))
    }

    /// A file of a snapshot, whose bytes lie among the blobs.
    fn put(&self, repo: &str, commit: &str, name: &str, bytes: &[u8]) {
        let repo = self.repo(repo);
        let (blobs, snapshot) = (repo.join("blobs"), repo.join("snapshots").join(commit));
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        let blob = magic_merge::checkpoint::sha256(bytes);
        fs::write(blobs.join(&blob), bytes).unwrap();
        link(&Path::new("../../blobs").join(blob), &snapshot.join(name));
    }

    fn point(&self, repo: &str, name: &str, commit: &str) {
        let at = self.repo(repo).join("refs").join(name);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, commit).unwrap();
    }

    fn magic(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_magic"));
        command.args(args).current_dir(self.work.path()).env("HF_HUB_CACHE", self.cache.path());
        let ran = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if ran.status.success() { Ok(text(ran.stdout)) } else { Err(text(ran.stderr)) }
    }

    fn finds(&self, spec: &str, tensor: &str) {
        let shown = self.magic(&["inspect", spec]).unwrap_or_else(|said| panic!("{spec}: {said}"));
        assert!(shown.contains(tensor), "{spec} should hold {tensor}:\n{shown}");
    }

    fn refuses(&self, spec: &str, phrases: &[&str]) {
        let said = self.magic(&["inspect", spec]).expect_err(spec);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(phrases.iter().all(|phrase| said.contains(phrase)), "{spec} should say {phrases:?}, says:\n{said}");
    }
}

#[cfg(unix)]
fn link(to: &Path, at: &Path) {
    std::os::unix::fs::symlink(to, at).unwrap();
}

/// Where links are not allowed, files lie in the snapshot itself.
#[cfg(not(unix))]
fn link(to: &Path, at: &Path) {
    fs::rename(at.parent().unwrap().join(to), at).unwrap();
}

fn model(tensor: &str) -> Vec<u8> {
    let view = TensorView::new(Dtype::F32, vec![2], &[0; 8]).unwrap();
    safetensors::serialize([(tensor, view)], None).unwrap()
}

#[test]
fn revisions() {
    let bed = Bed::new();
    for commit in [MAIN, OTHER, PULL] {
        bed.put("org/name", commit, "model.safetensors", &model(commit));
        bed.put("org/name", commit, "config.json", br#"{"model_type":"llama"}"#);
    }
    bed.point("org/name", "main", MAIN);
    bed.point("org/name", "v1", &format!("{OTHER}\n"));
    bed.point("org/name", "refs/pr/1", PULL);
    bed.point("org/name", "bad", "../../..");
    bed.put("old", PULL, "model.safetensors", &model(PULL));
    for (spec, commit) in [
        ("org/name", MAIN),
        ("org/name@main", MAIN),
        ("org/name@v1", OTHER),
        ("org/name@refs/pr/1", PULL),
        (&format!("org/name@{OTHER}"), OTHER),
        ("org/name@fedcba9", PULL),
        ("org/name@0123456f", OTHER),
        (&format!("old@{PULL}"), PULL),
    ] {
        bed.finds(spec, commit);
    }
    let all: Vec<String> = [MAIN, OTHER, PULL].iter().map(|commit| format!("`@{commit}`")).collect();
    let download = |what: &str| format!("download it first: `hf download {what}`");
    bed.refuses("org/name@v2", &["but not its revision `v2`", &all.join(", "), &download("org/name --revision v2")]);
    bed.refuses("org/name@bad", &["but not its revision `bad`"]);
    bed.refuses("org/name@0123456", &["could be more than one", &all[..2].join(", ")]);
    bed.refuses("org/name@fedcba", &["but not its revision `fedcba`"]); // six digits are no commit
    bed.refuses("old", &["but not its revision `main`", &all[2], &download("old")]);
    bed.refuses("org/other", &["is neither a path nor a model in the Hugging Face cache", &download("org/other")]);
    bed.refuses("org/other@v2", &[&download("org/other --revision v2")]);
    bed.refuses("nothing", &["neither a path nor a model"]);
    bed.refuses("org/name@../../x", &["does not exist"]);
    bed.refuses("org/../name", &["does not exist"]);

    // What goes with a model is found the same way.
    bed.magic(&["merge", "--method", "passthrough", "--model", "org/name", "--device", "cpu", "--out", "out"]).unwrap();
    let config = fs::read_to_string(bed.work.path().join("out/config.json")).unwrap();
    assert!(config.contains("llama"), "{config}");
}

#[test]
fn parts_of_a_download() {
    let bed = Bed::new();
    let rest =
        |name: &str| format!("only a part of it was downloaded; the rest: `hf download {name} --revision {MAIN}`");
    let index =
        json!({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}});
    for repo in ["org/config", "org/shards", "org/noindex", "org/adapter", "org/gone"] {
        bed.point(repo, "main", MAIN);
        bed.put(repo, MAIN, "config.json", b"{}");
    }
    bed.put("org/shards", MAIN, "model.safetensors.index.json", index.to_string().as_bytes());
    bed.put("org/shards", MAIN, "model-00001-of-00002.safetensors", &model("a"));
    bed.put("org/noindex", MAIN, "model-00001-of-00002.safetensors", &model("a"));
    bed.put("org/adapter", MAIN, "adapter_config.json", b"{}");
    bed.put("org/gone", MAIN, "unet.safetensors", &model("a"));
    bed.refuses("org/config", &["has no `.safetensors` file", "there is `config.json`", &rest("org/config")]);
    bed.refuses("org/shards", &["1 of the 2 shards", "`model-00002-of-00002.safetensors`", &rest("org/shards")]);
    bed.refuses("org/noindex", &["has shards, but no index", &rest("org/noindex")]);
    bed.refuses("org/adapter", &["has none of `adapter_model.safetensors`", &rest("org/adapter")]);
    bed.put("org/shards", MAIN, "model-00002-of-00002.safetensors", &model("b"));
    bed.finds("org/shards", "b");
    #[cfg(unix)]
    {
        fs::remove_dir_all(bed.repo("org/gone").join("blobs")).unwrap();
        bed.refuses("org/gone", &["is a link to nothing", &rest("org/gone")]);
    }
    // A folder that no program of the hub made gets no command to type.
    let odd = bed.repo("a;b/c").join("snapshots").join(MAIN);
    fs::create_dir_all(&odd).unwrap();
    let said = bed.magic(&["inspect", odd.to_str().unwrap()]).unwrap_err();
    assert!(said.contains("download it again") && !said.contains("hf download"), "{said}");
}

/// As on Windows without the right to make links.
#[test]
fn snapshots_without_links() {
    let bed = Bed::new();
    let snapshot = bed.repo("org/name").join("snapshots").join(MAIN);
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(snapshot.join("model.safetensors"), model(MAIN)).unwrap();
    bed.point("org/name", "main", MAIN);
    bed.finds("org/name", MAIN);
}

/// What is at a path of that name is taken, as by the other programs that load models: it is what the user made there.
#[test]
fn paths_come_first() {
    let bed = Bed::new();
    bed.put("org/name", MAIN, "model.safetensors", &model(MAIN));
    bed.point("org/name", "main", MAIN);
    let here = bed.work.path().join("org/name");
    fs::create_dir_all(&here).unwrap();
    fs::write(here.join("model.safetensors"), model("mine")).unwrap();
    bed.finds("org/name", "mine");
    bed.finds("org/name@main", MAIN);
}

/// Newer programs keep large files once for all repositories, and link a repository's blobs there.
#[cfg(unix)]
#[test]
fn blobs_that_repositories_share() {
    let bed = Bed::new();
    let hash = magic_merge::checkpoint::sha256("as the store calls it");
    let store = bed.cache.path().join("blobs");
    fs::create_dir_all(store.join(&hash[..2])).unwrap();
    fs::write(store.join(&hash[..2]).join(&hash), model(MAIN)).unwrap();
    fs::write(store.join(&hash[..2]).join("other"), model(MAIN)).unwrap();
    for (repo, file) in [("org/one", &*hash), ("org/two", &hash), ("org/three", "other")] {
        bed.put(repo, MAIN, "config.json", b"{}");
        bed.point(repo, "main", MAIN);
        let repo = bed.repo(repo);
        link(&Path::new("../../blobs").join(&hash[..2]).join(file), &repo.join("blobs/e7a9"));
        link(Path::new("../../blobs/e7a9"), &repo.join("snapshots").join(MAIN).join("model.safetensors"));
    }
    // Without its mark it is any folder, and a model from elsewhere must not choose what is read.
    bed.refuses("org/one", &["is a link that leads out of its folder"]);
    fs::write(store.join(".huggingface-shared-blobs"), "1\n").unwrap();
    bed.finds("org/one", MAIN);
    bed.finds("org/two", MAIN);
    bed.refuses("org/three", &["is a link that leads out of its folder"]);
}
