//! Small checkpoints made on the spot, and merges of them through the library.
#![allow(dead_code, reason = "each test uses its own part")]

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use magic_merge::device::Wanted;
use magic_merge::job::{Job, Output};
use magic_merge::kernels::convert;
use magic_merge::progress::Progress;
use magic_merge::recipe::Quick;
use magic_merge::report::Report;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

/// Names and shapes with everything that is awkward: odd lengths, one element, none, rank 0 to 4, one long row.
pub const SHAPES: &[(&str, &[usize])] = &[
    ("model.embed_tokens.weight", &[97, 33]),
    ("model.layers.0.self_attn.q_proj.weight", &[65, 33]),
    ("model.layers.0.self_attn.q_proj.bias", &[65]),
    ("model.layers.0.mlp.up_proj.weight", &[130, 257]),
    ("model.layers.1.mlp.down_proj.weight", &[3, 5001]),
    ("model.layers.1.norm.weight", &[33]),
    ("model.conv.weight", &[8, 3, 3, 5]),
    ("model.one.weight", &[1, 1]),
    ("model.none.weight", &[0, 7]),
    ("model.scalar", &[]),
];

/// A stream of values in −1..1.
pub fn noise(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// The values of one tensor of a model: a base that all share, plus `scale` times the model's own.
pub fn values(tensor: usize, len: usize, model: u64, scale: f32) -> Vec<f32> {
    let base = noise(1000 + tensor as u64).take(len);
    let own = noise(model * 100_000 + tensor as u64);
    base.zip(own).map(|(b, t)| if model == 0 { b } else { b + scale * t }).collect()
}

/// Writes a checkpoint of [`SHAPES`] and an integer buffer; model 0 is the base.
pub fn write(path: &Path, dtype: Dtype, model: u64, scale: f32) {
    let encode = |values: Vec<f32>| -> Vec<u8> {
        let own = magic_merge::checkpoint::Dtype::from_header(&dtype.to_string());
        let mut words = vec![0u64; values.len().max(1)];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        convert::narrow(own, &values, bytes, 0);
        bytes[..values.len() * own.size()].to_vec()
    };
    let mut data: Vec<(String, Vec<usize>, Dtype, Vec<u8>)> = SHAPES
        .iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            let bytes = encode(values(i, shape.iter().product(), model, scale));
            ((*name).to_owned(), shape.to_vec(), dtype, bytes)
        })
        .collect();
    data.push(("model.positions".into(), vec![3], Dtype::I64, (0..24).collect()));
    let views = data.iter().map(|(name, shape, dtype, bytes)| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("a valid tensor"))
    });
    serialize_to_file(views, None, path).expect("a written file");
}

/// Base and `count` experts in `dir`.
pub fn write_all(dir: &Path, dtype: Dtype, count: u64, scale: f32) {
    for model in 0..=count {
        write(&name(dir, model), dtype, model, scale);
    }
}

/// The file of a model.
pub fn name(dir: &Path, model: u64) -> PathBuf {
    dir.join(format!("model{model}.safetensors"))
}

/// A merge of files through the quick form.
pub struct Run {
    /// The base and the experts.
    pub base: Option<PathBuf>,
    /// The experts.
    pub models: Vec<PathBuf>,
    /// Its method.
    pub method: &'static str,
    /// `KEY=VALUE`.
    pub params: Vec<String>,
    /// `wsc`, or nothing.
    pub calibrate: Option<&'static str>,
    /// `mixed` and so on.
    pub manifold: Option<&'static str>,
    /// Element type of the output.
    pub dtype: Option<&'static str>,
    /// Of the random masks.
    pub seed: u64,
    /// Device, memory, threads.
    pub wanted: Wanted,
}

impl Run {
    /// A merge of experts 1 to `count` in `dir` on the CPU device.
    pub fn new(dir: &Path, method: &'static str, count: u64) -> Self {
        Self {
            base: Some(name(dir, 0)),
            models: (1..=count).map(|model| name(dir, model)).collect(),
            method,
            params: Vec::new(),
            calibrate: None,
            manifold: None,
            dtype: None,
            seed: 0,
            wanted: Wanted { device: "cpu".into(), ..Wanted::default() },
        }
    }

    /// Runs it; the bytes of `model.safetensors` and the report.
    pub fn run(&self) -> (Vec<u8>, Report) {
        let text = |path: &PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        let quick = Quick {
            base: self.base.as_ref().map(text),
            models: self.models.iter().map(text).collect(),
            method: Some(self.method.to_owned()),
            params: self.params.clone(),
            calibrate: self.calibrate.map(str::to_owned),
            manifold: self.manifold.map(str::to_owned),
            dtype: self.dtype.map(str::to_owned),
            seed: Some(self.seed),
            ..Quick::default()
        };
        let recipe = quick.recipe().expect("a valid recipe");
        let job = Job::new(recipe, None, &self.wanted).expect("a valid merge");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let output = Output::new(dir.path().join("out"));
        let report = job.run(&output, &Progress::default()).expect("a merge");
        (std::fs::read(output.dir.join("model.safetensors")).expect("a model"), report)
    }
}

/// Rounds to the stored type and back, as the checkpoints hold it.
pub fn stored(dtype: Dtype, x: f32) -> f32 {
    match dtype {
        Dtype::BF16 => bf16::from_f32(x).to_f32(),
        Dtype::F16 => f16::from_f32(x).to_f32(),
        _ => x,
    }
}
