//! The table: every kernel, what a round of it does, and how near its results must be.

use super::case::{Case, EXPERTS, NEAR, PLANES, ROW, Round, Setup, case, each_plane};
use super::check::Expect;
use super::copy::COPY;
use super::merges::{self, Merge};
use super::values::values;
use crate::checkpoint::Dtype;
use crate::kernels::activate::Act;
use crate::kernels::attention::Heads;
use crate::kernels::between::Bracket;
use crate::kernels::blend::Along;
use crate::kernels::canary::{CANARY, Params as Marks};
use crate::kernels::checksum::{CHECKSUM, Params as Sum};
use crate::kernels::drop_ranked::Chances;
use crate::kernels::factor::{Bounds, Factor, Rule, Strength};
use crate::kernels::histogram::{BINS, DIGITS};
use crate::kernels::matmul::{Place, Shape, Weight};
use crate::kernels::patches::Image;
use crate::kernels::trim::Threshold;
use crate::kernels::{
    Kernel, activate, add, affine, attention, between, blend, clip, combine, consensus, cross, delta, deviation, drop,
    drop_l1, drop_ranked, elect, factor, gate, gather, gram, gram_t, histogram, loss, mask, matmul, matmul_coop,
    matvec, matvec_t, narrow_rows, normalize, norms, patches, rank, rescale, residual, rope, scale, transpose, trim,
    variance, widen, witness,
};
use crate::recording::{Buf, Size};

const MIXED: Factor = Factor { rule: Rule::Mixed, bounds: Bounds::NONE, strength: Strength::FULL };

/// Sums that all but cancel show whether their products were rounded before; GPUs do as they like.
const STORED: Expect = Expect::Stored { ulps: 1, atol: 1e-7 };

/// The f32 product that others are compared with.
pub const SQUARE: Case =
    Case { note: "square", work: Some(square), ..case("matmul", 0.0, NEAR, |s| products(s, &matmul::MATMUL)) };

/// A whole merge: every model is read once, and the result written.
const fn merge(note: &'static str, setup: fn(&mut Setup) -> Round) -> Case {
    let expect = Expect::Stored { ulps: 1, atol: 1e-6 };
    Case { note, ..case("merge", 2.0 * PLANES as f64 + 2.0, expect, setup) }
}

/// A row for each kernel, and for each variant that runs otherwise; the copy first, then merges of many kernels.
pub static CASES: &[Case] = &[
    case("copy", 32.0, Expect::Bits, |s| {
        let (from, to) = (s.tau(false), s.out(Size::Planes(PLANES)));
        Box::new(move |list| list.call(&COPY, &[], &(), &[from, to]))
    }),
    merge("linear, bf16", |s| merges::round(s, Merge { ties: false, calibrated: false })),
    merge("linear with wsc, bf16", |s| merges::round(s, Merge { ties: false, calibrated: true })),
    merge("ties with wsc, bf16", |s| merges::round(s, Merge { ties: true, calibrated: true })),
    Case {
        note: "bf16",
        ..case("delta", 3.0 * (2.0 + 2.0 + 4.0), Expect::Bits, |s| {
            let (tau, models) = (s.tau(true), s.bf16);
            Box::new(move |list| {
                for plane in 0..EXPERTS {
                    delta::record(list, models[0], models[plane as usize + 1], tau, plane);
                }
            })
        })
    },
    Case {
        note: "bf16",
        ..case("widen", 4.0 * (2.0 + 4.0), Expect::Bits, |s| {
            let (tau, models) = (s.out(Size::Planes(PLANES)), s.bf16);
            each_plane(move |list, plane| widen::record(list, models[plane as usize], tau, plane))
        })
    },
    Case {
        note: "first digit",
        ..case("histogram", 16.0, Expect::Bits, |s| {
            let (tau, bins) = (s.tau(false), s.out(Size::Fixed(PLANES * BINS)));
            each_plane(move |list, plane| histogram::record(list, tau, plane, 0, DIGITS[0], bins))
        })
    },
    Case {
        note: "second digit",
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
    case("witness", 3.0 * 8.0 / ROW as f64, Expect::Bits, |s| {
        let (tau, out) = (s.tau(false), s.out(Size::Rows(EXPERTS)));
        Box::new(move |list| witness::record(list, tau, out))
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
    case("drop_l1", 16.0, NEAR, |s| {
        let (tau, sums) = (s.tau(false), s.outs(drop_l1::SIZE));
        each_plane(move |list, plane| {
            drop_l1::record(list, tau, plane, [1, plane], 0.5, sums[plane as usize]);
        })
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
    Case {
        note: "runs of 256",
        ..case("gram", 16.0, NEAR, |s| {
            let (tau, out) = (s.tau(false), s.out(gram::size(PLANES, ROW, 256)));
            Box::new(move |list| gram::record(list, tau, 256, out))
        })
    },
    case("gram_rows", 16.0, NEAR, |s| {
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
        note: "Σ|x| alone",
        ..case("norms", 16.0, NEAR, |s| {
            let (tau, stats) = (s.tau(false), s.out(norms::size(PLANES)));
            Box::new(move |list| norms::record_l1(list, tau, stats))
        })
    },
    case("statistics", 16.0, NEAR, |s| {
        let (tau, stats) = (s.tau(false), s.out(norms::size(PLANES)));
        Box::new(move |list| list.call(&norms::STATISTICS, &[0], &(), &[tau, stats]))
    }),
    Case {
        note: "rows of 3",
        row_len: 3,
        ..case("norms", 16.0 + 64.0 / 3.0, NEAR, |s| {
            let (tau, stats) = (s.tau(false), s.out(norms::size(PLANES)));
            Box::new(move |list| norms::record(list, tau, stats))
        })
    },
    case("cross", 12.0, NEAR, |s| {
        let (tau, out) = (s.tau(false), s.out(Size::Rows(cross::width(EXPERTS))));
        Box::new(move |list| cross::record(list, tau, out))
    }),
    case("residual", 16.0, NEAR, |s| {
        let (tau, stats) = (s.tau(false), s.list.scratch("stats", norms::size(PLANES)));
        norms::record(&mut s.list, tau, stats);
        let residual = s.out(Size::Rows(1));
        Box::new(move |list| residual::record(list, tau, stats, residual))
    }),
    Case {
        note: "a row is 16 words of statistics",
        row_len: 16,
        ..case("factor", 4.0 * (4.0 + 2.0 * 4.0 / 16.0), NEAR, |s| {
            let (stats, xi) = (s.f32, s.out(Size::Rows(1)));
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
        note: "bf16",
        ..case("rescale", 2.0 + 4.0 + 2.0, STORED, |s| {
            let (tau, base, xi) = (s.tau(false), s.bf16[0], s.list.floats("xi", &[1.25]));
            let (out, counts) = (s.out(Size::Stored(Dtype::BF16)), s.out(Size::Fixed(rescale::COUNTS)));
            Box::new(move |list| rescale::record(list, base, tau, xi, out, counts))
        })
    },
    Case {
        note: "rows of 3",
        row_len: 3,
        ..case("rescale", 2.0 + 4.0 + 2.0 + 4.0 / 3.0, STORED, |s| {
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
    case("transpose", 32.0, Expect::Bits, |s| {
        let (x, out, shape) = (s.f32, s.outs(Size::Planes(1)), (s.n / ROW, ROW));
        each_plane(move |list, k| transpose::record(list, shape, x[k as usize], out[k as usize]))
    }),
    case("checksum", 16.0, Expect::Bits, |s| {
        let (words, trailer) = (s.f32, s.out(Size::Fixed(1 + PLANES)));
        each_plane(move |list, k| {
            list.call(&CHECKSUM, &[], &Sum { epoch: 7, slot: 1 + k }, &[words[k as usize], trailer]);
        })
    }),
    Case {
        note: "marks of 2048 words",
        work: None,
        ..case("canary", 0.0, Expect::Bits, |s| {
            let (words, trailer) = (s.list.scratch("words", Size::Planes(1)), s.out(Size::Fixed(2)));
            each_plane(move |list, _| {
                for look in [0, 1] {
                    let params = Marks { epoch: 7, slot: 1, from: 0, stride: ROW, look };
                    list.call_over((1, ROW), &CANARY, &[], &params, &[words, trailer]);
                }
            })
        })
    },
    case("gather", 32.0, Expect::Bits, |s| {
        let rows = s.n / ROW;
        let index: Vec<u32> = (0..rows).map(|r| r * 7 % rows).collect();
        let (table, index, out) = (s.f32, s.list.constant("index", &index), s.outs(Size::Planes(1)));
        each_plane(move |list, k| {
            let table = Weight { buf: table[k as usize], from: 0 };
            gather::record(list, (rows, ROW), table, index, None, out[k as usize]);
        })
    }),
    case("patches", 32.0, Expect::Bits, |s| {
        let (pixels, out, images) = (s.f32, s.outs(Size::Planes(1)), s.n >> 15);
        let image = Image { channels: 2, height: 128, width: 128, patch: 16 };
        each_plane(move |list, k| patches::record(list, images, image, pixels[k as usize], out[k as usize]))
    }),
    case("normalize", 32.0, NEAR, |s| {
        let (x, out, rows) = (s.f32, s.outs(Size::Planes(1)), s.n / ROW);
        each_plane(move |list, k| {
            let (x, out) = (x[k as usize], out[k as usize]);
            normalize::record(list, (rows, ROW), normalize::Kind::Layer, 1e-5, x, out);
        })
    }),
    case("affine", 32.0, NEAR, |s| {
        let (x, out, rows) = (s.f32, s.outs(Size::Planes(1)), s.n / ROW);
        let [w, bias] = [0, 5].map(|from| Weight { buf: x[1], from });
        each_plane(move |list, k| {
            affine::record(list, (rows, ROW), x[k as usize], w, Some(bias), out[k as usize]);
        })
    }),
    SQUARE,
    Case {
        note: "square",
        work: Some(square),
        ..case("matmul_large", 0.0, NEAR, |s| products(s, &matmul::MATMUL_LARGE))
    },
    Case {
        note: "square",
        work: Some(square),
        ..case("matmul_small", 0.0, NEAR, |s| products(s, &matmul::MATMUL_SMALL))
    },
    Case {
        note: "4 rows",
        ..case("matmul_skinny", 16.0, NEAR, |s| {
            let (x, cols) = (s.f32, s.n / ROW);
            let out = s.outs(Size::Fixed(4 * cols)).map(|buf| Place { buf, stride: cols, column: 0 });
            let shape = Shape { rows: 4, cols, depth: ROW };
            each_plane(move |list, k| {
                let w = Weight { buf: x[k as usize], from: 0 };
                matmul::record(list, shape, x[(k as usize + 1) % 4], w, None, out[k as usize]);
            })
        })
    },
    case("narrow_rows", 4.0 * (4.0 + 2.0), Expect::Bits, |s| {
        let (x, rows) = (s.f32, s.n / ROW);
        let [narrow, scales] = narrow_rows::sizes(rows, ROW).map(|size| s.outs(size));
        each_plane(move |list, k| {
            let k = k as usize;
            narrow_rows::record(list, (rows, ROW), x[k], 0, [narrow[k], scales[k]]);
        })
    }),
    Case {
        note: "square",
        work: Some(square),
        ..case("matmul_coop16", 0.0, NEAR, |s| cooperative(s, &matmul_coop::MATMUL_COOP16))
    },
    Case {
        note: "square",
        work: Some(square),
        ..case("matmul_coop8", 0.0, NEAR, |s| cooperative(s, &matmul_coop::MATMUL_COOP8))
    },
    // The table has 128 words for the 2048 of a row.
    case("rope", 4.0 * (8.0 + 4.0 / 16.0), NEAR, |s| {
        let (x, out, rows) = (s.f32, s.outs(Size::Planes(1)), s.n / ROW);
        let table = s.list.floats("table", &[[0.6; 64], [0.8; 64]].as_flattened().repeat(rows as usize));
        each_plane(move |list, k| rope::record(list, rows, ROW / 128, 128, table, x[k as usize], out[k as usize]))
    }),
    Case {
        note: "16 heads of 64, up to 512 keys",
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
        note: "by the error function",
        ..case("activate", 32.0, NEAR, |s| {
            let (x, out, rows) = (s.f32, s.outs(Size::Planes(1)), s.n / ROW);
            each_plane(move |list, k| activate::record(list, (rows, ROW), Act::Gelu, x[k as usize], out[k as usize]))
        })
    },
    Case {
        note: "SiLU",
        ..case("gate", 48.0, NEAR, |s| {
            let (x, out, rows) = (s.f32, s.outs(Size::Planes(1)), s.n / ROW);
            each_plane(move |list, k| {
                let (k, other) = (k as usize, (k as usize + 1) % 4);
                gate::record(list, (rows, ROW), Act::Silu, x[k], x[other], out[k]);
            })
        })
    },
    case("add", 48.0, NEAR, |s| {
        let (x, out, rows) = (s.f32, s.outs(Size::Planes(1)), s.n / ROW);
        each_plane(move |list, k| {
            let (k, other) = (k as usize, (k as usize + 1) % 4);
            add::record(list, (rows, ROW), 1.0, x[k], 0.5, x[other], out[k]);
        })
    }),
    case("loss", 16.0, NEAR, |s| {
        let (logits, rows) = (s.f32, s.n / ROW);
        let targets = s.list.constant("targets", &(0..rows).map(|r| r * 31 % ROW).collect::<Vec<_>>());
        let out = s.outs(Size::Fixed(loss::WIDTH * rows));
        each_plane(move |list, k| loss::record(list, (rows, ROW), logits[k as usize], targets, out[k as usize]))
    }),
    case("deviation", 32.0, NEAR, |s| {
        let (x, rows) = (s.f32, s.n / ROW);
        let stats = s.outs(Size::Fixed(rows * deviation::WIDTH));
        each_plane(move |list, k| {
            let (k, other) = (k as usize, (k as usize + 1) % 4);
            deviation::record(list, (rows, ROW), x[k], x[other], stats[k]);
        })
    }),
];

/// Sides of a square matrix of at most `n` elements.
fn side(n: u32) -> u32 {
    n.isqrt() / 64 * 64
}

fn square(n: u32) -> f64 {
    2.0 * f64::from(side(n)).powi(3)
}

/// Sides of a square product, and what goes in and out.
fn operands(s: &mut Setup) -> (Shape, Buf, Weight, Place) {
    let side = side(s.n);
    let out = Place { buf: s.out(Size::Fixed(side * side)), stride: side, column: 0 };
    (Shape { rows: side, cols: side, depth: side }, s.f32[0], Weight { buf: s.f32[1], from: 0 }, out)
}

fn products(s: &mut Setup, kernel: &'static Kernel) -> Round {
    let (shape, x, w, out) = operands(s);
    Box::new(move |list| matmul::record_with(list, kernel, shape, x, w, None, out))
}

/// [`products`] by cooperative matrices, on the same operands.
fn cooperative(s: &mut Setup, kernel: &'static Kernel) -> Round {
    let (shape, x, w, out) = operands(s);
    Box::new(move |list| matmul_coop::record(list, kernel, shape, x, w, None, out))
}

#[cfg(test)]
mod tests {
    use super::CASES;
    use crate::bench::MOST;
    use crate::kernels::ALL;

    #[test]
    fn every_kernel_has_a_row_and_no_two_rows_are_alike() {
        for kernel in ALL {
            assert!(CASES.iter().any(|case| case.kernel == kernel.name), "`{}` has no row", kernel.name);
        }
        let names: std::collections::HashSet<_> = CASES.iter().map(|case| (case.kernel, case.note)).collect();
        assert_eq!(names.len(), CASES.len());
        assert_eq!(CASES[0].kernel, "copy");
    }

    #[test]
    fn the_largest_planes_fit_every_binding_and_move_enough() {
        for case in CASES {
            for most in [128 << 20, i32::MAX as u64] {
                let rounds = case.record(MOST, most);
                let bytes = |buffer: &crate::recording::Buffer| 4 * buffer.size.words(&rounds.extent) as u64;
                assert!(rounds.list.buffers.iter().map(bytes).max() <= Some(most), "{}", case.kernel);
                let least = if most == 128 << 20 { 4 << 20 } else { MOST };
                assert!(rounds.extent.n >= least && rounds.first < rounds.list.calls.len(), "{}", case.kernel);
            }
            let rounds = case.record(MOST, i32::MAX as u64);
            let moved = case.bytes * f64::from(MOST) / (rounds.list.calls.len() - rounds.first) as f64;
            // A merge is many launches; a witness reads a word of each row.
            let other = case.bytes == 0.0 || matches!(case.kernel, "merge" | "witness");
            assert!(other || moved >= f64::from(256 << 20), "{}: {moved}", case.kernel);
        }
    }
}
