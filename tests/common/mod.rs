//! What several tests share: a GPU, inputs that are hard to get right, and a comparison of the two executors.
#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::print_stderr, reason = "a test that could not run says so")]

#[allow(unused_imports, reason = "each test uses its own part")]
pub use magic_merge::bench::{Expect, extent, store, values, words};
use magic_merge::cpu::Cpu;
use magic_merge::gpu::{Choice, Gpu, Matrices, Options};
use magic_merge::recording::{Extent, Recording, Results, Size};

/// Numbers of elements at which something begins or ends: a word, a workgroup, a piece.
pub const SIZES: [u32; 6] = [1, 3, 255, 257, 1757, 70001];

/// The GPU for tests. Without one, tests that want one pass; with `MAGIC_TEST_GPU=require` they fail.
/// Software drivers will do.
pub fn gpu() -> Option<Gpu> {
    let required = std::env::var("MAGIC_TEST_GPU").is_ok_and(|value| value == "require");
    match Gpu::open(&Choice::Any, &Options { matrices: Matrices::IfThere, ..Options::default() }) {
        Ok(gpu) => gpu,
        Err(error) if required => panic!("MAGIC_TEST_GPU: {error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// What arithmetic goes wrong at.
pub const SPECIAL: [f32; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-40,
    -1e-45,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    65504.0,
];

/// [`values`] with one in seven replaced by something from [`SPECIAL`].
pub fn special_values(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut values = values(n, scale, seed);
    for (value, word) in values.iter_mut().zip(words(seed ^ 0xabcd)) {
        if word % 7 == 0 {
            *value = SPECIAL[(word / 7) as usize % SPECIAL.len()];
        }
    }
    values
}

/// Runs `recording` by the twins.
pub fn run_cpu(recording: &Recording, extent: &Extent, inputs: &[Vec<u8>]) -> Results {
    let cpu = Cpu::default();
    let sizes: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let mut results = Results::default();
    let loaded = cpu.load(&sizes, &mut |model, offset, out| {
        out.copy_from_slice(&inputs[model][offset as usize..][..out.len()]);
        Ok(())
    });
    cpu.run(recording, extent, &loaded.unwrap(), &mut results);
    results
}

/// Runs `recording` on `gpu`.
pub fn run_gpu(gpu: &Gpu, recording: &Recording, extent: &Extent, inputs: &[Vec<u8>]) -> magic_merge::Result<Results> {
    let sizes: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let mut results = Results::default();
    let loaded = gpu.load(&sizes, &mut |model, offset, out| {
        out.copy_from_slice(&inputs[model][offset as usize..][..out.len()]);
        Ok(())
    })?;
    let outcome = gpu.run(recording, extent, &loaded, &mut results);
    gpu.unload(loaded);
    outcome.map(|()| results)
}

/// Runs `recording` on both executors and compares every result as `expect` says, one for each in order.
/// Returns what the GPU gave.
#[track_caller]
pub fn check(gpu: &Gpu, recording: &Recording, extent: &Extent, inputs: &[Vec<u8>], expect: &[Expect]) -> Results {
    let cpu = run_cpu(recording, extent, inputs);
    let found = run_gpu(gpu, recording, extent, inputs).unwrap_or_else(|e| panic!("{}: {e}", name(recording)));
    assert_eq!(found.buffers.len(), expect.len(), "{}: results", name(recording));
    for (i, ((_, buffer), expect)) in recording.results().zip(expect).enumerate() {
        let place = format!("{} {extent:?}: result {i} `{}`", name(recording), buffer.label);
        compare(&place, buffer.size, extent.n as usize, &found.buffers[i], &cpu.buffers[i], *expect);
    }
    found
}

fn name(recording: &Recording) -> String {
    let calls: Vec<String> =
        recording.calls.iter().map(|call| format!("{}{:?}", call.kernel.name, call.constants)).collect();
    calls.join(" → ")
}

/// Panics where `found` (GPU) and `wanted` (CPU) differ by more than `expect`.
#[track_caller]
pub fn compare(place: &str, size: Size, n: usize, found: &[u32], wanted: &[u32], expect: Expect) {
    magic_merge::bench::compare(size, n, found, wanted, expect).unwrap_or_else(|what| panic!("{place}: {what}"));
}
