//! The GPU executor against the twins: conversions, task vectors, and all that can go wrong around them.

mod common;

use common::{Expect, SIZES, check, extent, gpu, run_cpu, run_gpu, special_values, store, values, words};
use magic_merge::checkpoint::Dtype;
use magic_merge::error::{Error, Kind};
use magic_merge::gpu::{Choice, DeviceInputs, Fault, Gpu, Options};
use magic_merge::kernels::checksum::{CHECKSUM, Params as ChecksumParams};
use magic_merge::kernels::factor::{Bounds, Factor, Rule, Strength};
use magic_merge::kernels::{
    Access, Args, Form, Kernel, combine, convert, delta, factor, norms, per_row, rescale, residual, scale,
};
use magic_merge::recording::{Extent, Recording, Results, Size};

/// Any stored element as any other: the helpers that all kernels share, alone.
static RECODE: Kernel = Kernel {
    name: "test_recode",
    wgsl: "",
    constants: &["FROM", "TO"],
    bindings: &[Access::Read, Access::Write],
    form: Form::Quad(|q| {
        let (bits, to) = (q.bits(0), q.constant(1));
        let mut values = vec![format!("narrow4({to}u, {bits})")];
        if convert::dtype(to) == Dtype::F64 {
            let half = |half: &str| ["x", "y", "z", "w"].map(|c| format!("widen_to_f64({bits}.{c}).{half}")).join(", ");
            values = ["x", "y"].map(|part| format!("vec4<u32>({})", half(part))).into();
        }
        q.store(1, &values);
    }),
    twin: |args: &mut Args<'_>| {
        let (from, to) = (convert::dtype(args.constants[0]), convert::dtype(args.constants[1]));
        let mut values = vec![0f32; args.dims.n as usize];
        convert::widen(from, args.read(0), 0, &mut values);
        convert::narrow(to, &values, args.write(1), 0);
    },
};

/// One workgroup a row: `out[row] = table[row % 4] + row`, rows counted from the tensor's first, and `total` += 1.
static ROWS: Kernel = Kernel {
    name: "test_rows",
    wgsl: "
        struct Params { dims: Dims }
        @group(0) @binding(0) var<uniform> p: Params;
        @group(0) @binding(1) var<storage, read> table: array<u32>;
        @group(0) @binding(2) var<storage, read_write> out: array<u32>;
        @group(0) @binding(3) var<storage, read_write> total: array<atomic<u32>>;
        @compute @workgroup_size(256)
        fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
            let row = flat_group(group, groups);
            if row >= p.dims.rows || lane != 0u {
                return;
            }
            let at = p.dims.first_row + row;
            out[row] = table[at % 4u] + at;
            atomicAdd(&total[0], 1u);
        }",
    constants: &[],
    bindings: &[Access::Read, Access::Write, Access::Write],
    form: Form::Shader(per_row),
    twin: |args: &mut Args<'_>| {
        let first = args.dims.first_row;
        let table = args.read::<u32>(0);
        let (out, total) = (args.write::<u32>(1), args.write::<u32>(2));
        for (at, out) in (first..).zip(out) {
            *out = table[at as usize % 4] + at;
            total[0] += 1;
        }
    },
};

/// Task vectors of two experts, one handed back.
fn deltas(dtype: Dtype) -> Recording {
    let mut list = Recording::new(2);
    let inputs: Vec<_> = (0..3).map(|model| list.input("model", model, dtype)).collect();
    let tau = list.result("tau", Size::Planes(2));
    for plane in 0..2u32 {
        delta::record(&mut list, inputs[0], inputs[plane as usize + 1], tau, plane);
    }
    list
}

/// A base and two fine-tuned models.
fn models(dtype: Dtype, n: usize, seed: u64) -> Vec<Vec<u8>> {
    let base = values(n, 0.1, seed);
    let tuned = |k: u64| {
        let change = values(n, 0.05, seed + 100 + k);
        let sum: Vec<f32> = base.iter().zip(&change).map(|(b, c)| b + c).collect();
        store(dtype, &sum)
    };
    vec![store(dtype, &base), tuned(1), tuned(2)]
}

#[test]
fn every_element_type_becomes_every_other() {
    let Some(gpu) = gpu() else { return };
    for from in Dtype::FLOATS {
        // All patterns of the small types, and many of the large.
        let bytes: Vec<u8> = match from.size() {
            1 => (0..=255).collect(),
            2 => (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
            4 => {
                let special = special_values(20_000, 1e-3, 5);
                words(1).take(50_000).chain(special.iter().map(|x| x.to_bits())).flat_map(u32::to_le_bytes).collect()
            }
            _ => {
                let special = special_values(20_000, 1e-39, 6).into_iter().map(|x| f64::from(x).to_bits());
                let wild = words(2).zip(words(3)).take(20_000).map(|(lo, hi)| u64::from(hi) << 32 | u64::from(lo));
                // Around the halves at which f32 rounds, normal and subnormal.
                let near = words(4).zip(words(7)).take(50_000).map(|(a, b)| {
                    let exponent = u64::from(1023 - 160 + a % 300) << 52;
                    exponent | u64::from(b >> 9) << 29 | [0, 1, 0x0fff_ffff, 0x1000_0000, 0x1000_0001][a as usize % 5]
                });
                special.chain(wild).chain(near).flat_map(u64::to_le_bytes).collect()
            }
        };
        let n = (bytes.len() / from.size()) as u32;
        for to in Dtype::FLOATS {
            let mut list = Recording::new(1);
            let input = list.input("from", 0, from);
            let out = list.result("to", Size::Stored(to));
            list.call(&RECODE, &[from.code(), to.code()], &(), &[input, out]);
            check(&gpu, &list, &extent(n, 4096), std::slice::from_ref(&bytes), &[Expect::Bits]);
        }
    }
}

#[test]
fn task_vectors_of_all_types_and_sizes() {
    let Some(gpu) = gpu() else { return };
    for base in Dtype::FLOATS {
        for model in Dtype::FLOATS {
            let mut list = Recording::new(2);
            let (a, b) = (list.input("base", 0, base), list.input("model", 1, model));
            let tau = list.result("tau", Size::Planes(2));
            for plane in 0..2u32 {
                delta::record(&mut list, a, b, tau, plane);
            }
            for n in SIZES {
                let n = if base == model { n } else { n.min(1757) };
                let inputs = [
                    store(base, &special_values(n as usize, 0.1, 1)),
                    store(model, &special_values(n as usize, 0.1, 2)),
                ];
                let expect = Expect::Floats { atol: 0.0, rtol: 1e-6 };
                check(&gpu, &list, &extent(n, 173), &inputs, &[expect]);
            }
        }
    }
}

#[test]
fn an_unchanged_model_has_a_task_vector_of_zero_bits() {
    let Some(gpu) = gpu() else { return };
    let list = deltas(Dtype::F32);
    let bytes: Vec<u8> = words(9).take(5000).flat_map(u32::to_le_bytes).collect();
    let found = run_gpu(&gpu, &list, &extent(5000, 100), &vec![bytes; 3]).unwrap();
    assert!(found.words(0).iter().all(|word| *word == 0));
}

#[test]
fn a_grid_beyond_65535_is_folded() {
    let Some(gpu) = gpu() else { return };
    let mut list = Recording::new(1);
    let table = list.constant("table", &[1000, 2000, 3000, 4000]);
    let out = list.result("out", Size::Rows(1));
    let total = list.result("total", Size::Fixed(2));
    list.call(&ROWS, &[], &(), &[table, out, total]);
    for rows in [1, 65535, 65536, 65537, 131_073] {
        for first_row in [0, 12_345] {
            let extent = Extent { first_row, rows, row_len: 1, n: rows };
            // Twice: fixed results start from zero each time.
            for _ in 0..2 {
                let found = check(&gpu, &list, &extent, &[], &[Expect::Bits, Expect::Bits]);
                assert_eq!(found.words(1), [rows, 0]);
            }
        }
    }
}

#[test]
fn the_checksum_of_a_device_is_that_of_the_host() {
    let Some(gpu) = gpu() else { return };
    for n in SIZES {
        let mut list = Recording::new(1);
        let input = list.input("words", 0, Dtype::F32);
        let trailer = list.result("trailer", Size::Fixed(3));
        list.call(&CHECKSUM, &[], &ChecksumParams { epoch: 77, slot: 2 }, &[input, trailer]);
        let bytes: Vec<u8> = words(u64::from(n)).take(n as usize).flat_map(u32::to_le_bytes).collect();
        check(&gpu, &list, &extent(n, 64), &[bytes], &[Expect::Bits]);
    }
}

#[test]
fn large_and_odd_uploads_arrive_whole() {
    let Some(gpu) = gpu() else { return };
    let sizes = [5_000_001usize, 3, 1, 9_437_184, 4_194_305];
    let bytes = |(seed, n): (usize, &usize)| words(seed as u64).flat_map(u32::to_le_bytes).take(*n).collect();
    let inputs: Vec<Vec<u8>> = sizes.iter().enumerate().map(bytes).collect();
    let loaded = load(&gpu, &inputs).unwrap();
    for (model, &n) in sizes.iter().enumerate() {
        let mut padded = inputs[model].clone();
        padded.resize(n.next_multiple_of(4), 0);
        let sum = |model| {
            let mut list = Recording::new(1);
            let input = list.input("words", model, Dtype::F32);
            let trailer = list.result("trailer", Size::Fixed(2));
            list.call(&CHECKSUM, &[], &ChecksumParams { epoch: 3, slot: 1 }, &[input, trailer]);
            list
        };
        let block = extent(padded.len() as u32 / 4, 4096);
        let mut found = Results::default();
        gpu.run(&sum(model), &block, &loaded, &mut found).unwrap();
        assert_eq!(found.words(0), run_cpu(&sum(0), &block, &[padded]).words(0), "{n} bytes");
    }
}

fn load(gpu: &Gpu, inputs: &[Vec<u8>]) -> magic_merge::Result<DeviceInputs> {
    let sizes: Vec<usize> = inputs.iter().map(Vec::len).collect();
    gpu.load(&sizes, &mut |model, offset, out| {
        assert!(out.len() <= 1 << 20);
        out.copy_from_slice(&inputs[model][offset as usize..][..out.len()]);
        Ok(())
    })
}

#[test]
fn three_threads_share_a_device() {
    let Some(gpu) = gpu() else { return };
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let gpu = &gpu;
            scope.spawn(move || {
                let dtype = [Dtype::BF16, Dtype::F32, Dtype::F16][thread as usize];
                let list = deltas(dtype);
                for round in 0..30u64 {
                    let n = 1 + (words(thread * 1000 + round).next().unwrap() % 60_000);
                    let inputs = models(dtype, n as usize, thread * 7 + round);
                    check(gpu, &list, &extent(n, 100), &inputs, &[Expect::Floats { atol: 0.0, rtol: 1e-6 }]);
                }
            });
        }
    });
}

#[test]
fn copied_inputs_are_the_same_and_missed_copies_are_found() {
    let options = Options { staged: true, ..Options::default() };
    let Some(gpu) = gpu().and_then(|_| Gpu::open(&Choice::Any, &options).unwrap()) else { return };
    // Many staging buffers at a time, and ends within words and pieces.
    for (dtype, n) in [(Dtype::BF16, 1u32), (Dtype::F8E4M3, 4099), (Dtype::F16, 262_147), (Dtype::F32, 3_000_001)] {
        let (list, block) = (deltas(dtype), extent(n, 4096));
        check(&gpu, &list, &block, &models(dtype, n as usize, 3), &[Expect::Floats { atol: 0.0, rtol: 1e-6 }]);
        gpu.inject(Fault::SkipUpload);
        let outcome = run_gpu(&gpu, &list, &block, &models(dtype, n as usize, 4));
        gpu.inject(Fault::None);
        assert_eq!(outcome.err().expect("the copies were missed").kind(), Kind::Device);
    }
}

#[test]
fn every_injected_failure_is_found() {
    let Some(gpu) = gpu() else { return };
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let list = deltas(dtype);
        for (round, n) in [1u32, 3, 257, 1757, 70_001, 1_000_003].into_iter().enumerate() {
            let block = extent(n, if n > 10_000 { 4096 } else { 16 });
            let faults = [
                Fault::SkipUpload,
                Fault::SkipCall(0),
                Fault::SkipCall(1),
                Fault::ZeroReadBack,
                Fault::ZeroTail,
                Fault::StaleReadBack,
            ];
            for (seed, fault) in faults.into_iter().enumerate() {
                let seed = (round * 100 + seed * 10) as u64;
                // What buffers hold before is another block's, and right.
                run_gpu(&gpu, &list, &block, &models(dtype, n as usize, seed)).unwrap();
                gpu.inject(fault);
                let outcome = run_gpu(&gpu, &list, &block, &models(dtype, n as usize, seed + 1));
                gpu.inject(Fault::None);
                let error = outcome.err().unwrap_or_else(|| panic!("{fault:?} was not found, {dtype:?} {n}"));
                assert_eq!(error.kind(), Kind::Device, "{error}");
                assert!(error.hints().iter().any(|hint| hint.contains("--device")), "{error}");
            }
            run_gpu(&gpu, &list, &block, &models(dtype, n as usize, 5)).unwrap();
        }
    }
}

#[test]
fn sums_of_rows_are_the_same_in_every_block() {
    let Some(gpu) = gpu() else { return };
    for (dtype, row_len, n) in [Dtype::F32, Dtype::BF16].into_iter().flat_map(|dtype| {
        // The last row is shorter, by words and parts of words.
        let flat = [1003, 1004, 4088, 4096].map(|last| (dtype, 4096, 2 * 4096 + last));
        flat.into_iter().chain([(dtype, 1003, 3009), (dtype, 1004, 3012), (dtype, 16, 48)])
    }) {
        let mut list = Recording::new(3);
        let inputs: Vec<_> = (0..3).map(|model| list.input("model", model, dtype)).collect();
        let tau = list.scratch("tau", Size::Planes(3));
        (0..2).for_each(|k| delta::record(&mut list, inputs[0], inputs[k + 1], tau, k as u32));
        let weights = list.floats("weights", &[0.7, 0.4]);
        combine::record(&mut list, inputs[0], weights, 0.0, tau);
        let stats = list.result("stats", norms::size(3));
        norms::record(&mut list, tau, stats);
        let models = models(dtype, n as usize, 5);
        let whole = run_gpu(&gpu, &list, &extent(n, row_len), &models).unwrap();
        let mut parts = Vec::new();
        for (row, first) in (0..n).step_by(row_len as usize).enumerate() {
            let len = row_len.min(n - first);
            let block = Extent { first_row: row as u64, rows: 1, row_len, n: len };
            let bytes = [first, first + len].map(|element| element as usize * dtype.size());
            let own: Vec<Vec<u8>> = models.iter().map(|model| model[bytes[0]..bytes[1]].to_vec()).collect();
            parts.extend_from_slice(run_gpu(&gpu, &list, &block, &own).unwrap().words(0));
        }
        assert_eq!(whole.words(0), parts, "{dtype:?}, {n} in rows of {row_len}");
    }
}

/// A merge of two experts with calibrated rows, as the tool runs it.
fn merge(dtype: Dtype) -> Recording {
    let mut list = Recording::new(3);
    let inputs: Vec<_> = (0..3).map(|model| list.input("model", model, dtype)).collect();
    let tau = list.scratch("tau", Size::Planes(3));
    for plane in 0..2 {
        delta::record(&mut list, inputs[0], inputs[plane + 1], tau, plane as u32);
    }
    let weights = list.floats("weights", &[0.7, 0.4]);
    combine::record(&mut list, inputs[0], weights, 0.0, tau);
    let out = list.result("out", Size::Stored(dtype));
    let counts = list.result("counts", Size::Fixed(rescale::COUNTS));
    let stats = list.result("stats", norms::size(3));
    let xi = list.result("xi", Size::Rows(1));
    let unexplained = list.scratch("residual", Size::Rows(1));
    norms::record(&mut list, tau, stats);
    residual::record(&mut list, tau, stats, unexplained);
    let factor = Factor { rule: Rule::Mixed, bounds: Bounds::NONE, strength: Strength::FULL };
    factor::record(&mut list, factor, stats, unexplained, xi);
    rescale::record(&mut list, inputs[0], tau, xi, out, counts);
    let merged = list.result("merged", Size::Planes(1));
    scale::record(&mut list, tau, xi, merged);
    list
}

#[test]
fn a_merge_is_the_same_and_misses_none_of_its_calls() {
    let Some(gpu) = gpu() else { return };
    let near = Expect::Floats { atol: 1e-7, rtol: 1e-5 };
    let stored = Expect::Stored { ulps: 1, atol: 1e-7 };
    for (dtype, out) in [(Dtype::F32, near), (Dtype::BF16, stored), (Dtype::F16, stored)] {
        let list = merge(dtype);
        for (row_len, n) in [(173, 173 * 31), (3000, 3000 * 700)] {
            let block = extent(n, row_len);
            let inputs = models(dtype, n as usize, u64::from(n));
            check(&gpu, &list, &block, &inputs, &[out, Expect::Bits, near, near, near]);
            for call in 0..list.calls.len() as u8 {
                run_gpu(&gpu, &list, &block, &models(dtype, n as usize, 100 + u64::from(call))).unwrap();
                gpu.inject(Fault::SkipCall(call));
                let outcome = run_gpu(&gpu, &list, &block, &inputs);
                gpu.inject(Fault::None);
                assert!(outcome.is_err(), "a missing call {call} was not found, {dtype:?} {n}");
            }
        }
    }
}

#[test]
fn too_large_a_buffer_is_an_error() {
    let Some(gpu) = gpu() else { return };
    let most = gpu.adapter().max_binding_bytes;
    let mut list = Recording::new(1);
    list.result("huge", Size::Planes((most / 280_004) as u32 + 1));
    let error = run_gpu(&gpu, &list, &extent(70_001, 100), &[]).err().unwrap();
    assert!(error.to_string().contains("`huge`") && error.kind() == Kind::Device, "{error}");
    let outcome = gpu.load(&[most as usize + 1], &mut |_, _, _| panic!("nothing is read"));
    assert_eq!(outcome.err().unwrap().kind(), Kind::Device);
    // The device still works.
    run_gpu(&gpu, &deltas(Dtype::F32), &extent(100, 10), &models(Dtype::F32, 100, 1)).unwrap();
}

#[test]
fn too_short_an_input_is_an_error() {
    let Some(gpu) = gpu() else { return };
    let mut inputs = models(Dtype::F32, 100, 1);
    inputs[2].truncate(200);
    let error = run_gpu(&gpu, &deltas(Dtype::F32), &extent(100, 10), &inputs).err().unwrap();
    assert!(error.to_string().contains("200 bytes"), "{error}");
}

#[test]
fn a_failed_read_costs_nothing() {
    let Some(gpu) = gpu() else { return };
    for _ in 0..40 {
        let outcome = gpu.load(&[8 << 20, 8 << 20], &mut |model, offset, _| {
            if model == 1 && offset > 1 << 20 { Err(Error::input("gone")) } else { Ok(()) }
        });
        assert_eq!(outcome.err().unwrap().to_string(), "gone");
    }
    assert_eq!(gpu.device_bytes()[0], 0);
    run_gpu(&gpu, &deltas(Dtype::F32), &extent(100, 10), &models(Dtype::F32, 100, 1)).unwrap();
}

#[test]
fn nothing_to_do_is_done() {
    let Some(gpu) = gpu() else { return };
    let nothing = run_gpu(&gpu, &Recording::new(1), &extent(0, 1), &[]).unwrap();
    assert!(nothing.buffers.is_empty());
    let empty = run_gpu(&gpu, &deltas(Dtype::BF16), &extent(0, 1), &vec![Vec::new(); 3]).unwrap();
    assert!(empty.words(0).is_empty());
}

#[test]
fn idle_memory_stays_within_the_budget() {
    if gpu().is_none() {
        return;
    }
    let options = Options { vram: 3 << 20, ..Options::default() };
    let gpu = Gpu::open(&Choice::Any, &options).unwrap().unwrap();
    let list = deltas(Dtype::BF16);
    for n in (1000..90_000).step_by(7919) {
        run_gpu(&gpu, &list, &extent(n, 100), &models(Dtype::BF16, n as usize, 1)).unwrap();
        let [used, idle, peak] = gpu.device_bytes();
        assert!(used == 0 && idle > 0 && peak <= options.vram, "{used} {idle} {peak}");
    }
}

#[test]
fn a_lost_device_is_an_error_and_stays_one() {
    let Some(gpu) = gpu() else { return };
    let (list, block) = (deltas(Dtype::F32), extent(1000, 10));
    let inputs = models(Dtype::F32, 1000, 1);
    run_gpu(&gpu, &list, &block, &inputs).unwrap();
    let loaded = load(&gpu, &inputs).unwrap();
    gpu.destroy();
    let mut results = Results::default();
    let error = gpu.run(&list, &block, &loaded, &mut results).err().unwrap();
    assert_eq!(error.kind(), Kind::Device, "{error}");
    for _ in 0..3 {
        assert_eq!(run_gpu(&gpu, &list, &block, &inputs).err().unwrap().kind(), Kind::Device);
    }
}
