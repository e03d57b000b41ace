//! Every kernel, by its twin and on the GPU, against arithmetic written down once more: plainly, and in f64.
#![allow(clippy::print_stderr, reason = "what could not run says so")]

#[path = "kernels/case.rs"]
mod case;
mod common;
#[path = "common/formats.rs"]
mod formats;
#[path = "kernels/forward.rs"]
mod forward;
#[path = "kernels/proof.rs"]
mod proof;
#[path = "kernels/rows.rs"]
mod rows;
#[path = "kernels/selection.rs"]
mod selection;
#[path = "kernels/sphere.rs"]
mod sphere;

use case::{Case, HALF_ULP, Wanted, check, flat, grids, planes_for, special_stack, stack, tall, tame};
use common::{SPECIAL, extent, gpu, run_cpu, special_values, store, values, words};
use forward::{
    activate, add, affine, attention, deviation, gate, gather, loss, matmul, matmul_coop8, matmul_coop16, matmul_large,
    matmul_skinny, matmul_small, narrow_rows, normalize, patches, rope, shaped,
};
use magic_merge::checkpoint::Dtype;
use magic_merge::kernels::attention::Heads;
use magic_merge::kernels::factor::{Bounds, Factor, Rule, Strength};
use magic_merge::kernels::histogram::{BINS, DIGITS};
use magic_merge::kernels::matmul::{Place, Weight};
use magic_merge::kernels::norms::{self, Stats};
use magic_merge::kernels::trim::Threshold;
use magic_merge::kernels::{
    ALL, Kernel, activate, add, affine, attention, between, blend, clip, combine, consensus, cross, delta, deviation,
    drop, drop_l1, drop_ranked, elect, factor, gate, gather, gram, gram_t, histogram, loss, mask, matmul, matmul_coop,
    matvec, matvec_t, narrow_rows, normalize, patches, rank, rescale, residual, rope, scale, transpose, trim, variance,
    widen, witness,
};
use magic_merge::recording::{Buf, Buffer, Extent, GROUP_ROWS, Role, Size};
use proof::{canary, checksum};
use rows::{SUMS, cross, factor, matvec, matvec_t, norms, residual, statistics, sums_of};
use selection::{between, clip, consensus, drop_ranked, mask, rank, trim, variance, witness};
use sphere::{blend, gram, gram_rows, gram_t};

fn delta(check: &dyn Fn(&Case)) {
    let pairs = Dtype::FLOATS.iter().map(|&dtype| (dtype, dtype)).chain([
        (Dtype::BF16, Dtype::F32),
        (Dtype::F64, Dtype::F16),
        (Dtype::F8E4M3, Dtype::BF16),
    ]);
    for (base, model) in pairs {
        for extent in flat() {
            let n = extent.n as usize;
            let (mut b, mut m) = (special_values(n, 0.1, 1), special_values(n, 0.1, 2));
            m[..n / 2].copy_from_slice(&b[..n / 2]);
            if base != model {
                // NaN of one type is not that of another.
                b.iter_mut().chain(&mut m).filter(|x| x.is_nan()).for_each(|x| *x = 3.0);
            }
            let (stored_b, stored_m) = (store(base, &b), store(model, &m));
            let difference = |i: usize| {
                let bits = (formats::bits(base, &stored_b, i), formats::bits(model, &stored_m, i));
                let (b, m) = (formats::value(base, bits.0), formats::value(model, bits.1));
                let same = base == model && bits.0 == bits.1 || b == m;
                if same { (0.0, 0.0) } else { (m - b, (m - b).abs() * HALF_ULP) }
            };
            let finite = |(x, near): (f64, f64)| if (x as f32).is_finite() { (x, near) } else { (0.0, 0.0) };
            let mut case = Case::new(extent, 1);
            let (b, m) = (case.stored(base, &b), case.stored(model, &m));
            let tau = case.result(Size::Planes(1), Wanted::Near((0..n).map(difference).collect()));
            delta::record(&mut case.list, b, m, tau, 0);
            let tau = case.result(Size::Planes(1), Wanted::Near((0..n).map(|i| finite(difference(i))).collect()));
            delta::record_finite(&mut case.list, b, m, tau, 0);
            check(&case);
        }
    }
}

fn widen(check: &dyn Fn(&Case)) {
    for dtype in Dtype::FLOATS {
        for extent in flat() {
            let n = extent.n as usize;
            let mut case = Case::new(extent, 2);
            let mut wanted = Vec::new();
            for plane in 0..2 {
                let mut values = special_values(n, 0.1, 3 + plane);
                values.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = 500.0);
                let stored = store(dtype, &values);
                // 500 is too much for 8 bits: a NaN, of whatever bits.
                wanted.extend((0..n).map(|i| (formats::value(dtype, formats::bits(dtype, &stored, i)), 0.0)));
            }
            let tau = case.result(Size::Planes(2), Wanted::Near(wanted));
            for plane in 0..2 {
                let mut values = special_values(n, 0.1, 3 + plane);
                values.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = 500.0);
                let stored = case.stored(dtype, &values);
                widen::record(&mut case.list, stored, tau, plane as u32);
            }
            check(&case);
        }
    }
}

/// Values with many ties, and all that is special.
fn ties(n: usize, seed: u64) -> Vec<f32> {
    let value = |word: u32| if word.is_multiple_of(31) { SPECIAL[word as usize / 31 % 14] } else { coarse(word) };
    words(seed).map(value).take(n).collect()
}

/// One of nine values.
fn coarse(word: u32) -> f32 {
    (word % 9) as f32 * 0.25 - 1.0
}

fn key(x: f32) -> u32 {
    x.abs().to_bits()
}

fn histogram(check: &dyn Fn(&Case)) {
    for extent in flat() {
        let n = extent.n as usize;
        let planes = [ties(n, 4), values(n, 0.1, 5), vec![0.0; n]];
        for digit in DIGITS {
            let mut case = Case::new(extent, 3);
            let tau = case.stack(&planes);
            let mut wanted = vec![0u32; 3 * BINS as usize];
            let prefixes = planes.each_ref().map(|plane| (key(plane[n / 2]) >> digit.shift) >> digit.bits);
            for (k, plane) in planes.iter().enumerate() {
                for x in plane.iter().filter(|x| (key(**x) >> digit.shift) >> digit.bits == prefixes[k]) {
                    wanted[k * BINS as usize + (key(*x) >> digit.shift) as usize % (1 << digit.bits)] += 1;
                }
            }
            // The last plane twice: counts are added to what is there.
            wanted[2 * BINS as usize..].iter_mut().for_each(|count| *count *= 2);
            let bins = case.result(Size::Fixed(3 * BINS), Wanted::Words(wanted));
            for (k, &prefix) in prefixes.iter().enumerate().chain([(2, &prefixes[2])]) {
                histogram::record(&mut case.list, tau, k as u32, prefix, digit, bins);
            }
            check(&case);
        }
    }
}

/// Blocks whose first elements are in the midst of a quad, about 2³², about 2³⁴, where the counter carries, and above.
fn far() -> Vec<Extent> {
    let at = |first_row, row_len, n| Extent { first_row, ..extent(n, row_len) };
    let carries = at(3_435_973_775, 5, 1255);
    let near = [at(1, 3, 1757), at(1_431_655_766, 3, 257), at(858_993_450, 5, 255), at(9, 1, 1)];
    [&near[..], &[carries, at(3_500_001, 5001, 70_001)]].concat()
}

/// The word that decides on an element: pcg4d of (counter, key), by the paper.
fn random(index: u64, key: [u32; 2]) -> u32 {
    let counter = index / 4;
    let mut v = [counter as u32, (counter >> 32) as u32, key[0], key[1]];
    v = v.map(|x| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let mix = |v: &mut [u32; 4]| {
        for (to, a, b) in [(0, 1, 3), (1, 2, 0), (2, 0, 1), (3, 1, 2)] {
            v[to] = v[to].wrapping_add(v[a].wrapping_mul(v[b]));
        }
    };
    mix(&mut v);
    v = v.map(|x| x ^ x >> 16);
    mix(&mut v);
    v[(index % 4) as usize]
}

fn drop(check: &dyn Fn(&Case)) {
    for extent in [flat(), grids(), far()].concat() {
        let n = extent.n as usize;
        let first = extent.first_row * u64::from(extent.row_len);
        let mut values = stack(2, n, 10);
        values[1][0] = -0.0;
        for (density, scale) in [(0.0, 1.0), (0.3, 1.0 / 0.3), (0.5, 1.0), (1.0, 1.25)] {
            let mut case = Case::new(extent, 2);
            let key = drop::key(42, "layer", 1);
            let chances = (density * 4_294_967_296.0) as u64;
            let kept = |i: usize| u64::from(random(first + i as u64, key)) < chances;
            let left: Vec<f32> = (0..n).map(|i| if kept(i) { values[1][i] * scale as f32 } else { 0.0 }).collect();
            let both = values[0].iter().chain(&left);
            case.wanted.push(Wanted::Words(both.map(|x| x.to_bits()).collect()));
            let tau = case.writable(&values);
            drop::record(&mut case.list, tau, 1, key, density, scale as f32);
            check(&case);
        }
    }
}

fn drop_l1(check: &dyn Fn(&Case)) {
    for extent in [flat(), grids(), far(), vec![tall()]].concat() {
        let first = extent.first_row * u64::from(extent.row_len);
        let planes = special_stack(2, &extent, 11);
        let key = drop::key(7, "layer", 0);
        for density in [0.3f64, 1.0] {
            let chances = (density * 4_294_967_296.0).round() as u64;
            let kept = |i: usize| u64::from(random(first + i as u64, key)) < chances;
            let left: Vec<f32> = planes[1].iter().enumerate().map(|(i, x)| if kept(i) { *x } else { 0.0 }).collect();
            let mut case = Case::new(extent, 2);
            let tau = case.stack(&planes);
            let l1 = |x: &[f32]| sums_of(x, x)[0];
            let both = [planes[1].clone(), left];
            let wanted = rows::rows(&extent, &both).iter().flat_map(|row| [l1(row[0]), l1(row[1])]).collect();
            let sums = case.result(drop_l1::SIZE, Wanted::Near(wanted));
            drop_l1::record(&mut case.list, tau, 1, key, density, sums);
            check(&case);
        }
    }
}

/// Σ of `terms`, and how far off f32 may be that takes them one by one, with products rounded or not.
fn sum(terms: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let (count, size) = (terms.clone().count() as f64, terms.clone().map(f64::abs).sum::<f64>());
    (terms.sum(), (count + 2.0) * size * HALF_ULP)
}

fn weights(experts: usize) -> Vec<f32> {
    (0..experts).map(|k| [0.7, -0.3, 1.0, 0.25][k % 4] * (1.0 + (k / 4) as f32)).collect()
}

fn combine(check: &dyn Fn(&Case)) {
    for extent in flat() {
        let n = extent.n as usize;
        for (experts, dtype) in
            [(0, Dtype::F32), (1, Dtype::F16), (2, Dtype::BF16), (4, Dtype::F64), (17, Dtype::F8E4M3)]
        {
            for base_weight in [0.0, -0.3f32] {
                let mut case = Case::new(extent, experts + 1);
                let planes = special_stack(experts, &extent, 11);
                let base_values = tame(special_values(n, 0.1, 12));
                let (base, stored) = (case.stored(dtype, &base_values), store(dtype, &base_values));
                let weights = weights(experts);
                let terms = |i: usize| {
                    let scaled = planes.iter().zip(&weights).map(move |(tau, &w)| f64::from(w) * f64::from(tau[i]));
                    let b = formats::value(dtype, formats::bits(dtype, &stored, i));
                    // With a weight of zero, not even NaN gets through.
                    scaled.chain((base_weight != 0.0).then_some(f64::from(base_weight) * b))
                };
                let given = planes.iter().flatten().map(|x| (f64::from(*x), 0.0));
                case.wanted.push(Wanted::Near(given.chain((0..n).map(|i| sum(terms(i)))).collect()));
                let tau = case.writable(&planes);
                let weights = case.list.floats("weights", if experts == 0 { &[0.0] } else { &weights });
                combine::record(&mut case.list, base, weights, base_weight, tau);
                check(&case);
            }
        }
    }
}

/// One entry of a TIES merge.
fn elected(terms: &[(f64, f64)], scale: f64, normalize: bool, weighted: bool) -> (f64, f64) {
    let votes = terms.iter().map(|(w, x)| if weighted { w * x } else { *x });
    let sign = if votes.sum::<f64>() >= 0.0 { 1.0 } else { -1.0 };
    let agreeing = terms.iter().filter(|(w, x)| w * x * sign > 0.0);
    let (merged, slack) = sum(agreeing.clone().map(|(w, x)| w * x));
    let (weight, weight_slack) = sum(agreeing.map(|(w, _)| *w));
    let divisor = if normalize && weight != 0.0 { weight } else { 1.0 };
    let merged = scale * merged / divisor;
    let relative = if normalize { weight_slack / divisor.abs() } else { 0.0 } + 4.0 * HALF_ULP;
    (merged, (scale * slack / divisor).abs() + if merged.is_finite() { merged.abs() * relative } else { 0.0 })
}

fn elect(check: &dyn Fn(&Case)) {
    for extent in flat() {
        let n = extent.n as usize;
        for experts in [1, 2, 4, 17] {
            let mut planes = special_stack(experts, &extent, 13);
            // Whether a product that is subnormal takes part is the device's choice.
            planes.iter_mut().flatten().filter(|x| x.abs() < 1e-35).for_each(|x| *x = 0.0);
            let mixed = weights(experts);
            let terms = |planes: &[Vec<f32>], weights: &[f32], i: usize| -> Vec<(f64, f64)> {
                planes.iter().zip(weights).map(|(tau, &w)| (w.into(), tau[i].into())).collect()
            };
            for i in 0..n {
                // No vote so close that rounding decides it.
                let (total, slack) = sum(terms(&planes, &mixed, i).into_iter().map(|(w, x)| w * x));
                let (plain, plain_slack) = sum(terms(&planes, &mixed, i).into_iter().map(|(_, x)| x));
                if total.abs() <= slack || plain.abs() <= plain_slack {
                    planes.iter_mut().for_each(|plane| plane[i] = 0.5);
                }
            }
            // And votes that are exactly even, which are positive.
            let even: Vec<Vec<f32>> = (0..experts)
                .map(|k| (0..n).map(|i| if k % 2 == 0 { 1.0 } else { -1.0 } * (i % 4) as f32).collect())
                .collect();
            let opposed: Vec<f32> = (0..experts).map(|k| if k % 2 == 0 { 0.5 } else { -0.5 }).collect();
            let [ones, thirds] = [1.0, 0.3].map(|weight| vec![weight; experts]);
            for (planes, weights) in [(&planes, &mixed), (&even, &ones), (&even, &thirds), (&even, &opposed)] {
                for (scale, normalize, weighted) in [(1.0, true, true), (0.4f32, false, true), (1.0, true, false)] {
                    let mut case = Case::new(extent, experts + 1);
                    let merged = (0..n).map(|i| elected(&terms(planes, weights, i), scale.into(), normalize, weighted));
                    let given = planes.iter().flatten().map(|x| (f64::from(*x), 0.0));
                    case.wanted.push(Wanted::Near(given.chain(merged).collect()));
                    let tau = case.writable(planes);
                    let weights = case.list.floats("weights", weights);
                    elect::record(&mut case.list, weights, scale, normalize, weighted, tau);
                    check(&case);
                }
            }
        }
    }
}

/// The least magnitude that `dtype` has no finite value for, once rounded.
fn overflow(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 | Dtype::F64 => f64::INFINITY,
        Dtype::F8E4M3 => 464f64.next_up(), // half way is even, and stays
        _ => formats::values(dtype).iter().rev().take(2).sum::<f64>() / 2.0,
    }
}

fn scale(check: &dyn Fn(&Case)) {
    for extent in [flat(), grids()].concat() {
        let (n, rows) = (extent.n as usize, extent.rows as usize);
        let planes = [vec![f32::NAN; n], special_values(n, 0.1, 26)];
        for per_row in [false, true] {
            let xi = values(if per_row { rows } else { 1 }, 1.0, 27);
            let wanted = planes[1].iter().enumerate().map(|(i, t)| {
                let factor = xi[if per_row { i / extent.row_len as usize } else { 0 }];
                (f64::from(factor * t), 0.0)
            });
            let mut case = Case::new(extent, 2);
            let wanted = Wanted::Near(wanted.collect());
            let tau = case.stack(&planes);
            let xi = if per_row {
                case.list.table("xi", 1, &[vec![0.0; extent.first_row as usize], xi].concat())
            } else {
                case.list.floats("xi", &xi)
            };
            let out = case.result(Size::Planes(1), wanted);
            scale::record(&mut case.list, tau, xi, out);
            check(&case);
        }
    }
}

fn transpose(check: &dyn Fn(&Case)) {
    for extent in grids() {
        let (rows, cols) = (extent.rows as usize, extent.row_len as usize);
        let x = special_values(rows * cols, 1.0, 28);
        let wanted = (0..rows * cols).map(|i| x[i % rows * cols + i / rows].to_bits()).collect();
        let mut case = Case::new(extent, 1);
        let buf = case.list.floats("x", &x);
        let out = case.result(Size::Planes(1), Wanted::Words(wanted));
        transpose::record(&mut case.list, (extent.rows, extent.row_len), buf, out);
        check(&case);
    }
}

fn rescale(check: &dyn Fn(&Case)) {
    let blocks = [extent(1, 1), extent(3, 4096), extent(257, 16), extent(1757, 173), extent(70_001, 4096), grids()[4]];
    let types = Dtype::FLOATS.iter().flat_map(|&base| Dtype::FLOATS.map(|out| (base, out)));
    for (case_number, (base, out)) in types.enumerate() {
        for (block_number, extent) in blocks.into_iter().enumerate() {
            if base != out && block_number > 3 {
                continue;
            }
            let (n, rows) = (extent.n as usize, extent.rows as usize);
            let base_values = special_values(n, 0.1, 22);
            let stored = store(base, &base_values);
            let mut tau = values(n, 0.1, 23);
            for (t, word) in tau.iter_mut().zip(words(24)) {
                // No products that f32 cannot hold: whether they are rounded before the sum is the device's choice.
                let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, 400.0, -1e30, 6e4, 0.0];
                *t = if word % 3 == 0 { special[word as usize / 3 % 10] } else { *t };
            }
            let (per_row, finite) = ((case_number + block_number) % 2 == 0, (case_number / 2 + block_number) % 2 == 0);
            let xi: Vec<f32> = values(if per_row { rows } else { 1 }, 1.0, 25).iter().map(|x| 1.0 + x / 4.0).collect();
            let mut counts = [0u32; 3];
            let mut kept = Vec::new();
            let result = |i: usize| {
                let bits = formats::bits(base, &stored, i);
                let b = f64::from(formats::value(base, bits) as f32);
                if tau[i] == 0.0 && base == out {
                    kept.push((i, bits));
                }
                let factor = f64::from(xi[if per_row { i / extent.row_len as usize } else { 0 }]);
                let (y, slack) = sum([b, factor * f64::from(tau[i])].into_iter());
                let y = if tau[i] == 0.0 { b } else { y };
                let before = counts;
                match y.abs() {
                    size if size.is_nan() => counts[0] += 1,
                    size if (size as f32).is_infinite() => counts[1] += 1,
                    size if size >= overflow(out) => counts[2] += 1,
                    _ => {}
                }
                if finite && counts != before {
                    return (b, b);
                }
                // Subnormal sums may be taken for zero.
                let slack =
                    if tau[i] == 0.0 || !y.is_finite() { 0.0 } else { slack + 4.0 * f64::from(f32::MIN_POSITIVE) };
                (y - slack, y + slack)
            };
            let bounds: Vec<(f64, f64)> = (0..n).map(result).collect();
            let mut case = Case::new(extent, 2);
            let (base, tau) = (case.stored(base, &base_values), case.stack(&[vec![f32::NAN; n], tau]));
            let xi = if per_row {
                case.list.buffers.push(Buffer {
                    size: Size::Rows(1),
                    role: Role::Constant(bytemuck::cast_slice(&xi).into()),
                    label: "xi",
                });
                Buf(case.list.buffers.len() - 1)
            } else {
                case.list.floats("xi", &xi)
            };
            let stored = case.result(Size::Stored(out), Wanted::Stored(out, bounds));
            let counted = case.result(Size::Fixed(rescale::COUNTS), Wanted::Words(counts.to_vec()));
            let record = if finite { rescale::record_finite } else { rescale::record };
            record(&mut case.list, base, tau, xi, stored, counted);
            check(&case);
            // Where nothing was added, the base's own bits; checked on the twin, with which the GPU agrees in value.
            let found = run_cpu(&case.list, &extent, &[]);
            let bytes: &[u8] = bytemuck::cast_slice(found.words(0));
            assert!(kept.iter().all(|&(i, bits)| formats::bits(out, bytes, i) == bits), "{out:?} {extent:?}");
        }
    }
}

macro_rules! tests {
    ($($kernel:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($kernel)),*];

        mod kernel {
            use super::gpu;
            $(#[test]
            fn $kernel() {
                let gpu = gpu();
                super::$kernel(&|case| super::check(stringify!($kernel), gpu.as_ref(), case));
            })*
        }
    };
}

tests! {
    delta widen histogram between witness trim drop drop_l1 rank drop_ranked combine elect variance mask consensus clip gram gram_rows gram_t blend norms statistics cross residual factor matvec matvec_t rescale scale transpose checksum canary gather
    patches normalize affine matmul matmul_large matmul_small matmul_skinny narrow_rows matmul_coop16 matmul_coop8 rope attention activate gate add loss deviation
}

#[test]
fn every_kernel_has_a_test() {
    for kernel in ALL {
        assert!(TESTED.contains(&kernel.name), "`{}` has no test", kernel.name);
    }
    assert_eq!(TESTED.len(), ALL.len(), "a test of what is no kernel");
}

/// What `drop` leaves of ones.
fn dropped(extent: Extent, key: [u32; 2], density: f64) -> Vec<f32> {
    let mut case = Case::new(extent, 1);
    let tau = case.writable(&[vec![1.0; extent.n as usize]]);
    drop::record(&mut case.list, tau, 0, key, density, 1.0);
    run_cpu(&case.list, &extent, &[]).floats(0).to_vec()
}

#[test]
fn drop_keeps_the_share_and_does_not_depend_on_blocks() {
    let key = drop::key(7, "model.layers.0.weight", 0);
    let whole = extent(200_000, 1000);
    for density in [0.05, 0.5, 0.9] {
        let kept = dropped(whole, key, density);
        let share = kept.iter().sum::<f32>() as f64 / 200_000.0;
        let deviation = (density * (1.0 - density) / 200_000.0).sqrt();
        assert!((share - density).abs() < 4.0 * deviation, "{density}: {share}");
        // Neighbours know nothing of each other.
        let pairs = kept.windows(2).filter(|pair| pair[0] * pair[1] == 1.0).count() as f64 / 199_999.0;
        assert!((pairs - density * density).abs() < 8.0 * deviation, "{density}: {pairs}");
        let mut parts = Vec::new();
        for (first_row, rows) in [(0, 1), (1, 6), (7, 150), (157, 43)] {
            parts.extend(dropped(Extent { first_row, ..extent(rows * 1000, 1000) }, key, density));
        }
        assert!(parts == kept, "{density}: blocks differ");
    }
    let agree = |other: [u32; 2]| {
        let (a, b) = (dropped(whole, key, 0.5), dropped(whole, other, 0.5));
        a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64 / 200_000.0
    };
    let others = [(8, "model.layers.0.weight", 0), (7, "model.layers.1.weight", 0), (7, "model.layers.0.weight", 1)];
    for (seed, tensor, expert) in others {
        let share = agree(drop::key(seed, tensor, expert));
        assert!((share - 0.5).abs() < 0.006, "{seed} {tensor} {expert}: {share}");
    }
}

#[test]
fn rescale_of_nothing_keeps_every_pattern() {
    let gpu = gpu();
    for dtype in Dtype::FLOATS {
        let patterns: Vec<u32> = match dtype.size() {
            1 => (0..64).map(|i| u32::from_le_bytes([0, 1, 2, 3].map(|k| 4 * i + k))).collect(),
            2 => (0..1 << 15).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect(),
            _ => words(26).take(1 << 15).collect(),
        };
        let n = (4 * patterns.len() / dtype.size()) as u32;
        let mut case = Case::new(extent(n, 100), 1);
        let size = Size::Stored(dtype);
        let role = Role::Constant(patterns.as_slice().into());
        case.list.buffers.push(Buffer { size, role, label: "base" });
        let base = Buf(0);
        let zeros = (0..n).map(|i| if i % 2 == 0 { 0.0 } else { -0.0 }).collect();
        let (tau, xi) = (case.stack(&[zeros]), case.list.floats("xi", &[1.25]));
        let out = case.result(size, Wanted::Words(patterns));
        // What is not finite is counted all the same; how much is not the matter here.
        let counts = case.list.scratch("counts", Size::Fixed(rescale::COUNTS));
        rescale::record(&mut case.list, base, tau, xi, out, counts);
        check("rescale", gpu.as_ref(), &case);
    }
}

#[test]
fn products_do_not_depend_on_the_number_of_threads() {
    // Deeper than one pass over a product's columns goes, and a head's scores.
    let (rows, cols, depth) = (150u32, 260u32, 2500u32);
    let mut case = shaped();
    let x = case.list.floats("x", &values((rows * depth) as usize, 1.0, 51));
    let w = case.list.floats("w", &values((cols * depth) as usize, 1.0, 52));
    let buf = case.list.result("product", Size::Fixed(rows * cols));
    let shape = matmul::Shape { rows, cols, depth };
    matmul::record(&mut case.list, shape, x, Weight { buf: w, from: 0 }, None, Place { buf, stride: cols, column: 0 });
    let ranges = case.list.constant("ranges", &[0, rows].repeat(rows as usize));
    let out = case.list.result("attention", Size::Fixed(rows * 256));
    let place = Place { buf: w, stride: depth, column: 0 };
    let heads = Heads { heads: 4, kv_heads: 2, dim: 64, scale: 0.1 };
    attention::record(&mut case.list, rows, heads, place, place, place, ranges, out);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run_cpu(&case.list, &case.extent, &[]))
    };
    let alone = run(1);
    for threads in [2, 3, 7] {
        assert!(run(threads).buffers == alone.buffers, "{threads} threads");
    }
}
