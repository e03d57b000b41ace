//! A GPU that fails during a merge: what fails is found every time, and computed again.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod cli;
mod common;

use cli::{Run, Sandbox, say};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Failures, as `MAGIC_TEST_GPU_FAULT` names them.
const FAULTS: [&str; 6] = ["lost", "memory", "skip0", "zero", "tail", "stale"];

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

/// Tensors that were computed again, and how, of the last merge.
fn recovered_tensors(sandbox: &Sandbox) -> Vec<(String, String)> {
    let receipt: serde_json::Value = serde_json::from_slice(&sandbox.read("out/magic.json")).expect("a receipt");
    let tensors = receipt["tensors"].as_array().expect("tensors");
    let word = |tensor: &serde_json::Value, key: &str| Some(tensor[key].as_str()?.to_owned());
    tensors.iter().filter_map(|tensor| Some((word(tensor, "name")?, word(tensor, "recovered")?))).collect()
}

/// How tensors were computed again, of the last merge.
fn recovered(sandbox: &Sandbox) -> Vec<String> {
    recovered_tensors(sandbox).into_iter().map(|(_, how)| how).collect()
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
        for fault in FAULTS.into_iter().filter(|fault| !selects || *fault == "skip0") {
            // `MAGIC_TEST_LONG` takes each.
            let step = if fault == "skip0" || std::env::var_os("MAGIC_TEST_LONG").is_some() { 1 } else { 2 };
            for run in (0..runs).step_by(step) {
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
    assert!(failures >= 60, "{failures}");
}

#[test]
fn sums_over_rows_do_not_depend_on_blocks_that_are_half_as_large() {
    if common::gpu().is_none() {
        return;
    }
    let sandbox = Sandbox::empty();
    let models = ["base", "expert0", "expert1"].map(|name| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/magic");
        root.join(format!("{name}.safetensors")).to_str().expect("UTF-8").to_owned()
    });
    let [base, a, b] = &models;
    let methods: [&[&str]; 2] = [
        &["--method", "linear", "--calibrate", "wsc", "--manifold", "spectral"],
        &["--method", "nuslerp", "--param", "nuslerp_flatten=false", "--param", "nuslerp_row_wise=true"],
    ];
    for method in methods {
        let merge = |fault: Option<&str>| {
            let merge = ["merge", "--device", "gpu", "--base", base, "--model", a, "--model", b, "--out", "out"];
            let mut command = sandbox.command(&[&merge[..], method, &["--overwrite"]].concat());
            if let Some(fault) = fault {
                command.env("MAGIC_TEST_GPU_FAULT", fault);
            }
            Run::from(command.output().expect("the program starts")).good();
            sandbox.read("out/model.safetensors")
        };
        let wanted = merge(None);
        // Whatever is under way fails with the device: together, these meet all tensors, also those of 72 and of 24 rows.
        let mut names = std::collections::HashSet::new();
        for fault in ["lost:0", "lost:5", "lost:23", "lost:38", "memory:0", "memory:9"] {
            assert!(merge(Some(fault)) == wanted, "{fault} of {method:?}");
            names.extend(recovered_tensors(&sandbox));
        }
        assert!(names.iter().any(|(name, _)| name.ends_with("in_proj_weight")), "{method:?}: {names:?}");
    }
}

/// Votes that cancel but for rounding may fall either way: the factor of such a row, and with it all of the row, then
/// differs from what the host computes. That is no failure.
#[test]
fn an_election_that_goes_the_other_way_is_no_failure() {
    if common::gpu().is_none() {
        return;
    }
    const ROW: usize = 4864;
    let sandbox = Sandbox::empty();
    let mut models = [(); 4].map(|()| Vec::new());
    for i in 0..8 * ROW {
        let column = i % ROW;
        let small = |k: usize| 0.001 * (1 + i % 11) as f32 * [1.0, 0.5, 0.25][k];
        // Three task vectors that add up to nothing.
        let of = |steps: usize| steps as f32 / 2048.0;
        let tie = [of(13 + column), -of(6 + column), -of(7)];
        models[0].push(0.5f32);
        (0..3).for_each(|k| models[k + 1].push(0.5 + if column < 16 { tie[k] } else { small(k) }));
    }
    for (name, values) in ["base", "a", "b", "c"].into_iter().zip(&models) {
        let data: &[u8] = bytemuck::cast_slice(values);
        let view = TensorView::new(Dtype::F32, vec![8, ROW], data).expect("data has the length of the shape");
        safetensors::serialize_to_file([("weight", view)], None, &sandbox.path(&format!("{name}.safetensors")))
            .expect("a model can be written");
    }
    let recipe = "merge_method: ties\nbase_model: base.safetensors\nmodels:\n".to_owned()
        + &["a", "b", "c"]
            .map(|m| format!("- model: {m}.safetensors\n  parameters: {{weight: 0.4, density: 1}}\n"))
            .concat();
    sandbox.write("ties.yml", &recipe);
    let merge = |device: &str| {
        let done = sandbox
            .run(&["merge", "ties.yml", "--calibrate", "wsc", "--device", device, "--out", "out", "--overwrite"])
            .good();
        assert!(!done.stderr.contains("failed"), "{}", done.stderr);
        let file = sandbox.read("out/model.safetensors");
        let tensors = SafeTensors::deserialize(&file).expect("a model");
        bytemuck::pod_collect_to_vec::<u8, f32>(tensors.tensor("weight").expect("it is there").data())
    };
    let (cpu, gpu) = (merge("cpu"), merge("gpu"));
    let alike = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * a.abs();
    let other = cpu.chunks(ROW).zip(gpu.chunks(ROW)).filter(|(a, b)| !a.iter().zip(*b).all(alike));
    say(&format!("faults: {} of 8 rows were elected otherwise", other.count()));
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

/// A small network, its experts and their samples.
fn measured(sandbox: &Sandbox, device: &str, space: &str, more: &[&str], fault: Option<&str>) -> Run {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fsc/llama");
    let at = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
    let mut words: Vec<String> = ["merge", "--device", device, "--method", "linear", "--calibrate", space, "--base"]
        .map(str::to_owned)
        .into_iter()
        .chain([at("base")])
        .collect();
    for k in 0..3 {
        words.extend(["--model".into(), at(&format!("expert{k}"))]);
        words.extend(["--data".into(), at(&format!("task{k}.safetensors"))]);
    }
    words.extend(["--out", "out", "--overwrite"].iter().chain(more).map(|word| (*word).to_owned()));
    let mut command = sandbox.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    if let Some(fault) = fault {
        command.env("MAGIC_TEST_GPU_FAULT", fault);
    }
    command.output().expect("the program starts").into()
}

#[test]
fn a_pass_through_a_network_that_fails_is_done_again_to_the_same_bytes() {
    if common::gpu().is_none() {
        return;
    }
    let sandbox = Sandbox::empty();
    measured(&sandbox, "gpu", "dsc", &[], None).good();
    let wanted = sandbox.read("out/model.safetensors");
    let found = |fault: &str| {
        let done = measured(&sandbox, "gpu", "dsc", &[], Some(fault)).good();
        assert!(sandbox.read("out/model.safetensors") == wanted, "{fault}: {}", done.stderr);
        done.stderr.contains("warning: the device failed")
    };
    // Where memory ends is always found.
    let (mut runs, mut beyond) = (1, 1024);
    assert!(found("memory:1") && !found("memory:1024"));
    while beyond - runs > 1 {
        let middle = usize::midpoint(runs, beyond);
        *(if found(&format!("memory:{middle}")) { &mut runs } else { &mut beyond }) = middle;
    }
    // A prime step meets runs of every kind; `MAGIC_TEST_LONG` takes each.
    let long = std::env::var_os("MAGIC_TEST_LONG").is_some();
    let mut counts =
        [("skip0", 0, 0), ("skip1", 0, 0), ("lost", 0, 0), ("zero", 0, 0), ("stale", 0, 0), ("tail", 0, 0)];
    for (i, run) in (0..=runs).step_by(if long { 1 } else { 17 }).enumerate() {
        let kinds = counts.len();
        let (fault, tried, missed) = &mut counts[i % kinds];
        *tried += 1;
        *missed += usize::from(!found(&format!("{fault}:{run}")));
    }
    let all: usize = counts.iter().map(|(_, tried, _)| tried).sum();
    let missed: usize = counts.iter().map(|(_, _, missed)| missed).sum();
    say(&format!(
        "faults in feature space: {all} injected into {runs} runs of one pass, the same bytes every time, {missed} harmless"
    ));
    // What a run leaves unwritten may be what it was to write; a first call that is skipped shows in every list.
    assert!(runs > 100 && counts[0].1 > 2 && counts[0].2 == 0, "{runs} {counts:?}");
    assert!(missed * 4 < all, "{counts:?}");
}

#[test]
fn a_device_that_goes_on_failing_in_feature_space_ends_the_merge_or_the_cpu_takes_over() {
    if common::gpu().is_none() {
        return;
    }
    let sandbox = Sandbox::empty();
    measured(&sandbox, "cpu", "fsc", &[], None).good();
    let wanted = sandbox.read("out/model.safetensors");
    for fault in ["skip0", "lost", "memory"] {
        std::fs::remove_dir_all(sandbox.path("out")).expect("the last result can be removed");
        let run = measured(&sandbox, "gpu", "fsc", &[], Some(&format!("{fault}:90+")));
        assert_eq!(run.code, Some(1), "{fault}: {}", run.stderr);
        assert!(run.stderr.contains("hint: `--fallback cpu`"), "{fault}: {}", run.stderr);
        assert!(!sandbox.path("out/model.safetensors").exists(), "{fault}");
        // All from the first on: what the CPU computes is what it computes alone.
        let run = measured(&sandbox, "gpu", "fsc", &["--fallback", "cpu"], Some(&format!("{fault}:0+"))).good();
        assert!(run.stderr.contains("on the CPU"), "{fault}: {}", run.stderr);
        assert!(sandbox.read("out/model.safetensors") == wanted, "{fault}");
    }
}
