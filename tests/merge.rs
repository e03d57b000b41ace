//! Laws that every merge obeys, whatever the numbers: identity, order, scale, memory, threads.

mod common;
#[path = "common/models.rs"]
mod models;

use std::path::Path;

use magic_merge::device::Wanted;
use magic_merge::methods::{Combine, METHODS, Method, Sparsify};
use models::{Run, name, write, write_all};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

const DTYPES: [Dtype; 6] = [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64, Dtype::F8_E4M3, Dtype::F8_E5M2];

const MANIFOLDS: [&str; 4] = ["mixed", "sphere", "tensor", "spectral"];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// The CPU device, and the GPU where there is one to test with.
fn devices() -> Vec<&'static str> {
    if common::gpu().is_some() { vec!["cpu", "gpu"] } else { vec!["cpu"] }
}

/// A run of `method` with parameters that make it do all it can.
fn run(dir: &Path, method: &'static Method, calibrate: Option<&'static str>) -> Run {
    let mut run = Run::new(dir, method.name, method.experts.unwrap_or(3) as u64);
    for (param, value) in [("density", 0.3), ("select_topk", 0.4)] {
        run.params.extend(method.takes(param).then(|| format!("{param}={value}")));
    }
    // Where a fraction of an entry is meant, of one that is 0.01 at most.
    let t = if method.combine == Combine::Near { 0.003 } else { 0.3 };
    run.params.extend(method.takes("t").then(|| format!("t={t}")));
    run.calibrate = calibrate.filter(|_| method.combine != Combine::Scale);
    if method.combine == Combine::Scale {
        run.base = None;
    }
    run
}

fn tensors(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let file = SafeTensors::deserialize(bytes).expect("a valid file");
    let mut all: Vec<_> = file.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect();
    all.sort();
    all
}

#[test]
fn merging_a_model_with_itself_changes_no_bit() {
    for dtype in DTYPES {
        let dir = folder();
        for model in 0..=3 {
            write(&name(dir.path(), model), dtype, 0, 0.0);
        }
        let input = tensors(&std::fs::read(name(dir.path(), 0)).expect("a model"));
        for method in METHODS {
            for device in devices() {
                // A software driver compiles each shader anew; how a type is read has nothing to do with the method.
                if device == "gpu" && dtype != Dtype::BF16 && !["linear", "ties", "slerp"].contains(&method.name) {
                    continue;
                }
                for calibrate in [None, Some("wsc")] {
                    let mut run = run(dir.path(), method, calibrate);
                    run.wanted.device = device.into();
                    assert_eq!(tensors(&run.run().0), input, "{} {dtype:?} {device} {calibrate:?}", method.name);
                }
            }
        }
    }
}

#[test]
fn special_values_that_all_models_share_keep_their_bits() {
    // Every 16-bit pattern, NaN payloads and infinities among them; one element differs between the models.
    for dtype in [Dtype::BF16, Dtype::F16] {
        let dir = folder();
        for model in 0..3u16 {
            let mut bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            bytes[0] = model as u8;
            let view = safetensors::tensor::TensorView::new(dtype, vec![256, 256], &bytes).expect("a tensor");
            safetensors::tensor::serialize_to_file([("a.weight", view)], None, &name(dir.path(), model.into()))
                .expect("a written file");
        }
        // Not those that compute with the values of all models and not with differences.
        let computes =
            |method: &&Method| matches!(method.combine, Combine::Slerp | Combine::Scale) || method.name == "karcher";
        for method in METHODS.iter().filter(|method| !computes(method)) {
            for device in devices() {
                let mut run = run(dir.path(), method, None);
                run.models.truncate(2);
                run.wanted.device = device.into();
                let out = tensors(&run.run().0).remove(0).1;
                let input = tensors(&std::fs::read(name(dir.path(), 0)).expect("a model")).remove(0).1;
                assert_eq!(out[2..], input[2..], "{} {dtype:?} {device}", method.name);
            }
        }
    }
}

#[test]
fn memory_and_threads_change_no_byte() {
    const MB: u64 = 1_000_000;
    let dir = folder();
    write_all(dir.path(), Dtype::BF16, 3, 0.01);
    for device in devices() {
        for method in METHODS {
            for manifold in MANIFOLDS {
                let calibrated = method.combine != Combine::Scale;
                // The manifolds know nothing of methods: all of them once, with one that sparsifies.
                if manifold != "mixed" && method.name != "ties" {
                    continue;
                }
                let mut run = run(dir.path(), method, Some("wsc"));
                run.manifold = Some(manifold).filter(|_| calibrated);
                let mut with = |memory: Option<u64>, vram: Option<u64>, threads: Option<usize>| {
                    run.wanted = Wanted { device: device.into(), memory, vram, threads, ..Wanted::default() };
                    run.run().0
                };
                let plain = with(None, None, None);
                for (memory, vram, threads) in [
                    (Some(17 * MB), Some(17 * MB), Some(1)),
                    (Some(64 * MB), Some(32 * MB), Some(2)),
                    (None, Some(256 * MB), Some(5)),
                ] {
                    assert!(
                        with(memory, vram, threads) == plain,
                        "{} {manifold} on {device}: {memory:?} {vram:?} {threads:?}",
                        method.name
                    );
                }
            }
        }
    }
}

fn is_random(method: &Method) -> bool {
    matches!(method.sparsify, Sparsify::Random | Sparsify::Ranked)
}

/// f32 values of a tensor.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}

#[test]
fn any_number_of_experts_and_idle_ones_give_numbers_that_devices_agree_on() {
    let dir = folder();
    write_all(dir.path(), Dtype::F32, 16, 0.01);
    let base = tensors(&std::fs::read(name(dir.path(), 0)).expect("a model"));
    // The base by another name: by its own it would take no part.
    let same = dir.path().join("same.safetensors");
    std::fs::copy(name(dir.path(), 0), &same).expect("a copy");
    for method in METHODS {
        for count in [1usize, 2, 5, 16] {
            // A software driver takes seconds to compile a shader of many experts.
            let many = ["linear", "dare_ties"].contains(&method.name);
            if method.experts.is_some_and(|only| only != count) || count > 5 && !many {
                continue;
            }
            let all: Vec<_> = (1..=count as u64).map(|model| name(dir.path(), model)).collect();
            // One that learned nothing, and where there is room one that is there twice.
            let mut mixed = all.clone();
            mixed[count - 1] = same.clone();
            if count > 2 {
                mixed[1] = all[0].clone();
            }
            for (what, models) in [("different", all), ("idle and twice", mixed)] {
                let mut run = run(dir.path(), method, Some("wsc"));
                run.models = models;
                let outs: Vec<_> = devices()
                    .into_iter()
                    .map(|device| {
                        run.wanted.device = device.into();
                        tensors(&run.run().0)
                    })
                    .collect();
                for (i, (tensor, base)) in
                    base.iter().enumerate().filter(|(_, (tensor, _))| tensor != "model.positions")
                {
                    let values: Vec<Vec<f32>> = outs.iter().map(|out| floats(&out[i].1)).collect();
                    let place = format!("{} of {count}, {what}: `{tensor}`", method.name);
                    assert!(values[0].iter().all(|x| x.is_finite()), "{place}");
                    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
                    let base = floats(base);
                    let tau = norm(&mut values[0].iter().zip(&base).map(|(x, b)| x - b));
                    for other in &values[1..] {
                        let off = norm(&mut values[0].iter().zip(other).map(|(x, y)| x - y));
                        let rounding = 1.2e-7 * norm(&mut base.iter().copied());
                        assert!(off <= 1e-5 * tau + rounding, "{place}: {off:e} of {tau:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_the_device_is_decomposed_on_the_host_and_says_so() {
    let dir = folder();
    for model in 0..=2u64 {
        let data: Vec<f32> = models::noise(model).take(400 * 1500).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![400, 1500], bytemuck::cast_slice(&data));
        safetensors::tensor::serialize_to_file([("a.weight", view.expect("a tensor"))], None, &name(dir.path(), model))
            .expect("a file");
    }
    for device in devices().into_iter().filter(|device| *device != "cpu") {
        let run = |vram: Option<u64>| {
            let mut run = Run::new(dir.path(), "iso_c", 2);
            run.wanted = Wanted { device: device.into(), vram, ..Wanted::default() };
            let (bytes, report) = run.run();
            (floats(&tensors(&bytes)[0].1), report.warnings)
        };
        let ((large, none), (small, some)) = (run(None), run(Some(16 << 20)));
        assert!(none.is_empty(), "{none:?}");
        assert!(some.iter().any(|warning| warning.contains("on the host")), "{some:?}");
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let off = norm(&mut large.iter().zip(&small).map(|(a, b)| a - b)) / norm(&mut large.iter().copied());
        assert!(off < 1e-5, "{off:e}");
    }
}

#[test]
fn a_narrower_output_is_the_wider_one_rounded() {
    let dir = folder();
    write_all(dir.path(), Dtype::BF16, 3, 0.05);
    for method in METHODS {
        for device in devices() {
            let mut run = run(dir.path(), method, Some("wsc"));
            run.wanted.device = device.into();
            let narrow = tensors(&run.run().0);
            run.dtype = Some("float32");
            let wide = tensors(&run.run().0);
            for ((tensor, narrow), (_, wide)) in narrow.iter().zip(&wide).filter(|((t, _), _)| t != "model.positions") {
                let narrow: Vec<u16> = bytemuck::pod_collect_to_vec(narrow);
                let rounded: Vec<u16> = floats(wide).into_iter().map(|x| half::bf16::from_f32(x).to_bits()).collect();
                assert!(narrow == rounded, "{} on {device}: `{tensor}`", method.name);
            }
        }
    }
}

#[test]
fn the_order_of_experts_does_not_matter() {
    let dir = folder();
    write_all(dir.path(), Dtype::F32, 3, 0.01);
    // Not the random methods: an expert's mask is keyed by its place.
    for method in METHODS.iter().filter(|m| m.experts.is_none() && !is_random(m)) {
        let forward = run(dir.path(), method, Some("wsc"));
        let mut backward = run(dir.path(), method, Some("wsc"));
        backward.models.reverse();
        let (a, b) = (tensors(&forward.run().0), tensors(&backward.run().0));
        for ((name, a), (_, b)) in a.iter().zip(&b).filter(|((name, _), _)| name != "model.positions") {
            let (a, b): (Vec<f32>, Vec<f32>) = (bytemuck::pod_collect_to_vec(a), bytemuck::pod_collect_to_vec(b));
            for (x, y) in a.iter().zip(&b) {
                assert!((x - y).abs() <= 1e-6 * x.abs().max(0.01), "{} `{name}`: {x} {y}", method.name);
            }
        }
    }
}

#[test]
fn scaling_all_task_vectors_leaves_the_factors_alone() {
    let unit = folder();
    let small = folder();
    // A base of zeros makes the task vectors exact at both scales.
    for model in 0..=3 {
        for (dir, scale) in [(unit.path(), 1.0f32), (small.path(), 1.0 / 64.0)] {
            let data: Vec<f32> =
                models::noise(model).take(40 * 301).map(|x| if model == 0 { 0.0 } else { x * scale }).collect();
            let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![40, 301], bytemuck::cast_slice(&data))
                .expect("a tensor");
            safetensors::tensor::serialize_to_file([("a.weight", view)], None, &name(dir, model)).expect("a file");
        }
    }
    for method in METHODS.iter().filter(|m| m.experts.is_none()) {
        for manifold in MANIFOLDS {
            for device in devices() {
                let factors = |dir: &Path| {
                    let mut run = run(dir, method, Some("wsc"));
                    run.manifold = Some(manifold);
                    run.wanted.device = device.into();
                    let report = run.run().1;
                    let xi = report.tensors[0].xi.expect("a calibrated tensor");
                    (xi.min, xi.mean, xi.max)
                };
                assert_eq!(factors(unit.path()), factors(small.path()), "{} {manifold} {device}", method.name);
            }
        }
    }
}

#[test]
fn spectral_factors_of_few_rows_are_exact() {
    // Two orthogonal rows: the largest singular value is the longer one's length.
    for (rows, cols) in [(1usize, 7usize), (1, 896), (2, 768), (3, 50), (50, 1), (17, 3)] {
        let dir = folder();
        for model in 0..=2u64 {
            let row =
                |r: usize| (0..cols).map(move |c| if c % rows == r { (r + 1) as f32 * model as f32 } else { 0.0 });
            let data: Vec<f32> = (0..rows).flat_map(row).collect();
            let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![rows, cols], bytemuck::cast_slice(&data))
                .expect("a tensor");
            safetensors::tensor::serialize_to_file([("a.weight", view)], None, &name(dir.path(), model))
                .expect("a file");
        }
        let mut run = Run::new(dir.path(), "task_arithmetic", 2);
        run.calibrate = Some("wsc");
        run.manifold = Some("spectral");
        // Experts s and 2s, their sum 3s: the factor is 1.5 / 3 whatever s is.
        let xi = run.run().1.tensors[0].xi.expect("a calibrated tensor").mean;
        assert!((xi - 0.5).abs() < 1e-5, "{rows} × {cols}: {xi}");
    }
}

#[test]
fn one_expert_of_weight_one_is_that_expert() {
    let dir = folder();
    write_all(dir.path(), Dtype::F32, 1, 0.01);
    let expert = tensors(&std::fs::read(name(dir.path(), 1)).expect("a model"));
    for method in ["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"] {
        for calibrate in [None, Some("wsc")] {
            let mut run = Run::new(dir.path(), method, 1);
            run.calibrate = calibrate;
            for ((name, out), (_, expected)) in tensors(&run.run().0).iter().zip(&expert) {
                if name == "model.positions" {
                    continue;
                }
                let (a, b): (Vec<f32>, Vec<f32>) =
                    (bytemuck::pod_collect_to_vec(out), bytemuck::pod_collect_to_vec(expected));
                // θ0 + (θ1 − θ0) rounds twice; a factor of one may be off by a few units in the last place.
                let off = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
                assert!(off <= 2.5e-7, "{method} {calibrate:?} `{name}`: {off:e}");
            }
        }
    }
}

#[test]
fn trimming_loses_magnitude_and_calibration_restores_it() {
    let dir = folder();
    write_all(dir.path(), Dtype::F32, 1, 0.01);
    let mut ties = Run::new(dir.path(), "ties", 1);
    ties.params = vec!["density=0.2".into()];
    ties.calibrate = Some("wsc");
    let report = ties.run().1;
    let tensor = report.tensors.iter().find(|tensor| tensor.name.contains("up_proj")).expect("the tensor");
    // Uniform values: the largest fifth holds 1 − 0.8³ of the squares.
    let (lost, back) = (tensor.merged / tensor.experts[0], tensor.calibrated / tensor.experts[0]);
    assert!((lost - (1.0f64 - 0.512).sqrt()).abs() < 0.01, "trimming kept {lost}");
    assert!((back - 1.0).abs() < 0.02, "calibration restored {back}");
}

#[test]
fn ties_keep_exactly_the_share_that_was_asked_for() {
    // Magnitudes with thousands of equals: 8 levels in 20 000 elements, so the cut falls among ties.
    let dir = folder();
    for model in 0..=1u64 {
        let level = |i: usize| {
            if model == 0 { 0.0 } else { ((i * 7919) % 8) as f32 * if i.is_multiple_of(3) { -1.0 } else { 1.0 } }
        };
        let data: Vec<f32> = (0..20_000).map(level).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![20, 1000], bytemuck::cast_slice(&data))
            .expect("a tensor");
        safetensors::tensor::serialize_to_file([("a.weight", view)], None, &name(dir.path(), model)).expect("a file");
    }
    let input: Vec<f32> =
        bytemuck::pod_collect_to_vec(&tensors(&std::fs::read(name(dir.path(), 1)).expect("a model"))[0].1);
    for device in devices() {
        for calibrate in [None, Some("wsc")] {
            for density in ["0.0", "0.00005", "0.1", "0.31", "0.5", "0.87", "1.0"] {
                let mut run = Run::new(dir.path(), "ties", 1);
                run.params = vec![format!("density={density}")];
                run.calibrate = calibrate;
                run.wanted.device = device.into();
                let out: Vec<f32> = bytemuck::pod_collect_to_vec(&tensors(&run.run().0)[0].1);
                let share: f64 = density.parse().expect("a number");
                let wanted = (share * 20_000.0).floor() as usize;
                let mut order: Vec<usize> = (0..20_000).collect();
                order.sort_by(|&a, &b| input[b].abs().total_cmp(&input[a].abs()).then(a.cmp(&b)));
                let mut kept = vec![false; 20_000];
                order[..wanted].iter().for_each(|&i| kept[i] = true);
                for i in 0..20_000 {
                    let stays = kept[i] && input[i] != 0.0;
                    assert_eq!(out[i] != 0.0, stays, "{device} {calibrate:?} {density}: element {i}");
                }
            }
        }
    }
}

/// Task vectors of which a sample tells much, or by which it is misled.
fn hard_to_sample(kind: usize, i: usize, n: usize) -> f32 {
    let noise = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
    let size = match kind {
        0 => noise(i),                                // all differ
        1 => noise(i) % 5,                            // five values
        2 => i,                                       // in order: all that is close lies in one place
        3 if (i / 64).is_multiple_of(97) => noise(i), // a few that count, the rest equal
        4 if i >= n / 2 => noise(i),                  // the cut lies between two kinds
        5 => i / 1000 * 7919 % 1_000_003,             // rows that differ, equal within
        _ => 1,
    };
    if noise(i + n).is_multiple_of(2) { size as f32 } else { -(size as f32) }
}

#[test]
fn thresholds_of_large_tensors_are_exact() {
    const N: usize = 300_000;
    let dir = folder();
    let save = |model: u64, data: Vec<f32>| {
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![N / 1000, 1000], bytemuck::cast_slice(&data))
            .expect("a tensor");
        safetensors::tensor::serialize_to_file([("a.weight", view)], None, &name(dir.path(), model)).expect("a file");
    };
    save(0, vec![0.0; N]);
    for kind in 0..6 {
        let input: Vec<f32> = (0..N).map(|i| hard_to_sample(kind, i, N)).collect();
        save(1, input.clone());
        let mut order: Vec<usize> = (0..N).collect();
        order.sort_by(|&a, &b| input[b].abs().total_cmp(&input[a].abs()).then(a.cmp(&b)));
        for density in [0.000_01, 0.2, 0.5, 0.777, 0.999_99] {
            let wanted = (density * N as f64).floor() as usize;
            let mut left = vec![0.0; N];
            order[..wanted].iter().for_each(|&i| left[i] = input[i]);
            for device in devices() {
                for memory in [None, Some(17_000_000)] {
                    let mut run = Run::new(dir.path(), "ties", 1);
                    run.params = vec![format!("density={density}")];
                    run.wanted = Wanted { device: device.into(), memory, ..run.wanted };
                    let out: Vec<f32> = bytemuck::pod_collect_to_vec(&tensors(&run.run().0)[0].1);
                    assert!(out == left, "{device} {memory:?}: kind {kind}, density {density}");
                }
            }
        }
    }
}

#[test]
fn random_masks_are_the_same_on_both_devices_and_have_the_right_share() {
    let dir = folder();
    for model in 0..=1 {
        let data = vec![model as f32; 1_000_000];
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![1000, 1000], bytemuck::cast_slice(&data))
            .expect("a tensor");
        safetensors::tensor::serialize_to_file([("a.weight", view)], None, &name(dir.path(), model)).expect("a file");
    }
    let mut masks = Vec::new();
    for device in devices() {
        for (rescale, size) in [("l1", None), ("inverse_density", Some(1.0 / 0.3)), ("false", Some(1.0))] {
            let mut run = Run::new(dir.path(), "dare_linear", 1);
            run.params = vec!["density=0.3".into(), format!("rescale={rescale}")];
            run.wanted.device = device.into();
            let out: Vec<f32> = bytemuck::pod_collect_to_vec(&tensors(&run.run().0)[0].1);
            let kept = out.iter().filter(|&&x| x != 0.0).count() as f64;
            // Five standard deviations of a binomial of a million draws.
            assert!((kept - 300_000.0).abs() < 5.0 * (1e6f64 * 0.3 * 0.7).sqrt(), "{device}: {kept} kept");
            let size = size.unwrap_or(1e6 / kept);
            assert!(out.iter().all(|&x| x == 0.0 || (f64::from(x) - size).abs() < 1e-5 * size), "{device} {rescale}");
            // Pairs of neighbours are kept together as often as independence has it.
            let pairs = out.windows(2).filter(|w| w[0] != 0.0 && w[1] != 0.0).count() as f64;
            assert!((pairs - 90_000.0).abs() < 6.0 * (1e6f64 * 0.09).sqrt(), "{device}: {pairs} pairs");
            masks.push(out.iter().map(|&x| x != 0.0).collect::<Vec<_>>());
        }
    }
    assert!(masks.windows(2).all(|pair| pair[0] == pair[1]), "masks differ between devices or rescale rules");
}
