//! `magic bench` as a user meets it, and what happens where a device computes wrongly.

#[path = "common/cli.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use common::{Run, Sandbox};
use magic_merge::bench::cases::CASES;
use magic_merge::bench::{Case, Device, Effort, Expect, Oracle, Report, Row, Status, Target, case, host, rows, table};
use magic_merge::gpu::{Choice, Gpu, Options};
use magic_merge::kernels::{Access, Form, Kernel};
use magic_merge::recording::Size;
use serde_json::Value;

const QUICK: [&str; 4] = ["bench", "--quick", "--filter", "norms"];

fn bench(sandbox: &Sandbox, args: &[&str]) -> Run {
    sandbox.run(&[&QUICK, args].concat())
}

/// The GPU for tests. Without one they pass; with `MAGIC_TEST_GPU=require` they fail.
fn gpu() -> Option<Gpu> {
    let required = std::env::var("MAGIC_TEST_GPU").is_ok_and(|value| value == "require");
    match Gpu::open(&Choice::Any, &Options { timestamps: true, ..Options::default() }) {
        Ok(gpu) => gpu,
        Err(error) if required => panic!("MAGIC_TEST_GPU: {error}"),
        Err(_) => None,
    }
}

/// What must hold of a row that was checked and timed.
fn sound(row: &Value, clock: bool) {
    let kernel = row["kernel"].as_str().unwrap();
    assert!(["copy", "norms"].contains(&kernel), "{kernel}");
    assert_eq!(row["status"], "ok", "{row}");
    assert!(row["check"].as_str().is_some_and(|check| !check.is_empty()));
    assert!(row["bytes"].as_f64().unwrap() >= 16.0 * row["n"].as_f64().unwrap());
    assert!(row["rounds"].as_u64().unwrap() >= 1);
    assert!(row["wall"]["samples_ns"].as_array().unwrap().len() >= 3);
    match row["timer"].as_str().unwrap() {
        "gpu" => assert!(clock && row["gpu"]["samples_ns"].as_array().unwrap().len() >= 3),
        timer => assert!(timer == "wall" && row["gpu"].is_null()),
    }
    // By wall clock, on a busy machine, a difference may drown in noise; nothing is made up then.
    let figures = &row[row["timer"].as_str().unwrap()];
    let (median, rate) = (figures["median_ns"].as_f64().unwrap(), row["gb_per_s"].as_f64());
    assert_eq!(rate.is_some(), median > 0.0, "{row}");
    if let Some(rate) = rate {
        assert!((rate * median / row["bytes"].as_f64().unwrap() - 1.0).abs() < 1e-9);
        let percent = 100.0 * rate / row["copy_gb_per_s"].as_f64().unwrap();
        assert!((percent / row["percent_of_copy"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    }
}

#[test]
fn the_cpu_on_one_thread_and_on_all() {
    let run = bench(&Sandbox::empty(), &["--device", "cpu", "--threads", "2", "--json"]).good();
    let document = run.json();
    assert_eq!(document["schema"], "magic-bench/1");
    assert_eq!(document["magic"], env!("CARGO_PKG_VERSION"));
    assert!(document["wgpu"].as_str().unwrap().starts_with("30."));
    assert!(["ac", "battery", "unknown"].contains(&document["host"]["power"].as_str().unwrap()));
    assert_eq!((&document["quick"], document["host"]["threads"].as_u64().is_some()), (&Value::Bool(true), true));
    let devices = document["devices"].as_array().unwrap();
    let threads: Vec<_> = devices.iter().map(|device| device["threads"].as_u64().unwrap()).collect();
    assert_eq!(threads, [1, 2]);
    for device in devices {
        assert_eq!((&device["kind"], &device["backend"]), (&"cpu".into(), &"Rust".into()));
        let rows = device["results"].as_array().unwrap();
        assert_eq!(rows.len(), 4, "the copy, norms, norms in short rows and of one sum");
        for row in rows {
            assert_eq!(row["blocks"], device["threads"]);
            sound(row, false);
        }
    }
}

#[test]
fn a_gpu_by_its_own_clock() {
    let Some(gpu) = gpu() else { return };
    let document = bench(&Sandbox::empty(), &["--device", "gpu", "--json"]).good().json();
    let device = &document["devices"][0];
    assert_eq!(device["name"], gpu.adapter().name);
    assert_eq!(device["adapter"]["driver"], gpu.adapter().driver);
    assert_eq!(device["adapter"]["timestamps"], gpu.has_timestamps());
    assert!(device["adapter"]["vendor_id"].as_str().unwrap().starts_with("0x"));
    let rows = device["results"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    rows.iter().for_each(|row| sound(row, gpu.has_timestamps() || gpu.adapter().is_software()));
}

#[test]
fn every_row_is_right_on_every_device() {
    let devices: &[&str] = if gpu().is_some() { &["cpu", "gpu"] } else { &["cpu"] };
    for device in devices {
        let args = ["bench", "--quick", "--elements", "32768", "--threads", "1", "--json", "--device", device];
        let document = Sandbox::empty().run(&args).good().json();
        let rows = document["devices"][0]["results"].as_array().unwrap();
        for row in rows {
            let coop = row["kernel"].as_str().unwrap().starts_with("matmul_coop");
            assert!(row["status"] == "ok" || row["status"] == "skipped" && coop, "{device}: {row}");
        }
        for kernel in magic_merge::kernels::ALL {
            let name = kernel.name;
            assert!(rows.iter().any(|row| row["kernel"] == name), "{device}: no row measures `{name}`");
        }
    }
}

#[test]
fn filters_see_what_is_special_about_a_row() {
    let args = ["bench", "--quick", "--filter", "linear with wsc", "--device", "cpu", "--threads", "1", "--json"];
    let document = Sandbox::empty().run(&args).good().json();
    let rows = document["devices"][0]["results"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["kernel"].as_str().unwrap()).collect();
    assert_eq!(names, ["copy", "merge"]);
}

#[test]
fn what_a_device_has_no_matrices_for_is_not_run() {
    let args = ["bench", "--quick", "--filter", "matmul_coop", "--device", "cpu", "--threads", "1"];
    let sandbox = Sandbox::empty();
    let document = sandbox.run(&[&args[..], &["--json"]].concat()).good().json();
    let rows = document["devices"][0]["results"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "the copy, and matrices of two sides");
    for row in &rows[1..] {
        assert_eq!(row["status"], "skipped", "{row}");
        assert!(row["reason"].as_str().unwrap().contains("no cooperative matrices of"), "{row}");
    }
    let table = sandbox.run(&args).good().stdout;
    assert!(table.contains("\nnot run: matmul_coop16, square: no cooperative matrices of 16 × 16"), "{table}");
}

#[test]
fn a_table_to_post() {
    let run = bench(&Sandbox::empty(), &["--device", "cpu", "--threads", "1"]).good();
    let version = format!("magic {}, ", env!("CARGO_PKG_VERSION"));
    assert!(run.stdout.starts_with(&version), "{}", run.stdout);
    assert!(
        run.stdout.contains("| kernel | elements | wall time | ± | N | rate | of copy | check |"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("| norms, rows of 3 | 32768 |"), "{}", run.stdout);
    assert_eq!(run.stdout.matches("| ok |").count(), 4, "{}", run.stdout);
}

#[test]
fn an_earlier_run_to_compare_with() {
    let sandbox = Sandbox::empty();
    let cpu = ["--device", "cpu", "--threads", "1"];
    let mut old = bench(&sandbox, &[&cpu[..], &["--json"]].concat()).good().json();
    // An earlier run that took a thousand times as long.
    for row in old["devices"][0]["results"].as_array_mut().unwrap() {
        for key in ["median_ns", "p25_ns", "p75_ns"] {
            let slow = row["wall"][key].as_f64().unwrap() * 1000.0;
            row["wall"][key] = slow.into();
        }
    }
    sandbox.write("old.json", &old.to_string());
    let run = bench(&sandbox, &[&cpu[..], &["--compare", "old.json", "--json"]].concat()).good();
    let new = run.json();
    assert_eq!(new["compared"]["file"], "old.json");
    for row in new["devices"][0]["results"].as_array().unwrap() {
        let change = &row["change"];
        assert!(change["speed"].as_f64().unwrap() > 50.0, "{row}");
        assert_eq!((&change["beyond_noise"], &change["timer"]), (&true.into(), &"wall".into()));
    }
    let table = bench(&sandbox, &[&cpu[..], &["--compare", "old.json"]].concat()).good().stdout;
    assert!(table.contains("| of copy | speed now | check |") && table.contains(" × * |"), "{table}");

    // Other sizes have nothing in common.
    let args = [&cpu[..], &["--elements", "65536", "--compare", "old.json"]].concat();
    let other = bench(&sandbox, &args).good();
    assert!(other.stderr.contains("no row has the same kernel and size"), "{}", other.stderr);
}

#[test]
fn wrong_usage_says_what_to_do() {
    let sandbox = Sandbox::empty();
    sandbox.write("not.json", "{");
    sandbox.write("other.json", r#"{"schema": "magic-devices/1"}"#);
    sandbox.write("half.json", r#"{"schema": "magic-bench/1"}"#);
    for (args, code, phrases) in [
        (
            &["bench", "--filter", "nroms"][..],
            2,
            &["contains `nroms`", "did you mean `norms`?", "the kernels are copy"][..],
        ),
        (&["bench", "--elements", "1000"], 2, &["not a multiple of 32768", "--elements 32768"]),
        (&["bench", "--elements", "99999744"], 2, &["up to 67108864"]),
        (&["bench", "--all", "--device", "cpu"], 2, &["contradict"]),
        (&["bench", "--threads", "0", "--device", "cpu"], 2, &["at least 1"]),
        (&["bench", "--compare", "absent.json"], 2, &["`absent.json` does not exist"]),
        (&["bench", "--compare", "not.json"], 1, &["`not.json` is not the document", "magic bench --json > not.json"]),
        (&["bench", "--compare", "other.json"], 1, &["its schema is `magic-devices/1`, not `magic-bench/1`"]),
        (&["bench", "--compare", "half.json"], 1, &["missing field"]),
    ] {
        let run = sandbox.run(args);
        assert_eq!((run.code, &*run.stdout), (Some(code), ""), "{args:?} {}", run.stderr);
        for phrase in phrases {
            assert!(run.stderr.contains(phrase), "{args:?} {}", run.stderr);
        }
    }
}

/// How often the twin of [`BROKEN`] has run.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Its twin gives something else each time, its WGSL nothing of that.
static BROKEN: Kernel = Kernel {
    name: "broken",
    wgsl: "
        struct Params { dims: Dims }
        @group(0) @binding(0) var<uniform> p: Params;
        @group(0) @binding(1) var<storage, read_write> out: array<f32>;
        @compute @workgroup_size(256)
        fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
            let i = flat_group(group, groups) * WORKGROUP + lane;
            if i < p.dims.n {
                out[i] = -1.0;
            }
        }",
    constants: &[],
    bindings: &[Access::Write],
    form: Form::Shader(|dims| u64::from(dims.n).div_ceil(256)),
    twin: |args| args.write::<f32>(0).fill(RUNS.fetch_add(1, Ordering::Relaxed) as f32),
};

fn broken() -> Case {
    case::case("broken", 4.0, Expect::Bits, |s| {
        let out = s.out(Size::Planes(1));
        Box::new(move |list| list.call(&BROKEN, &[], &(), &[out]))
    })
}

/// A row that is right and one that is not: the second is not timed, and the run fails.
fn judged(target: &Target, oracle: &Oracle, mut device: Device) {
    let broken = broken();
    let found: Vec<Row> = rows(target, oracle, &[&CASES[0], &broken], &Effort::QUICK, &mut |_| Ok(())).unwrap();
    assert_eq!([found[0].status, found[1].status], [Status::Ok, Status::Wrong]);
    assert!(found[1].gb_per_s.is_none() && found[1].wall.is_none() && found[1].gpu.is_none());
    assert!(found[1].reason.contains("differ"), "{}", found[1].reason);
    device.results = found;
    let report = Report {
        schema: "magic-bench/1".to_owned(),
        magic: String::new(),
        wgpu: String::new(),
        time: String::new(),
        debug: false,
        quick: true,
        host: host::Host::ask(),
        devices: vec![device],
        compared: None,
    };
    let error = report.verdict().unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("broken") && !error.to_string().contains("copy"), "{error}");
    let table = table::markdown(&report);
    assert!(table.contains("| WRONG |") && table.contains("WRONG: broken: result 0: "), "{table}");
}

#[test]
fn what_computes_wrongly_is_not_timed_and_fails_the_run() {
    let oracle = Oracle::new(64 << 10);
    let cpu = Target::cpu(&oracle, 2).unwrap();
    judged(&cpu, &oracle, Device::cpu(&host::Host::ask(), 2));
    let Some(gpu) = gpu() else { return };
    let device = Device::gpu(&gpu);
    // What is timed is larger, and no multiple of what is checked.
    judged(&Target::gpu(&oracle, 96 << 10, gpu).unwrap(), &oracle, device);
}

#[test]
fn planes_that_find_no_room_are_smaller() {
    let Some(gpu) = gpu() else { return };
    // A plane of f32 is larger than any buffer that a kernel sees, and a quarter of it is not.
    let n = (gpu.adapter().max_binding_bytes / 4) as u32 / (128 << 10) * (128 << 10) + (128 << 10);
    let small = n / 4;
    if small > 64 << 20 {
        return; // hardware, which would be kept busy
    }
    let target = Target::gpu(&Oracle::new(64 << 10), n, gpu).unwrap();
    assert_eq!(target.n, small);
}
