//! What several tests share: a GPU, inputs that are hard to get right, and a comparison of the two executors.
#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::print_stderr, reason = "a test that could not run says so")]

use magic_merge::checkpoint::Dtype;
use magic_merge::cpu::Cpu;
use magic_merge::gpu::{Choice, Gpu, Options};
use magic_merge::kernels::convert;
use magic_merge::recording::{Extent, Recording, Results, Size};

/// Numbers of elements at which something begins or ends: a word, a workgroup, a piece.
pub const SIZES: [u32; 6] = [1, 3, 255, 257, 1757, 70001];

/// The GPU for tests. Without one, tests that want one pass; with `MAGIC_TEST_GPU=require` they fail.
/// Software drivers will do.
pub fn gpu() -> Option<Gpu> {
    let required = std::env::var("MAGIC_TEST_GPU").is_ok_and(|value| value == "require");
    match Gpu::open(&Choice::Any, &Options::default()) {
        Ok(gpu) => gpu,
        Err(error) if required => panic!("MAGIC_TEST_GPU: {error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Rows of `row_len`, the last one maybe shorter, that hold `n` elements.
pub fn extent(n: u32, row_len: u32) -> Extent {
    Extent { first_row: 0, rows: n.div_ceil(row_len), row_len, n }
}

/// A stream of well-mixed words.
pub fn words(seed: u64) -> impl Iterator<Item = u32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as u32
    })
}

/// `n` values of both signs around `scale`, of magnitudes that differ by a few powers of two.
pub fn values(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let value = |word: u32| {
        let unit = (word >> 8) as f32 / (1 << 24) as f32;
        (unit * 2.0 - 1.0) * scale * f32::from_bits((127 - (word & 3)) << 23)
    };
    words(seed).map(value).take(n).collect()
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

/// `values` as stored elements.
pub fn store(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    // Twins see whole words, at word boundaries.
    let mut words = vec![0u64; (values.len() * dtype.size()).div_ceil(8)];
    let stored = &mut bytemuck::cast_slice_mut(&mut words)[..values.len() * dtype.size()];
    convert::narrow(dtype, values, stored, 0);
    stored.to_vec()
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

/// How near a result must be.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// The same bits.
    Bits,
    /// f32 values with |a − b| ≤ atol + rtol·|b|. Subnormals may be taken for zero; NaN is NaN, infinities are equal.
    Floats {
        /// Absolute part.
        atol: f32,
        /// Relative part.
        rtol: f32,
    },
    /// Stored elements, as many steps of their type apart at most, or as near as `atol`.
    Stored {
        /// Steps.
        ulps: u32,
        /// For what large values leave where they cancel.
        atol: f32,
    },
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
    assert_eq!(found.len(), wanted.len(), "{place}: length");
    if let (Expect::Stored { ulps, atol }, Size::Stored(dtype)) = (expect, size) {
        return compare_stored(place, dtype, n, [found, wanted], ulps, atol);
    }
    let mut wrong = 0;
    let mut first = String::new();
    for (i, (&a, &b)) in found.iter().zip(wanted).enumerate() {
        if !fits(a, b, expect) {
            wrong += 1;
            if wrong <= 4 {
                let (x, y) = (f32::from_bits(a), f32::from_bits(b));
                first += &format!("\n  [{i}] GPU {x:e} ({a:#010x}), CPU {y:e} ({b:#010x})");
            }
        }
    }
    assert!(wrong == 0, "{place}: {wrong} of {} differ ({expect:?}):{first}", found.len());
}

fn fits(a: u32, b: u32, expect: Expect) -> bool {
    let Expect::Floats { atol, rtol } = expect else { return a == b };
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    if x.is_nan() || y.is_nan() || x.is_infinite() || y.is_infinite() {
        return x == y || x.is_nan() && y.is_nan();
    }
    (x - y).abs() <= atol + rtol * y.abs() + 4.0 * f32::MIN_POSITIVE
}

#[track_caller]
fn compare_stored(place: &str, dtype: Dtype, n: usize, [found, wanted]: [&[u32]; 2], ulps: u32, atol: f32) {
    let size = dtype.size();
    let element = |words: &[u32], i: usize| {
        let mut bytes = [0u8; 8];
        bytes[..size].copy_from_slice(&bytemuck::cast_slice::<u32, u8>(words)[i * size..][..size]);
        u64::from_le_bytes(bytes)
    };
    let sign = 1u64 << (8 * size - 1);
    // Steps from zero, so that neighbours across it are neighbours.
    let steps = |bits: u64| if bits & sign == 0 { bits as i64 } else { -((bits & !sign) as i64) };
    for i in 0..n {
        let (a, b) = (element(found, i), element(wanted, i));
        let mut value = [[0f32; 1]; 2];
        for (value, words) in value.iter_mut().zip([found, wanted]) {
            convert::widen(dtype, bytemuck::cast_slice(words), i, value);
        }
        let [[x], [y]] = value;
        let close = (x - y).abs() <= atol + 4.0 * f32::MIN_POSITIVE;
        let near = x.is_nan() && y.is_nan() || close || steps(a).abs_diff(steps(b)) <= u64::from(ulps);
        assert!(near, "{place}: [{i}] GPU {x:e} ({a:#x}), CPU {y:e} ({b:#x}); {ulps} ulps allowed");
    }
}
