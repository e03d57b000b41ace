//! A GPU that fails during a merge: what fails is found every time, and computed again.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod cli;
mod common;

use cli::{Run, Sandbox, say};

/// Failures, as `MAGIC_TEST_GPU_FAULT` names them.
const FAULTS: [&str; 6] = ["lost", "memory", "skip", "zero", "tail", "stale"];

/// Merges that read tensors once, and several times.
const METHODS: [&[&str]; 5] = [
    &["--method", "linear", "--calibrate", "wsc"],
    &["--method", "dare_ties", "--param", "density=0.5", "--calibrate", "wsc", "--manifold", "tensor"],
    &["--method", "ties", "--param", "density=0.5", "--calibrate", "wsc"],
    &["--method", "breadcrumbs", "--param", "density=0.5", "--param", "gamma=0.1"],
    &["--method", "sce", "--param", "select_topk=0.5"],
];

fn merge(sandbox: &Sandbox, device: &str, method: &[&str], more: &[&str], fault: Option<&str>) -> Run {
    let merge = ["merge", "--device", device, "--base", "base", "--model", "a", "--model", "b", "--out", "out"];
    let mut command = sandbox.command(&[&merge[..], method, more, &["--overwrite"]].concat());
    if let Some(fault) = fault {
        command.env("MAGIC_TEST_GPU_FAULT", fault);
    }
    command.output().expect("the program starts").into()
}

/// How tensors were computed again, of the last merge.
fn recovered(sandbox: &Sandbox) -> Vec<String> {
    let receipt: serde_json::Value = serde_json::from_slice(&sandbox.read("out/magic.json")).expect("a receipt");
    let tensors = receipt["tensors"].as_array().expect("tensors");
    tensors.iter().filter_map(|tensor| Some(tensor["recovered"].as_str()?.to_owned())).collect()
}

#[test]
fn a_run_that_fails_is_done_again_to_the_same_bytes() {
    if common::gpu().is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    let (mut failures, mut harmless) = (0, 0);
    for method in METHODS {
        merge(&sandbox, "gpu", method, &[], None).good();
        let wanted = sandbox.read("out/model.safetensors");
        let faulty = |fault: &str, run: usize| {
            let done = merge(&sandbox, "gpu", method, &[], Some(&format!("{fault}:{run}"))).good();
            let (recovered, said) = (recovered(&sandbox), done.stderr.contains("warning: the device failed at"));
            let place = format!("{fault} at run {run} of {method:?}: {}", done.stderr);
            assert!(sandbox.read("out/model.safetensors") == wanted, "{place}");
            assert!(said != recovered.is_empty(), "{place}");
            assert!(recovered.iter().all(|how| how.contains("half as large")), "{place}");
            said
        };
        // Where memory ends is always found.
        let runs = (0..100).find(|&run| !faulty("memory", run)).expect("a merge has an end");
        assert!(runs >= 4, "{runs}");
        // What only counts proves itself otherwise: that is about launches.
        let selects = method[1] != "linear" && method[1] != "dare_ties";
        for fault in FAULTS.into_iter().filter(|fault| !selects || *fault == "skip") {
            for run in 0..runs {
                // The end of a histogram may be zero as it is, and a buffer hold from before what was not computed.
                let found = faulty(fault, run);
                failures += usize::from(found);
                harmless += usize::from(!found);
            }
        }
    }
    say(&format!(
        "faults: {failures} injected into the runs of five merges, all found and computed again, {harmless} harmless"
    ));
    assert!(failures >= 100, "{failures}");
}

#[test]
fn a_device_that_goes_on_failing_ends_the_merge_or_the_cpu_takes_over() {
    if common::gpu().is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    merge(&sandbox, "cpu", METHODS[0], &[], None).good();
    let wanted = sandbox.read("out/model.safetensors");
    for fault in FAULTS {
        let always = format!("{fault}:2+");
        std::fs::remove_dir_all(sandbox.path("out")).expect("the last result can be removed");
        let run = merge(&sandbox, "gpu", METHODS[0], &[], Some(&always));
        assert_eq!(run.code, Some(1), "{fault}: {}", run.stderr);
        assert!(run.stderr.contains("hint: `--fallback cpu`"), "{fault}: {}", run.stderr);
        assert!(!sandbox.path("out/model.safetensors").exists(), "{fault}");
        let run = merge(&sandbox, "gpu", METHODS[0], &["--fallback", "cpu"], Some(&always)).good();
        assert!(recovered(&sandbox).iter().any(|how| how.contains("on the CPU")), "{fault}: {}", run.stderr);
        // All from the first on: what the CPU computes is what it computes alone.
        merge(&sandbox, "gpu", METHODS[0], &["--fallback", "cpu"], Some(&format!("{fault}:0+"))).good();
        assert!(sandbox.read("out/model.safetensors") == wanted, "{fault}");
    }
}
