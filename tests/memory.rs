//! Calibration in feature space takes the memory of a layer, not of the network.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use half::bf16;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

const HIDDEN: usize = 256;
const INTER: usize = 1024;
const VOCAB: usize = 1000;
const EXPERTS: u64 = 3;

/// A stream of values in −1..1.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn save(path: &Path, tensors: &[(String, Vec<usize>, Dtype, Vec<u8>)]) {
    let view = |(name, shape, dtype, data)| (name, TensorView::new(dtype, shape, data).expect("a tensor"));
    let views = tensors.iter().map(|(name, shape, dtype, data)| view((name, shape.clone(), *dtype, data)));
    serialize_to_file(views, None, path).expect("a file");
}

/// A network of `layers` layers in bf16: model 0 is the base, the others differ from it by little.
fn model(dir: &Path, layers: usize, model: u64) -> PathBuf {
    let folder = dir.join(format!("model{model}"));
    fs::create_dir(&folder).expect("a folder");
    let mut shapes = vec![("embed_tokens".to_owned(), vec![VOCAB, HIDDEN]), ("norm".to_owned(), vec![HIDDEN])];
    for layer in 0..layers {
        let of = |name: &str, shape: &[usize]| (format!("layers.{layer}.{name}"), shape.to_vec());
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            shapes.push(of(&format!("self_attn.{name}"), &[HIDDEN, HIDDEN]));
        }
        shapes.push(of("mlp.gate_proj", &[INTER, HIDDEN]));
        shapes.push(of("mlp.up_proj", &[INTER, HIDDEN]));
        shapes.push(of("mlp.down_proj", &[HIDDEN, INTER]));
        shapes.extend(["input_layernorm", "post_attention_layernorm"].map(|name| of(name, &[HIDDEN])));
    }
    let tensors: Vec<_> = shapes
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            let (mut base, mut own) = (noise(i as u64 + 1), noise((model + 1) * 1_000_000 + i as u64));
            let level = if shape.len() == 1 { 1.0 } else { 0.0 };
            let apart = if model == 0 { 0.0 } else { 0.01 };
            let value = |_| bf16::from_f32(level + 0.05 * base() + apart * own());
            let values: Vec<bf16> = (0..shape.iter().product()).map(value).collect();
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (format!("model.{name}.weight"), shape, Dtype::BF16, bytes)
        })
        .collect();
    save(&folder.join("model.safetensors"), &tensors);
    let config = serde_json::json!({
        "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu", "hidden_size": HIDDEN,
        "intermediate_size": INTER, "max_position_embeddings": 512, "num_attention_heads": 4,
        "num_hidden_layers": layers, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "vocab_size": VOCAB,
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    folder
}

/// The most memory that calibration of a merge of such networks takes, in kB.
fn peak(layers: usize) -> u64 {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_magic"));
    // glibc keeps freed blocks below a size that grows as they are freed, and so more the longer a process runs. With the
    // size fixed, the peak is what the program holds.
    command.env("MALLOC_MMAP_THRESHOLD_", "131072");
    command.args(["merge", "--method", "linear", "--calibrate", "dsc", "--device", "cpu", "--threads", "2", "--quiet"]);
    command.arg("--base").arg(model(dir.path(), layers, 0)).arg("--out").arg(dir.path().join("out"));
    for expert in 1..=EXPERTS {
        let mut token = noise(expert);
        let ids = (0..10 * 128).map(|_| ((token() + 1.0) / 2.0 * VOCAB as f32) as i64);
        let data = dir.path().join(format!("data{expert}.safetensors"));
        let bytes = ids.flat_map(i64::to_le_bytes).collect();
        save(&data, &[("input_ids".to_owned(), vec![10, 128], Dtype::I64, bytes)]);
        command.arg("--model").arg(model(dir.path(), layers, expert)).arg("--data").arg(data);
    }
    let mut child = command.stdout(Stdio::null()).spawn().expect("the program starts");
    let (status, mut most) = (format!("/proc/{}/status", child.id()), 0);
    // The kernel keeps the peak, so that only what happens after the last look is missed.
    let code = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
        most = most.max(kilobytes.unwrap_or(0));
        if let Some(code) = child.try_wait().expect("a child of ours") {
            break code;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(code.success(), "{code}");
    most
}

#[test]
fn the_peak_of_a_calibration_does_not_grow_with_layers() {
    let (few, many) = (peak(6), peak(24));
    assert!(few > 10_000, "{few} kB cannot be right");
    assert!(many as f64 <= 1.1 * few as f64, "{few} kB with 6 layers, {many} kB with 24");
}
