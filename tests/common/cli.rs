//! Runs the built program in a folder of its own, on small models made there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use safetensors::tensor::{Dtype, TensorView};

/// A folder with models in it, removed at the end.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

/// What a run of the program left on its streams.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The document on stdout.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {}\n{}", self.stdout, self.stderr))
    }

    /// The same run, which must have gone well.
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A tensor: name, shape, seed of its values.
pub type Spec<'a> = (&'a str, &'a [usize], u32);

/// Tensors of a network in miniature.
pub const NETWORK: [(&str, &[usize]); 5] = [
    ("model.embed_tokens.weight", &[24, 8]),
    ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
    ("model.layers.0.mlp.up_proj.weight", &[16, 8]),
    ("model.layers.0.input_layernorm.weight", &[8]),
    ("classifier.weight", &[3, 8]),
];

impl Sandbox {
    /// A folder with nothing in it.
    pub fn empty() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// With models `base`, `a` and `b`.
    pub fn new() -> Self {
        Self::empty().with_models()
    }

    /// The same where a sync costs nothing, if there is such a place.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        match memory.is_dir().then(|| tempfile::tempdir_in(memory)) {
            Some(Ok(dir)) => Self { dir }.with_models(),
            _ => Self::new(),
        }
    }

    fn with_models(self) -> Self {
        for (seed, name) in ["base", "a", "b"].into_iter().enumerate() {
            self.network(name, seed as u32);
        }
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A model of the shape of [`NETWORK`], with its configuration.
    pub fn network(&self, name: &str, seed: u32) {
        let tensors = NETWORK.map(|(tensor, shape)| (tensor, shape, seed));
        self.model(name, "model.safetensors", &tensors);
        self.write(&format!("{name}/config.json"), r#"{"model_type": "llama", "torch_dtype": "float32"}"#);
    }

    /// A file of float32 tensors. Models of another seed differ by little, as experts do.
    pub fn model(&self, name: &str, file: &str, tensors: &[Spec<'_>]) {
        let data: Vec<Vec<u8>> = tensors.iter().map(|(name, shape, seed)| values(name, shape, *seed)).collect();
        let views = tensors.iter().zip(&data).map(|((name, shape, _), data)| {
            (*name, TensorView::new(Dtype::F32, shape.to_vec(), data).expect("data has the length of the shape"))
        });
        fs::create_dir_all(self.path(name)).expect("a folder can be made");
        safetensors::serialize_to_file(views, None, &self.path(name).join(file)).expect("a model can be written");
    }

    /// A model whose elements are all zero and take no space on disk.
    pub fn sparse(&self, name: &str, tensors: &[(String, Vec<u64>)]) -> std::io::Result<()> {
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (tensor, shape) in tensors {
            let begin = end;
            end += 2 * shape.iter().product::<u64>();
            let entry = serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
            header.insert(tensor.clone(), entry);
        }
        let mut header = serde_json::to_vec(&header).expect("a header is plain data");
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut header);
        fs::create_dir_all(self.path(name))?;
        let path = self.path(name).join("model.safetensors");
        fs::write(&path, &bytes)?;
        fs::OpenOptions::new().write(true).open(path)?.set_len(bytes.len() as u64 + end)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The program, to be run here.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_magic"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE").env("HF_HUB_CACHE", self.path("no-hub-cache"));
        command
    }

    /// Runs the program here.
    pub fn run(&self, args: &[&str]) -> Run {
        self.command(args).output().expect("the program starts").into()
    }

    /// A merge of `a` and `b` on the CPU, and what else is asked for.
    pub fn merge(&self, args: &[&str]) -> Run {
        let merge = ["merge", "--device", "cpu", "--base", "base", "--model", "a", "--model", "b"];
        self.run(&[&merge, args].concat())
    }

    /// Everything in the folder, sorted.
    pub fn listing(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        list(self.dir.path(), &mut found);
        found.sort_unstable();
        found
    }
}

fn list(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder can be read").map(|entry| entry.expect("and all of it")) {
        found.push(entry.path());
        if entry.path().is_dir() {
            list(&entry.path(), found);
        }
    }
}

/// Values between -1 and 1 that depend on name and place, and a little on the seed.
fn values(name: &str, shape: &[usize], seed: u32) -> Vec<u8> {
    let random = |x: u32| {
        let x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
        let x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
        (x ^ x >> 16) as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    let start = name.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let value = |i: u32| random(start.wrapping_add(i)) + 0.05 * random(start.wrapping_add(i).wrapping_mul(seed));
    (0..shape.iter().product::<usize>() as u32).flat_map(|i| value(i).to_le_bytes()).collect()
}

/// A line for whoever watches: what tests print is not shown where they pass.
pub fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).expect("a line on stderr");
}
