//! Several GPUs in one machine: each merges tensors of its own, to the same bytes as one.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod cli;
mod common;

use std::fs;
use std::process::Command;

use cli::{Run, Sandbox, say};

/// Layers of a model: enough that no device is done before the other has begun.
const LAYERS: usize = 40;

/// Base and two experts.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::empty();
    let names: Vec<String> = (0..LAYERS).map(|i| format!("model.layers.{i}.mlp.up_proj.weight")).collect();
    for (seed, name) in ["base", "a", "b"].into_iter().enumerate() {
        let tensors: Vec<_> = names.iter().map(|name| (name.as_str(), &[64usize, 48][..], seed as u32)).collect();
        sandbox.model(name, "model.safetensors", &tensors);
        sandbox.write(&format!("{name}/config.json"), r#"{"model_type": "llama", "torch_dtype": "float32"}"#);
    }
    sandbox
}

/// The software driver, named twice: as a machine with two of the same GPU. `None` where there is none.
fn twice(sandbox: &Sandbox) -> Option<String> {
    let driver = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"].into_iter().find_map(|folder| {
        let mut files = fs::read_dir(folder).ok()?.map(|entry| entry.expect("an entry").path());
        files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lvp")))
    })?;
    let copies = ["one.json", "two.json"].map(|name| {
        fs::copy(&driver, sandbox.path(name)).expect("a copy");
        sandbox.path(name).to_string_lossy().into_owned()
    });
    Some(copies.join(":"))
}

fn with(mut command: Command, drivers: &str) -> Command {
    // The second name is that of older loaders.
    command.env("VK_DRIVER_FILES", drivers).env("VK_ICD_FILENAMES", drivers);
    command
}

const MERGE: [&str; 16] = [
    "merge",
    "--base",
    "base",
    "--model",
    "a",
    "--model",
    "b",
    "--method",
    "ties",
    "--param",
    "density=0.5",
    "--calibrate",
    "wsc",
    "--overwrite",
    "-v",
    "--out",
];

#[test]
fn several_gpus_share_the_tensors_of_a_merge() {
    if common::gpu().is_none() {
        return;
    }
    let sandbox = sandbox();
    let Some(drivers) = twice(&sandbox) else {
        // One hardware GPU is all of its kind.
        sandbox.run(&[&MERGE[..], &["out", "--device", "all"]].concat()).good();
        return say("devices: no software driver to stand for a second GPU: one was tested");
    };
    let merge = |out: &str, device: &str, fault: Option<&str>| -> Run {
        let mut command = with(sandbox.command(&[&MERGE[..], &[out, "--device", device]].concat()), &drivers);
        if let Some(fault) = fault {
            command.env("MAGIC_TEST_GPU_FAULT", fault);
        }
        Run::from(command.output().expect("the program starts")).good()
    };
    merge("one", "gpu", None);
    let wanted = sandbox.read("one/model.safetensors");
    let done = merge("all", "all", None);
    assert!(sandbox.read("all/model.safetensors") == wanted, "{}", done.stderr);
    assert!(done.stdout.contains("2 × llvmpipe") || done.stderr.contains("2 × llvmpipe"), "{}", done.stderr);
    // "thread 1 of device 0: 7 tensors"
    let of = |device: usize| -> usize {
        let of = format!("of device {device}: ");
        let lines =
            done.stderr.lines().filter_map(|line| line.split_once(&of)?.1.split_once(' ')?.0.parse::<usize>().ok());
        lines.sum()
    };
    assert!(of(0) > 0 && of(1) > 0 && of(0) + of(1) == LAYERS, "{} and {}: {}", of(0), of(1), done.stderr);
    say(&format!("devices: two share {LAYERS} tensors, {} and {}", of(0), of(1)));
    let verify = |device: &str| {
        let command = with(sandbox.command(&["verify", "all", "--all", "--device", device]), &drivers);
        Run::from({ command }.output().expect("the program starts")).good()
    };
    for device in ["auto", "gpu", "all"] {
        let verified = verify(device);
        assert!(verified.stdout.contains("bit for bit"), "{device}: {}{}", verified.stdout, verified.stderr);
    }
    // One is lost: what it had begun is done again on it, opened anew.
    let lost = merge("lost", "all", Some("lost:7"));
    assert!(sandbox.read("lost/model.safetensors") == wanted, "{}", lost.stderr);
    assert!(lost.stderr.contains("warning: the device failed at"), "{}", lost.stderr);
}
