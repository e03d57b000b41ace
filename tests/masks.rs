//! Random masks: their mean and variance over a million elements, the same on every device, and what rescales them.

mod common;
#[path = "common/models.rs"]
mod models;

use std::path::Path;

use models::{Run, name, noise};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

const ROWS: usize = 1000;
const COLS: usize = 1000;
const DENSITY: f64 = 0.3;
const EPSILON: f64 = 0.2;

/// A base of zeros and one expert, whose task vector is then its values, none of them zero.
fn write(dir: &Path) -> Vec<f32> {
    let values: Vec<f32> = noise(5).take(ROWS * COLS).map(|x| x + 2.0 * x.signum() + 1e-3).collect();
    for (model, values) in [(0, &vec![0.0; ROWS * COLS]), (1, &values)] {
        let view = TensorView::new(Dtype::F32, vec![ROWS, COLS], bytemuck::cast_slice(values)).expect("a tensor");
        serialize_to_file([("a.weight", view)], None, &name(dir, model)).expect("a file");
    }
    values
}

fn merged(dir: &Path, method: &'static str, params: &[&str], device: &str) -> Vec<f32> {
    let mut run = Run::new(dir, method, 1);
    run.params = params.iter().map(|param| (*param).to_owned()).collect();
    run.wanted.device = device.into();
    let bytes = run.run().0;
    let file = SafeTensors::deserialize(&bytes).expect("a file");
    bytemuck::pod_collect_to_vec(file.tensor("a.weight").expect("the tensor").data())
}

fn devices() -> Vec<&'static str> {
    if common::gpu().is_some() { vec!["cpu", "gpu"] } else { vec!["cpu"] }
}

/// Asserts that a mean over `n` independent draws of variance `variance` is what it should be.
#[track_caller]
fn near(what: &str, found: f64, expected: f64, variance: f64, n: usize) {
    let sigma = (variance / n as f64).sqrt();
    assert!((found - expected).abs() < 5.0 * sigma, "{what}: {found}, not {expected} ± {sigma}");
}

fn mean(mask: impl Iterator<Item = f32>) -> f64 {
    let (sum, n) = mask.fold((0.0, 0), |(sum, n), x| (sum + f64::from(u8::from(x != 0.0)), n + 1));
    sum / f64::from(n)
}

const METHODS: [(&str, bool); 4] =
    [("dare_linear", false), ("dare_ties", false), ("della", true), ("della_linear", true)];

#[test]
fn masks_have_the_mean_and_variance_that_were_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let values = write(dir.path());
    for (method, ranked) in METHODS {
        let (density, epsilon) = (format!("density={DENSITY}"), format!("epsilon={EPSILON}"));
        let mut params = vec![density.as_str(), "rescale=false"];
        params.extend(ranked.then_some(epsilon.as_str()));
        let outs: Vec<Vec<f32>> =
            devices().into_iter().map(|device| merged(dir.path(), method, &params, device)).collect();
        let out = &outs[0];
        for other in &outs[1..] {
            assert!(other.iter().zip(out).all(|(a, b)| (*a == 0.0) == (*b == 0.0)), "{method}: masks differ");
        }
        // What stays is what was there.
        assert!(out.iter().zip(&values).all(|(out, value)| *out == 0.0 || (out - value).abs() <= 1e-6 * value.abs()));
        let n = ROWS * COLS;
        near(method, mean(out.iter().copied()), DENSITY, DENSITY * (1.0 - DENSITY), n);
        // The counts of rows vary as those of independent draws do: p(1 − p) each.
        let each = |rank: f64| if ranked { DENSITY - EPSILON + 2.0 * EPSILON * rank } else { DENSITY };
        let variance: f64 = (0..COLS).map(|i| each(i as f64 / (COLS - 1) as f64)).map(|p| p * (1.0 - p)).sum();
        let counts: Vec<f64> = out.chunks(COLS).map(|row| mean(row.iter().copied()) * COLS as f64).collect();
        let spread = counts.iter().map(|count| (count - DENSITY * COLS as f64).powi(2)).sum::<f64>() / ROWS as f64;
        near(&format!("{method}: variance"), spread, variance, 2.0 * variance * variance, ROWS);
        // And of the columns, where neighbours in memory are far apart.
        let column = |c: usize| mean(out[c..].iter().step_by(COLS).copied());
        let spread = (0..COLS).map(|c| (column(c) - DENSITY).powi(2)).sum::<f64>() / COLS as f64;
        let expected = DENSITY * (1.0 - DENSITY) / ROWS as f64;
        let most = if ranked { 0.1 } else { 0.0 }; // ranks make columns vary a little less
        assert!((spread / expected - 1.0).abs() < 0.25 + most, "{method}: columns vary by {spread}, not {expected}");
    }
}

#[test]
fn chances_grow_with_the_rank_in_the_row() {
    let dir = tempfile::tempdir().expect("a folder");
    let values = write(dir.path());
    let (density, epsilon) = (format!("density={DENSITY}"), format!("epsilon={EPSILON}"));
    let out = merged(dir.path(), "della_linear", &[&density, &epsilon, "rescale=false"], "cpu");
    let mut kept = vec![0usize; COLS];
    for (row, out) in values.chunks(COLS).zip(out.chunks(COLS)) {
        let mut order: Vec<usize> = (0..COLS).collect();
        order.sort_by(|&a, &b| row[a].abs().total_cmp(&row[b].abs()).then(a.cmp(&b)));
        order.iter().enumerate().for_each(|(rank, &i)| kept[rank] += usize::from(out[i] != 0.0));
    }
    for (tenth, ranks) in kept.chunks(COLS / 10).enumerate() {
        let p = DENSITY - EPSILON + 2.0 * EPSILON * (tenth as f64 * 100.0 + 49.5) / (COLS - 1) as f64;
        let found = ranks.iter().sum::<usize>() as f64 / (ranks.len() * ROWS) as f64;
        near(&format!("ranks of tenth {tenth}"), found, p, p * (1.0 - p), ranks.len() * ROWS);
    }
}

#[test]
fn rescaling_gives_back_the_sum_of_magnitudes_or_divides_by_the_density() {
    let dir = tempfile::tempdir().expect("a folder");
    let values = write(dir.path());
    let l1 = |x: &[f32]| x.iter().map(|x| f64::from(x.abs())).sum::<f64>();
    for (method, _) in METHODS {
        for device in devices() {
            let density = format!("density={DENSITY}");
            // The default is mergekit's, for methods that normalise by weights and for those that do not.
            for params in [&[density.as_str()][..], &[density.as_str(), "rescale=l1"]] {
                let out = merged(dir.path(), method, params, device);
                assert!((l1(&out) / l1(&values) - 1.0).abs() < 1e-5, "{method} on {device}: {}", l1(&out));
            }
            let out = merged(dir.path(), method, &[&density, "rescale=inverse_density"], device);
            let wrong =
                |(out, value): (&f32, &f32)| *out != 0.0 && (f64::from(out / value) * DENSITY - 1.0).abs() > 1e-6;
            assert!(!out.iter().zip(&values).any(wrong), "{method} on {device}");
        }
    }
}

#[test]
fn seeds_and_experts_have_masks_of_their_own() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path());
    let density = format!("density={DENSITY}");
    let run = |seed: u64, place: usize| {
        let mut run = Run::new(dir.path(), "della_linear", 1);
        run.params = vec![density.clone(), "rescale=false".into()];
        run.seed = seed;
        // An expert without a task vector before it: the mask belongs to the place.
        let same = dir.path().join("same.safetensors");
        std::fs::copy(name(dir.path(), 0), &same).expect("a copy");
        (0..place).for_each(|_| run.models.insert(0, same.clone()));
        let bytes = run.run().0;
        let file = SafeTensors::deserialize(&bytes).expect("a file");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(file.tensor("a.weight").expect("the tensor").data());
        values.into_iter().map(|x| x != 0.0).collect::<Vec<bool>>()
    };
    let first = run(0, 0);
    assert!(first == run(0, 0), "the same seed gives the same mask");
    for (what, other) in [("seed", run(1, 0)), ("place", run(0, 1))] {
        // Of two independent masks, both hold an element with probability Σ p²/n, about 0.3² + 0.15²/3.
        let both = first.iter().zip(&other).filter(|(a, b)| **a && **b).count() as f64 / (ROWS * COLS) as f64;
        let p = DENSITY * DENSITY + 0.15 * 0.15 / 3.0;
        near(what, both, p, p * (1.0 - p), ROWS * COLS);
    }
}
