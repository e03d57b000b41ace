//! Every kernel, by its twin and on the GPU, against arithmetic written down once more: plainly, and in f64.
#![allow(clippy::print_stderr, reason = "what could not run says so")]

mod common;
#[path = "common/formats.rs"]
mod formats;
#[path = "kernels/selection.rs"]
mod selection;
#[path = "kernels/sphere.rs"]
mod sphere;

use common::{SIZES, SPECIAL, extent, gpu, run_cpu, run_gpu, special_values, store, values, words};
use magic_merge::checkpoint::Dtype;
use magic_merge::gpu::Gpu;
use magic_merge::kernels::activate::Act;
use magic_merge::kernels::attention::Heads;
use magic_merge::kernels::factor::{Bounds, Factor, Rule, Strength};
use magic_merge::kernels::histogram::{BINS, DIGITS};
use magic_merge::kernels::matmul::{Place, Weight};
use magic_merge::kernels::normalize::Kind;
use magic_merge::kernels::norms::{self, Stats};
use magic_merge::kernels::patches::Image;
use magic_merge::kernels::trim::Threshold;
use magic_merge::kernels::{
    ALL, Kernel, activate, add, affine, attention, between, blend, checksum, clip, combine, consensus, delta,
    deviation, drop, drop_ranked, elect, factor, gate, gather, gram, gram_t, histogram, loss, mask, matmul,
    matmul_coop, matvec, matvec_t, normalize, patches, rank, rescale, residual, rope, row_scale, scale, transpose,
    trim, variance, widen,
};
use magic_merge::recording::{Buf, Buffer, Extent, GROUP_ROWS, Recording, Role, Size};
use selection::{between, clip, consensus, drop_ranked, mask, rank, trim, variance};
use sphere::{blend, gram, gram_rows, gram_t};

/// What a result must be.
enum Wanted {
    /// These words.
    Words(Vec<u32>),
    /// f32 values, each within its distance; a distance of infinity allows anything.
    Near(Vec<(f64, f64)>),
    /// These words, then these pairs in any order, as many as the first word says.
    Listed(Vec<u32>, Vec<[u32; 2]>),
    /// Elements that an f32 within these bounds is stored as; equal NaN bounds ask for NaN.
    Stored(Dtype, Vec<(f64, f64)>),
}

/// A recording around a kernel. All that it reads is constant, so that blocks can be of any shape.
struct Case {
    list: Recording,
    extent: Extent,
    wanted: Vec<Wanted>,
}

impl Case {
    fn new(extent: Extent, planes: usize) -> Self {
        Self { list: Recording::new(planes as u32), extent, wanted: Vec::new() }
    }

    /// `values` as stored elements.
    fn stored(&mut self, dtype: Dtype, values: &[f32]) -> Buf {
        let mut bytes = store(dtype, values);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let role = Role::Constant(bytemuck::pod_collect_to_vec::<u8, u32>(&bytes).into());
        self.list.buffers.push(Buffer { size: Size::Stored(dtype), role, label: "stored" });
        Buf(self.list.buffers.len() - 1)
    }

    /// A stack to read.
    fn stack(&mut self, planes: &[Vec<f32>]) -> Buf {
        self.list.floats("tau", &planes.concat())
    }

    /// A stack to write, and to look at afterwards, whose first planes are `planes`.
    fn writable(&mut self, planes: &[Vec<f32>]) -> Buf {
        let tau = self.list.result("tau", Size::Planes(self.list.planes));
        for (plane, values) in planes.iter().enumerate() {
            let stored = self.stored(Dtype::F32, values);
            widen::record(&mut self.list, stored, tau, plane as u32);
        }
        tau
    }

    fn result(&mut self, size: Size, wanted: Wanted) -> Buf {
        self.wanted.push(wanted);
        self.list.result("result", size)
    }
}

fn check(kernel: &str, gpu: Option<&Gpu>, case: &Case) {
    let Case { list, extent, wanted } = case;
    assert!(list.calls.iter().any(|call| call.kernel.name == kernel), "no call of {kernel}");
    let place = |device: &str, i: usize| format!("{kernel} {extent:?} {} planes, {device}, result {i}", list.planes);
    let cpu = run_cpu(list, extent, &[]);
    assert_eq!(cpu.buffers.len(), wanted.len(), "{kernel}: results");
    for (i, wanted) in wanted.iter().enumerate() {
        fits(&place("twin", i), &cpu.buffers[i], wanted);
    }
    let Some(gpu) = gpu else { return };
    if let Some(side) = matmul_coop::side(kernel).filter(|side| !gpu.cooperative().contains(side)) {
        return eprintln!("by the twin alone: no cooperative matrices of {side} × {side} on {}", gpu.adapter().name);
    }
    let found = run_gpu(gpu, list, extent, &[]).unwrap_or_else(|error| panic!("{}: {error}", place("GPU", 0)));
    for (i, wanted) in wanted.iter().enumerate() {
        fits(&place("GPU", i), &found.buffers[i], wanted);
    }
}

fn fits(place: &str, found: &[u32], wanted: &Wanted) {
    match wanted {
        Wanted::Words(words) => {
            assert_eq!(found.len(), words.len(), "{place}: length");
            for (i, (a, b)) in found.iter().zip(words).enumerate() {
                let values = (f32::from_bits(*a), f32::from_bits(*b));
                assert!(a == b, "{place}: [{i}] {a:#x}, wanted {b:#x} (as f32 {values:?})");
            }
        }
        Wanted::Listed(head, list) => {
            let (words, pairs) = found.split_at(head.len());
            assert_eq!(words, head, "{place}: counts");
            let mut pairs = pairs.as_chunks::<2>().0.to_vec();
            // Where there is too little room, which of them are there is not said.
            if head[0] as usize <= pairs.len() {
                pairs.truncate(list.len());
                pairs.sort_unstable();
                assert_eq!(&pairs, list, "{place}: list");
            }
        }
        Wanted::Near(values) => {
            assert_eq!(found.len(), values.len(), "{place}: length");
            for (i, (a, &(b, slack))) in found.iter().zip(values).enumerate() {
                let a = f64::from(f32::from_bits(*a));
                assert!(near(a, b, slack), "{place}: [{i}] {a:e}, wanted {b:e} within {slack:e}");
            }
        }
        Wanted::Stored(dtype, bounds) => {
            let bytes: &[u8] = bytemuck::cast_slice(found);
            for (i, &(low, high)) in bounds.iter().enumerate() {
                let bits = formats::bits(*dtype, bytes, i);
                let mut a = formats::value(*dtype, bits);
                if *dtype == Dtype::F8E4M3 && a.is_nan() && !low.is_nan() {
                    a = if bits < 0x80 { f64::INFINITY } else { f64::NEG_INFINITY }; // its NaN is also its infinity
                }
                let (low, high) = (formats::rounded(*dtype, low), formats::rounded(*dtype, high));
                let right = a.is_nan() && low.is_nan() || (low..=high).contains(&a);
                assert!(right, "{place}: [{i}] {a:e} ({bits:#x}), wanted {low:e}..={high:e} as {dtype:?}");
            }
        }
    }
}

/// Subnormal results may be taken for zero, and what f32 cannot hold is infinite.
fn near(a: f64, b: f64, slack: f64) -> bool {
    if slack == f64::INFINITY {
        return true;
    }
    let most = f64::from(f32::MAX);
    if a.is_nan() || b.is_nan() || a.is_infinite() || b.is_infinite() {
        return a == b || a.is_nan() && b.is_nan() || a.is_infinite() && a.signum() == b.signum() && b.abs() > most;
    }
    (a - b).abs() <= slack + 4.0 * f64::from(f32::MIN_POSITIVE)
}

/// Half a step of an f32, relatively.
const HALF_ULP: f64 = 1.0 / (1 << 24) as f64;

/// Blocks for work that knows no rows: short last rows, some in the midst of a tensor.
fn flat() -> Vec<Extent> {
    let mut all: Vec<Extent> = SIZES.iter().flat_map(|&n| [extent(n, 4096), extent(n, 173)]).collect();
    all.push(Extent { first_row: 7, ..extent(1757, 173) });
    all
}

/// Whole rows: single, long, narrow.
fn grids() -> Vec<Extent> {
    let grid = |rows, row_len| Extent { first_row: 0, rows, row_len, n: rows * row_len };
    vec![grid(1, 1), grid(3, 5001), grid(65, 33), grid(130, 257), grid(20_000, 3), grid(1, 70_001)]
}

/// More rows than a grid of workgroups has columns.
fn tall() -> Extent {
    Extent { first_row: 0, rows: 65_537, row_len: 1, n: 65_537 }
}

/// Numbers of planes: one expert to many, the merged one too; not many for many rows, of which each is a workgroup.
fn planes_for(extent: &Extent) -> impl Iterator<Item = usize> + use<> {
    let rows = extent.rows as usize;
    [1, 2, 3, 5, 18].into_iter().filter(move |planes| rows * planes <= 80_000)
}

fn stack(planes: usize, n: usize, seed: u64) -> Vec<Vec<f32>> {
    (0..planes).map(|k| values(n, 0.1, seed + 1000 * k as u64)).collect()
}

/// Magnitudes that are kept from going beyond f32 where they are squared or summed in another order.
fn tame(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|x| if x.is_finite() { x.clamp(-1e15, 1e15) } else { x }).collect()
}

/// A stack in which one row in three has special values. Not subnormals: whether these count, where they are computed with,
/// is the device's choice.
fn special_stack(planes: usize, extent: &Extent, seed: u64) -> Vec<Vec<f32>> {
    let (n, len) = (extent.n as usize, extent.row_len as usize);
    let mut stack = stack(planes, n, seed);
    for (k, plane) in stack.iter_mut().enumerate() {
        let mut special = tame(special_values(n, 0.1, seed + 77 + k as u64));
        special.iter_mut().filter(|x| x.is_subnormal()).for_each(|x| *x = 0.0);
        for (row, (values, special)) in plane.chunks_mut(len).zip(special.chunks(len)).enumerate() {
            match row % 3 {
                1 => values.copy_from_slice(special),
                2 if (row / 3 + k).is_multiple_of(2) => values.fill(0.0),
                _ => {}
            }
        }
    }
    stack
}

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

/// Blocks whose first elements are in the midst of a quad, about 2³² and above 2³⁴, where the counter carries.
fn far() -> Vec<Extent> {
    let at = |first_row, row_len, n| Extent { first_row, ..extent(n, row_len) };
    vec![at(1, 3, 1757), at(1_431_655_766, 3, 257), at(858_993_450, 5, 255), at(3_500_001, 5001, 70_001), at(9, 1, 1)]
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

/// Rounding of sums that are taken in many parts, relative to the sum of magnitudes.
const SUMS: f64 = 2e-6;

fn sums_of(x: &[f32], m: &[f32]) -> [(f64, f64); 4] {
    let wide = || x.iter().map(|x| f64::from(*x)).zip(m.iter().map(|m| f64::from(*m)));
    let near = |sum: f64, size: f64| (sum, if size.is_finite() { size * SUMS } else { 0.0 });
    let (l1, square) = (wide().map(|(x, _)| x.abs()).sum(), wide().map(|(x, _)| x * x).sum());
    // NaN is larger than all.
    let largest = wide().fold(0.0, |a: f64, (x, _)| if x.is_nan() || a.is_nan() { f64::NAN } else { a.max(x.abs()) });
    let dot = near(wide().map(|(x, m)| x * m).sum(), wide().map(|(x, m)| (x * m).abs()).sum());
    [near(l1, l1), near(square, square), (largest, 0.0), dot]
}

fn rows<'a>(extent: &Extent, planes: &'a [Vec<f32>]) -> Vec<Vec<&'a [f32]>> {
    let rows = (0..extent.n as usize).step_by(extent.row_len as usize);
    rows.map(|at| planes.iter().map(|x| &x[at..x.len().min(at + extent.row_len as usize)]).collect()).collect()
}

fn norms(check: &dyn Fn(&Case)) {
    for extent in [flat(), grids(), vec![tall()]].concat() {
        row_statistics(check, extent, planes_for(&extent).filter(|planes| *planes < 18));
    }
}

fn statistics(check: &dyn Fn(&Case)) {
    for extent in [extent(1, 1), extent(173 * 7, 173), extent(9000, 4096)] {
        row_statistics(check, extent, [18, 129]);
    }
}

fn row_statistics(check: &dyn Fn(&Case), extent: Extent, planes: impl IntoIterator<Item = usize>) {
    for planes in planes {
        let planes = special_stack(planes, &extent, 14);
        let mut case = Case::new(extent, planes.len());
        let tau = case.stack(&planes);
        let of = |row: &Vec<&[f32]>| row.iter().flat_map(|x| sums_of(x, row[row.len() - 1])).collect::<Vec<_>>();
        let wanted: Vec<_> = rows(&extent, &planes).iter().flat_map(of).collect();
        let alone = wanted.chunks(4).flat_map(|sums| [sums[0], (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]).collect();
        let stats = case.result(norms::size(planes.len() as u32), Wanted::Near(wanted));
        norms::record(&mut case.list, tau, stats);
        let l1 = case.result(norms::size(planes.len() as u32), Wanted::Near(alone));
        norms::record_l1(&mut case.list, tau, l1);
        check(&case);
    }
}

/// Statistics of every row and plane, as f32.
fn stats(extent: &Extent, planes: &[Vec<f32>]) -> Vec<Stats> {
    let of = |x: &[f32], m: &[f32]| {
        let [l1, square, largest, dot] = sums_of(x, m).map(|(x, _)| x as f32);
        Stats { l1, square, largest, dot }
    };
    rows(extent, planes)
        .iter()
        .flat_map(|row| row.iter().map(|x| of(x, row[row.len() - 1])).collect::<Vec<_>>())
        .collect()
}

fn alpha(stats: &Stats) -> f64 {
    if stats.square > 0.0 { f64::from(stats.dot) / f64::from(stats.square) } else { 0.0 }
}

fn residual(check: &dyn Fn(&Case)) {
    let all = || [flat(), grids(), vec![tall()]].concat().into_iter();
    let most = grids()[2];
    for (extent, experts) in
        all().flat_map(|extent| planes_for(&extent).map(move |k| (extent, k.min(17)))).chain([(most, 128)])
    {
        let mut planes = special_stack(experts + 1, &extent, 15);
        // Some merged rows are an expert's own: nothing is left over.
        let (experts_planes, merged) = planes.split_at_mut(experts);
        for (i, m) in merged[0].iter_mut().enumerate() {
            if (i / extent.row_len as usize).is_multiple_of(5) {
                *m = experts_planes[0][i] * 0.5;
            }
        }
        let stats = stats(&extent, &planes);
        let mut case = Case::new(extent, planes.len());
        let tau = case.stack(&planes);
        let left = |(row, of): (&Vec<&[f32]>, &[Stats])| {
            let (mut left, mut size) = (0f64, 0f64);
            for (i, &m) in row[experts].iter().enumerate() {
                let parts = (0..experts).map(|k| alpha(&of[k]) * f64::from(row[k][i]));
                left += (f64::from(m) - parts.clone().sum::<f64>()).powi(2);
                size += (f64::from(m).abs() + parts.map(f64::abs).sum::<f64>()).powi(2);
            }
            (left, if size.is_finite() { size * SUMS } else { 0.0 })
        };
        let wanted = rows(&extent, &planes).iter().zip(stats.chunks(planes.len())).map(left).collect();
        let stats = case.list.constant("stats", bytemuck::cast_slice(&stats));
        let unexplained = case.result(Size::Rows(1), Wanted::Near(wanted));
        residual::record(&mut case.list, tau, stats, unexplained);
        check(&case);
    }
}

fn expected_factor(rule: Rule, bounds: Bounds, stats: &[Stats], residual: f32) -> f64 {
    let (merged, experts) = stats.split_last().unwrap();
    let norm = |s: &Stats| match rule {
        Rule::SphereL1 => f64::from(s.l1),
        Rule::SphereLinf => f64::from(s.largest),
        _ => f64::from(s.square).sqrt(),
    };
    let mean = experts.iter().map(norm).sum::<f64>() / experts.len() as f64;
    let factor = match rule {
        _ if merged.square.is_nan() || merged.square == 0.0 || mean.is_nan() || mean == 0.0 => 1.0,
        Rule::Mixed => {
            1.0 / (experts.iter().map(|s| alpha(s).powi(2)).sum::<f64>() + f64::from(residual) / (mean * mean)).sqrt()
        }
        _ => mean / norm(merged),
    };
    if factor.is_finite() { factor } else { 1.0 }.clamp(bounds.least.into(), bounds.most.into())
}

fn factor(check: &dyn Fn(&Case)) {
    let rules = [Rule::Mixed, Rule::SphereL1, Rule::SphereL2, Rule::SphereLinf];
    let bounds = [Bounds::NONE, Bounds::SHRINK, Bounds::ENLARGE, Bounds { least: 1.5, most: 2.0 }];
    for count in [1, 3, 255, 257, 1757] {
        let extent = Extent { first_row: 3, rows: count, row_len: 40, n: 40 * count };
        for experts in [1, 2, 4, 17] {
            let mut planes = special_stack(experts + 1, &extent, 16);
            planes.iter_mut().flatten().filter(|x| x.is_infinite()).for_each(|x| *x = 2.0);
            let mut stats = stats(&extent, &planes);
            let mut left: Vec<f32> = values(count as usize, 0.1, 17).iter().map(|x| x.abs()).collect();
            for (row, of) in stats.chunks_mut(experts + 1).enumerate() {
                match row % 7 {
                    // Nothing explains a row that is not zero, and nothing is left of it: infinite.
                    3 => (0..experts).for_each(|k| of[k].dot = 0.0),
                    4 => of[experts] = Stats::default(),
                    5 => (0..experts).for_each(|k| of[k] = Stats::default()),
                    _ => {}
                }
                left[row] *= if row % 14 == 3 { 0.0 } else { 1.0 };
            }
            let strengths = [Strength::FULL, Strength { shift: 0.5, times: 0.25 }, Strength { shift: 2.0, times: 0.0 }];
            for (i, (rule, bounds)) in rules.iter().flat_map(|rule| bounds.iter().map(move |b| (*rule, *b))).enumerate()
            {
                let strength = strengths[i % 3];
                let mut case = Case::new(extent, experts + 1);
                let of = |(stats, &left): (&[Stats], &f32)| {
                    let xi = expected_factor(rule, bounds, stats, left);
                    let Strength { shift, times } = strength;
                    (f64::from(shift) + f64::from(times) * xi, (f64::from(shift) + xi) * 1e-5)
                };
                let wanted = stats.chunks(experts + 1).zip(&left).map(of).collect();
                let stats = case.list.constant("stats", bytemuck::cast_slice(&stats));
                let unexplained = case.list.floats("residual", &left);
                let xi = case.result(Size::Rows(1), Wanted::Near(wanted));
                factor::record(&mut case.list, Factor { rule, bounds, strength }, stats, unexplained, xi);
                check(&case);
            }
        }
    }
}

fn matvec(check: &dyn Fn(&Case)) {
    for extent in [grids(), vec![tall()]].concat() {
        for planes in planes_for(&extent) {
            let planes = special_stack(planes, &extent, 18);
            let directions = stack(planes.len(), extent.row_len as usize, 19);
            let mut case = Case::new(extent, planes.len());
            let (tau, v) = (case.stack(&planes), case.list.floats("v", &directions.concat()));
            let product = |row: &Vec<&[f32]>| {
                let dot = |(x, v): (&&[f32], &Vec<f32>)| sums_of(x, v)[3];
                row.iter().zip(&directions).map(dot).collect::<Vec<_>>()
            };
            let wanted = rows(&extent, &planes).iter().flat_map(product).collect();
            let y = case.result(Size::Rows(planes.len() as u32), Wanted::Near(wanted));
            matvec::record(&mut case.list, tau, v, y);
            check(&case);
        }
    }
}

fn matvec_t(check: &dyn Fn(&Case)) {
    // More groups than a grid has columns, too.
    let folded = Extent { first_row: 16, rows: 40_000, row_len: 1, n: 40_000 };
    for (extent, planes) in grids().into_iter().flat_map(|e| planes_for(&e).map(move |p| (e, p))).chain([(folded, 27)])
    {
        let planes = special_stack(planes, &extent, 20);
        let sides = stack(planes.len(), extent.rows as usize, 21);
        let mut case = Case::new(extent, planes.len());
        let interleaved: Vec<f32> =
            (0..extent.rows as usize).flat_map(|row| sides.iter().map(move |y| y[row])).collect();
        let (tau, y) = (case.stack(&planes), case.list.floats("y", &interleaved));
        let len = extent.row_len as usize;
        let mut wanted = Vec::new();
        for first in (0..extent.rows as usize).step_by(GROUP_ROWS as usize) {
            let group = first..(first + GROUP_ROWS as usize).min(extent.rows as usize);
            for (tau, y) in planes.iter().zip(&sides) {
                let terms = |c: usize| group.clone().map(move |row| f64::from(tau[row * len + c]) * f64::from(y[row]));
                wanted.extend((0..len).map(|c| sum(terms(c))));
            }
        }
        let w = case.result(Size::Groups(planes.len() as u32), Wanted::Near(wanted));
        matvec_t::record(&mut case.list, tau, y, w);
        check(&case);
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

fn checksum(check: &dyn Fn(&Case)) {
    for n in SIZES {
        for (epoch, slot) in [(1, 1), (0xdead_beef, 2)] {
            let mut case = Case::new(extent(n, 64), 1);
            let data: Vec<u32> = words(u64::from(n)).take(n as usize).collect();
            let mix = |(i, word): (u32, &u32)| {
                let mut h = (word ^ i.wrapping_mul(0x9e37_79b1).wrapping_add(epoch)).wrapping_mul(0x85eb_ca6b);
                h = (h ^ h >> 15).wrapping_mul(0xc2b2_ae35);
                h ^ h >> 13
            };
            let mut wanted = vec![epoch, 0, 0];
            wanted[slot as usize] = (0..).zip(&data).map(mix).fold(0u32, u32::wrapping_add);
            let data = case.list.constant("words", &data);
            let trailer = case.result(Size::Fixed(3), Wanted::Words(wanted));
            case.list.call(&checksum::CHECKSUM, &[], &checksum::Params { epoch, slot }, &[data, trailer]);
            check(&case);
        }
    }
}

/// A case whose calls have shapes of their own.
fn shaped() -> Case {
    Case::new(extent(1, 1), 1)
}

fn finite(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

impl Case {
    /// A buffer to write, and to look at afterwards, of the given contents.
    fn filled(&mut self, values: &[f32], wanted: Wanted) -> Buf {
        let from = self.list.floats("from", values);
        let n = values.len() as u32;
        let buf = self.result(Size::Fixed(n), wanted);
        add::record(&mut self.list, (1, n), 1.0, from, 0.0, from, buf);
        buf
    }
}

/// `x · wᵀ + bias` by `kernel`, or by the one that is chosen, inside of a wider matrix or alone.
fn product(
    check: &dyn Fn(&Case),
    kernel: Option<&'static Kernel>,
    (rows, cols, depth): (usize, usize, usize),
    variant: usize,
) {
    let (from, bias_from, column, more) = [(0, 0, 0, 0), (5, 3, 2, 3), (1, 0, 0, 1)][variant % 3];
    let mut x = values(rows * depth, 1.0, 30);
    if variant == 1 && rows > 2 {
        // What is no number stays in its row.
        (x[depth], x[2 * depth]) = (f32::NAN, f32::INFINITY);
    }
    let (mut w, bias) = (values(from + cols * depth, 1.0, 31), values(bias_from + cols, 1.0, 32));
    if variant == 2 {
        // Beyond the range of f16, and below it.
        x.chunks_mut(depth).step_by(2).flatten().for_each(|x| *x *= 3e6);
        w[from..].chunks_mut(depth).step_by(3).flatten().for_each(|w| *w *= 1e-9);
    }
    let rounds = kernel.is_some_and(|kernel| matmul_coop::side(kernel.name).is_some());
    let stride = column + cols + more;
    let mut wanted = vec![(0.0, 0.0); rows * stride];
    let (wide_x, wide_w) = (finite(&x), finite(&w[from..]));
    for (r, x) in wide_x.chunks(depth).enumerate() {
        for (c, w) in wide_w.chunks(depth).enumerate() {
            let bias = (variant % 3 != 2).then(|| f64::from(bias[bias_from + c]));
            let (y, mut slack) = sum(x.iter().zip(w).map(|(x, w)| x * w).chain(bias));
            if rounds {
                // Half a step of f16 for either factor.
                slack += x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum::<f64>() / 1024.0;
            }
            wanted[r * stride + column + c] = (y, slack);
        }
    }
    let mut case = shaped();
    let (x, w, bias) = (case.list.floats("x", &x), case.list.floats("w", &w), case.list.floats("bias", &bias));
    let buf = case.result(Size::Fixed((rows * stride) as u32), Wanted::Near(wanted));
    let shape = matmul::Shape { rows: rows as u32, cols: cols as u32, depth: depth as u32 };
    let w = Weight { buf: w, from: from as u32 };
    let bias = (variant % 3 != 2).then_some(Weight { buf: bias, from: bias_from as u32 });
    let place = Place { buf, stride: stride as u32, column: column as u32 };
    match kernel {
        Some(kernel) if rounds => matmul_coop::record(&mut case.list, kernel, shape, x, w, bias, place),
        Some(kernel) => matmul::record_with(&mut case.list, kernel, shape, x, w, bias, place),
        None => matmul::record(&mut case.list, shape, x, w, bias, place),
    }
    check(&case);
}

/// Sides about those of tiles and steps.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (3, 5, 7),
    (8, 9, 33),
    (9, 8, 1),
    (31, 33, 32),
    (65, 64, 15),
    (64, 67, 130),
    (130, 70, 48),
    (577, 129, 17),
];

fn matmul(check: &dyn Fn(&Case)) {
    for shape in SHAPES {
        (0..3).for_each(|variant| product(check, Some(&matmul::MATMUL), shape, variant));
    }
    // By its own choice: more tiles than a panel is high, the last panel lower.
    product(check, None, (1100, 400, 5), 1);
}

fn matmul_small(check: &dyn Fn(&Case)) {
    for shape in SHAPES {
        (0..3).for_each(|variant| product(check, Some(&matmul::MATMUL_SMALL), shape, variant));
    }
    product(check, None, (9, 40, 64), 1);
}

fn matmul_skinny(check: &dyn Fn(&Case)) {
    for rows in [1, 3, 4, 5, 8] {
        for (cols, depth) in [(1, 1), (7, 31), (9, 33), (130, 257)] {
            (0..3).for_each(|variant| product(check, None, (rows, cols, depth), variant));
        }
    }
}

fn matmul_coop16(check: &dyn Fn(&Case)) {
    for shape in SHAPES {
        (0..3).for_each(|variant| product(check, Some(&matmul_coop::MATMUL_COOP16), shape, variant));
    }
}

fn matmul_coop8(check: &dyn Fn(&Case)) {
    for shape in SHAPES {
        (0..3).for_each(|variant| product(check, Some(&matmul_coop::MATMUL_COOP8), shape, variant));
    }
}

fn row_scale(check: &dyn Fn(&Case)) {
    for (rows, len, from) in [(1, 1, 0), (3, 5001, 7), (65, 33, 1), (300, 3, 0)] {
        let mut x = values(from + rows * len, 1.0, 37);
        for (r, row) in x[from..].chunks_mut(len).enumerate() {
            row.iter_mut().for_each(|x| *x *= [1.0, 0.0, 1e-30, 3e30, f32::NAN, 65536.0, f32::INFINITY][r % 7]);
        }
        let mut wanted = Vec::new();
        for row in x[from..].chunks(len) {
            let most =
                row.iter().fold(0.0f64, |most, x| if x.is_finite() { most.max(f64::from(x.abs())) } else { most });
            let plain = most == 0.0 || row.iter().any(|x| !x.is_finite());
            let up = if plain { 1.0 } else { 2f64.powi((14 - most.log2().floor() as i32).min(113)) };
            wanted.extend([(up as f32).to_bits(), (1.0 / up as f32).to_bits()]);
        }
        let mut case = shaped();
        let x = case.list.floats("x", &x);
        let scales = case.result(Size::Fixed(2 * rows as u32), Wanted::Words(wanted));
        row_scale::record(&mut case.list, (rows as u32, len as u32), x, from as u32, scales);
        check(&case);
    }
}

fn normalize(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 2), (5, 255), (2, 257), (70, 33), (1, 9001), (66_000, 1)] {
        for (kind, eps, offset) in
            [(Kind::Layer, 1e-5f32, 0.0), (Kind::Layer, 1e-12, 100.0), (Kind::Rms, 1e-6, 0.0), (Kind::Rms, 1e-6, 3.0)]
        {
            let mut x: Vec<f32> = values(rows * len, 1.0, 33).iter().map(|x| x + offset).collect();
            if rows > 2 {
                x[len..2 * len].fill(0.0);
                x[2 * len] = f32::NAN;
            }
            let mut wanted = Vec::new();
            for row in finite(&x).chunks(len) {
                let mean = if kind == Kind::Layer { row.iter().sum::<f64>() / len as f64 } else { 0.0 };
                let square = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / len as f64;
                let divisor = (square + f64::from(eps)).sqrt();
                let size =
                    if kind == Kind::Layer { row.iter().map(|x| x.abs()).sum::<f64>() / len as f64 } else { 0.0 };
                let slack = |y: f64| SUMS * (size / divisor + y.abs());
                wanted.extend(row.iter().map(|x| (x - mean) / divisor).map(|y| (y, slack(y))));
            }
            let mut case = shaped();
            let x = case.list.floats("x", &x);
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            normalize::record(&mut case.list, (rows as u32, len as u32), kind, eps, x, out);
            check(&case);
        }
    }
}

fn affine(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 5001), (65, 33), (20_000, 3)] {
        for (from, bias_from) in [(0, None), (7, Some(3)), (2, Some(0))] {
            let x = special_values(rows * len, 1.0, 34);
            let (w, bias) = (values(from + len, 1.0, 35), values(10 + len, 1.0, 36));
            let y = |i: usize| {
                let scaled = f64::from(x[i]) * f64::from(w[from + i % len]);
                sum([scaled].into_iter().chain(bias_from.map(|b: usize| f64::from(bias[b + i % len]))))
            };
            let wanted = (0..rows * len).map(y).collect();
            let mut case = shaped();
            let (x, w, bias) = (case.list.floats("x", &x), case.list.floats("w", &w), case.list.floats("b", &bias));
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            let bias = bias_from.map(|from| Weight { buf: bias, from: from as u32 });
            let w = Weight { buf: w, from: from as u32 };
            affine::record(&mut case.list, (rows as u32, len as u32), x, w, bias, out);
            check(&case);
        }
    }
}

fn gather(check: &dyn Fn(&Case)) {
    for (rows, len, entries) in [(1, 1, 1), (5, 33, 7), (300, 64, 1000), (20_000, 3, 5)] {
        for (from, add) in [(0, false), (11, true), (2, false)] {
            // Two words more than whole entries.
            let table = values(from + entries * len + if len > 2 { 2 } else { 0 }, 1.0, 37);
            let index: Vec<u32> = words(38)
                .take(rows)
                .map(|word| match word % 7 {
                    0 => u32::MAX,
                    1 => entries as u32,
                    2 => u32::MAX / len as u32,
                    _ => (word >> 8) % entries as u32,
                })
                .collect();
            let before = values(rows * len, 1.0, 39);
            let y = |i: usize| {
                let row = index[i / len] as usize;
                let found = if row < entries { f64::from(table[from + row * len + i % len]) } else { 0.0 };
                if add { sum([found, f64::from(before[i])].into_iter()) } else { (found, 0.0) }
            };
            let wanted = Wanted::Near((0..rows * len).map(y).collect());
            let mut case = shaped();
            let out = case.filled(&before, wanted);
            let (table, index) = (case.list.floats("table", &table), case.list.constant("index", &index));
            let table = Weight { buf: table, from: from as u32 };
            gather::record(&mut case.list, (rows as u32, len as u32), table, index, add, out);
            check(&case);
        }
    }
}

fn rope(check: &dyn Fn(&Case)) {
    for (rows, heads, dim) in [(1, 1, 2), (3, 5, 6), (67, 2, 64), (5, 14, 128), (66_000, 1, 2)] {
        let (x, table) = (values(rows * heads * dim, 1.0, 40), values(rows * dim, 1.0, 41));
        let mut wanted = vec![(0.0, 0.0); x.len()];
        for at in 0..rows * heads {
            for i in 0..dim / 2 {
                let [cos, sin] = [i, i + dim / 2].map(|i| f64::from(table[at / heads * dim + i]));
                let [first, second] = [i, i + dim / 2].map(|i| f64::from(x[at * dim + i]));
                wanted[at * dim + i] = sum([first * cos, -second * sin].into_iter());
                wanted[at * dim + i + dim / 2] = sum([second * cos, first * sin].into_iter());
            }
        }
        let mut case = shaped();
        let x = case.filled(&x, Wanted::Near(wanted));
        let table = case.list.floats("table", &table);
        rope::record(&mut case.list, rows as u32, heads as u32, dim as u32, table, x);
        check(&case);
    }
}

/// Ranges of keys for `rows` rows, of as many keys.
fn ranges(kind: usize, rows: u32) -> Vec<[u32; 2]> {
    let range = |r: u32| match kind {
        0 => [0, rows],
        1 => [0, r + 1],
        2 => [r.saturating_sub(5), r + 1],
        // Sequences of 7, one after the other, each row with what came before it.
        3 => [r - r % 7, r + 1],
        // Some without keys, wherever they begin.
        4 if r % 3 == 1 => [r, r],
        4 if r % 3 == 2 => [rows, 0],
        4 => [r / 2, rows],
        // Two sequences, both ways.
        5 if r < rows / 2 => [0, rows / 2],
        5 => [rows / 2, rows],
        _ => [0, 0],
    };
    (0..rows).map(range).collect()
}

fn attention(check: &dyn Fn(&Case)) {
    let shapes = [(1, 1, 1, 1), (5, 1, 1, 3), (33, 4, 2, 8), (70, 6, 1, 33), (130, 2, 2, 64), (40, 3, 3, 100)];
    for (number, (rows, heads, kv_heads, dim)) in
        shapes.into_iter().chain([(35, 2, 1, 256), (300, 1, 1, 16)]).enumerate()
    {
        for kind in 0..7 {
            // Once with scores of up to 80 and more, once out of one buffer.
            let large = kind % 3 == 1;
            let fused = (number + kind) % 2 == 1;
            let scale = if large { 8.0 } else { 1.0 / (dim as f32).sqrt() };
            let (wide, narrow) = (heads * dim, kv_heads * dim);
            let stride = wide + 2 * narrow + 3;
            let all = values(rows * stride, 2.0, 42 + kind as u64);
            let columns = [1, 1 + wide, 2 + wide + narrow];
            let at = |column: usize, row: usize, c: usize| f64::from(all[row * stride + columns[column] + c]);
            let ranges = ranges(kind, rows as u32);
            let mut wanted = Vec::new();
            for (r, &[start, end]) in ranges.iter().enumerate() {
                for h in 0..heads {
                    let kv = h * kv_heads / heads * dim;
                    let keys: Vec<usize> = (start as usize..end as usize).collect();
                    let terms = |s: usize| (0..dim).map(move |j| at(0, r, h * dim + j) * at(1, s, kv + j));
                    let scores: Vec<f64> = keys.iter().map(|&s| f64::from(scale) * terms(s).sum::<f64>()).collect();
                    let sizes = keys.iter().map(|&s| f64::from(scale) * terms(s).map(f64::abs).sum::<f64>());
                    let size = sizes.fold(0.0, f64::max);
                    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|x| (x - most).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for j in 0..dim {
                        let of = |f: fn(f64) -> f64| {
                            keys.iter().zip(&weights).map(|(&s, p)| p * f(at(2, s, kv + j))).sum::<f64>()
                        };
                        let (y, slack) = (of(|v| v), of(f64::abs));
                        let relative = SUMS + 2.0 * (dim + 4) as f64 * size * HALF_ULP;
                        wanted.push(if keys.is_empty() { (0.0, 0.0) } else { (y / total, relative * slack / total) });
                    }
                }
            }
            let mut case = shaped();
            let split = |case: &mut Case, i: usize| {
                let width = if i == 0 { wide } else { narrow };
                let own: Vec<f32> =
                    all.chunks(stride).flat_map(|row| row[columns[i]..][..width].iter().copied()).collect();
                Place { buf: case.list.floats("own", &own), stride: width as u32, column: 0 }
            };
            let [q, k, v] = if fused {
                let buf = case.list.floats("qkv", &all);
                columns.map(|column| Place { buf, stride: stride as u32, column: column as u32 })
            } else {
                [0, 1, 2].map(|i| split(&mut case, i))
            };
            let ranges = case.list.constant("ranges", bytemuck::cast_slice(&ranges));
            let out = case.result(Size::Fixed((rows * wide) as u32), Wanted::Near(wanted));
            let [heads, kv_heads, dim] = [heads, kv_heads, dim].map(|x| x as u32);
            let heads = Heads { heads, kv_heads, dim, scale };
            attention::record(&mut case.list, rows as u32, heads, q, k, v, ranges, out);
            check(&case);
        }
    }
}

/// The error function by a series of positive terms.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 || x.is_nan() {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum) = (x, 0.0);
    for n in 1..200 {
        sum += term;
        term *= 2.0 * x * x / f64::from(2 * n + 1);
    }
    sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
}

/// An activation, and how far off its value may be.
fn activated(act: Act, x: f64) -> (f64, f64) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let near = 5e-7 * x.abs();
    match act {
        Act::Gelu => (0.5 * x * (1.0 + erf(x / 2f64.sqrt())), near),
        Act::GeluTanh => {
            (0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()), near)
        }
        Act::QuickGelu => (x * sigmoid(1.702 * x), near),
        Act::Silu => (x * sigmoid(x), near),
        Act::Relu => (if x < 0.0 { 0.0 } else { x }, 0.0),
        Act::Tanh => (x.tanh(), 1e-6 * x.tanh().abs()),
    }
}

/// Numbers of all sizes that activations meet.
fn activations(n: usize) -> Vec<f32> {
    let mut x = values(n, 6.0, 43);
    for (i, x) in x.iter_mut().enumerate() {
        *x = match i % 11 {
            3 => *x * 1e-3,
            5 => *x * 20.0,
            7 => [0.0, -0.0, f32::NAN, 1e-30, -1e4, 1e4, 80.0, -80.0][i / 11 % 8],
            _ => *x,
        };
    }
    x
}

fn activate(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 85), (257, 131), (1, 70_001)] {
        for act in Act::ALL {
            let x = activations(rows * len);
            let wanted = finite(&x).iter().map(|x| activated(act, *x)).collect();
            let mut case = shaped();
            let x = case.list.floats("x", &x);
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            activate::record(&mut case.list, (rows as u32, len as u32), act, x, out);
            check(&case);
        }
    }
}

fn gate(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 85), (257, 131), (1, 70_001)] {
        for act in Act::ALL {
            let (x, up) = (activations(rows * len), values(rows * len, 3.0, 44));
            let product = |(x, up): (&f64, &f64)| {
                let (y, slack) = activated(act, *x);
                (y * up, (slack + y.abs() * HALF_ULP) * up.abs())
            };
            let wanted = finite(&x).iter().zip(&finite(&up)).map(product).collect();
            let mut case = shaped();
            let (x, up) = (case.list.floats("x", &x), case.list.floats("up", &up));
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            gate::record(&mut case.list, (rows as u32, len as u32), act, x, up, out);
            check(&case);
        }
    }
}

fn add(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 85), (257, 131), (1, 70_001)] {
        for (a, b) in [(1.0, 1.0), (0.3f32, -1.7f32)] {
            let (x, y) = (tame(special_values(rows * len, 1.0, 45)), tame(special_values(rows * len, 1.0, 46)));
            let both = finite(&x).into_iter().zip(finite(&y));
            let wanted = both.map(|(x, y)| sum([f64::from(a) * x, f64::from(b) * y].into_iter())).collect();
            let mut case = shaped();
            let (x, y) = (case.list.floats("x", &x), case.list.floats("y", &y));
            let out = case.result(Size::Fixed((rows * len) as u32), Wanted::Near(wanted));
            add::record(&mut case.list, (rows as u32, len as u32), a, x, b, y, out);
            check(&case);
        }
    }
}

fn patches(check: &dyn Fn(&Case)) {
    for (images, channels, height, width, patch) in
        [(1, 1, 1, 1, 1), (2, 3, 8, 12, 4), (3, 2, 11, 7, 3), (1, 3, 33, 65, 16), (5, 1, 6, 6, 6), (2, 3, 40, 40, 1)]
    {
        let pixels = special_values(images * channels * height * width, 1.0, 47);
        let mut wanted = Vec::new();
        for image in 0..images {
            for (y, x) in (0..height / patch).flat_map(|y| (0..width / patch).map(move |x| (y, x))) {
                for (channel, line) in (0..channels).flat_map(|c| (0..patch).map(move |line| (c, line))) {
                    let row = (image * channels + channel) * height + y * patch + line;
                    wanted.extend(pixels[row * width + x * patch..][..patch].iter().map(|x| x.to_bits()));
                }
            }
        }
        let mut case = shaped();
        let pixels = case.list.floats("pixels", &pixels);
        let out = case.result(Size::Fixed(wanted.len() as u32), Wanted::Words(wanted));
        let [channels, height, width, patch] = [channels, height, width, patch].map(|side| side as u32);
        let image = Image { channels, height, width, patch };
        patches::record(&mut case.list, images as u32, image, pixels, out);
        check(&case);
    }
}

fn loss(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 2), (7, 255), (5, 257), (300, 10), (2, 50_001), (66_000, 1)] {
        let mut logits = values(rows * len, 5.0, 48);
        let mut targets = Vec::new();
        for (r, row) in logits.chunks_mut(len).enumerate() {
            match r % 5 {
                1 => row.iter_mut().for_each(|x| *x *= 16.0),
                2 => row.fill(-80.0), // all alike
                3 => {
                    // The largest twice.
                    row[len / 3] = 90.0;
                    row[len - 1] = 90.0;
                }
                _ => {}
            }
            let target = (r * 31 % len) as u32;
            targets.push([target, u32::MAX, target, len as u32 - 1, len as u32][r % 5]);
        }
        let mut wanted = Vec::new();
        for (row, target) in finite(&logits).chunks(len).zip(&targets) {
            let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let best = row.iter().position(|x| *x == most).unwrap();
            let total: f64 = row.iter().map(|x| (x - most).exp()).sum();
            let behind = row.get(*target as usize).map_or(-1.0, |x| most - x);
            wanted.extend([
                (most, 0.0),
                (total, 4.0 * SUMS * total),
                (behind, SUMS * behind.abs()),
                (best as f64, 0.0),
            ]);
        }
        let mut case = shaped();
        let (logits, targets) = (case.list.floats("logits", &logits), case.list.constant("targets", &targets));
        let out = case.result(Size::Fixed(loss::WIDTH * rows as u32), Wanted::Near(wanted));
        loss::record(&mut case.list, (rows as u32, len as u32), logits, targets, out);
        check(&case);
    }
    // A row with a NaN has no sum that is a number; the others have theirs.
    let mut case = shaped();
    let logits = case.list.floats("logits", &[1.0, f32::NAN, 2.0, 0.0, 0.0, 0.0]);
    let targets = case.list.constant("targets", &[0, 1]);
    let any = (0.0, f64::INFINITY);
    let near = vec![any, (f64::NAN, 0.0), any, any, (0.0, 0.0), (3.0, SUMS), (0.0, 0.0), (0.0, 0.0)];
    let out = case.result(Size::Fixed(2 * loss::WIDTH), Wanted::Near(near));
    loss::record(&mut case.list, (2, 3), logits, targets, out);
    check(&case);
}

fn deviation(check: &dyn Fn(&Case)) {
    for (rows, len) in [(1, 1), (3, 5001), (65, 33), (130, 257), (20_000, 3), (1, 70_001), (66_000, 1)] {
        for chunks in [1, 3] {
            let (a, c) = (values(rows * len, 1.0, 49), values(rows * len, 1.0, 50));
            let (mut a, c) = (tame(a), tame(c));
            if rows > 2 {
                a[len] = f32::NAN;
            }
            let mut wanted = Vec::new();
            for (a, c) in a.chunks(len).zip(c.chunks(len)) {
                let ([l1_a, square_a, largest_a, dot], [l1_c, square_c, largest_c, _]) = (sums_of(a, c), sums_of(c, a));
                // Beside a NaN, the largest is not specified.
                let any = |(largest, near)| if f64::is_nan(largest) { (0.0, f64::INFINITY) } else { (largest, near) };
                wanted.extend([l1_a, l1_c, square_a, square_c, dot, any(largest_a), any(largest_c), (0.0, 0.0)]);
            }
            let mut case = shaped();
            let n = rows as u32 * deviation::WIDTH;
            let stats = case.filled(&vec![0.25; n as usize], Wanted::Near(wanted));
            let mut start = 0;
            for chunk in 0..chunks {
                let end = (len * (chunk + 1) / chunks).max(start + 1).min(len);
                if start < end {
                    let columns = |x: &[f32]| x.chunks(len).flat_map(|x| x[start..end].to_vec()).collect::<Vec<_>>();
                    let (a, c) = (case.list.floats("a", &columns(&a)), case.list.floats("c", &columns(&c)));
                    let shape = (rows as u32, (end - start) as u32);
                    deviation::record(&mut case.list, shape, a, c, chunk > 0, stats);
                }
                start = end;
            }
            check(&case);
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
    delta widen histogram between trim drop rank drop_ranked combine elect variance mask consensus clip gram gram_rows gram_t blend norms statistics residual factor matvec matvec_t rescale scale transpose checksum gather
    patches normalize affine matmul matmul_small matmul_skinny row_scale matmul_coop16 matmul_coop8 rope attention activate gate add loss deviation
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
