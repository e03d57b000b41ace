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
use recorded::tensors;

/// `MAGIC_MINILM` is a folder with `model`, `sentences.txt`, and `hidden.safetensors`: the last hidden states of sentence
/// `i` under `hidden.{i}`.
#[test]
fn sentences_through_a_real_model() {
    let Some(dir) = std::env::var_os("MAGIC_MINILM") else { return };
    let dir = Path::new(&dir);
    let name = dir.join("model").to_str().expect("UTF-8").to_owned();
    let checkpoints = [Checkpoint::open(&name, &[]).expect("a model")];
    let opened = device::open(&Wanted { device: "cpu".into(), ..Wanted::default() }).expect("the CPU device");
    let model = Model::new(&checkpoints, &opened.executor, 64 << 20).expect("a known architecture");
    let samples = data::load(&dir.join("sentences.txt"), &model.network.wants, &checkpoints[0], None);
    let found = model.values(samples.expect("sentences"), model.network.hidden, &Progress::default());
    let found = found.expect("a forward pass");
    let expected = tensors(&dir.join("hidden.safetensors"));
    assert_eq!(found.len(), expected.len());
    for (i, found) in found.iter().enumerate() {
        let expected = &expected[&format!("hidden.{i}")].1;
        assert_eq!(found.len(), expected.len(), "sentence {i}");
        let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let off = found.iter().zip(expected).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off <= 1e-4 * largest, "sentence {i}: off by {off:e} of {largest}");
    }
}
