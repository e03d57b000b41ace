//! The forward pass on a real model, which is not part of this repository: `tests/python/test_minilm.py` gets it, and
//! records what PyTorch makes of some sentences.

#[path = "common/recorded.rs"]
mod recorded;

mod common;

use std::path::Path;

use magic_merge::checkpoint::Checkpoint;
use magic_merge::data;
use magic_merge::device::{self, Wanted};
use magic_merge::evaluate::Model;
use magic_merge::progress::Progress;
use recorded::{golden, tensors};

/// `MAGIC_MINILM` is a folder with `model`, `sentences.txt`, and perhaps `hidden.safetensors`: the last hidden states of
/// sentence `i` under `hidden.{i}`.
#[test]
#[ignore = "takes a model that tests/python/test_minilm.py provides"]
fn sentences_through_a_real_model() {
    let dir = std::env::var_os("MAGIC_MINILM").expect("a folder in MAGIC_MINILM");
    let dir = Path::new(&dir);
    let name = dir.join("model").to_str().expect("UTF-8").to_owned();
    let checkpoints = [Checkpoint::open(&name, &[]).expect("a model")];
    let opened = device::open(&Wanted { device: "cpu".into(), ..Wanted::default() }).expect("the CPU device");
    let model = Model::new(&checkpoints, &opened.executor, 64 << 20).expect("a known architecture");
    let samples = data::load(&dir.join("sentences.txt"), &model.network.wants, &checkpoints[0], None);
    let found = model.values(samples.expect("sentences"), model.network.hidden, &Progress::default());
    let found = found.expect("a forward pass");
    let (shape, means) = &tensors(&golden("minilm/expected.safetensors"))["mean"];
    assert_eq!(found.len(), shape[0]);
    for (i, (found, expected)) in found.iter().zip(means.chunks(shape[1])).enumerate() {
        let rows = found.len() / shape[1];
        let mean = |j: usize| found.iter().skip(j).step_by(shape[1]).sum::<f32>() / rows as f32;
        assert_near(&format!("mean of sentence {i}"), &(0..shape[1]).map(mean).collect::<Vec<_>>(), expected);
    }
    if dir.join("hidden.safetensors").exists() {
        let expected = tensors(&dir.join("hidden.safetensors"));
        assert_eq!(found.len(), expected.len());
        for (i, found) in found.iter().enumerate() {
            assert_near(&format!("sentence {i}"), found, &expected[&format!("hidden.{i}")].1);
        }
    }
}

fn assert_near(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    let off = found.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(off <= 1e-4 * largest, "{what}: off by {off:e} of {largest}");
}
