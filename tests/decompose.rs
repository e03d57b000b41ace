//! Merges that take matrices apart: against recorded outputs, against their definitions, and where matrices are awkward.

mod common;
#[path = "common/recorded.rs"]
mod recorded;

use common::{gpu, values};
use magic_merge::cpu::Cpu;
use magic_merge::decompose::matrix::Matrix;
use magic_merge::decompose::{Decomposed, Device, Route, Rule, Why, host, merge, polar, subspace, working_bytes};
use magic_merge::executor::Executor;
use magic_merge::linalg;
use recorded::{error, golden, norm, tensors};

const CTS: Rule = Rule::IsoCts { common_fraction: 0.8 };
const RULES: [Rule; 3] = [Rule::TsvM, Rule::IsoC, CTS];
const PLENTY: u64 = 1 << 30;

/// The CPU device, and the GPU where there is one to test with.
fn executors() -> Vec<(&'static str, Executor)> {
    let mut all = vec![("cpu", Executor::Cpu(Cpu::default()))];
    all.extend(gpu().map(|gpu| ("gpu", Executor::Gpu(Box::new(gpu)))));
    all
}

fn run(rule: Rule, executor: &Executor, (rows, cols): (usize, usize), taus: &[Vec<f32>]) -> Decomposed {
    let found = merge(rule, executor, PLENTY, (rows, cols), taus.len(), &mut |k| Ok(taus[k].clone()));
    found.unwrap_or_else(|e| panic!("{rule:?} {rows} × {cols}: {e}"))
}

/// Experts' task vectors with something in common.
fn taus((rows, cols): (usize, usize), experts: usize, seed: u64) -> Vec<Vec<f32>> {
    let shared = values(rows * cols, 0.01, seed);
    let own = |k: usize| values(rows * cols, 0.01, seed + 1 + k as u64);
    (0..experts).map(|k| shared.iter().zip(own(k)).map(|(a, b)| a + b).collect()).collect()
}

fn matrix(rows: usize, cols: usize, values: &[f32]) -> Matrix {
    Matrix { rows, cols, values: values.to_vec() }
}

/// A matrix with these singular values.
fn with_values(rows: usize, cols: usize, sigma: &[f64], seed: u64) -> Matrix {
    let n = rows.min(cols);
    let basis = |size: usize, seed: u64| {
        let found = linalg::svd(&values(size * n, 1.0, seed), n, size).expect("a decomposition");
        matrix(n, size, &found.vt)
    };
    let (left, mut right) = (basis(rows, seed), basis(cols, seed + 1));
    for (row, sigma) in right.values.chunks_mut(cols).zip(sigma) {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * sigma) as f32);
    }
    left.transposed_times(&right)
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let size = norm(b.iter().copied());
    let off = norm(a.iter().zip(b).map(|(a, b)| a - b));
    if off == 0.0 { 0.0 } else { off / size }
}

#[track_caller]
fn assert_near(what: &str, a: &[f32], b: &[f32], bound: f64) {
    let off = distance(a, b);
    assert!(off <= bound, "{what}: off by {off:.2e}, at most {bound:.0e}");
}

#[test]
fn reference_of_the_paper() {
    let base = tensors(&golden("magic/base.safetensors"));
    let experts: Vec<_> = (0..4).map(|i| tensors(&golden(&format!("magic/expert{i}.safetensors")))).collect();
    for (device, executor) in executors() {
        for (name, rule) in [("tsv_m", Rule::TsvM), ("iso_c", Rule::IsoC), ("iso_cts", CTS)] {
            let expected = tensors(&golden(&format!("magic/expected_{name}.safetensors")));
            for (tensor, (shape, stored)) in &base {
                if shape.len() != 2 || name == "tsv_m" && tensor.contains("embedding") {
                    continue;
                }
                let tau = |k: usize| experts[k][tensor].1.iter().zip(stored).map(|(a, b)| a - b).collect();
                let all: Vec<Vec<f32>> = (0..4).map(tau).collect();
                let found = run(rule, &executor, (shape[0], shape[1]), &all);
                let out: Vec<f32> = found.tau.iter().zip(stored).map(|(t, b)| t + b).collect();
                let e = error(&out, &expected[tensor].1, stored);
                assert!(e < 1e-5, "{name} on {device}: `{tensor}` is off by {e:.2e}");
            }
        }
    }
}

#[test]
fn polar_factors_are_orthogonal_and_right() {
    let flat = |n: usize| vec![1.0; n];
    let steep = |n: usize| (0..n).map(|i| 10f64.powf(-(i as f64) / n as f64)).collect::<Vec<_>>();
    for (rows, cols) in [(1, 1), (1, 7), (7, 1), (33, 65), (65, 33), (300, 100), (200, 200), (220, 500)] {
        let n = rows.min(cols);
        for (kind, sigma) in [("flat", flat(n)), ("steep", steep(n))] {
            let exact = with_values(rows, cols, &flat(n), 5);
            let x = with_values(rows, cols, &sigma, 5);
            let place = |way: &str| format!("{kind} {rows} × {cols} {way}");
            let found = host::polar(&x).expect("a polar factor");
            assert_near(&place("host"), &found.values, &exact.values, 2e-5);
            for (device, executor) in executors() {
                let mut device_memory = Device::new(&executor).expect("memory");
                let products = polar::by_products(&mut device_memory, &x).expect("products").expect("regular");
                assert_near(&place(device), &products.values, &exact.values, 3e-5);
                let short = if rows <= cols { products } else { products.transposed() };
                let gram = linalg::gram(&short.wide(), n, rows.max(cols));
                let away = gram.iter().enumerate().map(|(i, g)| (g - f64::from(i % (n + 1) == 0)).powi(2)).sum::<f64>();
                assert!((away / n as f64).sqrt() < 1e-5, "{}: {away:e}", place(device));
            }
        }
    }
}

/// ‖Δ‖ = mean(σ)·√r, ⟨Δ, S⟩ = mean(σ)·Σσ, and all singular values are equal.
#[test]
fn iso_c_has_one_singular_value() {
    for (device, executor) in executors() {
        for shape in [(1, 7), (7, 1), (33, 65), (300, 100)] {
            for experts in [1, 2, 8, 16] {
                let all = taus(shape, experts, 3);
                let sum: Vec<f32> = (0..all[0].len()).map(|i| all.iter().map(|tau| tau[i]).sum()).collect();
                let values = linalg::svd(&sum, shape.0, shape.1).expect("values").s;
                let mean = values.iter().sum::<f32>() / values.len() as f32;
                let found = run(Rule::IsoC, &executor, shape, &all);
                let own = linalg::svd(&found.tau, shape.0, shape.1).expect("values").s;
                for value in own {
                    assert!((value / mean - 1.0).abs() < 1e-4, "{device} {shape:?} {experts}: {value} of {mean}");
                }
            }
        }
    }
}

/// The rules by their definitions, with an SVD in f32.
fn by_definition(rule: Rule, (rows, cols): (usize, usize), all: &[Vec<f32>]) -> Vec<f32> {
    let whole = |x: &[f32], rows: usize, cols: usize| {
        let found = linalg::svd(x, rows, cols).expect("a decomposition");
        matrix(rows, found.s.len(), &found.u).times(&matrix(found.s.len(), cols, &found.vt))
    };
    let rank = rows.min(cols);
    let (count, common) = match rule {
        Rule::TsvM => (rank / all.len(), 0),
        Rule::IsoC => (0, rank),
        Rule::IsoCts { common_fraction } => {
            let common = (common_fraction * rank as f64).floor() as usize;
            let own = ((rank - common) as f64 / all.len() as f64).round_ties_even() as usize;
            (own, rank - own * all.len())
        }
    };
    let (mut left, mut sigma, mut right) = (Vec::new(), Vec::new(), Vec::new());
    let mut take = |x: &[f32], count: usize| {
        let found = linalg::svd(x, rows, cols).expect("a decomposition");
        let turned = matrix(rows, rank, &found.u).transposed();
        left.extend_from_slice(&turned.values[..count * rows]);
        sigma.extend_from_slice(&found.s[..count]);
        right.extend_from_slice(&found.vt[..count * cols]);
        matrix(count, rows, &turned.values[..count * rows])
    };
    let sum: Vec<f32> = (0..rows * cols).map(|i| all.iter().map(|tau| tau[i]).sum()).collect();
    let basis = take(&sum, common);
    for tau in all {
        let tau = matrix(rows, cols, tau);
        let part = if common == 0 { Matrix::zeros(rows, cols) } else { basis.transposed_times(&basis.times(&tau)) };
        let rest: Vec<f32> = tau.values.iter().zip(&part.values).map(|(a, b)| a - b).collect();
        take(&rest, count);
    }
    if rule != Rule::TsvM {
        let mean = sigma.iter().sum::<f32>() / sigma.len() as f32;
        sigma.fill(mean);
    }
    let mut outer = whole(&right, sigma.len(), cols);
    outer.values.chunks_mut(cols).zip(&sigma).for_each(|(row, s)| row.iter_mut().for_each(|x| *x *= s));
    whole(&left, sigma.len(), rows).transposed_times(&outer).values
}

#[test]
fn rules_are_as_defined() {
    for (device, executor) in executors() {
        for shape in [(33, 65), (300, 100), (24, 24)] {
            for experts in [1, 2, 8, 16] {
                for rule in RULES {
                    let all = taus(shape, experts, 17);
                    let found = run(rule, &executor, shape, &all);
                    let wanted = by_definition(rule, shape, &all);
                    assert_near(&format!("{rule:?} {shape:?} {experts} {device}"), &found.tau, &wanted, 1e-3);
                }
            }
        }
    }
}

#[test]
fn order_and_scale_of_experts_change_nothing_else() {
    for (device, executor) in executors() {
        for rule in RULES {
            let shape = (40, 90);
            let mut all = taus(shape, 5, 31);
            let found = run(rule, &executor, shape, &all).tau;
            let scaled: Vec<Vec<f32>> = all.iter().map(|tau| tau.iter().map(|x| x * 0.001).collect()).collect();
            let back: Vec<f32> = run(rule, &executor, shape, &scaled).tau.iter().map(|x| x * 1000.0).collect();
            assert_near(&format!("{rule:?} scaled on {device}"), &back, &found, 1e-4);
            // A power of two changes no bit, however far it goes.
            let far: Vec<Vec<f32>> = all.iter().map(|tau| tau.iter().map(|x| x * 2f32.powi(60)).collect()).collect();
            let back: Vec<f32> = run(rule, &executor, shape, &far).tau.iter().map(|x| x * 2f32.powi(-60)).collect();
            assert_near(&format!("{rule:?} times 2^60 on {device}"), &back, &found, 1e-6);
            all.reverse();
            assert_near(
                &format!("{rule:?} reversed on {device}"),
                &run(rule, &executor, shape, &all).tau,
                &found,
                1e-4,
            );
        }
    }
}

#[test]
fn awkward_matrices_have_a_result() {
    for (device, executor) in executors() {
        for rule in RULES {
            for shape in [(1, 1), (1, 7), (7, 1), (3, 5), (33, 65), (80, 70)] {
                let n = shape.0 * shape.1;
                let one = taus(shape, 1, 51).remove(0);
                let cases: [(&str, Vec<Vec<f32>>); 6] = [
                    ("zero", vec![vec![0.0; n]; 3]),
                    ("one zero", vec![vec![0.0; n], one.clone()]),
                    ("duplicates", vec![one.clone(); 4]),
                    ("opposites", vec![one.clone(), one.iter().map(|x| -x).collect()]),
                    ("many", taus(shape, 16, 52)),
                    ("tiny", taus(shape, 3, 53).iter().map(|x| x.iter().map(|x| x * 1e-36).collect()).collect()),
                ];
                for (case, all) in cases {
                    let found = run(rule, &executor, shape, &all);
                    let place = format!("{rule:?} {shape:?}, {case}, on {device}");
                    assert_eq!(found.tau.len(), n, "{place}");
                    assert!(found.tau.iter().all(|x| x.is_finite()), "{place}");
                    let zero = found.tau.iter().all(|x| *x == 0.0);
                    match (case, rule) {
                        ("zero", _) | ("opposites", Rule::IsoC) => assert!(zero, "{place}"),
                        ("opposites", _) => {} // nothing, but for rounding
                        _ => assert!(!zero, "{place}"),
                    }
                    assert_eq!(found.tau, run(rule, &executor, shape, &all).tau, "{place}: again");
                }
            }
        }
    }
}

/// Sums of low rank: P has that rank, on every device the same.
#[test]
fn low_rank_contributes_its_rank() {
    let (shape, rank) = ((270, 330), 6);
    let low = |seed| {
        let sigma: Vec<f64> = (0..270).map(|i| if i < rank { 1.0 - 0.1 * i as f64 } else { 0.0 }).collect();
        with_values(shape.0, shape.1, &sigma, seed).values
    };
    let all: Vec<Vec<f32>> = (0..3).map(|k| low(70 + 2 * k)).collect();
    let mut first: Vec<Option<Vec<f32>>> = vec![None; 3];
    for (device, executor) in executors() {
        for (rule, first) in RULES.into_iter().zip(&mut first) {
            let found = run(rule, &executor, shape, &all);
            if device == "gpu" {
                assert!(matches!(found.route, Route::Host(Why::Singular | Why::Flat)), "{:?}", found.route);
            }
            let values = linalg::svd(&found.tau, shape.0, shape.1).expect("values").s;
            assert!(values[18] < 1e-4 * values[0], "{rule:?} on {device}: {:?}", &values[..20]);
            if rule == Rule::IsoC {
                assert!(values[17] > 0.999 * values[0], "{:?}", &values[..20]);
            }
            assert_near(&format!("{rule:?} on {device}"), &found.tau, first.get_or_insert(found.tau.clone()), 1e-5);
        }
    }
}

/// A spectrum that falls: power iterations find its head, and both devices agree.
#[test]
fn truncated_spaces_by_products() {
    let (rows, cols, count) = (96, 150, 12);
    for (rows, cols) in [(rows, cols), (cols, rows)] {
        let sigma: Vec<f64> = (0..96).map(|i| 0.5f64.powf(f64::from(i) / 4.0)).collect();
        let x = with_values(rows, cols, &sigma, 11);
        let wanted = host::truncated(&x, count, 0.0).expect("a decomposition");
        assert_eq!(wanted.values.len(), count);
        for (device, executor) in executors() {
            let mut memory = Device::new(&executor).expect("memory");
            let found = subspace::truncated(&mut memory, &x, count, 0.0).expect("products").expect("it converges");
            for (i, (a, b)) in found.values.iter().zip(&wanted.values).enumerate() {
                assert!((a - b).abs() < 1e-6 && (b - sigma[i]).abs() < 1e-5, "{device} {i}: {a} {b}");
            }
            let product = |s: &host::Singular| s.left.transposed_times(&s.right);
            assert_near(device, &product(&found).values, &product(&wanted).values, 1e-5);
            let flat = with_values(rows, cols, &[1.0; 96], 11);
            assert!(subspace::truncated(&mut memory, &flat, count, 0.0).expect("products").is_none(), "{device}: flat");
        }
    }
}

#[test]
fn devices_agree_and_say_how() {
    let shape = (256, 320);
    let sigma = |k: u64| (0..256).map(|i| 0.5f64.powf((i + k) as f64 / 20.0) + 0.02).collect::<Vec<_>>();
    let all: Vec<Vec<f32>> = (0..8).map(|k| with_values(256, 320, &sigma(k), 91 + 2 * k).values).collect();
    let all_devices = executors();
    for rule in RULES {
        let found: Vec<Decomposed> = all_devices.iter().map(|(_, executor)| run(rule, executor, shape, &all)).collect();
        assert_eq!(found[0].route, Route::Host(Why::Device));
        if let Some(on_gpu) = found.get(1) {
            // Directions of eight experts side by side are nearly dependent.
            let expected = match rule {
                Rule::IsoC => Route::Products,
                Rule::TsvM => Route::Host(Why::Singular),
                Rule::IsoCts { .. } => Route::Host(Why::Flat),
            };
            assert_eq!(on_gpu.route, expected, "{rule:?}");
            assert_near(&format!("{rule:?}"), &on_gpu.tau, &found[0].tau, 1e-5);
            let small = merge(rule, &all_devices[1].1, 1000, shape, 8, &mut |k| Ok(all[k].clone())).expect("a merge");
            assert!(matches!(small.route, Route::Host(Why::Budget(_) | Why::Flat)), "{:?}", small.route);
            assert_near(&format!("{rule:?}, no memory"), &small.tau, &found[0].tau, 1e-6);
        }
    }
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let executor = Executor::Cpu(Cpu::default());
    for shape in [(200, 260), (230, 600)] {
        let all = taus(shape, 4, 61);
        for rule in RULES {
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| run(rule, &executor, shape, &all).tau)
            };
            let one = with(1);
            assert_eq!(one, with(2), "{rule:?} {shape:?}");
            assert_eq!(one, with(5), "{rule:?} {shape:?}");
        }
    }
}

#[test]
fn bad_input_is_an_error() {
    let executor = Executor::Cpu(Cpu::default());
    for rule in RULES {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut all = taus((4, 6), 3, 1);
            all[1][13] = bad;
            let error = merge(rule, &executor, PLENTY, (4, 6), 3, &mut |k| Ok(all[k].clone())).expect_err("not finite");
            assert!(error.to_string().contains("expert 1 holds") && error.to_string().contains("row 2"), "{error}");
        }
        let huge = vec![vec![f32::MAX; 24]; 3];
        assert!(merge(rule, &executor, PLENTY, (4, 6), 3, &mut |k| Ok(huge[k].clone())).is_err() || rule == Rule::TsvM);
        assert!(merge(rule, &executor, PLENTY, (4, 6), 3, &mut |_| Ok(vec![0.0; 5])).is_err());
        let none = merge(rule, &executor, PLENTY, (0, 6), 3, &mut |_| Ok(Vec::new())).expect("nothing");
        assert!(none.tau.is_empty());
        assert!(working_bytes(rule, (4096, 4096), 8).host > 4096 * 4096 * 4);
    }
    let rule = Rule::IsoCts { common_fraction: f64::NAN };
    assert!(merge(rule, &executor, PLENTY, (4, 6), 1, &mut |_| Ok(vec![0.0; 24])).is_err());
}
