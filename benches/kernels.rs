//! Bandwidth of every kernel, by its twin and on every GPU: `cargo bench --bench kernels [-- FILTER]`.
//!
//! A launch is timed inside a recording: the difference between many rounds and one, so that loading, submission and
//! reading back cancel out. Every kernel that is timed is checked against its twin in the same run.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its results")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{Expect, compare, store, values};
use magic_merge::checkpoint::Dtype;
use magic_merge::executor::{Executor, Inputs};
use magic_merge::gpu::{Choice, Gpu, Options, adapter};
use magic_merge::kernels::activate::Act;
use magic_merge::kernels::attention::Heads;
use magic_merge::kernels::between::Bracket;
use magic_merge::kernels::blend::Along;
use magic_merge::kernels::checksum::{CHECKSUM, Params as Sum};
use magic_merge::kernels::drop_ranked::Chances;
use magic_merge::kernels::factor::{Bounds, Factor, Rule, Strength};
use magic_merge::kernels::histogram::{BINS, DIGITS};
use magic_merge::kernels::matmul::{Place, Shape, Weight};
use magic_merge::kernels::patches::Image;
use magic_merge::kernels::trim::Threshold;
use magic_merge::kernels::{
    ALL, Access, Kernel, activate, add, affine, attention, between, blend, clip, combine, consensus, delta, deviation,
    drop, drop_ranked, elect, factor, gate, gather, gram, gram_t, histogram, loss, mask, matmul, matvec, matvec_t,
    normalize, norms, patches, rank, rescale, residual, rope, scale, transpose, trim, variance, widen,
};
use magic_merge::recording::{Buf, Extent, Recording, Results, Size};

const MIXED: Factor = Factor { rule: Rule::Mixed, bounds: Bounds::NONE, strength: Strength::FULL };
const EXPERTS: u32 = 3;
const PLANES: u32 = EXPERTS + 1;
const ROW: u32 = 2048;

/// What every other kernel is measured by: all planes from one buffer to another.
static COPY: Kernel = Kernel {
    name: "copy",
    wgsl: "
        struct Params { dims: Dims }
        @group(0) @binding(0) var<uniform> p: Params;
        @group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
        @group(0) @binding(2) var<storage, read_write> target_: array<vec4<f32>>;
        @compute @workgroup_size(256)
        fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
            let i = flat_group(group, groups) * WORKGROUP + lane;
            if i < p.dims.n / 4u * p.dims.planes {
                target_[i] = source[i];
            }
        }",
    entry: "main",
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    groups: |dims| u64::from(dims.n / 4 * dims.planes).div_ceil(256),
    twin: |args| args.write::<f32>(1).copy_from_slice(args.read(0)),
};

/// A recording in the making: stored models, and what kernels write either handed back or not.
struct Setup {
    list: Recording,
    bf16: Vec<Buf>,
    f32: Vec<Buf>,
    n: u32,
    shown: bool,
}

impl Setup {
    fn new(n: u32, shown: bool) -> Self {
        let mut list = Recording::new(PLANES);
        let bf16 = (0..PLANES as usize).map(|model| list.input("bf16", model, Dtype::BF16)).collect();
        let f32 = (0..PLANES as usize).map(|model| list.input("f32", PLANES as usize + model, Dtype::F32)).collect();
        if !shown {
            list.result("nothing", Size::Fixed(1));
        }
        Self { list, bf16, f32, n, shown }
    }

    fn out(&mut self, size: Size) -> Buf {
        if self.shown { self.list.result("out", size) } else { self.list.scratch("out", size) }
    }

    /// Task vectors and a merged one, in a buffer that the kernel changes or only reads.
    fn tau(&mut self, changed: bool) -> Buf {
        let size = Size::Planes(PLANES);
        let tau = if changed { self.out(size) } else { self.list.scratch("tau", size) };
        for plane in 0..PLANES {
            widen::record(&mut self.list, self.f32[plane as usize], tau, plane);
        }
        tau
    }
}

/// Appends one round of launches, which goes over all the planes.
type Round = Box<dyn Fn(&mut Recording)>;

struct Case {
    kernel: &'static str,
    /// What is special about it.
    note: &'static str,
    /// Bytes that a round must read and write, for each element of a plane.
    bytes: f64,
    /// Floating point operations of a round, for planes of so many elements, where those say more.
    work: Option<fn(u32) -> f64>,
    row_len: u32,
    expect: Expect,
    setup: fn(&mut Setup) -> Round,
}

const NEAR: Expect = Expect::Floats { atol: 1e-4, rtol: 1e-5 };

const fn case(kernel: &'static str, bytes: f64, expect: Expect, setup: fn(&mut Setup) -> Round) -> Case {
    Case { kernel, note: "", bytes, work: None, row_len: ROW, expect, setup }
}

fn each_plane(record: impl Fn(&mut Recording, u32) + 'static) -> Round {
    Box::new(move |list| (0..PLANES).for_each(|plane| record(list, plane)))
}

const CASES: &[Case] = &[
    case("copy", 32.0, Expect::Bits, |s| {
        let (from, to) = (s.tau(false), s.out(Size::Planes(PLANES)));
        Box::new(move |list| list.call(&COPY, &[], &(), &[from, to]))
    }),
    Case {
        note: ", bf16",
        ..case("delta", 3.0 * (2.0 + 2.0 + 4.0), Expect::Bits, |s| {
            let (tau, models) = (s.tau(true), s.bf16.clone());
            Box::new(move |list| {
                for plane in 0..EXPERTS {
                    delta::record(list, models[0], models[plane as usize + 1], tau, plane);
                }
            })
        })
    },
    Case {
        note: ", bf16",
        ..case("widen", 4.0 * (2.0 + 4.0), Expect::Bits, |s| {
            let (tau, models) = (s.out(Size::Planes(PLANES)), s.bf16.clone());
            each_plane(move |list, plane| widen::record(list, models[plane as usize], tau, plane))
        })
    },
    Case {
        note: ", first digit",
        ..case("histogram", 16.0, Expect::Bits, |s| {
            let (tau, bins) = (s.tau(false), s.out(Size::Fixed(PLANES * BINS)));
            each_plane(move |list, plane| histogram::record(list, tau, plane, 0, DIGITS[0], bins))
        })
    },
    Case {
        note: ", second digit",
        ..case("histogram", 16.0, Expect::Bits, |s| {
            let (tau, bins) = (s.tau(false), s.out(Size::Fixed(PLANES * BINS)));
            let prefix = 0.05f32.to_bits() >> DIGITS[0].shift;
            each_plane(move |list, plane| histogram::record(list, tau, plane, prefix, DIGITS[1], bins))
        })
    },
    // Nothing is listed: the order would be any.
    case("between", 16.0, Expect::Bits, |s| {
        let (tau, found) = (s.tau(false), s.out(between::size(PLANES, 1)));
        let bracket = Bracket { low: 0.02f32.to_bits(), high: 0.02f32.to_bits() };
        each_plane(move |list, plane| between::record(list, tau, plane, bracket, found))
    }),
    case("trim", 32.0, Expect::Bits, |s| {
        let tau = s.tau(true);
        let keep = Threshold::new(0.02f32.to_bits(), 1);
        each_plane(move |list, plane| trim::record(list, tau, plane, keep, Threshold::NOTHING))
    }),
    case("rank", 32.0, Expect::Bits, |s| {
        let (tau, sorted, ranks) = (s.tau(false), s.list.scratch("sorted", rank::scratch()), s.out(Size::Planes(1)));
        each_plane(move |list, plane| rank::record(list, tau, plane, sorted, ranks))
    }),
    case("drop_ranked", 48.0, Expect::Bits, |s| {
        let (tau, sorted, ranks) = (s.tau(true), s.list.scratch("sorted", rank::scratch()), Size::Planes(1));
        let ranks = s.list.scratch("ranks", ranks);
        rank::record(&mut s.list, tau, 0, sorted, ranks);
        let chances = Chances { density: 0.5, epsilon: 0.15, row_len: ROW };
        each_plane(move |list, plane| drop_ranked::record(list, ranks, tau, plane, [1, plane], chances, 1.0))
    }),
    case("drop", 32.0, Expect::Bits, |s| {
        let tau = s.tau(true);
        each_plane(move |list, plane| drop::record(list, tau, plane, [1, plane], 0.5, 1.0))
    }),
    case("combine", 16.0, NEAR, |s| {
        let (tau, weights, base) = (s.tau(true), s.list.floats("weights", &[0.5, 0.3, 0.2]), s.bf16[0]);
        Box::new(move |list| combine::record(list, base, weights, 0.0, tau))
    }),
    case("elect", 16.0, NEAR, |s| {
        let (tau, weights) = (s.tau(true), s.list.floats("weights", &[1.0; 3]));
        Box::new(move |list| elect::record(list, weights, 1.0, true, true, tau))
    }),
    case("variance", 16.0, NEAR, |s| {
        let (tau, out) = (s.tau(false), s.out(Size::Planes(1)));
        Box::new(move |list| variance::record(list, tau, out))
    }),
    case("mask", 4.0 + 24.0, Expect::Bits, |s| {
        let (tau, by) = (s.tau(true), s.list.scratch("by", Size::Planes(1)));
        variance::record(&mut s.list, tau, by);
        Box::new(move |list| mask::record(list, by, Threshold::new(0.02f32.to_bits(), 1), tau))
    }),
    case("consensus", 16.0, NEAR, |s| {
        let (tau, weights) = (s.tau(true), s.list.floats("weights", &[1.0; 3]));
        Box::new(move |list| consensus::record(list, weights, 0.4, 2, 1.0, tau))
    }),
    case("clip", 8.0, Expect::Bits, |s| {
        let tau = s.tau(true);
        Box::new(move |list| clip::record(list, tau, 0.01))
    }),
    case("gram", 16.0, NEAR, |s| {
        let (tau, out) = (s.tau(false), s.out(gram::size(PLANES, ROW, ROW)));
        Box::new(move |list| gram::record(list, tau, ROW, out))
    }),
    case("gram_t", 16.0 + 2.5, NEAR, |s| {
        let (tau, out) = (s.tau(false), s.out(Size::Groups(gram::pairs(PLANES))));
        Box::new(move |list| gram_t::record(list, tau, out))
    }),
    case("blend", 2.0 + 16.0, NEAR, |s| {
        let (tau, base) = (s.tau(true), s.bf16[0]);
        let weights = s.list.floats("weights", &values((PLANES * ROW) as usize, 0.5, 10));
        Box::new(move |list| blend::record(list, base, weights, tau, 1, Along::Columns))
    }),
    case("norms", 16.0, NEAR, |s| {
        let (tau, stats) = (s.tau(false), s.out(norms::size(PLANES)));
        Box::new(move |list| norms::record(list, tau, stats))
    }),
    Case {
        note: ", rows of 3",
        row_len: 3,
        ..case("norms", 16.0 + 64.0 / 3.0, NEAR, |s| {
            let (tau, stats) = (s.tau(false), s.out(norms::size(PLANES)));
            Box::new(move |list| norms::record(list, tau, stats))
        })
    },
    case("residual", 16.0, NEAR, |s| {
        let (tau, stats) = (s.tau(false), s.list.scratch("stats", norms::size(PLANES)));
        norms::record(&mut s.list, tau, stats);
        let residual = s.out(Size::Rows(1));
        Box::new(move |list| residual::record(list, tau, stats, residual))
    }),
    Case {
        note: ", a row is 16 words of statistics",
        row_len: 16,
        ..case("factor", 4.0 * (4.0 + 2.0 * 4.0 / 16.0), NEAR, |s| {
            let (stats, xi) = (s.f32.clone(), s.out(Size::Rows(1)));
            let left = s.list.floats("residual", &values(s.n as usize / 16, 0.1, 8));
            each_plane(move |list, k| factor::record(list, MIXED, stats[k as usize], left, xi))
        })
    },
    case("matvec", 16.0, NEAR, |s| {
        let v = values((PLANES * ROW) as usize, 0.01, 9);
        let (tau, v, y) = (s.tau(false), s.list.floats("v", &v), s.out(Size::Rows(PLANES)));
        Box::new(move |list| matvec::record(list, tau, v, y))
    }),
    case("matvec_t", 16.0 + 1.0, NEAR, |s| {
        let v = values((PLANES * ROW) as usize, 0.01, 9);
        let (tau, v, y) = (s.tau(false), s.list.floats("v", &v), s.list.scratch("y", Size::Rows(PLANES)));
        matvec::record(&mut s.list, tau, v, y);
        let w = s.out(Size::Groups(PLANES));
        Box::new(move |list| matvec_t::record(list, tau, y, w))
    }),
    Case {
        note: ", bf16",
        ..case("rescale", 2.0 + 4.0 + 2.0, Expect::Stored { ulps: 1, atol: 0.0 }, |s| {
            let (tau, base, xi) = (s.tau(false), s.bf16[0], s.list.floats("xi", &[1.25]));
            let (out, counts) = (s.out(Size::Stored(Dtype::BF16)), s.out(Size::Fixed(rescale::COUNTS)));
            Box::new(move |list| rescale::record(list, base, tau, xi, out, counts))
        })
    },
    Case {
        note: ", rows of 3",
        row_len: 3,
        ..case("rescale", 2.0 + 4.0 + 2.0 + 4.0 / 3.0, Expect::Stored { ulps: 1, atol: 0.0 }, |s| {
            let (tau, base) = (s.tau(false), s.bf16[0]);
            let xi = s.list.table("xi", 1, &values(s.n.div_ceil(3) as usize, 1.0, 11));
            let (out, counts) = (s.out(Size::Stored(Dtype::BF16)), s.out(Size::Fixed(rescale::COUNTS)));
            Box::new(move |list| rescale::record(list, base, tau, xi, out, counts))
        })
    },
    case("scale", 8.0, Expect::Bits, |s| {
        let (tau, xi, out) = (s.tau(false), s.list.floats("xi", &[1.25]), s.out(Size::Planes(1)));
        Box::new(move |list| scale::record(list, tau, xi, out))
    }),
    case("transpose", 8.0, Expect::Bits, |s| {
        let (x, out, shape) = (s.tau(false), s.out(Size::Planes(1)), (s.n / ROW, ROW));
        Box::new(move |list| (0..PLANES).for_each(|_| transpose::record(list, shape, x, out)))
    }),
    case("checksum", 16.0, Expect::Bits, |s| {
        let (words, trailer) = (s.f32.clone(), s.out(Size::Fixed(1 + PLANES)));
        each_plane(move |list, k| {
            list.call(&CHECKSUM, &[], &Sum { epoch: 7, slot: 1 + k }, &[words[k as usize], trailer]);
        })
    }),
    case("gather", 8.0, Expect::Bits, |s| {
        let rows = s.n / ROW;
        let index: Vec<u32> = (0..rows).map(|r| r * 7 % rows).collect();
        let (table, index, out) = (s.f32[0], s.list.constant("index", &index), s.out(Size::Planes(1)));
        let table = Weight { buf: table, from: 0 };
        Box::new(move |list| gather::record(list, (rows, ROW), table, index, false, out))
    }),
    case("patches", 8.0, Expect::Bits, |s| {
        let (pixels, out, images) = (s.f32[0], s.out(Size::Planes(1)), s.n >> 15);
        let image = Image { channels: 2, height: 128, width: 128, patch: 16 };
        Box::new(move |list| patches::record(list, images, image, pixels, out))
    }),
    case("normalize", 8.0, NEAR, |s| {
        let (x, out, rows) = (s.f32[0], s.out(Size::Planes(1)), s.n / ROW);
        Box::new(move |list| normalize::record(list, (rows, ROW), normalize::Kind::Layer, 1e-5, x, out))
    }),
    case("affine", 8.0, NEAR, |s| {
        let (x, w, out, rows) = (s.f32[0], s.f32[1], s.out(Size::Planes(1)), s.n / ROW);
        let [w, bias] = [0, 5].map(|from| Weight { buf: w, from });
        Box::new(move |list| affine::record(list, (rows, ROW), x, w, Some(bias), out))
    }),
    Case { note: ", square", work: Some(square), ..case("matmul", 0.0, NEAR, |s| products(s, &matmul::MATMUL)) },
    Case {
        note: ", square",
        work: Some(square),
        ..case("matmul_small", 0.0, NEAR, |s| products(s, &matmul::MATMUL_SMALL))
    },
    Case {
        note: ", 4 rows",
        ..case("matmul_skinny", 4.0, NEAR, |s| {
            let (x, w, cols) = (s.f32[0], Weight { buf: s.f32[1], from: 0 }, s.n / ROW);
            let out = Place { buf: s.out(Size::Fixed(4 * cols)), stride: cols, column: 0 };
            let shape = Shape { rows: 4, cols, depth: ROW };
            Box::new(move |list| matmul::record(list, shape, x, w, None, out))
        })
    },
    case("rope", 8.0, NEAR, |s| {
        // A turn that can be repeated: its cosine and sine are of length one.
        let (x, rows) = (s.tau(true), s.n / ROW);
        let table = s.list.floats("table", &[[0.6; 64], [0.8; 64]].as_flattened().repeat(rows as usize));
        Box::new(move |list| rope::record(list, rows, ROW / 128, 128, table, x))
    }),
    Case {
        note: ", 16 heads of 64, up to 512 keys",
        work: Some(|n| 4.0 * f64::from(n) * f64::from((n / 1024).min(512))),
        ..case("attention", 0.0, NEAR, |s| {
            let (rows, out) = (s.n / 1024, s.out(Size::Planes(1)));
            let range = |r: u32| [r / 512 * 512, (r / 512 * 512 + 512).min(rows)];
            let ranges = s.list.constant("ranges", (0..rows).map(range).collect::<Vec<_>>().as_flattened());
            let [q, k, v] = [0, 1, 2].map(|i| Place { buf: s.f32[i], stride: 1024, column: 0 });
            let heads = Heads { heads: 16, kv_heads: 16, dim: 64, scale: 0.125 };
            Box::new(move |list| attention::record(list, rows, heads, q, k, v, ranges, out))
        })
    },
    Case {
        note: ", by the error function",
        ..case("activate", 8.0, NEAR, |s| {
            let (x, out, rows) = (s.f32[0], s.out(Size::Planes(1)), s.n / ROW);
            Box::new(move |list| activate::record(list, (rows, ROW), Act::Gelu, x, out))
        })
    },
    Case {
        note: ", SiLU",
        ..case("gate", 12.0, NEAR, |s| {
            let (x, up, out, rows) = (s.f32[0], s.f32[1], s.out(Size::Planes(1)), s.n / ROW);
            Box::new(move |list| gate::record(list, (rows, ROW), Act::Silu, x, up, out))
        })
    },
    case("add", 12.0, NEAR, |s| {
        let (x, y, out, rows) = (s.f32[0], s.f32[1], s.out(Size::Planes(1)), s.n / ROW);
        Box::new(move |list| add::record(list, (rows, ROW), 1.0, x, 0.5, y, out))
    }),
    case("loss", 4.0, NEAR, |s| {
        let (logits, rows) = (s.f32[0], s.n / ROW);
        let targets = s.list.constant("targets", &(0..rows).map(|r| r * 31 % ROW).collect::<Vec<_>>());
        let out = s.out(Size::Fixed(loss::WIDTH * rows));
        Box::new(move |list| loss::record(list, (rows, ROW), logits, targets, out))
    }),
    case("deviation", 8.0, NEAR, |s| {
        let (a, c, rows) = (s.f32[0], s.f32[1], s.n / ROW);
        let stats = s.out(Size::Fixed(rows * deviation::WIDTH));
        Box::new(move |list| deviation::record(list, (rows, ROW), a, c, false, stats))
    }),
];

/// Sides of a square matrix of at most `n` elements.
fn side(n: u32) -> u32 {
    n.isqrt() / 64 * 64
}

fn square(n: u32) -> f64 {
    2.0 * f64::from(side(n)).powi(3)
}

fn products(s: &mut Setup, kernel: &'static Kernel) -> Round {
    let side = side(s.n);
    let (x, w) = (s.f32[0], Weight { buf: s.f32[1], from: 0 });
    let out = Place { buf: s.out(Size::Fixed(side * side)), stride: side, column: 0 };
    let shape = Shape { rows: side, cols: side, depth: side };
    Box::new(move |list| matmul::record_with(list, kernel, shape, x, w, None, out))
}

impl Case {
    fn recording(&self, n: u32, rounds: usize, shown: bool) -> Recording {
        let mut setup = Setup::new(n, shown);
        let round = (self.setup)(&mut setup);
        (0..rounds).for_each(|_| round(&mut setup.list));
        setup.list
    }

    fn extent(&self, n: u32) -> Extent {
        common::extent(n, self.row_len)
    }
}

/// Loads the models, and 3 bytes more: unlike sizes keep the GPU executor from computing samples again on the CPU.
fn load(device: &Executor, n: u32) -> Inputs {
    let plane = |k: u64| values(n as usize, 0.1, k);
    let mut models: Vec<Vec<u8>> = (0..PLANES).map(|k| store(Dtype::BF16, &plane(k.into()))).collect();
    models.extend((0..PLANES).map(|k| store(Dtype::F32, &plane(10 + u64::from(k)))));
    models.push(vec![0; 3]);
    let sizes: Vec<usize> = models.iter().map(Vec::len).collect();
    let loaded = device.load(&sizes, &mut |model, offset, out| {
        out.copy_from_slice(&models[model][offset as usize..][..out.len()]);
        Ok(())
    });
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

struct Device {
    name: String,
    n: u32,
    software: bool,
    executor: Executor,
    inputs: Inputs,
    results: Results,
}

impl Device {
    fn new(name: String, n: u32, executor: Executor) -> Self {
        let inputs = load(&executor, n);
        let software = matches!(&executor, Executor::Gpu(gpu) if gpu.adapter().is_software());
        Self { name, n, software, executor, inputs, results: Results::default() }
    }

    fn run(&mut self, list: &Recording, extent: &Extent) -> Duration {
        let start = Instant::now();
        let outcome = self.executor.run(list, extent, &self.inputs, &mut self.results);
        outcome.unwrap_or_else(|error| panic!("{error}"));
        start.elapsed()
    }

    /// Median time of a round in seconds: 3 runs to warm up, then at least 10 and 300 ms.
    fn time(&mut self, case: &Case) -> f64 {
        let extent = case.extent(self.n);
        let one = case.recording(self.n, 1, false);
        let mut rounds = 9;
        loop {
            let many = case.recording(self.n, rounds, false);
            let mut sample = || self.run(&many, &extent).as_secs_f64() - self.run(&one, &extent).as_secs_f64();
            let warm = (0..3).map(|_| sample()).fold(f64::INFINITY, f64::min);
            if warm < 5e-3 && rounds < 2049 {
                rounds = 4 * rounds - 3;
                continue;
            }
            let start = Instant::now();
            let mut samples = Vec::new();
            while samples.len() < 10 || start.elapsed() < Duration::from_millis(300) {
                samples.push(sample());
            }
            samples.sort_by(f64::total_cmp);
            return samples[samples.len() / 2] / (rounds - 1) as f64;
        }
    }

    /// True if one round gives what the twin gives.
    fn check(&mut self, case: &Case, twins: &mut Device) -> bool {
        let extent = case.extent(self.n);
        let list = case.recording(self.n, 1, true);
        twins.run(&list, &extent);
        self.run(&list, &extent);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for (i, (_, buffer)) in list.results().enumerate() {
                let (found, wanted) = (&self.results.buffers[i], &twins.results.buffers[i]);
                compare(case.kernel, buffer.size, self.n as usize, found, wanted, case.expect);
            }
        }));
        outcome.is_ok()
    }

    fn table(&mut self, filter: &str) -> bool {
        let mut twins = Device::new(String::new(), self.n, Executor::Cpu(Default::default()));
        let mut right = true;
        for case in CASES.iter().filter(|case| case.kernel.contains(filter)) {
            // A workgroup for each of so many rows takes a software adapter minutes.
            if self.software && case.row_len < 16 {
                continue;
            }
            let checked = self.check(case, &mut twins);
            right &= checked;
            if let Some(work) = case.work {
                let rate = work(self.n) / self.time(case) / 1e9;
                let (kernel, note, check) = (case.kernel, case.note, if checked { "ok" } else { "WRONG" });
                println!("| {kernel}{note} | {} | {} | {rate:.2} GFLOP/s | | {check} |", self.name, self.n);
                continue;
            }
            // Side by side: a machine with other work to do drifts.
            let [copy, found] = [&CASES[0], case].map(|case| case.bytes * f64::from(self.n) / self.time(case) / 1e9);
            let (percent, check) = (100.0 * found / copy, if checked { "ok" } else { "WRONG" });
            let (kernel, note) = (case.kernel, case.note);
            // So little work that the difference drowns in noise.
            let figures = if found.min(copy) > 0.0 { format!("{found:.2} | {percent:.0}") } else { "? | ?".into() };
            println!("| {kernel}{note} | {} | {} | {figures} | {check} |", self.name, self.n);
        }
        right
    }
}

fn heading(text: &str) {
    println!("\n{text}\n\n| kernel | device | elements | GB/s | % of copy | check |\n|---|---|---:|---:|---:|---|");
}

fn main() -> ExitCode {
    for kernel in ALL {
        assert!(CASES.iter().any(|case| case.kernel == kernel.name), "`{}` has no row", kernel.name);
    }
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    println!(
        "{EXPERTS} experts; elements are those of one plane. GB/s: bytes that must be read and written, by wall clock,"
    );
    println!(
        "from the difference between many rounds and one in a recording; median. Copy: {PLANES} planes, measured before each kernel."
    );
    let mut right = true;
    heading("CPU, the twins, out of cache and in it: on one thread, those of a forward pass on all");
    for n in [4 << 20, 32 << 10] {
        right &= Device::new("CPU".into(), n, Executor::Cpu(Default::default())).table(&filter);
    }
    for software in [false, true] {
        for adapter in adapter::list().iter().filter(|adapter| adapter.is_software() == software) {
            let kind = if software { "Software adapter, not to be ranked" } else { "GPU" };
            heading(&format!("{kind}: {}, {}, {}", adapter.name, adapter.backend, adapter.driver));
            let gpu = Gpu::open(&Choice::Index(adapter.index), &Options { checks: false, ..Options::default() });
            let gpu = match gpu {
                Ok(gpu) => gpu.expect("an adapter that was asked for by its index"),
                Err(error) => {
                    eprintln!("{error}");
                    right = false;
                    continue;
                }
            };
            let n = if software { 128 << 10 } else { 4 << 20 };
            let name = adapter.name.split(" (").next().unwrap_or_default();
            right &= Device::new(name.to_owned(), n, Executor::Gpu(Box::new(gpu))).table(&filter);
        }
    }
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
